//! Which queue it is, and where it lies in memory.

use derive_more::Display;

/// The number of a queue: 0 to 30, as many as `super::Events` can tell apart and more than a balloon has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Display)]
pub struct QueueIndex(u16);

impl QueueIndex {
    /// The first queue, which every device has.
    pub const FIRST: Self = Self(0);

    /// The queue with this number; `None` above 30.
    pub const fn new(number: u16) -> Option<Self> {
        if number <= 30 { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// This queue in a mask of queues.
    pub(crate) const fn bit(self) -> u32 {
        1 << self.0
    }
}

/// Where a queue's three areas are, as the device addresses memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueAddresses {
    /// The descriptor table, or the descriptor ring of a packed queue.
    #[doc(alias = "queue_desc")]
    pub descriptors: u64,
    /// What the driver writes: the available ring, or its event suppression structure.
    #[doc(alias = "queue_driver")]
    pub driver: u64,
    /// What the device writes: the used ring, or its event suppression structure.
    #[doc(alias = "queue_device")]
    pub device: u64,
}
