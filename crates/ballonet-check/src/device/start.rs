//! From reset to `DRIVER_OK`, in any legal setting.

use core::mem::offset_of;

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::signals::Signals;
use super::{KNOWN, QUEUE_LIMIT, TestDevice};
use crate::check::{Stop, Verdict, ensure, skip_unless};
use crate::ring::{Areas, Placement, RawQueue};
use ballonet::balloon::wire::{FREE_PAGE_HINT, PAGE_REPORTING, STATS_VQ};
use ballonet::platform::Registers;
use ballonet::virtio::spec::{CommonConfig, Features, QUEUE_SIZE_MAX, Status};
use ballonet::virtio::{InterruptMode, QueueIndex};

/// How the device is brought up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StartOptions {
    pub(crate) features: Features,
    pub(crate) mode: InterruptMode,
    /// The most entries in a queue; as many as the device allows otherwise.
    pub(crate) size: u16,
    pub(crate) placement: Placement,
    /// Whether queues have vectors, in the modes with messages.
    pub(crate) mapped: bool,
}

impl TestDevice<'_> {
    /// Every feature that is offered and known.
    pub(crate) fn usable(&self) -> Features {
        self.offered & KNOWN
    }

    /// The minimal feature set: without these a device need not work.
    pub(crate) fn least(&self) -> Features {
        self.offered & (Features::VERSION_1 | Features::ACCESS_PLATFORM)
    }

    /// The ordinary setting: the least features, no interrupts, queues as large as they are.
    pub(crate) fn plain(&self) -> StartOptions {
        StartOptions {
            features: self.least(),
            mode: InterruptMode::Polling,
            size: QUEUE_LIMIT,
            placement: Placement::Plain,
            mapped: true,
        }
    }

    /// Resets the device and negotiates up to `FEATURES_OK`; whether that stuck.
    pub(crate) fn negotiate(&mut self, features: Features) -> Verdict<bool> {
        self.begin()?;
        // Some devices compute their offer when it is read.
        let _ = self.read_offered();
        self.accept(features);
        self.set_status(Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK);
        Ok(self.status()?.contains(Status::FEATURES_OK))
    }

    /// Initializes the device until queues can be read, with the minimal feature set if it accepts that.
    pub(crate) fn negotiate_least(&mut self) -> Verdict {
        self.negotiate(self.least()).map(drop)
    }

    /// Everything up to before `DRIVER_OK`.
    pub(crate) fn prepare(&mut self, setup: &StartOptions) -> Verdict {
        self.try_start()?;
        self.set_up(setup)
    }

    /// The same, for a device that is not known to start.
    pub(crate) fn set_up(&mut self, setup: &StartOptions) -> Verdict {
        self.stop()?;
        self.arena.clear();
        let taken = self.negotiate(setup.features)?;
        skip_unless!(taken, "the device does not take the features {}", setup.features);
        self.features = setup.features;
        self.is_plain = *setup == self.plain();
        let messages = matches!(setup.mode, InterruptMode::PerQueue | InterruptMode::Shared);
        let roles: Vec<u16> = self.wanted_queues();
        let vectors = match setup.mode {
            InterruptMode::PerQueue => roles.len() + 1,
            InterruptMode::Shared => 2,
            InterruptMode::Line | InterruptMode::Polling => 0,
        };
        let isr = Arc::clone(&self.isr);
        self.signals = Signals::set_up(&mut self.pci, &isr, setup.mode, vectors).map_err(Stop::Skipped)?;
        if messages {
            self.set_vector(offset_of!(CommonConfig, config_msix_vector), 0)?;
        }
        for (place, queue) in roles.into_iter().enumerate() {
            self.select(queue);
            if messages && setup.mapped {
                let vector = if setup.mode == InterruptMode::Shared { 1 } else { place as u16 + 1 };
                self.set_vector(offset_of!(CommonConfig, queue_msix_vector), vector)?;
            }
            self.enable(queue, setup)?;
        }
        if self.wants_every_queue() {
            let others: Vec<u16> =
                self.present().filter(|number| self.queues.iter().all(|queue| queue.index != *number)).collect();
            for queue in others {
                self.enable(queue, setup)?;
            }
        }
        Ok(())
    }

    /// The queues that are used with the features accepted.
    fn wanted_queues(&self) -> Vec<u16> {
        let numbers = self.numbers;
        let optional =
            [(numbers.statistics, STATS_VQ), (numbers.hinting, FREE_PAGE_HINT), (numbers.reporting, PAGE_REPORTING)];
        let optional = optional.into_iter().filter(|(_, feature)| self.features.contains(*feature));
        let all = [Some(numbers.inflate), Some(numbers.deflate)].into_iter().chain(optional.map(|(queue, _)| queue));
        all.flatten().map(QueueIndex::number).collect()
    }

    /// Enables a queue.
    pub(crate) fn enable(&mut self, queue: u16, setup: &StartOptions) -> Verdict {
        let packed = self.features.contains(Features::RING_PACKED);
        let now = self.queue_size(queue);
        // The size seen first: one check reports sizes that survive a reset, and the others do not depend on them.
        let most = self.sizes.get(usize::from(queue)).copied().unwrap_or(now);
        ensure!(most != 0 && most <= QUEUE_SIZE_MAX, "queue {queue} has {most} entries");
        let mut size = most.min(setup.size).min(QUEUE_LIMIT);
        if !packed {
            size = 1 << size.ilog2();
        }
        let areas = Areas::place(&mut self.arena, size, packed, setup.placement)?;
        if size != now {
            self.common.write16(offset_of!(CommonConfig, queue_size), size);
        }
        self.write_areas(areas);
        let ring = RawQueue::new(&mut self.arena, (queue, size), areas, self.features, setup.placement);
        self.queues.push(ring);
        self.common.write16(offset_of!(CommonConfig, queue_enable), 1);
        Ok(())
    }

    /// Sets `DRIVER_OK`.
    pub(crate) fn go(&mut self) -> Verdict {
        self.set_status(Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::DRIVER_OK);
        let status = self.status()?;
        self.note_status(status);
        let well = status.contains(Status::DRIVER_OK) && !status.contains(Status::DEVICE_NEEDS_RESET);
        ensure!(well, "the device does not start: the status is {status}, with features {}", self.features);
        Ok(())
    }

    /// Brings the device up.
    pub(crate) fn start(&mut self, setup: &StartOptions) -> Verdict {
        self.prepare(setup)?;
        self.go()
    }
}
