//! Deflate on OOM: an allocation that would fail gets memory back first (virtio 1.4, 5.5.6.1).
//!
//! The allocation waits meanwhile, and the driver polls its queues, without interrupts and without allocating. Every wait is
//! bounded: it ends with the memory or with the reason why there is none.
//!
//! # What may be reclaimed
//! - *Reports in flight* are free memory that returns without a request.
//! - *Hinted frames* that the device has returned, at once: they are written to first, so that the host copies them.
//! - *Frames in the balloon* with `DEFLATE_ON_OOM`: all of them, whatever the target. Without it the driver must not use
//!   them unless the balloon is larger than the target, which is read again for that. (The specification prints the
//!   comparison the other way round, against its own permission to deflate.) So without the feature nothing is had
//!   back beyond what the host wants back anyway; but the balloon grows no further, whatever the host asks for.
//!
//! A frame is used again when the device has returned its request and not before, also without `MUST_TELL_HOST`, which
//! would allow it: so no reset in mid-course can make a frame that somebody uses count as the host's.

use derive_more::{Display, Error};

use super::BalloonError;
use super::driver::{Balloon, State};
use super::plan::Action;
use super::progress::Changes;
use super::relief::ReliefSource as Source;
use super::round::Round;
use super::statistics::MemoryStatistics;
use super::wire::{CONFIG_NUM_PAGES, DEFLATE_ON_OOM};
use crate::platform::{PageFrames, Platform};

/// How long the device may take to answer anything at all, in nanoseconds: 3 s. Hosts under load have been seen to take
/// a second.
const PATIENCE: u64 = 3_000_000_000;
/// How long an allocation waits altogether, in nanoseconds: 10 s.
const LONGEST: u64 = 10_000_000_000;

/// Why a relief brought less than was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum ReliefError {
    /// Nothing is in the balloon, or on its way back.
    #[display("the host has nothing to give back")]
    Empty,
    /// The host wants to keep what it has, and its device does not allow the guest to have it (no `DEFLATE_ON_OOM`).
    #[display("the device does not let the guest have memory back that the host wants to keep")]
    Forbidden,
    /// The device does not answer, now or since the last wait for it.
    #[display("the device did not give memory back in time")]
    Late,
    /// The device is frozen, or the driver has given up on it.
    #[display("the device does not run")]
    Stopped,
    /// The device broke the rules. The next [`Balloon::poll`] deals with it.
    #[display("{_0}")]
    Device(BalloonError),
}

/// What an allocation got. Counts are in 4 KiB frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relief {
    /// Frames that became free.
    pub frames: u64,
    /// Frames that were asked back of the host for it; some of them may still be on their way.
    pub asked: u64,
    /// Why there were no more, if there were fewer than wanted.
    pub error: Option<ReliefError>,
}

impl<P: Platform + PageFrames + MemoryStatistics> Balloon<P> {
    /// Gets `frames` frames or more back for an allocation that would fail without, and waits for them. Afterwards, and also
    /// if nothing came, the balloon does not grow for a while ([`super::ReliefPolicy`]), whatever the host asks for.
    ///
    /// Nothing is allocated, no interrupt is needed, and a device that does not answer is waited for only once. Poll it
    /// afterwards as usual: `poll` then reports what changed meanwhile.
    #[doc(alias = "virtio_balloon_oom_notify")]
    #[doc(alias = "VIRTIO_BALLOON_F_DEFLATE_ON_OOM")]
    pub fn relieve(&mut self, platform: &mut P, frames: u64) -> Relief {
        if !matches!(self.state, State::Running(_)) {
            return Relief { frames: 0, asked: 0, error: Some(ReliefError::Stopped) };
        }
        let settled = self.plan.is_settled();
        let (returned, asked) = (self.returned(), self.asked_back());
        self.relief.begin(platform.now());
        // From here nothing more is given: what is under way arrives, and that is all.
        self.plan.limit(self.plan.expected());
        let outcome = self.take_back(platform, returned.saturating_add(frames));
        let relief = Relief {
            frames: self.returned() - returned,
            asked: self.asked_back() - asked,
            error: outcome.err().filter(|_| self.returned() - returned < frames),
        };
        self.note(&relief, !settled && self.plan.is_settled());
        if relief.error.is_some() {
            // A device that does not answer may be gone, or in need of a reset.
            self.look();
        }
        relief
    }

