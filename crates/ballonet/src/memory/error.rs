//! What the frame allocator refuses, and why. A refusal changes nothing but the counts of refusals.
#![forbid(unsafe_code)]

use derive_more::{Display, Error};

use super::region::FrameState;
use super::{FrameRun, Pfn, PhysRange};

/// Why frames could not be allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Display, Error)]
pub enum AllocateError {
    /// Nothing was asked for, or the alignment is not a power of two.
    #[display("cannot allocate {frames} frames aligned to {align} frames: not a request")]
    Malformed {
        /// Frames asked for.
        frames: u32,
        /// Alignment asked for, in frames.
        align: u32,
    },
    /// No run of free frames is long enough where it was asked for.
    #[display("no {frames} contiguous frames aligned to {align} frames; {free} are free in all")]
    Exhausted {
        /// Frames asked for.
        frames: u32,
        /// Alignment asked for, in frames.
        align: u32,
        /// Frames free, wherever they are.
        free: u64,
    },
}

/// What was asked to change the state of frames.
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

/// A run of frames is not in the state that the operation needs; the first frame that is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Display, Error)]
#[display("cannot {operation} {run}: {frame} is {}", state.map_or("not memory", FrameState::name))]
pub struct FrameError {
    /// What was asked.
    pub operation: Operation,
    /// For which frames.
    pub run: FrameRun,
    /// The first frame in the wrong state.
    pub frame: Pfn,
    /// Its state; `None` where no memory is.
    pub state: Option<FrameState>,
}

/// A range cannot be reserved because somebody has a frame of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Display, Error)]
#[display("cannot reserve {range}: {frame} is {state}")]
pub struct ReserveError {
    /// What was to be reserved.
    pub range: PhysRange,
    /// The first frame that somebody has.
    pub frame: Pfn,
    /// Its state.
    pub state: FrameState,
}
