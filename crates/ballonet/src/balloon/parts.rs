//! What a driver lends its device (queues, requests, frames in flight), and how all of it goes back.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::ManuallyDrop;

use super::hinter::Hinter;
use super::poison::{self, Poison};
use super::queues::BalloonQueue;
use super::reporter::Reporter;
use super::requests::{Request, Requests};
use crate::memory::FrameRun;
use crate::platform::{PageFrames, Platform};
use crate::virtio::{self, Quiesced, TransportError, UsedLength, Virtqueue};

/// A queue of the balloon.
pub(super) type Vring<P, T> = Virtqueue<<P as Platform>::Memory, T>;

/// What the driver lends its device; each is there once it was made.
pub(super) struct Parts<P: Platform> {
    pub(super) inflate: Option<Vring<P, Request>>,
    pub(super) deflate: Option<Vring<P, Request>>,
    pub(super) statistics: Option<Vring<P, ()>>,
    pub(super) hinter: Option<Hinter<P>>,
    pub(super) reporter: Option<Reporter<P>>,
    /// Unused queues of features that were not accepted: some devices do not start without them.
    pub(super) idle: Vec<Vring<P, ()>>,
    /// What free frames hold, if the device was told.
    pub(super) poison: Option<Poison<P>>,
    pub(super) requests: Option<Requests<P::Memory>>,
}

/// A device that would not stop, and what it keeps. Dropping that gives nothing back.
pub(super) struct Unstopped<P: Platform> {
    pub(super) error: TransportError,
    pub(super) parts: ManuallyDrop<Box<Parts<P>>>,
}

/// What used lengths to believe: the device only reads, so what it says it wrote means nothing to a balloon, and some
/// devices count what they read.
pub(super) const USED_LENGTH: UsedLength = UsedLength::Lenient;

impl<P: Platform + PageFrames> virtio::Parts<P> for Parts<P> {
    fn release(self, platform: &mut P, proof: &Quiesced) {
        self.release_memory(platform, proof);
    }
}

impl<P: Platform> Parts<P> {
    /// Nothing yet.
    pub(super) const fn new() -> Self {
        Self {
            inflate: None,
            deflate: None,
            statistics: None,
            hinter: None,
            reporter: None,
            idle: Vec::new(),
            poison: None,
            requests: None,
        }
    }

    /// Gives the memory back. Returns how many frames that were in flight are free, and how many ballooned.
    pub(super) fn release_memory(self, platform: &mut P, proof: &Quiesced) -> (u64, u64)
    where
        P: PageFrames,
    {
        let count = |requests: &[Request]| requests.iter().map(|request| u64::from(request.frames())).sum::<u64>();
        let (mut freed, mut ballooned) = (0, 0);
        if let Some(queue) = self.inflate {
            let requests = queue.release(platform, proof);
            freed += count(&requests);
            give_back(platform, &requests, BalloonQueue::Inflate, self.poison);
        }
        if let Some(queue) = self.deflate {
            let requests = queue.release(platform, proof);
            ballooned += count(&requests);
            give_back(platform, &requests, BalloonQueue::Deflate, self.poison);
        }
        if let Some(queue) = self.statistics {
            queue.release(platform, proof);
        }
        if let Some(hinter) = self.hinter {
            freed += hinter.release(platform, proof);
        }
        if let Some(reporter) = self.reporter {
            freed += reporter.release(platform, proof);
        }
        for queue in self.idle {
            queue.release(platform, proof);
        }
        if let Some(requests) = self.requests {
            platform.release_dma(requests.into_memory());
        }
        (freed, ballooned)
    }
}

/// Gives back the frames of requests that a device has let go of without having finished them.
pub(super) fn give_back<P: PageFrames>(
    platform: &mut P,
    requests: &[Request],
    queue: BalloonQueue,
    poison: Option<Poison<P>>,
) {
    match queue {
        // The host may have taken these or not; after the reset they are ordinary memory with any contents.
        BalloonQueue::Inflate => give(platform, requests, |platform, run| poison::release(poison, platform, run)),
        // These the host may still have: without its word they stay ballooned.
        BalloonQueue::Deflate => give(platform, requests, P::confirm_ballooned),
        BalloonQueue::Statistics => {}
    }
}

fn give<P>(platform: &mut P, requests: &[Request], give: impl Fn(&mut P, FrameRun)) {
    for run in requests.iter().flat_map(Request::runs) {
        give(platform, *run);
    }
}
