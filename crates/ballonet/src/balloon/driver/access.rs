//! The driver's interface besides polling: requests of the kernel, and status.

use super::{Balloon, State, counted};
use crate::balloon::counters::Counters;
use crate::balloon::error::BalloonError;
use crate::balloon::platform::BalloonPlatform;
use crate::balloon::policy::tuning::SendStrategy;
use crate::balloon::status::BalloonStatus;
use crate::bus::heap;
use crate::platform::Platform;
use crate::virtio::RingFormat;

/// When to poll.
impl<P: Platform> Balloon<P> {
    /// Whether it must be polled: an interrupt came, or there is more to do. If called with interrupts off right before
    /// `sti; hlt`, `false` cannot be stale.
    pub fn is_pending(&self) -> bool {
        self.repoll || self.running().is_some_and(|running| running.virtio.interrupts.events().is_pending())
    }

    /// When to poll next if no interrupt comes first, on the platform's clock; `None` if only an interrupt matters.
    /// Call it right before sleeping: it depends on how much memory is free.
    pub fn deadline(&self, platform: &mut P) -> Option<u64>
    where
        P: BalloonPlatform,
    {
        let running = self.running()?;
        let reports = running.queues.reporting.as_ref().and_then(|reporting| reporting.deadline(platform));
        let size = running.reported_size.deadline();
        [reports, size, self.tuning.chains.deadline(), self.oom.deadline()].into_iter().flatten().min()
    }

    /// Memory has become free. A balloon that stopped short of its target continues; returns whether it must be polled.
    pub fn memory_freed(&mut self) -> bool {
        let resumes = matches!(self.state, State::Running(_)) && self.plan.memory_freed();
        self.repoll |= resumes;
        resumes
    }

    /// Makes the next poll read the device although no interrupt has come: for a kernel that may have lost the device's
    /// interrupts, for instance because it had to mask their line.
    pub fn recheck(&mut self) {
        if let State::Running(running) = &mut self.state {
            running.config_unread = true;
            self.repoll = true;
        }
    }
}

/// Requests besides polling.
impl<P: Platform> Balloon<P> {
    /// Sets the balloon's size to `frames` frames and ignores the host's target from now on: for measurements, and with
    /// 0 before removal. In that case call [`Balloon::shutdown`] once [`BalloonStatus::actual`] is 0 or it has taken
    /// too long.
    pub fn pin(&mut self, frames: u32) {
        self.plan.pin(frames);
        self.repoll |= matches!(self.state, State::Running(_));
    }

    /// Starts to report all free memory to the host at once. Returns whether the device has free page reporting.
    pub fn report_now(&mut self) -> bool {
        let State::Running(running) = &mut self.state else { return false };
        let Some(reporting) = &mut running.queues.reporting else { return false };
        reporting.flush();
        self.repoll = true;
        true
    }

    /// Returns hinted frames to a kernel that runs out of memory, although the host is not done with them: `frames` of
    /// them, or up to 2 MiB more. Returns how many. They must be overwritten first, so it is 0 if the platform cannot
    /// fill frames ([`PageFrames::contents`](crate::memory::PageFrames::contents)). Allocates nothing.
    pub fn relinquish_hinted(&mut self, platform: &mut P, frames: u64) -> u64
    where
        P: BalloonPlatform,
    {
        let State::Running(running) = &mut self.state else { return 0 };
        let hinting = running.queues.hinting.as_mut();
        let relinquished = hinting.map_or(0, |hinting| hinting.relinquish(platform, frames));
        self.counters.relinquished_frames += relinquished;
        self.counters.returned_frames += relinquished;
        relinquished
    }

    /// Moves the interrupt of a queue (`inflate`, `deflate`, `stats`) to another CPU. Queues that share a vector all
    /// move.
    ///
    /// # Errors
    /// When the queue has no vector, the platform cannot move it, the device does not run, or there is no memory to
    /// record the choice for later resets.
    pub fn set_queue_affinity(&mut self, platform: &mut P, queue: &'static str, cpu: u32) -> Result<(), BalloonError> {
        heap::reserve(&mut self.affinities, 1)?;
        match &mut self.state {
            State::Running(running) => running.virtio.interrupts.set_queue_affinity(platform, queue, cpu)?,
            State::Frozen => return Err(BalloonError::Frozen(self.device.address())),
            State::Failed(error) => return Err(*error),
        }
        self.affinities.retain(|(known, _)| *known != queue);
        self.affinities.push((queue, cpu));
        Ok(())
    }

    /// Restores the queues' CPUs after a reset.
    pub(super) fn restore_affinities(&mut self, platform: &mut P) {
        let State::Running(running) = &mut self.state else { return };
        for (queue, cpu) in &self.affinities {
            if let Err(error) = running.virtio.interrupts.set_queue_affinity(platform, queue, *cpu) {
                log::warn!("{}: queue {queue} cannot be moved back to CPU {cpu}: {error}", self.options.name);
            }
        }
    }

    /// The CPU that a queue interrupts; `None` if it has no vector.
    pub fn queue_affinity(&self, platform: &P, queue: &str) -> Option<u32> {
        self.running()?.virtio.interrupts.queue_affinity(platform, queue)
    }

    /// Waits until none of the device's interrupt handlers is running. They may run again right after.
    pub fn synchronize(&self, platform: &mut P) {
        if let State::Running(running) = &self.state {
            running.virtio.interrupts.synchronize(platform);
        }
    }
}

/// Status.
impl<P: Platform> Balloon<P> {
    /// The device's name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Whether the device is still present; an unplugged one is not.
    pub fn is_present(&self, platform: &mut P) -> bool {
        self.device.is_present(platform)
    }

    /// The balloon's state.
    pub fn status(&self) -> BalloonStatus {
        BalloonStatus {
            address: self.device.address(),
            features: self.features,
            transport: self.transport,
            ring: RingFormat::of(self.features),
            interrupts: self.mode,
            target: self.plan.target(),
            actual: self.plan.actual(),
            inflating: self.plan.inflating(),
            deflating: self.plan.deflating(),
            reporting: self.reporting(),
            hinted: self.running().map_or(0, |running| running.queues.frames_hinted()),
            short: self.plan.is_short(),
            frozen: matches!(self.state, State::Frozen),
            withheld: self.withheld.frames(),
            cooling: self.oom.deadline(),
            silent: self.silence.is_reported(),
            strategy: self.strategy(),
            failed: self.error(),
            last_reset: self.last_reset,
            last_hints: self.last_hints,
        }
    }

    /// How frames go to the host, as far as measured.
    fn strategy(&self) -> SendStrategy {
        match self.running() {
            Some(running) => {
                self.tuning.strategy(running.queues.pages.descriptors(), running.queues.reporting.is_some())
            }
            None => self.tuning.strategy(1, false),
        }
    }

    /// Why the driver gave up, if it did.
    fn error(&self) -> Option<BalloonError> {
        match self.state {
            State::Failed(error) => Some(error),
            State::Running(_) | State::Frozen => None,
        }
    }

    /// The counters of the driver's activity.
    pub fn counters(&self) -> Counters {
        self.running().map_or(self.counters, |running| counted(self.counters, &running.virtio.interrupts))
    }

    /// The queues in use: name and number of entries.
    pub fn queues(&self) -> impl Iterator<Item = (&'static str, u16)> {
        self.running().map_or([None; 5], |running| running.queues.sizes()).into_iter().flatten()
    }
}
