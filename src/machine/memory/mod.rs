//! Memory: frames, the heap, what devices reach, and what is reclaimed.

pub(crate) mod block;
pub(crate) mod boot_frames;
pub(crate) mod dma;
pub(crate) mod frames;
pub(crate) mod heap;
pub(crate) mod large;
pub(crate) mod marks;
pub(crate) mod page_frames;
pub(crate) mod reclaim;
pub(crate) mod scattered;
