//! From reset to `DRIVER_OK`, in any legal setting.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::signals::Signals;
use super::{BALLOON, KNOWN, QUEUE_LIMIT, TestDevice, Transport, ports};
use crate::ring::{Areas, Placement, RawQueue};
use crate::verdict::{Stop, Verdict, ensure, skip_unless};
use ballonet::balloon::wire::{FREE_PAGE_HINT, PAGE_REPORTING, STATS_VQ};
use ballonet::virtio::spec::{Features, QUEUE_SIZE_MAX, Status};
use ballonet::virtio::{InterruptMode, QueueIndex};

/// The most queues of a device of unknown type that are set up.
const OTHERS_MAX: usize = 8;

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
        self.offered & (KNOWN | Features::from_bits_retain(self.kind.features))
    }

    /// The minimal feature set: without these a device need not work, or accepts requests of one shape only.
    pub(crate) fn least(&self) -> Features {
        let least =
            if self.is_legacy() { Features::ANY_LAYOUT } else { Features::VERSION_1 | Features::ACCESS_PLATFORM };
        self.offered & least
    }

    /// The ordinary setting: minimal features, no interrupts, queues of their full size.
    pub(crate) fn plain(&self) -> StartOptions {
        StartOptions {
            features: self.least(),
            mode: InterruptMode::Polling,
            size: QUEUE_LIMIT,
            placement: Placement::Plain,
            mapped: true,
        }
    }

    /// Resets the device and negotiates up to `FEATURES_OK`; returns whether that stuck. A legacy device accepts
    /// anything.
    pub(crate) fn negotiate(&mut self, features: Features) -> Verdict<bool> {
        self.begin()?;
        // Some devices compute their offer when it is read.
        let _ = self.read_offered();
        self.accept(features);
        if self.is_legacy() {
            // The device does not say whether it accepts them.
            return self.status().map(|_| true);
        }
        self.set_status(self.settled());
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

    /// The same, with `skipped` bytes of memory unused before the queues.
    pub(crate) fn prepare_at(&mut self, setup: &StartOptions, skipped: usize) -> Verdict {
        self.try_start()?;
        self.set_up_at(setup, skipped)
    }

    /// The same, for a device that is not known to start.
    pub(crate) fn set_up(&mut self, setup: &StartOptions) -> Verdict {
        self.set_up_at(setup, 0)
    }

    fn set_up_at(&mut self, setup: &StartOptions, skipped: usize) -> Verdict {
        self.stop()?;
        self.arena.clear();
        self.arena.place(skipped, 1, 0)?;
        let taken = self.negotiate(setup.features)?;
        skip_unless!(taken, "the device does not accept the features {}", setup.features);
        self.features = setup.features;
        self.is_plain = *setup == self.plain();
        let queues = self.wanted_queues();
        let vectors = match setup.mode {
            InterruptMode::PerQueue => queues.len() + 1,
            InterruptMode::Shared => 2,
            InterruptMode::Line | InterruptMode::Polling => 0,
        };
        let messages = vectors > 0;
        self.set_up_interrupts(setup.mode, vectors)?;
        if messages {
            self.set_vector(None, 0)?;
        }
        for (place, queue) in (1..).zip(queues) {
            if messages && setup.mapped {
                self.set_vector(Some(queue), if setup.mode == InterruptMode::Shared { 1 } else { place })?;
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

    /// Sets up the platform's side of interrupts, and with messages as many vectors.
    pub(crate) fn set_up_interrupts(&mut self, mode: InterruptMode, vectors: usize) -> Verdict {
        let (isr, line) = (Arc::clone(&self.isr), self.transport.line(self.pci.as_ref()));
        let signals = Signals::set_up(self.platform, self.pci.as_ref(), line, &isr, (mode, vectors));
        self.signals = signals.map_err(|reason| Stop::skipped(format_args!("{reason}")))?;
        // With MSI-X the configuration of a legacy device begins after the vectors.
        let moved = vectors > 0 && matches!(self.transport, Transport::Legacy(_));
        self.config.start = if moved { ports::VECTORS } else { 0 };
        Ok(())
    }

    /// The queues that are used with the features accepted.
    pub(crate) fn wanted_queues(&self) -> Vec<u16> {
        let numbers = self.numbers;
        match self.kind.number {
            BALLOON => {}
            // Nothing is known of them, so all are set up.
            0 => return self.present().take(OTHERS_MAX).collect(),
            _ => {
                let accepted = |feature: u64| feature == 0 || self.features.bits() & feature != 0;
                let others = self.kind.other_queues.iter().filter(|(feature, _)| accepted(*feature));
                let all = core::iter::once(self.kind.request_queue).chain(others.map(|(_, queue)| *queue));
                return all
                    .filter(|queue| self.sizes.get(usize::from(*queue)).is_some_and(|size| *size != 0))
                    .collect();
            }
        }
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
        // The size read first: one check reports sizes that survive a reset, and the others must not depend on that.
        let most = self.sizes.get(usize::from(queue)).copied().unwrap_or(now);
        ensure!(most != 0 && most <= QUEUE_SIZE_MAX, "queue {queue} has {most} entries");
        let mut size = most.min(setup.size).min(QUEUE_LIMIT);
        if !packed {
            size = 1 << size.ilog2();
        }
        let fixed = matches!(self.transport, Transport::Legacy(_));
        skip_unless!(!fixed || size == most, "queue {queue} has {most} entries, which is fixed on legacy PCI");
        skip_unless!(
            !self.is_legacy() || setup.placement != Placement::Odd,
            "a legacy queue lies in one block, in one order"
        );
        let placement = if self.is_legacy() { Placement::Block } else { setup.placement };
        let areas = Areas::place(&mut self.arena, size, packed, placement)?;
        self.set_size(size, now);
        let ring = RawQueue::new(&mut self.arena, (queue, size), areas, self.features, setup.placement);
        self.write_areas(areas);
        self.queues.push(ring);
        self.switch_on();
        Ok(())
    }

    /// Sets `DRIVER_OK`.
    pub(crate) fn go(&mut self) -> Verdict {
        self.set_status(self.settled() | Status::DRIVER_OK);
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
