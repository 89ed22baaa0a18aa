//! Deflate on OOM: memory reclaimed for an allocation that would fail (virtio 1.4, 5.5.6.1).
//!
//! The allocation waits while the driver polls its queues, without interrupts and without allocating. Every wait is
//! bounded: it ends with the memory or with an error.
//!
//! # What may be reclaimed
//! - *Reports in flight*: free memory that returns without a request.
//! - *Hinted frames* that the device has returned, at once: they are written to first, so that the host copies them.
//! - *Ballooned frames* with `DEFLATE_ON_OOM`: all of them, whatever the target. Without the feature the driver must
//!   not use them unless the balloon is larger than the target, which is read again for that. (The specification prints
//!   the comparison the other way round, against its own permission to deflate.) So without the feature only frames
//!   that the host offers anyway are reclaimed; but the balloon grows no further, whatever the host asks for.
//!
//! A frame is used again only after the device has returned its request, although without `MUST_TELL_HOST` the guest
//! could use it earlier. So a reset in between never makes a frame in use count as ballooned.

use core::mem::offset_of;

use derive_more::{Display, Error};

use super::{Balloon, State};
use crate::balloon::error::BalloonError;
use crate::balloon::platform::BalloonPlatform;
use crate::balloon::policy::oom_policy::OomSource as Source;
use crate::balloon::policy::target::Action;
use crate::balloon::status::Changes;
use crate::balloon::wire::{BalloonConfig, DEFLATE_ON_OOM};

/// How long the device may take to return any request, in nanoseconds: 3 s. Hosts under load have been seen to take a
/// second.
const PATIENCE: u64 = 3_000_000_000;
/// The most that an allocation waits in total, in nanoseconds: 10 s.
const LONGEST: u64 = 10_000_000_000;

/// Why fewer frames were reclaimed than asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum ReclaimError {
    /// The balloon is empty, and no deflate request is in flight.
    #[display("the host holds no memory")]
    Empty,
    /// The host wants to keep its frames, and its device has no `DEFLATE_ON_OOM`.
    #[display("the host wants to keep its memory, and the device has no DEFLATE_ON_OOM")]
    Forbidden,
    /// The device does not respond, now or since the last wait for it.
    #[display("the device did not return memory in time")]
    Late,
    /// The device is frozen, or the driver has given up on it.
    #[display("the device does not run")]
    Stopped,
    /// The device broke the rules. The next [`Balloon::poll`] deals with it.
    #[display("{_0}")]
    Device(BalloonError),
}

/// The outcome of [`Balloon::reclaim`]. Counts are in 4 KiB frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reclaimed {
    /// Frames that became free.
    pub frames: u64,
    /// Frames requested by deflating; some may still be in flight.
    pub asked: u64,
    /// Why there were fewer than wanted, if so.
    pub error: Option<ReclaimError>,
}

impl<P: BalloonPlatform> Balloon<P> {
    /// Reclaims at least `frames` frames for an allocation that would fail, and waits for them. Afterwards, even if
    /// nothing came, the balloon does not grow for a while ([`OomPolicy`](crate::balloon::OomPolicy)), whatever the
    /// host asks for.
    ///
    /// Allocates nothing, needs no interrupt, and waits only once for a device that does not respond. Poll it
    /// afterwards as usual: `poll` then reports what changed meanwhile.
    #[doc(alias = "virtio_balloon_oom_notify")]
    #[doc(alias = "VIRTIO_BALLOON_F_DEFLATE_ON_OOM")]
    pub fn reclaim(&mut self, platform: &mut P, frames: u64) -> Reclaimed {
        if !matches!(self.state, State::Running(_)) {
            return Reclaimed { frames: 0, asked: 0, error: Some(ReclaimError::Stopped) };
        }
        let settled = self.plan.is_settled();
        let (returned, asked) = (self.returned(), self.asked_back());
        self.oom.begin(platform.now());
        // From here nothing more is inflated; only the requests in flight complete.
        self.plan.limit(self.plan.expected());
        let outcome = self.take_back(platform, returned.saturating_add(frames));
        let reclaimed = Reclaimed {
            frames: self.returned() - returned,
            asked: self.asked_back() - asked,
            error: outcome.err().filter(|_| self.returned() - returned < frames),
        };
        self.note_reclaim(&reclaimed, !settled && self.plan.is_settled());
        if reclaimed.error.is_some() {
            // A device that does not respond may be gone, or need a reset.
            self.recheck();
        }
        reclaimed
    }

