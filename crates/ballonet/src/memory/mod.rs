//! Page frames: who owns each, allocated and freed in runs, 2 MiB regions first.
//!
//! [`Frames`] is the allocator. It needs a memory map as [`PhysRange`]s and some memory for its records, whose size
//! [`Footprint`] computes and for which [`place`] finds room:
//!
//! ```
//! use ballonet::memory::{Footprint, Frames, PhysRange, place};
//!
//! let usable = [PhysRange::parse(0, 0x9_fc00)?, PhysRange::parse(0x10_0000, 0x3ff0_0000)?];
//! let footprint = Footprint::of(usable);
//! let records = place(footprint.bytes() as u64, 1 << 32, usable, []).ok_or("memory is full")?;
//! # let mut memory = vec![0u64; footprint.bytes().div_ceil(8)];
//! # let bytes = zerocopy::IntoBytes::as_mut_bytes(memory.as_mut_slice());
//! // `bytes` is the memory at `records`, mapped.
//! let mut frames = Frames::new(bytes, usable, [records])?;
//!
//! let run = frames.allocate(16, 16)?;
//! assert_eq!(run.start().0 % 16, 0);
//! frames.free(run)?;
//! assert!(frames.free(run).is_err());
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod address;
mod allocate;
mod atomic;
mod audit;
mod bitmap;
mod cpu_caches;
mod error;
mod frame_set;
mod frames;
mod held;
mod idle;
mod lend;
mod list;
mod magazine;
mod page_frames;
mod placement;
mod range;
mod region;
mod report;
mod span;
mod storage;

#[cfg(test)]
mod cache_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod scale_test;

pub use address::{FRAME_SIZE, FrameRun, Pfn, PhysAddr};
pub use audit::Inconsistency;
pub use cpu_caches::{CpuCache, CpuCaches, Exclusive};
pub use error::{AllocateError, FrameError, Operation};
pub use frame_set::REGION_FRAMES;
pub use frames::{Counts, Frames, History};
pub use idle::IdleRun;
pub use magazine::Magazine;
pub use page_frames::{FrameContents, PageFrames, ReportFrames};
pub(crate) use page_frames::{release_reported, take_idle};
pub use placement::place;
pub use range::{BadRange, PhysRange};
pub use region::FrameState;
pub use storage::{Footprint, StorageError};
