//! How queues are made while the device is set up.

use super::Vring;
use crate::balloon::error::BalloonError;
use crate::balloon::queue_numbers::QUEUES;
use crate::platform::{DmaExhausted, Platform};
use crate::virtio::{QueueIndex, QueueSetup, RingLayout, Setup, TransportError, UsedLength};

/// Which used lengths to believe: the balloon's buffers carry nothing back, so the lengths mean nothing, and some devices
/// count what they read.
pub(crate) const USED_LENGTH: UsedLength = UsedLength::Lenient;

/// The device in set-up, and the sizes of its queues.
pub(crate) struct Maker<'a, P: Platform> {
    pub(crate) platform: &'a mut P,
    pub(crate) setup: &'a mut Setup<P>,
    /// The largest sizes; 0 for a queue that does not exist.
    pub(crate) sizes: [u16; QUEUES],
    /// The most entries of a queue.
    pub(crate) limit: u16,
}

impl<P: Platform> Maker<'_, P> {
    /// The layout of a queue.
    pub(crate) fn layout(&self, queue: QueueIndex) -> Result<RingLayout, TransportError> {
        self.setup.layout_of(queue, self.sizes[usize::from(queue.number())], self.limit)
    }

    /// Makes a queue with indirect tables of at most `indirect_entries`. A queue without a name does not interrupt.
    pub(crate) fn queue<T>(
        &mut self,
        index: QueueIndex,
        name: Option<&'static str>,
        layout: RingLayout,
        indirect_entries: u16,
    ) -> Result<Vring<P, T>, DmaExhausted> {
        let queue = QueueSetup { index, name, layout, indirect_entries, used_length: USED_LENGTH };
        self.setup.add_queue(self.platform, &queue)
    }

    /// Makes a queue for requests of one descriptor.
    pub(crate) fn simple_queue<T>(
        &mut self,
        index: QueueIndex,
        name: Option<&'static str>,
    ) -> Result<Vring<P, T>, BalloonError> {
        let layout = self.layout(index)?;
        Ok(self.queue(index, name, layout, 1)?)
    }
}
