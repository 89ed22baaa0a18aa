//! What becomes of a balloon beside its work: resets, freezing, giving up, removal, the end.
//!
//! All of them come down to two steps. *Stop*: the device is reset, and only after that everything it was given is taken
//! back. *Start*: as the first time, with the same options. In between, a frame is where it can be without the host's word:
//!
//! - On its way to the host: free again. The host may have taken it or not. After the reset it has no claim to it, and
//!   its contents, which were of no use to anybody, may be lost.
//! - On its way back: still ballooned. The host may have it, and is asked for it again.
//! - Ballooned: so it stays. A reset brings nothing back; the driver that comes next adopts it, and tells the host how
//!   much that is.
//!
//! # Which errors are mended
//! `DEVICE_NEEDS_RESET` alone, and that within bounds ([`Options::recoveries`]): such a device has met an error and says
//! so. One that lied about a queue or does not hold its configuration still is not trusted with memory again by itself:
//! it is reset, FAILED is set, and only [`Balloon::reset`], asked for by somebody who knows better, starts it again.
//!
//! # A device that does not stop
//! Frames in flight are withheld ([`super::BalloonStatus::withheld`]): they are not used. Some devices are only slow, so a later
//! [`Balloon::reset`] that finishes gives them back, as if it had been in time.
//!
//! # A device that is gone
//! What was in flight goes back as after a reset, since what is not there uses no memory. The frames that its host has
//! are the guest's RAM, of which the balloon was the way to ask for it back, and that way is gone. Without
//! `MUST_TELL_HOST` the host stands for it that they can be used before it knows (5.5.6.1): they become free. Hosts fault
//! them in like any other memory. With `MUST_TELL_HOST` it need not, so they stay ballooned, until a device comes whose
//! driver adopts them and asks for them.

use super::BalloonError;
use super::driver::{Balloon, State, counted};
use super::hinter::Hinter;
use super::options::Options;
use super::parts::Unstopped;
use super::poison::{self, Poison};
use super::probe::bring_up;
use super::progress::{Changes, Next, Progress};
use super::recovery::{ResetReason, ResetReport};
use super::reporter::Reporter;
use super::running::Running;
use super::statistics::MemoryStatistics;
use super::wire::{MUST_TELL_HOST, PAGE_POISON};
use crate::platform::{PageFrames, Platform};
use crate::virtio::TransportError;

impl<P: Platform + PageFrames + MemoryStatistics> Balloon<P> {
    /// Resets the device, whatever it is doing, and starts it again with the same options. Frames on their way to the host
    /// are free afterwards, those on their way back are still ballooned; the next polls tell the host and go on to the
    /// target. Also starts a device that is frozen, or that the driver gave up on.
    ///
    /// # Errors
    /// When the device does not finish the reset, or does not come up again: the driver has given up on it.
    #[doc(alias = "virtio_reset_device")]
    pub fn reset(&mut self, platform: &mut P) -> Result<(), BalloonError> {
        self.recoveries.forgive();
        self.restart(platform, ResetReason::Asked, |_| {})
    }

    /// Stops the device by a reset and gives back what it needed, until [`Balloon::restore`]. The host keeps what it has;
    /// polls do nothing meanwhile. A device that is frozen stays so.
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

    /// Starts a frozen device again. It takes over what the balloon held, and moves to the present target. A
    /// running device keeps running.
    ///
    /// # Errors
    /// When the device does not come up, or the driver has given up on it.
    #[doc(alias = "virtballoon_restore")]
    #[doc(alias = "virtio_device_restore")]
    pub fn restore(&mut self, platform: &mut P) -> Result<(), BalloonError> {
        match self.state {
            State::Running(_) => Ok(()),
            State::Frozen => self.start(platform),
            State::Failed(error) => Err(error),
        }
    }

    /// Stops the device by a reset, and only then gives back vectors, mappings, queues and the frames in flight.
    /// Returns how many frames stay ballooned.
    ///
    /// Those remain the platform's to account for: the host has them, and a reset does not bring their contents back. A
    /// later driver can take them over by [`Options::adopted`] and deflate them. If the device turns out to be gone they
    /// are free, unless its host insisted on being told (`MUST_TELL_HOST`).
    #[doc(alias = "virtballoon_remove")]
    pub fn shutdown(mut self, platform: &mut P) -> u32 {
        // Nothing is left to be done about a device that would not stop: what it has is withheld, and it is cut off.
        let _ = self.stop(platform, false);
        // Frame numbers have 32 bits, so a balloon has no more frames than that.
        self.plan.actual() as u32
    }

