//! A balloon's life besides polling: resets, freezing, giving up, removal, shutdown.
//!
//! There are two steps. *Stop* resets the device, and only then reclaims everything lent to it. *Start* is the same as
//! the first time, with the same options. In between, each frame returns to the state that needs no host confirmation:
//!
//! - In an inflate request: free. The host may have taken it or not; after the reset it has no claim to it. The
//!   contents may be lost, but they do not matter.
//! - In a deflate request: still ballooned. The host may have it, and is asked again.
//! - Ballooned: it stays so. A reset brings nothing back; the next driver adopts the frames and tells the host how
//!   many.
//!
//! # Recovered errors
//! Only `DEVICE_NEEDS_RESET`, and within bounds ([`Options::recoveries`]): such a device reports its own error. A
//! device that breaks the rules of a queue or returns inconsistent configuration is not trusted with memory again: it
//! is reset, FAILED is set, and only an explicit [`Balloon::reset`] starts it again.
//!
//! # A device that does not stop
//! Frames in flight are withheld ([`BalloonStatus::withheld`](crate::balloon::BalloonStatus::withheld)): nothing uses
//! them. Some devices are only slow, so a later [`Balloon::reset`] that finishes returns them.
//!
//! # A device that is gone
//! Frames in flight return as after a reset, because an absent device uses no memory. The ballooned frames are still
//! the guest's RAM, but there is no balloon to deflate. Without `MUST_TELL_HOST` the guest may use them before it tells
//! the host (5.5.6.1): they become free, and hosts fault them in like any other memory. With `MUST_TELL_HOST` they stay
//! ballooned until the driver of another device adopts them and asks for them.

use super::running::{Running, Unstopped};
use super::start::bring_up;
use super::{Balloon, State, counted};
use crate::balloon::error::BalloonError;
use crate::balloon::options::Options;
use crate::balloon::platform::BalloonPlatform;
use crate::balloon::queues::poison::{self, Poison};
use crate::balloon::status::{Progress, ResetReason, ResetReport};
use crate::balloon::wire::{MUST_TELL_HOST, PAGE_POISON};
use crate::memory::PageFrames;
use crate::virtio::TransportError;

impl<P: BalloonPlatform> Balloon<P> {
    /// Resets the device, whatever it is doing, and starts it again with the same options. Frames in inflate requests
    /// are free afterwards, those in deflate requests still ballooned; the next polls write the size and continue to
    /// the target. Also starts a device that is frozen, or that the driver gave up on.
    ///
    /// # Errors
    /// When the device does not finish the reset or does not start again; the driver has then given up on it.
    #[doc(alias = "virtio_reset_device")]
    pub fn reset(&mut self, platform: &mut P) -> Result<(), BalloonError> {
        self.recoveries.forgive();
        self.restart(platform, ResetReason::Asked, |_| {})
    }

    /// Stops the device by a reset and releases its resources, until [`Balloon::restore`]. The host keeps its frames;
    /// polls do nothing meanwhile. A frozen device stays frozen.
    ///
    /// # Errors
    /// When the device does not finish the reset, or the driver has given up on it.
    #[doc(alias = "virtballoon_freeze")]
    #[doc(alias = "virtio_device_freeze")]
    pub fn freeze(&mut self, platform: &mut P) -> Result<(), BalloonError> {
        match self.state {
            State::Running(_) => self.stop(platform, false),
            State::Frozen => Ok(()),
            State::Failed(error) => Err(error),
        }
    }

    /// Starts a frozen device again. It takes over the ballooned frames, and moves to the current target. A running
    /// device keeps running.
    ///
    /// # Errors
    /// When the device does not start, or the driver has given up on it.
    #[doc(alias = "virtballoon_restore")]
    #[doc(alias = "virtio_device_restore")]
    pub fn restore(&mut self, platform: &mut P) -> Result<(), BalloonError> {
        match self.state {
            State::Running(_) => Ok(()),
            State::Frozen => self.start(platform),
            State::Failed(error) => Err(error),
        }
    }

    /// Stops the device by a reset, and only then releases vectors, mappings, queues and the frames in flight. Returns
    /// how many frames stay ballooned.
    ///
    /// The platform must keep counting those as ballooned: the host has them, and a reset does not return them. A later
    /// driver can take them over by [`Options::adopted`] and deflate them. If the device is gone they become free,
    /// unless `MUST_TELL_HOST` was negotiated.
    #[doc(alias = "virtballoon_remove")]
    pub fn shutdown(mut self, platform: &mut P) -> u32 {
        // If the device did not stop, nothing remains to be done: its memory is withheld, and bus mastering is off.
        let _ = self.stop(platform, false);
        // Frame numbers have 32 bits, so a balloon has no more frames than that.
        self.plan.actual() as u32
    }

