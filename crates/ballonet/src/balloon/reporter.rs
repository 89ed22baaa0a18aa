//! Free page reporting (virtio 1.4, 5.5.6.7): tells the host which memory is free, so that it can take away what is
//! behind it.
//!
//! While a report is in flight its frames are the driver's, and nobody else has them. What comes back is free memory
//! with any contents. Several reports are in flight, each of runs as long as memory has them, but never so much that
//! the rest of the guest would miss it.
//!
//! What the balloon is about to give may be reported first, too; that does not become free when it is back, but is kept for
//! the balloon ([`Ahead`]).

use alloc::vec::Vec;

use super::ahead::Ahead;
use super::parts::Vring;
use super::poison::Poison;
use super::report_plan::{Grant, ReportPlan, ReportPolicy};
use crate::memory::FrameRun;
use crate::platform::{PageFrames, Platform};
use crate::virtio::{Chain, Completion, Kick, QueueError, Quiesced, Segment};

/// What is reported comes in multiples of so many frames.
const REGION: u32 = 512;
/// The most runs in a report: as many descriptors as it takes.
const RUNS: usize = 16;
/// The most reports in flight.
const REPORTS: usize = 8;
/// The most frames in a report: 32 MiB, which a host that discards by 4 KiB pages needs some 10 ms for.
const REPORT_FRAMES: u32 = 8192;
/// The most frames in flight: 128 MiB.
const IN_FLIGHT: u64 = 32768;
/// The most frames in a report of what is to be inflated: 8 MiB, so that inflating can begin soon.
const AHEAD_FRAMES: u32 = 2048;

/// Free memory on its way to be known to the host.
#[derive(Debug)]
pub(super) struct Report {
    runs: Vec<FrameRun>,
    frames: u32,
    /// Whether the frames are to be inflated when it is back.
    ahead: bool,
}

impl Report {
    fn new() -> Self {
        Self { runs: Vec::with_capacity(RUNS), frames: 0, ahead: false }
    }

    /// Collects what `take` has, up to `most` frames in at most `runs` runs.
    fn collect(&mut self, most: u32, runs: usize, take: &mut dyn FnMut(u32) -> Option<FrameRun>) {
        while self.frames < most && self.runs.len() < runs {
            let wanted = most - self.frames;
            let Some(run) = take(wanted) else { return };
            assert!(run.count() <= wanted, "the platform gave {run} where {wanted} frames were asked for");
            self.frames += run.count();
            self.runs.push(run);
        }
    }
}

/// The reporting queue, and what is in flight on it.
pub(super) struct Reporter<P: Platform> {
    queue: Vring<P, Report>,
    plan: ReportPlan,
    idle: Vec<Report>,
    in_flight: u64,
    poison: Option<Poison<P>>,
    /// Everything that was free is being reported, and some of it has not come back.
    flushing: bool,
    ahead: Ahead,
}

impl<P: Platform> Reporter<P> {
    /// What is reported before it is inflated.
    pub(super) fn ahead(&self) -> &Ahead {
        &self.ahead
    }

    /// Takes a run of at most `most` frames that were reported to be inflated.
    pub(super) fn take_ready(&mut self, most: u32) -> Option<FrameRun> {
        self.ahead.take(most)
    }

    /// Has everything that is free reported at once.
    pub(super) fn flush(&mut self) {
        self.plan.flush();
        self.flushing = true;
    }

    /// Whether everything that is free is being reported, and some of it has not come back.
    pub(super) fn is_flushing(&self) -> bool {
        self.flushing
    }

    /// Frames in the reports that have not come back.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Whether nothing is in flight, nor ready to be inflated.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.ahead.ready() == 0
    }

    /// Its queue.
    pub(super) fn queue(&self) -> &Vring<P, Report> {
        &self.queue
    }
}

impl<P: Platform + PageFrames> Reporter<P> {
    /// A reporter on `queue`, which has nothing in it. Frames are filled before they are reported where there is `poison`.
    pub(super) fn new(queue: Vring<P, Report>, policy: ReportPolicy, poison: Option<Poison<P>>, now: u64) -> Self {
        let reports = REPORTS.min(usize::from(queue.size()));
        let idle = (0..reports).map(|_| Report::new()).collect();
        let ahead = Ahead::new((IN_FLIGHT / u64::from(REGION)) as usize);
        Self { queue, plan: ReportPlan::new(policy, now), idle, in_flight: 0, poison, flushing: true, ahead }
    }

    /// When to look again, if no interrupt comes before; `None` while there is nothing to wait for.
    pub(super) fn deadline(&self, platform: &P) -> Option<u64> {
        self.plan.deadline(platform.unreported()).into_iter().chain(self.ahead.deadline()).min()
    }

    /// Takes back what the host has been told of: it is free, or ready to be inflated. Returns the reports, the frames in
    /// them, and how many of these are free.
    pub(super) fn completions(&mut self, platform: &mut P) -> Result<(u64, u64, u64), QueueError> {
        if self.queue.outstanding() > 0 {
            self.queue.disarm();
        }
        let (mut reports, mut frames, mut free) = (0, 0, 0);
        while let Some(Completion { token: mut report, .. }) = self.queue.pop()? {
            if report.ahead {
                self.ahead.returned(&report.runs, platform.now());
            } else {
                report.runs.iter().for_each(|run| platform.release_reported(*run));
                free += u64::from(report.frames);
            }
            reports += 1;
            frames += u64::from(report.frames);
            self.in_flight -= u64::from(report.frames);
            report.runs.clear();
            report.frames = 0;
            self.idle.push(report);
        }
        Ok((reports, frames, free))
    }