    /// Mends what can be mended, or gives up.
    pub(super) fn recover(&mut self, platform: &mut P, error: BalloonError) -> Result<Progress, BalloonError> {
        let error = match error {
            BalloonError::NeedsReset(_) if self.recoveries.admit(platform.now()) => {
                self.restart(platform, ResetReason::NeedsReset, |_| {})?;
                return Ok(Progress { next: Next::Now, changes: Changes::RESET });
            }
            BalloonError::NeedsReset(device) if self.options.recoveries > 0 => {
                let Options { recoveries: resets, recovery_window, .. } = self.options;
                BalloonError::ResetsInVain { device, resets, window_ms: recovery_window / 1_000_000 }
            }
            error => error,
        };
        // The first error is the one to tell.
        let _ = self.stop(platform, true);
        Err(self.fail(error))
    }

    /// Resets the device and starts it again. In between, when it has stopped, comes `stopped`.
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

    /// Stops the device if it runs, and leaves it frozen. With `failed`, it is told that the driver has given up.
    fn stop(&mut self, platform: &mut P, failed: bool) -> Result<(), BalloonError> {
        self.stop_and(platform, failed, |_| {})
    }

    /// The same; `stopped` comes once the device has let go of everything, and before it is asked whether it is gone.
    fn stop_and(&mut self, platform: &mut P, failed: bool, stopped: impl FnOnce(&mut P)) -> Result<(), BalloonError> {
        self.again = false;
        let State::Running(mut running) = core::mem::replace(&mut self.state, State::Frozen) else {
            return Ok(());
        };
        self.unhand(&mut running, platform);
        self.counters = counted(self.counters, &running.virtio.interrupts);
        let free = running.reporter.as_ref().map_or(0, Reporter::in_flight)
            + running.hinter.as_ref().map_or(0, Hinter::hinted);
        let error = match running.stop(platform, failed) {
            Ok(()) => {
                self.plan.stopped();
                stopped(platform);
                None
            }
            Err(Unstopped { error, parts }) => {
                self.withheld.keep(parts, self.plan.lost() + free);
                Some(error)
            }
        };
        self.reclaim_if_gone(platform);
        error.map_or(Ok(()), |error| Err(self.fail(error.into())))
    }

    /// Puts what is in the driver's hands, and in no queue, where it belongs.
    fn unhand(&mut self, running: &mut Running<P>, platform: &mut P) {
        if let Some(reporter) = &mut running.reporter {
            reporter.give_back(platform);
        }
        if let Some(run) = self.engine.chains.stopped() {
            platform.confirm_ballooned(run);
        }
        self.engine.pace.abandon();
    }

    /// The device has not given the request back by which it was tried whether it reads several descriptors: it is reset, and
    /// gets no such request again.
    ///
    /// # Errors
    /// When it does not come up again.
    pub(super) fn reset_unanswered(&mut self, platform: &mut P) -> Result<Progress, BalloonError> {
        self.engine.chains.unanswered();
        self.restart(platform, ResetReason::Unanswered, |_| {})?;
        Ok(Progress { next: Next::Now, changes: Changes::RESET })
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
                    // There was one.
                    BalloonError::NoFunction(function) => TransportError::Gone(function.into()).into(),
                    error => error,
                }))
            }
        }
    }

    /// What free frames hold, if the device was told.
    pub(super) fn poison(&self) -> Option<Poison<P>> {
        Poison::of(&self.options).filter(|_| self.features().contains(PAGE_POISON))
    }

    fn fail(&mut self, error: BalloonError) -> BalloonError {
        self.again = false;
        self.state = State::Failed(error);
        error
    }

    /// If the device is gone, what its host has is the guest's again, unless the host insisted on being told.
    fn reclaim_if_gone(&mut self, platform: &mut P) {
        let gone = !self.device.is_present(platform);
        if !gone || self.features().contains(MUST_TELL_HOST) {
            return;
        }
        let mut left = self.plan.actual();
        while left > 0 {
            let Some(run) = platform.take_ballooned(u32::try_from(left).unwrap_or(u32::MAX)) else { break };
            left = left.saturating_sub(run.count().into());
            poison::release(self.poison(), platform, run);
        }
        self.plan.emptied();
    }
}
