//! The sending half of a round: which frames go to the host or are asked back, by which way, in requests of which shape.

use super::BalloonError;
use super::chains::REGION;
use super::pace::{Allowance, Supply, Way};
use super::parts::Vring;
use super::plan::Action;
use super::requests::{Request, Requests};
use super::round::{Round, broken};
use super::running::Running;
use super::statistics::MemoryStatistics;
use crate::memory::FrameRun;
use crate::platform::{PageFrames, Platform};
use crate::virtio::{Chain, QueueError};

/// Descriptors of a request that holds a region.
const REGION_DESCRIPTORS: usize = 2;

/// Where frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Inflate,
    Deflate,
}

/// A kick of a queue that had been empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kicked {
    pub(super) direction: Direction,
    pub(super) requests: u16,
    /// How long the CPU was held up, in nanoseconds.
    pub(super) held: u64,
}

impl<P: Platform + PageFrames + MemoryStatistics> Round<'_, P> {
    /// How many frames are to be inflated that should be reported first; `None` if none are to be inflated at all. Settles
    /// how much goes which way in this round.
    pub(super) fn report_first(&mut self) -> Option<u64> {
        self.allowance = None;
        let reporter = self.running.reporter.as_ref()?;
        let Action::Inflate(wanted) = self.plan.next() else {
            self.engine.pace.abandon();
            return None;
        };
        if self.engine.chains.is_on() || self.engine.tries_chains(wanted, self.running.requests.descriptors()) {
            return Some(0);
        }
        let idle = self.plan.inflating() == 0 && reporter.is_idle();
        let supply = Supply { wanted, unreported: self.platform.unreported(), idle };
        let allowance = self.engine.pace.next(supply, self.platform.now());
        self.allowance = Some(allowance);
        Some(if allowance.way == Way::ReportFirst { allowance.frames } else { 0 })
    }

    /// Sends what the plan says, as many requests as there is room for, by one publication and at most one kick.
    pub(super) fn send(&mut self) -> Result<(), BalloonError> {
        if self.engine.chains.is_on() {
            return self.ask_trial_back();
        }
        match self.plan.next() {
            Action::Rest | Action::Wait => Ok(()),
            Action::Inflate(frames) => {
                let descriptors = self.running.requests.descriptors();
                let tries = self.plan.inflating() == 0 && self.engine.tries_chains(frames, descriptors);
                if tries { self.try_chains(frames) } else { self.inflate(frames, None) }
            }
            Action::Deflate(frames) => self.deflate(frames),
        }
    }

    /// Gives a marked region by one request of several descriptors, to find out whether the device reads them all.
    fn try_chains(&mut self, frames: u64) -> Result<(), BalloonError> {
        let region = self.platform.take_free(REGION);
        let Some(whole) = region.filter(|region| region.count() == REGION) else {
            // There may be a whole one another time.
            return self.inflate(frames, region);
        };
        if !self.platform.mark(whole) {
            self.engine.chains.give_up();
            return self.inflate(frames, region);
        }
        let mut left = region;
        let Running { inflate, requests, .. } = &mut *self.running;
        let limit = Limit { frames: REGION.into(), descriptors: REGION_DESCRIPTORS, requests: 1 };
        let take = &mut |_: &mut P, most| cut(&mut left, most);
        let sent = fill(inflate, requests, self.platform, limit, take, P::release).map_err(broken("inflate"))?;
        if sent.frames == REGION {
            self.engine.chains.given(whole, self.platform.now());
        }
        left.into_iter().for_each(|run| self.platform.release(run));
        self.deliver(Direction::Inflate, 0, &sent);
        Ok(())
    }

    /// Asks back what the host has of the region of the trial, by requests that every device reads.
    fn ask_trial_back(&mut self) -> Result<(), BalloonError> {
        let mut left = self.engine.chains.left();
        let Some(run) = left else { return Ok(()) };
        let Running { deflate, requests, .. } = &mut *self.running;
        let limit = Limit { frames: run.count().into(), descriptors: 1, requests: u16::MAX };
        let (before, take) = (deflate.outstanding(), &mut |_: &mut P, most| cut(&mut left, most));
        let sent =
            fill(deflate, requests, self.platform, limit, take, P::confirm_ballooned).map_err(broken("deflate"))?;
        self.engine.chains.asked_back(sent.frames);
        self.deliver(Direction::Deflate, before, &sent);
        Ok(())
    }

    /// Gives frames: those first that were reported for that, then `begun`, which has been taken already, then others, unless
    /// they are to be reported first.
    fn inflate(&mut self, wanted: u64, mut begun: Option<FrameRun>) -> Result<(), BalloonError> {
        let plain = Allowance { way: Way::Plain, frames: wanted };
        let Allowance { way, frames } = self.allowance.unwrap_or(plain);
        let before = self.running.inflate.outstanding();
        let mut sent = self.inflate_ready(wanted.min(frames))?;
        let rest = self.unreserved(wanted.min(frames).saturating_sub(sent.frames.into()), way);
        if rest > 0 {
            let Running { inflate, requests, .. } = &mut *self.running;
            let limit = self.engine.limit(rest, requests.descriptors(), sent.requests);
            let take = &mut |platform: &mut P, most| cut(&mut begun, most).or_else(|| platform.take_free(most));
            let more = fill(inflate, requests, self.platform, limit, take, P::release);
            sent = sent.and(more.map_err(broken("inflate"))?);
        }
        begun.into_iter().for_each(|run| self.platform.release(run));
        // What is hinted is the host's for the asking.
        sent.enough = sent.enough || self.relinquish(wanted.saturating_sub(sent.frames.into())) > 0;
        self.engine.pace.sent(sent.frames.into());
        self.deliver(Direction::Inflate, before, &sent);
        Ok(())
    }

    /// Gives what has been reported for that.
    fn inflate_ready(&mut self, most: u64) -> Result<Sent, BalloonError> {
        let Running { inflate, requests, reporter: Some(reporter), .. } = &mut *self.running else {
            return Ok(Sent::NOTHING);
        };
        let frames = most.min(reporter.ahead().ready());
        if frames == 0 {
            return Ok(Sent::NOTHING);
        }
        let limit = self.engine.limit(frames, requests.descriptors(), 0);
        let take = &mut |_: &mut P, most| reporter.take_ready(most);
        fill(inflate, requests, self.platform, limit, take, P::release).map_err(broken("inflate"))
    }

    /// How many of `frames` that are still to be given need not wait for reports.
    fn unreserved(&mut self, frames: u64, way: Way) -> u64 {
        let Some(reporter) = &self.running.reporter else { return frames };
        let ahead = reporter.ahead();
        let open = frames.saturating_sub(ahead.on_way() + ahead.ready());
        if way == Way::Plain || open < u64::from(REGION) {
            return open;
        }
        if !ahead.is_dry() {
            return 0;
        }
        self.engine.pace.abandon();
        open
    }

    fn deflate(&mut self, most: u64) -> Result<(), BalloonError> {
        let Running { deflate, requests, .. } = &mut *self.running;
        let before = deflate.outstanding();
        let limit = self.engine.limit(most, requests.descriptors(), 0);
        let take = &mut |platform: &mut P, most| platform.take_ballooned(most);
        let sent =
            fill(deflate, requests, self.platform, limit, take, P::confirm_ballooned).map_err(broken("deflate"))?;
        self.deliver(Direction::Deflate, before, &sent);
        Ok(())
    }

    /// Shows what was put into a queue to the device. `before`: the requests that were in flight.
    fn deliver(&mut self, direction: Direction, before: u16, sent: &Sent) {
        let Running { inflate, deflate, doorbells, .. } = &mut *self.running;
        let (queue, doorbell) = match direction {
            Direction::Inflate => (inflate, doorbells.inflate),
            Direction::Deflate => (deflate, doorbells.deflate),
        };
        let kick = queue.publish();
        match direction {
            Direction::Inflate => self.plan.inflate_sent(sent.frames),
            Direction::Deflate => self.plan.deflate_sent(sent.frames),
        }
        self.note(sent);
        let Some(kick) = kick else { return };
        let started = self.platform.now();
        self.kick(doorbell, kick);
        if before == 0 {
            let held = self.platform.now().saturating_sub(started);
            self.kicked = Some(Kicked { direction, requests: sent.requests, held });
        }
    }
}