    /// Makes what was reported to be inflated, and will not be, free: the host knows of it. Returns how many frames.
    pub(super) fn give_back(&mut self, platform: &mut P) -> u64 {
        let frames = self.ahead.ready();
        while let Some(run) = self.ahead.take(u32::MAX) {
            platform.release_reported(run);
        }
        frames
    }

    /// Reports what is due, and before that what is to be inflated: so many frames with those that have been and are being
    /// reported for it. As much as there is room for, by one publication. Returns the kick that the device wants.
    pub(super) fn send(&mut self, platform: &mut P, inflating: u64) -> Result<Option<Kick>, QueueError> {
        self.send_ahead(platform, inflating)?;
        if self.plan.advance(platform.now(), || platform.unreported()) {
            platform.age_free_memory();
        }
        while let Some(grant) = self.plan.next() {
            if self.room(platform) < u64::from(REGION) || self.queue.free() == 0 {
                break;
            }
            let Some(report) = self.collect_due(platform, grant) else { break };
            if report.frames == 0 {
                self.idle.push(report);
                self.plan.exhausted();
                break;
            }
            let frames = report.frames;
            self.add(platform, report)?;
            self.plan.sent(frames.into());
        }
        self.flushing = self.plan.is_flushing() || (self.flushing && self.in_flight > 0);
        Ok(self.queue.publish())
    }

    fn send_ahead(&mut self, platform: &mut P, frames: u64) -> Result<(), QueueError> {
        self.ahead.begin(platform.now());
        loop {
            let wanted = frames.saturating_sub(self.ahead.on_way() + self.ahead.ready());
            let room = IN_FLIGHT.saturating_sub(self.in_flight + self.ahead.ready());
            if wanted < u64::from(REGION) || room < u64::from(REGION) || self.queue.free() == 0 {
                return Ok(());
            }
            let most = wanted.min(room).min(u64::from(AHEAD_FRAMES)) as u32;
            let Some(mut report) = self.collect(most, &mut |wanted| platform.take_backed(wanted)) else {
                return Ok(());
            };
            if report.frames == 0 {
                self.idle.push(report);
                self.ahead.run_dry();
                return Ok(());
            }
            report.ahead = true;
            self.ahead.sent(report.frames, platform.now());
            self.add(platform, report)?;
        }
    }

    /// Asks for an interrupt once the share of what is in flight is done that makes room for more. `false` if that is so
    /// already.
    pub(super) fn arm(&mut self) -> bool {
        let outstanding = self.queue.outstanding();
        let more = self.plan.next().is_some() || self.ahead.on_way() > 0;
        outstanding == 0 || self.queue.arm(if more { outstanding.div_ceil(2) } else { outstanding })
    }

    /// Whether there is something to report and nothing in flight that would call for it.
    pub(super) fn is_due(&self) -> bool {
        self.plan.next().is_some() && self.queue.outstanding() == 0
    }

    /// Gives the queue back. What the host has not confirmed is free memory like any other; returns how many frames.
    pub(super) fn release(self, platform: &mut P, proof: &Quiesced) -> u64 {
        for report in self.queue.release(platform, proof) {
            report.runs.iter().for_each(|run| platform.release(*run));
        }
        self.in_flight
    }

    /// Frames that may be added to what is in flight. What is there to be reported stays for half with the guest, so
    /// that it does not run out of memory for that.
    fn room(&self, platform: &P) -> u64 {
        let share = (platform.unreported() + self.in_flight).div_ceil(2).max(u64::from(REGION));
        share.min(IN_FLIGHT).saturating_sub(self.in_flight)
    }

    /// A report of what is due, perhaps of nothing; `None` if as many as there can be are in flight.
    fn collect_due(&mut self, platform: &mut P, grant: Grant) -> Option<Report> {
        let most = grant.frames.min(self.room(platform)).min(u64::from(REPORT_FRAMES)) as u32;
        self.collect(most, &mut |wanted| platform.take_unreported(wanted, grant.age))
    }

    /// A report of at most `most` frames from `take`, perhaps of none; `None` if as many as there can be are in flight.
    fn collect(&mut self, most: u32, take: &mut dyn FnMut(u32) -> Option<FrameRun>) -> Option<Report> {
        // A chain takes a descriptor a run.
        let runs = RUNS.min(usize::from(self.queue.free()));
        let mut report = self.idle.pop()?;
        report.ahead = false;
        report.collect(most, runs, take);
        Some(report)
    }

    fn add(&mut self, platform: &mut P, report: Report) -> Result<(), QueueError> {
        let mut segments = [Segment { address: 0, length: 0 }; RUNS];
        for (segment, run) in segments.iter_mut().zip(&report.runs) {
            // A report is of less than 2^32 bytes.
            *segment = Segment { address: platform.device_address(*run), length: run.bytes() as u32 };
        }
        if let Some(poison) = self.poison {
            report.runs.iter().for_each(|run| poison.fill(platform, *run));
        }
        let (count, frames) = (report.runs.len(), u64::from(report.frames));
        match self.queue.add(Chain::writable(&segments[..count]), report) {
            Ok(()) => {
                self.in_flight += frames;
                Ok(())
            }
            Err(rejected) => {
                // Only a queue that is out of use refuses what it has room for. The device has not seen these frames.
                rejected.token.runs.iter().for_each(|run| platform.release(*run));
                self.queue.poisoned().map_or(Ok(()), Err)
            }
        }
    }
}