    /// Goes through the sources until the wanted number of frames has returned in all.
    fn take_back(&mut self, platform: &mut P, wanted: u64) -> Result<(), ReliefError> {
        let mut reason = ReliefError::Empty;
        for source in Source::ORDER {
            let lacking = wanted.saturating_sub(self.returned());
            let outcome = match source {
                Source::Reports => self.await_frames(platform, wanted, source),
                Source::Hints => {
                    self.relinquish_hinted(platform, lacking);
                    Ok(())
                }
                Source::Balloon => {
                    self.ask_back(platform, lacking).and_then(|()| self.await_frames(platform, wanted, source))
                }
            };
            if self.returned() >= wanted {
                return Ok(());
            }
            match outcome {
                // It shrank as far as it may, and holds more.
                Ok(()) if source == Source::Balloon && self.plan.actual() > 0 => reason = ReliefError::Forbidden,
                Ok(()) => {}
                // Nothing can be expected of the other sources either.
                Err(error @ (ReliefError::Stopped | ReliefError::Device(_))) => return Err(error),
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }

    /// Makes the balloon shrink by at least the missing frames, as far as that is allowed.
    fn ask_back(&mut self, platform: &mut P, lacking: u64) -> Result<(), ReliefError> {
        let least = self.least_size()?;
        let expected = self.plan.actual() + self.plan.inflating();
        if expected == 0 {
            return Err(ReliefError::Empty);
        }
        if expected <= least {
            return Err(ReliefError::Forbidden);
        }
        // What is on its way back already is part of it.
        let step = self.relief.step(lacking, expected).max(self.plan.deflating());
        self.plan.limit(expected.saturating_sub(step).max(least));
        self.relief.begin(platform.now());
        Ok(())
    }

    /// The size below which the balloon must not shrink.
    fn least_size(&self) -> Result<u64, ReliefError> {
        let State::Running(running) = &self.state else { return Err(ReliefError::Stopped) };
        if running.virtio.device.features().contains(DEFLATE_ON_OOM) {
            return Ok(0);
        }
        let target = running.virtio.device.transport().read_config32(CONFIG_NUM_PAGES);
        target.map(u64::from).map_err(|error| ReliefError::Device(error.into()))
    }

    /// Polls the queues until the wanted number of frames has returned in all, or no more are in flight.
    fn await_frames(&mut self, platform: &mut P, wanted: u64, source: Source) -> Result<(), ReliefError> {
        let start = platform.now();
        let (mut answers, mut moved) = (self.answers(source), start);
        let patience = if self.relief.may_wait(source, answers) { PATIENCE } else { 0 };
        loop {
            self.work(platform, source)?;
            if self.returned() >= wanted || !self.is_under_way(source) {
                return Ok(());
            }
            let now = platform.now();
            if now.saturating_sub(start) >= LONGEST {
                return Err(ReliefError::Late);
            }
            if self.answers(source) != answers {
                (answers, moved) = (self.answers(source), now);
            } else if now.saturating_sub(moved) >= patience {
                self.relief.gave_up(source, answers);
                return Err(ReliefError::Late);
            }
            platform.relax();
        }
    }

    fn work(&mut self, platform: &mut P, source: Source) -> Result<(), ReliefError> {
        let State::Running(running) = &mut self.state else { return Err(ReliefError::Stopped) };
        let mut round = Round::new(running, platform, &mut self.plan, &mut self.engine, &mut self.counters);
        let changes = match source {
            Source::Reports | Source::Hints => round.take_returned(),
            Source::Balloon => round.follow_plan(),
        };
        match changes {
            Ok(changes) => self.untold |= changes,
            Err(error) => return Err(ReliefError::Device(error)),
        }
        Ok(())
    }

    /// Whether more comes without being asked for.
    fn is_under_way(&self, source: Source) -> bool {
        match source {
            Source::Reports => self.reporting() > 0,
            Source::Hints => false,
            Source::Balloon => {
                let in_flight = self.plan.inflating() + self.plan.deflating() > 0;
                in_flight || matches!(self.plan.next(), Action::Deflate(_))
            }
        }
    }

    /// Frames that have become free so far, by the device's leave.
    fn returned(&self) -> u64 {
        self.counters.returned_frames
    }

    /// Frames that the device has been asked for so far.
    fn asked_back(&self) -> u64 {
        self.counters.deflate_frames + self.plan.deflating()
    }

    /// Requests to do with a source that the device has answered so far.
    fn answers(&self, source: Source) -> u64 {
        match source {
            Source::Reports => self.counters.reports,
            Source::Hints => self.counters.relinquished_frames,
            Source::Balloon => self.counters.inflate_requests + self.counters.deflate_requests,
        }
    }

    fn note(&mut self, relief: &Relief, settled: bool) {
        if settled {
            self.untold |= Changes::SETTLED;
        }
        self.again = true;
        self.counters.reliefs += 1;
        self.counters.reliefs_in_vain += u64::from(relief.error.is_some());
        self.counters.relief_frames += relief.frames;
    }
}
