//! The reset of one queue while the others go on (`RING_RESET`, virtio 1.4, 2.6.1).
//!
//! After it the device has let go of the queue's memory. What it had finished is in the used ring, and is taken from there
//! one last time. Of the rest nobody knows how far the device got: it may have taken a frame, or given it back, without
//! having said so. Unlike after a reset of the device, its balloon goes on, and with it the claims of the host. So such
//! frames are neither used nor given up: their requests are put into the new queue as they are, which says again what was
//! said before. Hosts take a frame that they have, and give one back that they have given, without harm.

use alloc::vec::Vec;

use super::BalloonError;
use super::driver::{Balloon, State};
use super::parts::{USED_LENGTH, Vring, give_back};
use super::queues::{BalloonQueue, MissingQueue};
use super::recovery::{ResetReason, ResetReport};
use super::requests::Request;
use super::round::Round;
use super::running::Running;
use super::statistics::MemoryStatistics;
use crate::platform::{PageFrames, Platform};
use crate::virtio::spec::Features;
use crate::virtio::{
    Chain, Doorbell, Kick, QueueAddresses, QueueIndex, QueueOptions, QueueQuiesced, RingLayout, TransportError,
    Virtqueue,
};

impl<P: Platform + PageFrames + MemoryStatistics> Balloon<P> {
    /// Resets one queue, whatever the device is doing with it, and puts it to use again in fresh memory. What it has not
    /// finished it gets once more; the other queues go on.
    ///
    /// QEMU 10.0 does not let go of the statistics buffer when that queue is reset. It gives it back for the next one, that
    /// for the one after it, and so on without a pause: a reset of the device ends that.
    ///
    /// # Errors
    /// When the device does not run, has no such queue, or cannot reset one by itself (`RING_RESET` was not negotiated):
    /// nothing has happened then. When the device does not finish the reset or does not take the queue again, it has been
    /// reset as a whole, and runs unless [`Balloon::failed`] says otherwise; likewise after everything else.
    #[doc(alias = "virtqueue_reset")]
    pub fn reset_queue(&mut self, platform: &mut P, queue: BalloonQueue) -> Result<(), BalloonError> {
        let running = match &mut self.state {
            State::Running(running) => running,
            State::Frozen => return Err(BalloonError::Frozen(self.address())),
            State::Failed(error) => return Err(*error),
        };
        let index = running.index_of(queue).ok_or(MissingQueue(queue.word()))?;
        if !running.virtio.device.features().contains(Features::RING_RESET) {
            let device = running.virtio.address();
            return Err(TransportError::NoQueueReset { device, queue: index }.into());
        }
        let proof = match running.virtio.device.reset_queue(index, platform) {
            Ok(proof) => proof,
            Err(error) => return self.reset_instead(platform, error.into(), queue, &[]),
        };
        let finished =
            Round::new(running, platform, &mut self.plan, &mut self.engine, &mut self.counters).completions();
        if let Err(error) = finished {
            return self.recover(platform, error).map(drop);
        }
        let unfinished = running.drain(queue, &proof);
        let doorbell = match running.replace(platform, queue, proof) {
            Ok(doorbell) => doorbell,
            Err(error) => return self.reset_instead(platform, error, queue, &unfinished),
        };
        if let Some(kick) = running.send_again(platform, queue, unfinished) {
            running.virtio.device.kick(doorbell, kick);
            self.counters.kicks += 1;
        }
        let (inflating, deflating) = match queue {
            BalloonQueue::Inflate => (self.plan.inflating(), 0),
            BalloonQueue::Deflate => (0, self.plan.deflating()),
            BalloonQueue::Statistics => (0, 0),
        };
        self.last_reset = Some(ResetReport { reason: ResetReason::Asked, queue: Some(queue), inflating, deflating });
        self.counters.queue_resets += 1;
        self.again = true;
        Ok(())
    }

    /// The device does not do what it says that it can, or there is no memory for the queue: it is reset as a whole. The
    /// `unfinished` requests are in no queue any more.
    fn reset_instead(
        &mut self,
        platform: &mut P,
        error: BalloonError,
        queue: BalloonQueue,
        unfinished: &[Request],
    ) -> Result<(), BalloonError> {
        let poison = self.poison();
        self.restart(platform, ResetReason::Asked, |platform| give_back(platform, unfinished, queue, poison))?;
        Err(error)
    }
}

