//! The inflate and deflate queues (virtio 1.4, 5.5.6): frames to the host and from it, in requests from one pool.

mod requests;

pub(crate) use self::requests::Request;

use self::requests::Requests;
use super::poison::{self, Poison};
use super::{Maker, Vring};
use crate::balloon::error::BalloonError;
use crate::balloon::platform::BalloonPlatform;
use crate::balloon::policy::request_shape::RequestShape;
use crate::balloon::policy::tuning::SendLimit;
use crate::balloon::queue_numbers::QueueNumbers;
use crate::memory::{FrameRun, PageFrames};
use crate::platform::{OutOfMemory, Platform};
use crate::virtio::{Chain, Completion, Kick, QueueError, Quiesced, RingLayout, Stopped};

/// The direction in which frames move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Inflate = 0,
    Deflate = 1,
}

impl Direction {
    /// The name of its queue.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Inflate => "inflate",
            Self::Deflate => "deflate",
        }
    }

    /// Returns frames that the device has not seen to where they came from.
    pub(crate) fn put_back<F: PageFrames>(self, frames: &mut F, request: &Request) {
        for run in request.runs() {
            match self {
                Self::Inflate => frames.release(*run),
                Self::Deflate => frames.confirm_ballooned(*run),
            }
        }
    }

    /// Returns the frames of a request that the device dropped without completing it.
    pub(crate) fn give_back<F: PageFrames>(self, frames: &mut F, request: &Request, poison: Option<Poison>) {
        for run in request.runs() {
            match self {
                // The host may have taken them or not; after the reset they are ordinary memory with any contents.
                Self::Inflate => poison::release(poison, frames, *run),
                // The host may still have them: without its confirmation they stay ballooned.
                Self::Deflate => frames.confirm_ballooned(*run),
            }
        }
    }
}

/// Both queues, and the requests.
pub(crate) struct Pages<P: Platform> {
    /// By [`Direction`].
    queues: [Vring<P, Request>; 2],
    requests: Requests<P::Memory>,
}

/// The requests added to a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Added {
    pub(crate) frames: u32,
    pub(crate) requests: u16,
    /// Whether all requested frames were available.
    pub(crate) enough: bool,
}

impl Added {
    pub(crate) const NOTHING: Self = Self { frames: 0, requests: 0, enough: true };

    pub(crate) fn and(self, more: Self) -> Self {
        Self { frames: self.frames + more.frames, requests: self.requests + more.requests, enough: more.enough }
    }
}

impl<P: BalloonPlatform> Pages<P> {
    /// Creates both queues, with at most `window` requests of `shape` in flight.
    pub(crate) fn make(
        maker: &mut Maker<'_, P>,
        numbers: &QueueNumbers,
        window: u16,
        shape: RequestShape,
    ) -> Result<Self, BalloonError> {
        let layouts = [maker.layout(numbers.inflate)?, maker.layout(numbers.deflate)?];
        let smaller = layouts.map(RingLayout::size).into_iter().min().unwrap_or(1);
        // A chain has no more descriptors than its queue, even in an indirect table (2.7.5.3.1).
        let requests = Requests::allocate(maker.platform, window.clamp(1, 256).min(smaller), shape.within(smaller))?;
        let entries = layouts.map(|layout| requests.table_entries(layout.size()));
        match Self::make_queues(maker, numbers, layouts, entries) {
            Ok(queues) => Ok(Self { queues, requests }),
            Err(error) => {
                maker.made.memory = Some(requests.into_memory());
                Err(error.into())
            }
        }
    }

    fn make_queues(
        maker: &mut Maker<'_, P>,
        numbers: &QueueNumbers,
        layouts: [RingLayout; 2],
        entries: [u16; 2],
    ) -> Result<[Vring<P, Request>; 2], OutOfMemory> {
        let inflate = maker.queue(numbers.inflate, Some("inflate"), layouts[0], entries[0])?;
        match maker.queue(numbers.deflate, Some("deflate"), layouts[1], entries[1]) {
            Ok(deflate) => Ok([inflate, deflate]),
            Err(error) => {
                maker.made.page_queue = Some(inflate);
                Err(error)
            }
        }
    }

