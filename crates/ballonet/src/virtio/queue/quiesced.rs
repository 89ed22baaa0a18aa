//! Proof that a device no longer uses memory. Only with it does a queue return unfinished requests.

use core::fmt;

use super::index::QueueIndex;

/// Proof that the device no longer uses some of its queues: [`Quiesced`] for all of them, [`QueueQuiesced`] for one.
pub trait Stopped: fmt::Debug + sealed::Sealed {
    /// Whether it covers this queue.
    fn covers(&self, queue: QueueIndex) -> bool;
}

/// Proof that the device no longer uses any memory: it was reset, or is gone.
#[derive(Debug)]
pub struct Quiesced(());

impl Quiesced {
    /// The device was just seen to be reset, or gone.
    pub(in crate::virtio) const fn new() -> Self {
        Self(())
    }
}

impl Stopped for Quiesced {
    fn covers(&self, _queue: QueueIndex) -> bool {
        true
    }
}

/// Proof that the device no longer uses the memory of one queue and its requests: the queue was reset (virtio 1.4,
/// 2.6.1). Enabling the queue again consumes the proof.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a queue that was reset is idle until it is enabled again"]
pub struct QueueQuiesced(QueueIndex);

impl QueueQuiesced {
    /// The queue was just seen to be reset.
    pub(in crate::virtio) const fn new(queue: QueueIndex) -> Self {
        Self(queue)
    }

    /// The queue.
    pub(crate) const fn queue(&self) -> QueueIndex {
        self.0
    }

    /// Consumes the proof: the queue is about to be enabled again.
    pub(in crate::virtio) fn spend(self) -> QueueIndex {
        self.0
    }
}

impl Stopped for QueueQuiesced {
    fn covers(&self, queue: QueueIndex) -> bool {
        self.0 == queue
    }
}

/// Only this crate can make a proof.
mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Quiesced {}
    impl Sealed for super::QueueQuiesced {}
}
