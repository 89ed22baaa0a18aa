//! Page frames: who owns each of them, given and taken in runs of 2 MiB first.

mod address;

pub use address::{FRAME_SIZE, FrameRun, Pfn, PhysAddr};