    /// Tries the sources in turn until `wanted` frames have returned in total.
    fn take_back(&mut self, platform: &mut P, wanted: u64) -> Result<(), ReclaimError> {
        let mut reason = ReclaimError::Empty;
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
                // The balloon shrank as far as allowed, but is not empty.
                Ok(()) if source == Source::Balloon && self.plan.actual() > 0 => reason = ReclaimError::Forbidden,
                Ok(()) => {}
                // The other sources cannot help either.
                Err(error @ (ReclaimError::Stopped | ReclaimError::Device(_))) => return Err(error),
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }

    /// Shrinks the balloon by at least `lacking` frames, as far as allowed.
    fn ask_back(&mut self, platform: &mut P, lacking: u64) -> Result<(), ReclaimError> {
        let least = self.least_size()?;
        let expected = self.plan.actual() + self.plan.inflating();
        if expected == 0 {
            return Err(ReclaimError::Empty);
        }
        if expected <= least {
            return Err(ReclaimError::Forbidden);
        }
        // Deflate requests in flight are part of it.
        let step = self.oom.step(lacking, expected).max(self.plan.deflating());
        self.plan.limit(expected.saturating_sub(step).max(least));
        self.oom.begin(platform.now());
        Ok(())
    }

    /// The size below which the balloon must not shrink.
    fn least_size(&self) -> Result<u64, ReclaimError> {
        let State::Running(running) = &self.state else { return Err(ReclaimError::Stopped) };
        if running.virtio.device.features().contains(DEFLATE_ON_OOM) {
            return Ok(0);
        }
        let target = running.virtio.device.transport().read_config::<u32>(offset_of!(BalloonConfig, num_pages));
        target.map(u64::from).map_err(|error| ReclaimError::Device(error.into()))
    }

    /// Polls the queues until `wanted` frames have returned in total, or no more are in flight.
    fn await_frames(&mut self, platform: &mut P, wanted: u64, source: Source) -> Result<(), ReclaimError> {
        let start = platform.now();
        let (mut answers, mut moved) = (self.answers(source), start);
        let patience = if self.oom.may_wait(source, answers) { PATIENCE } else { 0 };
        loop {
            self.work(platform, source)?;
            if self.returned() >= wanted || !self.is_under_way(source) {
                return Ok(());
            }
            let now = platform.now();
            if now.saturating_sub(start) >= LONGEST {
                return Err(ReclaimError::Late);
            }
            if self.answers(source) != answers {
                (answers, moved) = (self.answers(source), now);
            } else if now.saturating_sub(moved) >= patience {
                self.oom.gave_up(source, answers);
                return Err(ReclaimError::Late);
            }
            platform.relax();
        }
    }

    /// One round that inflates nothing: it completes requests, and deflates if frames come from the balloon.
    fn work(&mut self, platform: &mut P, source: Source) -> Result<(), ReclaimError> {
        let State::Running(_) = self.state else { return Err(ReclaimError::Stopped) };
        let changes = self.round(platform, |round| {
            round.complete_pages()?;
            round.complete_reports()?;
            if source == Source::Balloon {
                round.send_pages()?;
            }
            round.write_actual()?;
            Ok(round.changes)
        });
        self.unreported_changes |= changes.map_err(ReclaimError::Device)?;
        Ok(())
    }

    /// Whether more frames will return without another request.
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

    /// Frames that the device has returned so far.
    fn returned(&self) -> u64 {
        self.counters.returned_frames
    }

    /// Frames in deflate requests so far.
    fn asked_back(&self) -> u64 {
        self.counters.deflate_frames + self.plan.deflating()
    }

    /// Requests that the device has returned for a source so far.
    fn answers(&self, source: Source) -> u64 {
        match source {
            Source::Reports => self.counters.reports,
            Source::Hints => self.counters.relinquished_frames,
            Source::Balloon => self.counters.inflate_requests + self.counters.deflate_requests,
        }
    }

    fn note_reclaim(&mut self, reclaimed: &Reclaimed, settled: bool) {
        if settled {
            self.unreported_changes |= Changes::SETTLED;
        }
        self.repoll = true;
        self.counters.reclaims += 1;
        self.counters.failed_reclaims += u64::from(reclaimed.error.is_some());
        self.counters.reclaimed_frames += reclaimed.frames;
    }
}
