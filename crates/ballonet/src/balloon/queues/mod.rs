//! The balloon's queues and their contents: everything that the driver lends to its device, and its return.
//!
//! [`Pages`] (inflate and deflate), [`StatisticsQueue`], [`HintingQueue`] and [`ReportingQueue`] are peers with the
//! same steps: *make* the queue, *complete* what the device returned, *send* what is due, *arm* the next interrupt,
//! *release* everything once the device has stopped.

pub(super) mod hinting;
pub(super) mod pages;
pub(super) mod poison;
pub(super) mod reporting;
pub(super) mod statistics;

use alloc::vec::Vec;

use self::hinting::HintingQueue;
use self::pages::{Direction, Pages, Request};
use self::poison::Poison;
use self::reporting::ReportingQueue;
use self::statistics::StatisticsQueue;
use super::error::BalloonError;
use super::platform::BalloonPlatform;
use super::queue_numbers::QUEUES;
use crate::platform::{OutOfMemory, Platform};
use crate::virtio::{self, QueueIndex, QueueSetup, Quiesced, RingLayout, Setup, TransportError, UsedLength, Virtqueue};

/// A queue of the balloon.
pub(super) type Vring<P, T> = Virtqueue<<P as Platform>::Memory, T>;

/// The queues of a device. Queues of optional features exist if the feature was negotiated.
pub(super) struct Queues<P: Platform> {
    pub(super) pages: Pages<P>,
    pub(super) statistics: Option<StatisticsQueue<P>>,
    pub(super) hinting: Option<HintingQueue<P>>,
    pub(super) reporting: Option<ReportingQueue<P>>,
    /// Unused queues of features that were not accepted: some devices do not start without them.
    pub(super) unused: Vec<Vring<P, ()>>,
    /// The fill value of free frames, if the device has one.
    pub(super) poison: Option<Poison>,
}

impl<P: Platform> Queues<P> {
    /// The queues in use: name and number of entries.
    pub(super) fn sizes(&self) -> [Option<(&'static str, u16)>; 5] {
        [
            Some(("inflate", self.pages.queue(Direction::Inflate).size())),
            Some(("deflate", self.pages.queue(Direction::Deflate).size())),
            self.statistics.as_ref().map(|statistics| ("stats", statistics.queue.size())),
            self.hinting.as_ref().map(|hinting| ("hinting", hinting.queue().size())),
            self.reporting.as_ref().map(|reporting| ("reporting", reporting.queue().size())),
        ]
    }

    /// Frames in reports in flight.
    pub(super) fn frames_reporting(&self) -> u64 {
        self.reporting.as_ref().map_or(0, ReportingQueue::in_flight)
    }

    /// Hinted frames that have not returned to the kernel.
    pub(super) fn frames_hinted(&self) -> u64 {
        self.hinting.as_ref().map_or(0, HintingQueue::hinted)
    }
}

impl<P: BalloonPlatform> Queues<P> {
    /// Releases everything to the platform. Returns how many of the frames in flight are now free, and how many
    /// ballooned.
    pub(super) fn release(self, platform: &mut P, proof: &Quiesced) -> (u64, u64) {
        let (mut freed, ballooned) = self.pages.release(platform, proof, self.poison);
        if let Some(statistics) = self.statistics {
            statistics.release(platform, proof);
        }
        if let Some(hinting) = self.hinting {
            freed += hinting.release(platform, proof);
        }
        if let Some(reporting) = self.reporting {
            freed += reporting.release(platform, proof);
        }
        for queue in self.unused {
            drop(queue.release(platform, proof));
        }
        (freed, ballooned)
    }
}

/// Which used lengths to accept: the balloon's buffers carry no data back, so the lengths do not matter, and some
/// devices count bytes read.
pub(super) const USED_LENGTH: UsedLength = UsedLength::Lenient;

/// The queues created by set-up, and the parts of one that failed. They are released only after the device is reset:
/// until then it may access memory.
pub(super) struct Made<P: Platform> {
    pub(super) queues: Option<Queues<P>>,
    memory: Option<P::Memory>,
    page_queue: Option<Vring<P, Request>>,
}

impl<P: Platform> Made<P> {
    /// No queues yet.
    pub(super) const fn new() -> Self {
        Self { queues: None, memory: None, page_queue: None }
    }
}

impl<P: BalloonPlatform> virtio::Parts<P> for Made<P> {
    fn release(self, platform: &mut P, proof: &Quiesced) {
        if let Some(queues) = self.queues {
            queues.release(platform, proof);
        }
        if let Some(queue) = self.page_queue {
            drop(queue.release(platform, proof));
        }
        if let Some(memory) = self.memory {
            platform.release_dma(memory);
        }
    }
}

/// Creates queues while the device is set up.
pub(super) struct Maker<'a, P: Platform> {
    pub(super) platform: &'a mut P,
    pub(super) setup: &'a mut Setup<P>,
    pub(super) made: &'a mut Made<P>,
    /// The largest sizes; 0 for a queue that does not exist.
    pub(super) sizes: [u16; QUEUES],
    /// The most entries of a queue.
    pub(super) limit: u16,
}

impl<P: Platform> Maker<'_, P> {
    /// The queues so far; inflate and deflate exist already.
    pub(super) fn queues(&mut self) -> &mut Queues<P> {
        self.made.queues.as_mut().expect("the inflate and deflate queues are created first")
    }

    /// The layout of a queue.
    fn layout(&self, queue: QueueIndex) -> Result<RingLayout, TransportError> {
        self.setup.layout_of(queue, self.sizes[usize::from(queue.number())], self.limit)
    }

    /// Creates a queue with indirect tables of at most `indirect_entries`. A queue without a name does not interrupt.
    fn queue<T>(
        &mut self,
        index: QueueIndex,
        name: Option<&'static str>,
        layout: RingLayout,
        indirect_entries: u16,
    ) -> Result<Vring<P, T>, OutOfMemory> {
        let queue = QueueSetup { index, name, layout, indirect_entries, used_length: USED_LENGTH };
        self.setup.add_queue(self.platform, &queue)
    }

    /// Creates a queue for requests of one descriptor.
    pub(super) fn simple_queue<T>(
        &mut self,
        index: QueueIndex,
        name: Option<&'static str>,
    ) -> Result<Vring<P, T>, BalloonError> {
        let layout = self.layout(index)?;
        Ok(self.queue(index, name, layout, 1)?)
    }
}
