//! What a kernel provides for a balloon besides [`Platform`]: its page frames, and statistics of its memory.

use super::wire::Tag;
use crate::memory::PageFrames;
use crate::platform::Platform;

/// A platform whose page frames a balloon may move.
pub trait BalloonPlatform: Platform {
    /// The kernel's page frame allocator.
    type Frames: PageFrames;

    /// The page frames.
    fn frames(&mut self) -> &mut Self::Frames;

    /// Statistics of the memory, for the host. Only tags with a value when the driver starts are sent, for as long as
    /// it runs. By default there are none.
    fn statistics(&self) -> Statistics {
        Statistics::default()
    }
}

/// Memory statistics: values by tag. Tags that the kernel does not measure have none; by default no tag has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics([Option<u64>; Tag::ALL.len()]);

impl Statistics {
    /// These statistics, with a value for `tag`.
    #[must_use]
    pub const fn with(mut self, tag: Tag, value: u64) -> Self {
        self.0[tag as usize] = Some(value);
        self
    }

    /// The value for `tag`, if there is one.
    pub(crate) const fn get(&self, tag: Tag) -> Option<u64> {
        self.0[tag as usize]
    }
}
