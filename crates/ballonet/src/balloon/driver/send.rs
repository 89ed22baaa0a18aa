//! The sending half of a round: chooses the frames to inflate or deflate, the path, and the shape of requests.

use super::round::{Kicked, Round};
use crate::balloon::error::BalloonError;
use crate::balloon::platform::BalloonPlatform;
use crate::balloon::policy::path::{Allowance, Path, Supply};
use crate::balloon::policy::target::Action;
use crate::balloon::policy::tuning::SendLimit;
use crate::balloon::queues::pages::{Added, Direction};
use crate::balloon::queues::reporting::unreported;
use crate::memory::{FrameRun, PageFrames, REGION_FRAMES};

/// Descriptors of a request that holds a region.
const REGION_DESCRIPTORS: usize = 2;

impl<P: BalloonPlatform> Round<'_, P> {
    /// How many of the frames to inflate should be reported first; `None` if there are no frames to inflate. Decides
    /// how much takes which path in this round.
    pub(super) fn report_first(&mut self) -> Option<u64> {
        self.allowance = None;
        let reporting = self.running.queues.reporting.as_ref()?;
        let Action::Inflate(wanted) = self.plan.next() else {
            self.tuning.path.abandon();
            return None;
        };
        if self.tuning.chains.is_on() || self.tuning.tries_chains(wanted, self.running.queues.pages.descriptors()) {
            return Some(0);
        }
        let idle = self.plan.inflating() == 0 && reporting.is_idle();
        let supply = Supply { wanted, unreported: unreported(self.platform.frames()), idle };
        let allowance = self.tuning.path.next(supply, self.platform.now());
        self.allowance = Some(allowance);
        Some(if allowance.path == Path::ReportFirst { allowance.frames } else { 0 })
    }

    /// Sends the requests that the plan asks for, as far as there is room, with one index store and at most one kick.
    pub(super) fn send_pages(&mut self) -> Result<(), BalloonError> {
        if self.tuning.chains.is_on() {
            return self.deflate_trial();
        }
        match self.plan.next() {
            Action::Rest | Action::Wait => Ok(()),
            Action::Inflate(frames) => {
                let descriptors = self.running.queues.pages.descriptors();
                let tries = self.plan.inflating() == 0 && self.tuning.tries_chains(frames, descriptors);
                if tries { self.try_chains(frames) } else { self.inflate(frames, None) }
            }
            Action::Deflate(frames) => self.deflate(frames),
        }
    }

    /// Inflates a marked region by one request of several descriptors, to find out whether the device reads them all.
    fn try_chains(&mut self, frames: u64) -> Result<(), BalloonError> {
        let region = self.platform.frames().take_free(REGION_FRAMES);
        let Some(whole) = region.filter(|region| region.count() == REGION_FRAMES) else {
            // A later attempt may find a whole region.
            return self.inflate(frames, region);
        };
        if !self.platform.frames().contents().is_some_and(|contents| contents.mark(whole)) {
            self.tuning.chains.give_up();
            return self.inflate(frames, region);
        }
        let mut left = region;
        let limit = SendLimit { frames: REGION_FRAMES.into(), descriptors: REGION_DESCRIPTORS, requests: 1 };
        let added =
            self.running
                .queues
                .pages
                .add(Direction::Inflate, self.platform.frames(), limit, &mut |_, most| cut(&mut left, most))?;
        if added.frames == REGION_FRAMES {
            self.tuning.chains.given(whole, self.platform.now());
        }
        left.into_iter().for_each(|run| self.platform.frames().release(run));
        self.deliver(Direction::Inflate, 0, &added);
        Ok(())
    }

    /// Deflates the region of the trial, by requests that every device reads.
    fn deflate_trial(&mut self) -> Result<(), BalloonError> {
        let mut left = self.tuning.chains.left();
        let Some(run) = left else { return Ok(()) };
        let limit = SendLimit { frames: run.count().into(), descriptors: 1, requests: u16::MAX };
        let before = self.running.queues.pages.queue(Direction::Deflate).outstanding();
        let added =
            self.running
                .queues
                .pages
                .add(Direction::Deflate, self.platform.frames(), limit, &mut |_, most| cut(&mut left, most))?;
        self.tuning.chains.asked_back(added.frames);
        self.deliver(Direction::Deflate, before, &added);
        Ok(())
    }

    /// Inflates frames: reported ones first, then `begun`, which has been taken already, then others, unless they must
    /// be reported first.
    fn inflate(&mut self, wanted: u64, mut begun: Option<FrameRun>) -> Result<(), BalloonError> {
        let direct = Allowance { path: Path::Direct, frames: wanted };
        let Allowance { path, frames } = self.allowance.unwrap_or(direct);
        let before = self.running.queues.pages.queue(Direction::Inflate).outstanding();
        let mut added = self.inflate_ready(wanted.min(frames))?;
        let rest = self.unreserved(wanted.min(frames).saturating_sub(added.frames.into()), path);
        if rest > 0 {
            let limit = self.tuning.limit(rest, self.running.queues.pages.descriptors(), added.requests);
            let more = self.running.queues.pages.add(
                Direction::Inflate,
                self.platform.frames(),
                limit,
                &mut |frames, most| cut(&mut begun, most).or_else(|| frames.take_free(most)),
            );
            added = added.and(more?);
        }
        begun.into_iter().for_each(|run| self.platform.frames().release(run));
        // Hinted frames can be given to the host as well.
        added.enough = added.enough || self.relinquish(wanted.saturating_sub(added.frames.into())) > 0;
        self.tuning.path.sent(added.frames.into());
        self.deliver(Direction::Inflate, before, &added);
        Ok(())
    }

    /// Inflates frames that have been reported for that.
    fn inflate_ready(&mut self, most: u64) -> Result<Added, BalloonError> {
        let queues = &mut self.running.queues;
        let Some(reporting) = &mut queues.reporting else { return Ok(Added::NOTHING) };
        let frames = most.min(reporting.pre_reported().ready());
        if frames == 0 {
            return Ok(Added::NOTHING);
        }
        let limit = self.tuning.limit(frames, queues.pages.descriptors(), 0);
        let take = &mut |_: &mut P::Frames, most| reporting.take_ready(most);
        queues.pages.add(Direction::Inflate, self.platform.frames(), limit, take)
    }

    /// How many of `frames` still to inflate need not wait for reports.
    fn unreserved(&mut self, frames: u64, path: Path) -> u64 {
        let Some(reporting) = &self.running.queues.reporting else { return frames };
        let reported = reporting.pre_reported();
        let open = frames.saturating_sub(reported.in_flight() + reported.ready());
        if path == Path::Direct || open < u64::from(REGION_FRAMES) {
            return open;
        }
        if !reported.needs_no_wait() {
            return 0;
        }
        self.tuning.path.abandon();
        open
    }

    fn deflate(&mut self, most: u64) -> Result<(), BalloonError> {
        let pages = &self.running.queues.pages;
        let (before, descriptors) = (pages.queue(Direction::Deflate).outstanding(), pages.descriptors());
        let limit = self.tuning.limit(most, descriptors, 0);
        let added =
            self.running.queues.pages.add(Direction::Deflate, self.platform.frames(), limit, &mut |frames, most| {
                frames.take_ballooned(most)
            })?;
        self.deliver(Direction::Deflate, before, &added);
        Ok(())
    }

    /// Publishes the added requests. `before`: the requests that were in flight.
    fn deliver(&mut self, direction: Direction, before: u16, added: &Added) {
        let queue = self.running.queues.pages.queue_mut(direction);
        let (index, kick) = (queue.index(), queue.publish());
        match direction {
            Direction::Inflate => self.plan.inflate_sent(added.frames),
            Direction::Deflate => self.plan.deflate_sent(added.frames),
        }
        self.note(added);
        if kick.is_none() {
            return;
        }
        let started = self.platform.now();
        self.kick(index, kick);
        if before == 0 {
            let stalled = self.platform.now().saturating_sub(started);
            self.kicked = Some(Kicked { direction, requests: added.requests, stalled });
        }
    }
}

/// The first of at most `most` frames that are left.
fn cut(left: &mut Option<FrameRun>, most: u32) -> Option<FrameRun> {
    let (run, rest) = left.take()?.split(most);
    *left = rest;
    Some(run)
}
