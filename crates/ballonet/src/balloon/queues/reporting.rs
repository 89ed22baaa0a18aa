//! The reporting queue (virtio 1.4, 5.5.6.7): tells the host which memory is free, so that it can discard it.
//!
//! While a report is in flight the driver owns its frames. Returned frames are free memory with any contents. Several
//! reports are in flight, each of runs as long as possible, but never so many frames that the rest of the guest runs
//! short.
//!
//! Frames that are about to be inflated may be reported first. When such a report returns, its frames do not become
//! free but wait for the balloon ([`PreReported`]).

use alloc::vec::Vec;

use super::poison::{self, Poison};
use super::{Maker, Vring};
use crate::balloon::error::BalloonError;
use crate::balloon::platform::BalloonPlatform;
use crate::balloon::policy::pre_reported::PreReported;
use crate::balloon::policy::report_plan::{Grant, ReportPlan, ReportPolicy};
use crate::bus::heap;
use crate::memory::{FrameRun, PageFrames, REGION_FRAMES, release_reported};
use crate::platform::{OutOfMemory, Platform};
use crate::virtio::{Chain, Completion, Kick, QueueError, QueueIndex, Quiesced, Segment};

/// Reports come in multiples of this many frames.
const REGION: u64 = REGION_FRAMES as u64;
/// The most runs in a report, and its most descriptors.
const RUNS: usize = 16;
/// The most reports in flight.
const REPORTS: usize = 8;
/// The most frames in a report: 32 MiB, which a host that discards by 4 KiB pages serves in about 10 ms.
const REPORT_FRAMES: u32 = 8192;
/// The most frames in flight: 128 MiB.
const IN_FLIGHT: u64 = 32768;
/// The most frames in a report of frames to be inflated: 8 MiB, so that inflating can begin soon.
const PRE_REPORT_FRAMES: u32 = 2048;

/// A report: free memory on its way to the host and back.
#[derive(Debug)]
pub(crate) struct Report {
    runs: Vec<FrameRun>,
    frames: u32,
    /// Whether the frames are inflated afterwards.
    before_inflating: bool,
}

impl Report {
    fn new() -> Result<Self, OutOfMemory> {
        Ok(Self { runs: heap::vector(RUNS)?, frames: 0, before_inflating: false })
    }

    /// Collects up to `most` frames from `take`, in at most `runs` runs.
    fn collect(&mut self, most: u32, runs: usize, take: &mut dyn FnMut(u32) -> Option<FrameRun>) {
        while self.frames < most && self.runs.len() < runs {
            let wanted = most - self.frames;
            let Some(run) = take(wanted) else { return };
            assert!(run.count() <= wanted, "the platform returned {run} although {wanted} frames were requested");
            self.frames += run.count();
            self.runs.push(run);
        }
    }
}

/// The reports that the device has returned.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReportsDone {
    pub(crate) reports: u64,
    /// Frames in them.
    pub(crate) frames: u64,
    /// How many of the frames are free now.
    pub(crate) free: u64,
}

/// The queue, and the reports.
pub(crate) struct ReportingQueue<P: Platform> {
    queue: Vring<P, Report>,
    plan: ReportPlan,
    idle: Vec<Report>,
    in_flight: u64,
    poison: Option<Poison>,
    /// All free memory is being reported, and some reports have not returned.
    flushing: bool,
    pre_reported: PreReported,
}

impl<P: Platform> ReportingQueue<P> {
    /// Frames reported before they are inflated.
    pub(crate) fn pre_reported(&self) -> &PreReported {
        &self.pre_reported
    }

    /// Takes a run of at most `most` frames that were reported before inflating.
    pub(crate) fn take_ready(&mut self, most: u32) -> Option<FrameRun> {
        self.pre_reported.take(most)
    }

    /// Starts to report all free memory at once.
    pub(crate) fn flush(&mut self) {
        self.plan.flush();
        self.flushing = true;
    }

    /// Whether all free memory is being reported, and some reports have not returned.
    pub(crate) fn is_flushing(&self) -> bool {
        self.flushing
    }

