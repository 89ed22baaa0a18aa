//! What the frame allocator refuses, and why. A refusal changes only the counts of refusals.
#![forbid(unsafe_code)]

use derive_more::{Display, Error};

use super::region::FrameState;
use super::{FrameRun, Pfn};

/// Why frames could not be allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Display, Error)]
pub enum AllocateError {
    /// The number of frames is 0, or the alignment is not a power of two.
    #[display("cannot allocate {frames} frames aligned to {align} frames: invalid request")]
    Malformed {
        /// Frames requested.
        frames: u32,
        /// Alignment requested, in frames.
        align: u32,
    },
    /// There is no free run of this length in the requested place.
    #[display("no {frames} contiguous frames aligned to {align} frames; {free} are free in all")]
    Exhausted {
        /// Frames requested.
        frames: u32,
        /// Alignment requested, in frames.
        align: u32,
        /// Free frames in total.
        free: u64,
    },
}

/// The operation that would have changed frames' states.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Display)]
pub enum Operation {
    /// [`Frames::free`](super::Frames::free).
    #[display("free")]
    Free,
    /// `Frames::release`.
    #[display("release")]
    Release,
    /// `Frames::confirm_ballooned`.
    #[display("balloon")]
    ConfirmBallooned,
}

/// A run of frames is not in the state that the operation requires.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Display, Error)]
#[display("cannot {operation} {run}: {frame} is {}", state.map_or("not memory", FrameState::name))]
pub struct FrameError {
    /// The operation.
    pub operation: Operation,
    /// The run.
    pub run: FrameRun,
    /// The first frame in the wrong state.
    pub frame: Pfn,
    /// Its state; `None` if there is no memory.
    pub state: Option<FrameState>,
}
