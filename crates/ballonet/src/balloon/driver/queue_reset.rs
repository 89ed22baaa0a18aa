//! The reset of one queue while the others keep running (`RING_RESET`, virtio 1.4, 2.6.1).
//!
//! After it the device no longer uses the queue's memory. The driver takes completed requests from the used ring one
//! last time. For the others it is unknown how far the device got: it may have inflated or deflated a frame without
//! reporting it. Unlike after a device reset, the host still counts its frames. So these frames can neither be freed
//! nor counted as ballooned: their requests go into the new queue unchanged. For a host, inflating or deflating a frame
//! twice is harmless.

use alloc::vec::Vec;

use super::running::Running;
use super::{Balloon, State};
use crate::balloon::error::BalloonError;
use crate::balloon::platform::BalloonPlatform;
use crate::balloon::queue_numbers::{BalloonQueue, MissingQueue};
use crate::balloon::queues::pages::{Direction, Request};
use crate::balloon::queues::{Queues, USED_LENGTH, Vring};
use crate::balloon::status::{ResetReason, ResetReport};
use crate::bus::heap;
use crate::virtio::spec::Features;
use crate::virtio::{
    Kick, QueueAddresses, QueueIndex, QueueOptions, QueueQuiesced, RingLayout, TransportError, Virtqueue,
};

impl<P: BalloonPlatform> Balloon<P> {
    /// Resets one queue, whatever the device is doing with it, and enables it again in new memory. Unfinished requests
    /// are sent again; the other queues keep running.
    ///
    /// QEMU 10.0 keeps the statistics buffer when that queue is reset: it returns the old one as soon as it gets the
    /// next, and so on without a pause, until the device is reset.
    ///
    /// # Errors
    /// When the device does not run, has no such queue, `RING_RESET` was not negotiated, or there is no memory for the
    /// list of requests; nothing has changed then. If the device does not finish the reset or does not accept the queue
    /// again, it has been reset as a whole, and runs unless
    /// [`BalloonStatus::failed`](crate::balloon::BalloonStatus::failed) has an error; likewise after every other error.
    #[doc(alias = "virtqueue_reset")]
    pub fn reset_queue(&mut self, platform: &mut P, queue: BalloonQueue) -> Result<(), BalloonError> {
        let running = self.expect_running()?;
        let index = running.index_of(queue).ok_or(MissingQueue(queue.into()))?;
        if !running.virtio.device.features().contains(Features::RING_RESET) {
            let device = running.virtio.address();
            return Err(TransportError::NoQueueReset { device, queue: index }.into());
        }
        let mut unfinished = heap::vector(running.outstanding(queue).into())?;
        let proof = match running.virtio.device.reset_queue(index, platform) {
            Ok(proof) => proof,
            Err(error) => return self.reset_instead(platform, error.into(), queue, &[]),
        };
        #[allow(
            clippy::redundant_closure_for_method_calls,
            reason = "the method is of one lifetime, the closure of any"
        )]
        if let Err(error) = self.round(platform, |round| round.complete_pages()) {
            return self.recover(platform, error).map(drop);
        }
        let running = self.expect_running()?;
        running.drain(queue, &proof, &mut unfinished);
        if let Err(error) = running.replace(platform, queue, proof) {
            return self.reset_instead(platform, error, queue, &unfinished);
        }
        if let Some(kick) = running.send_again(platform, queue, unfinished) {
            running.virtio.kick(index, kick);
            self.counters.kicks += 1;
        }
        let (inflating, deflating) = match queue {
            BalloonQueue::Inflate => (self.plan.inflating(), 0),
            BalloonQueue::Deflate => (0, self.plan.deflating()),
            BalloonQueue::Statistics => (0, 0),
        };
        self.last_reset = Some(ResetReport { reason: ResetReason::Asked, queue: Some(queue), inflating, deflating });
        self.counters.queue_resets += 1;
        self.repoll = true;
        Ok(())
    }

    fn expect_running(&mut self) -> Result<&mut Running<P>, BalloonError> {
        match &mut self.state {
            State::Running(running) => Ok(running),
            State::Frozen => Err(BalloonError::Frozen(self.device.address())),
            State::Failed(error) => Err(*error),
        }
    }

    /// Resets the whole device, because it does not support what it offers, or there is no memory for the queue. The
    /// `unfinished` requests are in no queue.
    fn reset_instead(
        &mut self,
        platform: &mut P,
        error: BalloonError,
        queue: BalloonQueue,
        unfinished: &[Request],
    ) -> Result<(), BalloonError> {
        let poison = self.poison(platform);
        self.restart(platform, ResetReason::Asked, |platform| {
            if let Some(direction) = direction(queue) {
                unfinished.iter().for_each(|request| direction.give_back(platform.frames(), request, poison));
            }
        })?;
        Err(error)
    }
}

