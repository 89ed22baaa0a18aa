//! Memory: frames, the heap, DMA memory, and reclaim.

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