    /// Takes the requests that the device has completed: `done` accounts for the frames of each.
    pub(crate) fn complete(&mut self, direction: Direction, mut done: impl FnMut(&Request)) -> Result<(), QueueError> {
        let Self { queues, requests } = self;
        let queue = &mut queues[direction as usize];
        if queue.outstanding() > 0 {
            queue.disarm();
        }
        while let Some(Completion { token: request, .. }) = queue.pop()? {
            done(&request);
            requests.put(request);
        }
        Ok(())
    }

    /// Adds as many requests as the queue, the pool and `limit` allow, with frames from `take`.
    /// [`Virtqueue::publish`](crate::virtio::Virtqueue::publish) makes them available to the device.
    pub(crate) fn add(
        &mut self,
        direction: Direction,
        frames: &mut P::Frames,
        limit: SendLimit,
        take: &mut dyn FnMut(&mut P::Frames, u32) -> Option<FrameRun>,
    ) -> Result<Added, BalloonError> {
        let Self { queues, requests } = self;
        let queue = &mut queues[direction as usize];
        let mut added = Added::NOTHING;
        let more =
            |added: &Added| added.enough && u64::from(added.frames) < limit.frames && added.requests < limit.requests;
        while more(&added) && queue.has_room(limit.descriptors) {
            let Some(mut request) = requests.take(limit.descriptors) else { break };
            added.enough = request.collect(limit.frames - u64::from(added.frames), |wanted| take(frames, wanted));
            let count = request.frames();
            if count == 0 {
                requests.put(request);
                break;
            }
            if let Err(rejected) = queue.add(Chain::readable(requests.write(&request)), request) {
                // Only a broken queue refuses a request that fits.
                direction.put_back(frames, &rejected.token);
                requests.put(rejected.token);
                return queue.poisoned().map_or(Ok(added), |error| Err(BalloonError::queue(direction.word())(error)));
            }
            added.frames += count;
            added.requests += 1;
        }
        Ok(added)
    }

    /// Asks for an interrupt when a queue is half done, if `more` can be sent then, else when it is empty. `false` if
    /// that is already the case.
    pub(crate) fn arm(&mut self, direction: Direction, more: bool) -> bool {
        let queue = &mut self.queues[direction as usize];
        let outstanding = queue.outstanding();
        outstanding == 0 || queue.arm(if more { outstanding.div_ceil(2) } else { outstanding })
    }

    /// Takes the unfinished requests out of a queue that was reset.
    pub(crate) fn drain(&mut self, direction: Direction, proof: &impl Stopped) -> impl Iterator<Item = Request> {
        self.queues[direction as usize].drain(proof)
    }

    /// Puts unfinished requests into a new queue. Returns the kick that the device wants.
    pub(crate) fn send_again(
        &mut self,
        direction: Direction,
        unfinished: impl IntoIterator<Item = Request>,
    ) -> Option<Kick> {
        let Self { queues, requests } = self;
        let queue = &mut queues[direction as usize];
        for request in unfinished {
            let added = queue.add(Chain::readable(requests.write(&request)), request);
            assert!(added.is_ok(), "the new queue has the size of the old one");
        }
        queue.publish()
    }

    /// Releases queues, requests and frames to the platform. Returns how many of the frames in flight are now free, and
    /// how many ballooned.
    pub(crate) fn release(self, platform: &mut P, proof: &Quiesced, poison: Option<Poison>) -> (u64, u64) {
        let mut release = |queue: Vring<P, Request>, direction: Direction| {
            let mut frames = 0;
            for request in queue.release(platform, proof) {
                direction.give_back(platform.frames(), &request, poison);
                frames += u64::from(request.frames());
            }
            frames
        };
        let [inflate, deflate] = self.queues;
        let freed = release(inflate, Direction::Inflate);
        let ballooned = release(deflate, Direction::Deflate);
        platform.release_dma(self.requests.into_memory());
        (freed, ballooned)
    }
}

impl<P: Platform> Pages<P> {
    /// The queue of a direction.
    pub(crate) fn queue(&self, direction: Direction) -> &Vring<P, Request> {
        &self.queues[direction as usize]
    }

    /// The queue of a direction, to publish requests or replace it.
    pub(crate) fn queue_mut(&mut self, direction: Direction) -> &mut Vring<P, Request> {
        &mut self.queues[direction as usize]
    }

    /// The most descriptors of a request.
    pub(crate) fn descriptors(&self) -> usize {
        self.requests.descriptors()
    }

    /// Descriptors of an indirect table in a queue of `size`.
    pub(crate) fn table_entries(&self, size: u16) -> u16 {
        self.requests.table_entries(size)
    }
}