/// The direction of a queue that moves frames.
fn direction(queue: BalloonQueue) -> Option<Direction> {
    match queue {
        BalloonQueue::Inflate => Some(Direction::Inflate),
        BalloonQueue::Deflate => Some(Direction::Deflate),
        BalloonQueue::Statistics => None,
    }
}

impl<P: BalloonPlatform> Running<P> {
    fn index_of(&self, queue: BalloonQueue) -> Option<QueueIndex> {
        let Queues { pages, statistics, .. } = &self.queues;
        match queue {
            BalloonQueue::Inflate => Some(pages.queue(Direction::Inflate).index()),
            BalloonQueue::Deflate => Some(pages.queue(Direction::Deflate).index()),
            BalloonQueue::Statistics => statistics.as_ref().map(|statistics| statistics.queue.index()),
        }
    }

    /// Requests in a queue that moves frames.
    fn outstanding(&self, queue: BalloonQueue) -> u16 {
        direction(queue).map_or(0, |direction| self.queues.pages.queue(direction).outstanding())
    }

    /// Takes the unfinished requests out of a queue; `unfinished` has room for them. Statistics are rewritten anyway.
    fn drain(&mut self, queue: BalloonQueue, proof: &QueueQuiesced, unfinished: &mut Vec<Request>) {
        if let Some(direction) = direction(queue) {
            unfinished.extend(self.queues.pages.drain(direction, proof));
        }
    }

    /// Replaces a queue that was reset by a new one, and enables it. It is empty at that time, as a packed one must be
    /// (2.8.10).
    fn replace(&mut self, platform: &mut P, queue: BalloonQueue, proof: QueueQuiesced) -> Result<(), BalloonError> {
        let (kind, features) = (self.virtio.device.transport().kind(), self.virtio.device.features());
        let Queues { pages, statistics, .. } = &mut self.queues;
        let layout = |size| RingLayout::for_device(kind, features, size, size).expect("the queue had this size");
        let options = |entries| QueueOptions::for_device(kind, features, entries, USED_LENGTH);
        let (size, addresses) = match (direction(queue), statistics) {
            (Some(direction), _) => {
                let tables = options(pages.table_entries(pages.queue(direction).size()));
                renew(pages.queue_mut(direction), platform, layout, tables, &proof)?
            }
            (None, Some(statistics)) => renew(&mut statistics.queue, platform, layout, options(1), &proof)?,
            (None, None) => return Err(MissingQueue(queue.into()).into()),
        };
        Ok(self.virtio.enable_queue_again(proof, size, addresses)?)
    }

    /// Puts unfinished requests, or new statistics, into a new queue. Returns the kick that the device wants.
    fn send_again(&mut self, platform: &P, queue: BalloonQueue, unfinished: Vec<Request>) -> Option<Kick> {
        match direction(queue) {
            Some(direction) => self.queues.pages.send_again(direction, unfinished),
            None => self.queues.statistics.as_mut()?.send(platform),
        }
    }
}

/// Replaces a queue by an empty one of the same layout. Returns its size and addresses.
fn renew<P: BalloonPlatform, T>(
    queue: &mut Vring<P, T>,
    platform: &mut P,
    layout: impl Fn(u16) -> RingLayout,
    options: QueueOptions,
    proof: &QueueQuiesced,
) -> Result<(u16, QueueAddresses), BalloonError> {
    let new = Virtqueue::allocate(platform, proof.queue(), layout(queue.size()), options)?;
    let old = core::mem::replace(queue, new);
    drop(old.release(platform, proof));
    Ok((queue.size(), queue.addresses()))
}