    /// Frames in reports in flight.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Whether nothing is in flight, nor ready to be inflated.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.pre_reported.ready() == 0
    }

    /// The queue.
    pub(crate) fn queue(&self) -> &Vring<P, Report> {
        &self.queue
    }

    /// Asks for an interrupt when enough is done to send more. `false` if that is already the case.
    pub(crate) fn arm(&mut self) -> bool {
        let outstanding = self.queue.outstanding();
        let more = self.plan.next().is_some() || self.pre_reported.in_flight() > 0;
        outstanding == 0 || self.queue.arm(if more { outstanding.div_ceil(2) } else { outstanding })
    }

    /// Whether there is something to report, and nothing in flight whose return would trigger it.
    pub(crate) fn is_due(&self) -> bool {
        self.plan.next().is_some() && self.queue.outstanding() == 0
    }
}

impl<P: BalloonPlatform> ReportingQueue<P> {
    /// Creates the queue. With `poison`, frames are filled before they are reported.
    pub(crate) fn make(
        maker: &mut Maker<'_, P>,
        index: QueueIndex,
        policy: ReportPolicy,
        poison: Option<Poison>,
    ) -> Result<Self, BalloonError> {
        // Before the queue, which would have to be released on failure.
        let mut idle = heap::vector(REPORTS)?;
        for _ in 0..REPORTS {
            idle.push(Report::new()?);
        }
        let pre_reported = PreReported::new((IN_FLIGHT / REGION) as usize)?;
        let queue: Vring<P, Report> = maker.simple_queue(index, Some("reporting"))?;
        idle.truncate(queue.size().into());
        let plan = ReportPlan::new(policy, maker.platform.now());
        Ok(Self { queue, plan, idle, in_flight: 0, poison, flushing: true, pre_reported })
    }

    /// When to check again if no interrupt comes first; `None` if there is nothing to wait for.
    pub(crate) fn deadline(&self, platform: &mut P) -> Option<u64> {
        self.plan.deadline(unreported(platform.frames())).into_iter().chain(self.pre_reported.deadline()).min()
    }

    /// Takes the reports that the device has returned: their frames are free, or ready to be inflated.
    pub(crate) fn complete(&mut self, platform: &mut P) -> Result<ReportsDone, QueueError> {
        if self.queue.outstanding() > 0 {
            self.queue.disarm();
        }
        let mut done = ReportsDone::default();
        while let Some(Completion { token: mut report, .. }) = self.queue.pop()? {
            if report.before_inflating {
                self.pre_reported.returned(&report.runs, platform.now());
            } else {
                report.runs.iter().for_each(|run| release_reported(platform.frames(), *run));
                done.free += u64::from(report.frames);
            }
            done.reports += 1;
            done.frames += u64::from(report.frames);
            self.in_flight -= u64::from(report.frames);
            report.runs.clear();
            report.frames = 0;
            self.idle.push(report);
        }
        Ok(done)
    }

    /// Frees frames that were reported to be inflated but no longer will be. Returns how many.
    pub(crate) fn give_back(&mut self, frames: &mut P::Frames) -> u64 {
        let count = self.pre_reported.ready();
        while let Some(run) = self.pre_reported.take(u32::MAX) {
            release_reported(frames, run);
        }
        count
    }

    /// Reports what is due, with one index store. Frames to be inflated come first, until `inflating` frames are ready
    /// or in flight. Returns the kick that the device wants.
    pub(crate) fn send(&mut self, platform: &mut P, inflating: u64) -> Result<Option<Kick>, QueueError> {
        self.pre_report(platform, inflating)?;
        if self.plan.advance(platform.now(), || unreported(platform.frames())) {
            if let Some(books) = platform.frames().reporting() {
                books.age();
            }
        }
        while let Some(grant) = self.plan.next() {
            if self.room(platform) < REGION || self.queue.free() == 0 {
                break;
            }
            let Some(report) = self.collect_due(platform, grant) else { break };
            if report.frames == 0 {
                self.idle.push(report);
                self.plan.exhausted();
                break;
            }
            let frames = report.frames;
            self.add(platform.frames(), report)?;
            self.plan.sent(frames.into());
        }
        self.flushing = self.plan.is_flushing() || (self.flushing && self.in_flight > 0);
        Ok(self.queue.publish())
    }