/// What may be put into a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) frames: u64,
    /// Of each request.
    pub(super) descriptors: usize,
    pub(super) requests: u16,
}

/// What was put into a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) frames: u32,
    requests: u16,
    /// Whether there were all the frames that were asked for.
    pub(super) enough: bool,
}

impl Sent {
    const NOTHING: Self = Self { frames: 0, requests: 0, enough: true };

    fn and(self, more: Self) -> Self {
        Self { frames: self.frames + more.frames, requests: self.requests + more.requests, enough: more.enough }
    }
}

/// The first of at most `most` frames that are left.
fn cut(left: &mut Option<FrameRun>, most: u32) -> Option<FrameRun> {
    let (run, rest) = left.take()?.split(most);
    *left = rest;
    Some(run)
}

/// Puts as many requests into `queue` as it, the pool and the limit have room for, of frames that `take` takes. Those that
/// could not be sent go to `put_back`.
fn fill<P: Platform>(
    queue: &mut Vring<P, Request>,
    requests: &mut Requests<P::Memory>,
    platform: &mut P,
    limit: Limit,
    take: &mut dyn FnMut(&mut P, u32) -> Option<FrameRun>,
    put_back: fn(&mut P, FrameRun),
) -> Result<Sent, QueueError> {
    let mut sent = Sent::NOTHING;
    let more = |sent: &Sent| sent.enough && u64::from(sent.frames) < limit.frames && sent.requests < limit.requests;
    while more(&sent) && queue.has_room(limit.descriptors) {
        let Some(mut request) = requests.take(limit.descriptors) else { break };
        sent.enough = request.collect(limit.frames - u64::from(sent.frames), |wanted| take(platform, wanted));
        let count = request.frames();
        if count == 0 {
            requests.put(request);
            break;
        }
        if let Err(rejected) = queue.add(Chain::readable(requests.write(&request)), request) {
            // Only a queue that is out of use refuses what it has room for. The device has not seen these frames.
            rejected.token.runs().iter().for_each(|run| put_back(platform, *run));
            requests.put(rejected.token);
            return queue.poisoned().map_or(Ok(sent), Err);
        }
        sent.frames += count;
        sent.requests += 1;
    }
    Ok(sent)
}