    /// Recovers from the error if possible, else gives up.
    pub(super) fn recover(&mut self, platform: &mut P, error: BalloonError) -> Result<Progress, BalloonError> {
        let error = match error {
            BalloonError::NeedsReset(device) if self.options.recoveries > 0 => {
                let Options { recoveries: resets, recovery_window, .. } = self.options;
                match self.recoveries.admit(platform.now()) {
                    Ok(true) => {
                        self.restart(platform, ResetReason::NeedsReset, |_| {})?;
                        return Ok(Progress::RESET);
                    }
                    Ok(false) => BalloonError::ResetsInVain { device, resets, window_ms: recovery_window / 1_000_000 },
                    Err(error) => error.into(),
                }
            }
            error => error,
        };
        // The first error is the one to report.
        let _ = self.stop(platform, true);
        Err(self.fail(error))
    }

    /// Resets the device and starts it again. `stopped` runs in between, once the device has stopped.
    pub(super) fn restart(
        &mut self,
        platform: &mut P,
        reason: ResetReason,
        stopped: impl FnOnce(&mut P),
    ) -> Result<(), BalloonError> {
        let (inflating, deflating) = (self.plan.inflating(), self.plan.deflating());
        let report = ResetReport { reason, queue: None, inflating, deflating };
        self.stop_and(platform, false, stopped)?;
        self.start(platform)?;
        self.counters.resets += 1;
        self.last_reset = Some(report);
        Ok(())
    }

    /// Stops the device if it runs, and leaves it frozen. With `failed`, sets FAILED.
    fn stop(&mut self, platform: &mut P, failed: bool) -> Result<(), BalloonError> {
        self.stop_and(platform, failed, |_| {})
    }

    /// As `stop`; `stopped` runs once the device uses no memory, and before the check whether it is gone.
    fn stop_and(&mut self, platform: &mut P, failed: bool, stopped: impl FnOnce(&mut P)) -> Result<(), BalloonError> {
        self.repoll = false;
        let State::Running(mut running) = core::mem::replace(&mut self.state, State::Frozen) else {
            return Ok(());
        };
        self.release_unqueued(&mut running, platform);
        self.counters = counted(self.counters, &running.virtio.interrupts);
        let free = running.queues.frames_reporting() + running.queues.frames_hinted();
        let error = match running.stop(platform, failed) {
            Ok(()) => {
                self.plan.stopped();
                stopped(platform);
                None
            }
            Err(Unstopped { error, queues }) => {
                self.withheld.keep(queues, self.plan.lost() + free);
                Some(error)
            }
        };
        self.reclaim_if_gone(platform);
        error.map_or(Ok(()), |error| Err(self.fail(error.into())))
    }

    /// Returns the frames that the driver holds outside of any queue.
    fn release_unqueued(&mut self, running: &mut Running<P>, platform: &mut P) {
        if let Some(reporting) = &mut running.queues.reporting {
            reporting.give_back(platform.frames());
        }
        if let Some(run) = self.tuning.chains.stopped() {
            platform.frames().confirm_ballooned(run);
        }
        self.tuning.path.abandon();
    }

    /// Resets a device that has not completed the trial request of several descriptors. It gets no such request again.
    ///
    /// # Errors
    /// When it does not start again.
    pub(super) fn reset_unanswered(&mut self, platform: &mut P) -> Result<Progress, BalloonError> {
        self.tuning.chains.unanswered();
        self.restart(platform, ResetReason::Unanswered, |_| {})?;
        Ok(Progress::RESET)
    }

    fn start(&mut self, platform: &mut P) -> Result<(), BalloonError> {
        let outcome = bring_up(platform, self.device, &self.options, &mut self.withheld);
        self.plan.regained(self.withheld.take_regained());
        match outcome {
            Ok(running) => {
                self.run(running);
                self.restore_affinities(platform);
                Ok(())
            }
            Err(error) => {
                self.reclaim_if_gone(platform);
                Err(self.fail(match error {
                    // There was a function before.
                    BalloonError::NoFunction(function) => TransportError::Gone(function.into()).into(),
                    error => error,
                }))
            }
        }
    }

    /// The fill value of free frames, if the device has one.
    pub(super) fn poison(&self, platform: &mut P) -> Option<Poison> {
        Poison::of(self.options.poison, platform.frames()).filter(|_| self.features.contains(PAGE_POISON))
    }

    fn fail(&mut self, error: BalloonError) -> BalloonError {
        self.repoll = false;
        self.state = State::Failed(error);
        error
    }

    /// If the device is gone, releases the ballooned frames, unless the host must be told first.
    fn reclaim_if_gone(&mut self, platform: &mut P) {
        let gone = !self.device.is_present(platform);
        if !gone || self.features.contains(MUST_TELL_HOST) {
            return;
        }
        let (mut left, poison) = (self.plan.actual(), self.poison(platform));
        let frames = platform.frames();
        while left > 0 {
            let Some(run) = frames.take_ballooned(u32::try_from(left).unwrap_or(u32::MAX)) else { break };
            left = left.saturating_sub(run.count().into());
            poison::release(poison, frames, run);
        }
        self.plan.emptied();
    }
}
