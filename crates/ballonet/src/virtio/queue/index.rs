//! A queue's number, and its addresses.

use derive_more::Display;

/// The number of a queue: 0 to 30, since `super::Events` has 31 bits for queues. A balloon has fewer.
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

/// The device addresses of a queue's three areas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueAddresses {
    /// The descriptor table, or the descriptor ring of a packed queue.
    #[doc(alias = "queue_desc")]
    pub descriptors: u64,
    /// The driver area: the available ring, or its event suppression structure.
    #[doc(alias = "queue_driver")]
    pub driver: u64,
    /// The device area: the used ring, or its event suppression structure.
    #[doc(alias = "queue_device")]
    pub device: u64,
}