impl<P: Platform + PageFrames + MemoryStatistics> Running<P> {
    fn index_of(&self, queue: BalloonQueue) -> Option<QueueIndex> {
        match queue {
            BalloonQueue::Inflate => Some(self.inflate.index()),
            BalloonQueue::Deflate => Some(self.deflate.index()),
            BalloonQueue::Statistics => self.statistics.as_ref().map(Virtqueue::index),
        }
    }

    /// Takes out of a queue what the device has not finished.
    fn drain(&mut self, queue: BalloonQueue, proof: &QueueQuiesced) -> Vec<Request> {
        match queue {
            BalloonQueue::Inflate => self.inflate.drain(proof),
            BalloonQueue::Deflate => self.deflate.drain(proof),
            // Its one buffer is filled anew in any case.
            BalloonQueue::Statistics => Vec::new(),
        }
    }

    /// Puts a fresh queue in the place of one that was reset, and has the device use it. It is empty then, as a packed one
    /// has to be (2.8.10).
    fn replace(
        &mut self,
        platform: &mut P,
        queue: BalloonQueue,
        proof: QueueQuiesced,
    ) -> Result<Doorbell, BalloonError> {
        let vector = self.virtio.interrupts.queue_vector(proof.queue());
        let (kind, features) = (self.virtio.device.transport().kind(), self.virtio.device.features());
        let Self { virtio, inflate, deflate, statistics, doorbells, requests, .. } = self;
        let layout = |size| RingLayout::for_device(kind, features, size, size).expect("a queue of this size was made");
        let options = |entries| QueueOptions::for_device(kind, features, entries, USED_LENGTH);
        let how = |size| options(requests.table_entries(size));
        let alone = options(1);
        let (size, addresses) = match (queue, statistics) {
            (BalloonQueue::Inflate, _) => renew(inflate, platform, layout, how(inflate.size()), &proof)?,
            (BalloonQueue::Deflate, _) => renew(deflate, platform, layout, how(deflate.size()), &proof)?,
            (BalloonQueue::Statistics, Some(statistics)) => renew(statistics, platform, layout, alone, &proof)?,
            (BalloonQueue::Statistics, None) => return Err(MissingQueue(queue.word()).into()),
        };
        let doorbell = virtio.device.enable_queue_again(proof, vector, size, addresses)?;
        match queue {
            BalloonQueue::Inflate => doorbells.inflate = doorbell,
            BalloonQueue::Deflate => doorbells.deflate = doorbell,
            BalloonQueue::Statistics => doorbells.statistics = Some(doorbell),
        }
        Ok(doorbell)
    }

    /// Puts into a fresh queue what the device has not finished. Returns the kick that it wants.
    fn send_again(&mut self, platform: &mut P, queue: BalloonQueue, unfinished: Vec<Request>) -> Option<Kick> {
        let Self { inflate, deflate, statistics, requests, selection, .. } = self;
        let queue = match queue {
            BalloonQueue::Inflate => inflate,
            BalloonQueue::Deflate => deflate,
            BalloonQueue::Statistics => return requests.offer_statistics(statistics.as_mut()?, selection, platform),
        };
        for request in unfinished {
            let added = queue.add(Chain::readable(requests.write(&request)), request);
            assert!(added.is_ok(), "a queue holds as much as the one before it, which had its size");
        }
        queue.publish()
    }
}

/// Makes a queue anew, in the layout that it has: its size, and where it is.
fn renew<P: Platform, T>(
    queue: &mut Vring<P, T>,
    platform: &mut P,
    layout: impl Fn(u16) -> RingLayout,
    how: QueueOptions,
    proof: &QueueQuiesced,
) -> Result<(u16, QueueAddresses), BalloonError> {
    let fresh = Virtqueue::allocate(platform, proof.queue(), layout(queue.size()), how)?;
    let old = core::mem::replace(queue, fresh);
    old.release(platform, proof);
    Ok((queue.size(), queue.addresses()))
}