    fn pre_report(&mut self, platform: &mut P, frames: u64) -> Result<(), QueueError> {
        self.pre_reported.begin(platform.now());
        loop {
            let wanted = frames.saturating_sub(self.pre_reported.in_flight() + self.pre_reported.ready());
            let room = IN_FLIGHT.saturating_sub(self.in_flight + self.pre_reported.ready());
            if wanted < REGION || room < REGION || self.queue.free() == 0 {
                return Ok(());
            }
            let most = wanted.min(room).min(u64::from(PRE_REPORT_FRAMES)) as u32;
            let mut books = platform.frames().reporting();
            let take = &mut |wanted| books.as_mut()?.take_backed(wanted);
            let Some(mut report) = self.collect(most, take) else { return Ok(()) };
            if report.frames == 0 {
                self.idle.push(report);
                self.pre_reported.exhausted();
                return Ok(());
            }
            report.before_inflating = true;
            self.pre_reported.sent(report.frames, platform.now());
            self.add(platform.frames(), report)?;
        }
    }

    /// Releases the queue and all frames. Unconfirmed frames are ordinary free memory. Returns how many frames were in
    /// flight.
    pub(crate) fn release(self, platform: &mut P, proof: &Quiesced) -> u64 {
        for report in self.queue.release(platform, proof) {
            report.runs.iter().for_each(|run| platform.frames().release(*run));
        }
        self.in_flight
    }

    /// Frames that may be added to those in flight. Half of the unreported memory stays with the guest, so that
    /// reporting does not make it run short.
    fn room(&self, platform: &mut P) -> u64 {
        let share = (unreported(platform.frames()) + self.in_flight).div_ceil(2).max(REGION);
        share.min(IN_FLIGHT).saturating_sub(self.in_flight)
    }

    /// A report of what is due, perhaps empty; `None` if no more may be in flight.
    fn collect_due(&mut self, platform: &mut P, grant: Grant) -> Option<Report> {
        let most = grant.frames.min(self.room(platform)).min(u64::from(REPORT_FRAMES)) as u32;
        let mut books = platform.frames().reporting();
        self.collect(most, &mut |wanted| books.as_mut()?.take_unreported(wanted, grant.age))
    }

    /// A report of at most `most` frames from `take`, perhaps empty; `None` if no more may be in flight.
    fn collect(&mut self, most: u32, take: &mut dyn FnMut(u32) -> Option<FrameRun>) -> Option<Report> {
        // A chain takes a descriptor per run.
        let runs = RUNS.min(usize::from(self.queue.free()));
        let mut report = self.idle.pop()?;
        report.before_inflating = false;
        report.collect(most, runs, take);
        Some(report)
    }

    fn add(&mut self, frames: &mut P::Frames, report: Report) -> Result<(), QueueError> {
        let mut segments = [Segment { address: 0, length: 0 }; RUNS];
        for (segment, run) in segments.iter_mut().zip(&report.runs) {
            // A report is less than 2^32 bytes long.
            *segment = Segment { address: frames.device_address(*run), length: run.bytes() as u32 };
        }
        if let Some(poison) = self.poison {
            report.runs.iter().for_each(|run| poison::fill(frames, *run, poison.byte()));
        }
        let (runs, count) = (report.runs.len(), u64::from(report.frames));
        match self.queue.add(Chain::writable(&segments[..runs]), report) {
            Ok(()) => {
                self.in_flight += count;
                Ok(())
            }
            Err(rejected) => {
                // Only a broken queue refuses a report that fits. The device has not seen these frames.
                rejected.token.runs.iter().for_each(|run| frames.release(*run));
                self.queue.poisoned().map_or(Ok(()), Err)
            }
        }
    }
}

/// Free frames not reported to the host; 0 if the platform does not track them.
pub(crate) fn unreported(frames: &mut impl PageFrames) -> u64 {
    frames.reporting().map_or(0, |books| books.unreported())
}
