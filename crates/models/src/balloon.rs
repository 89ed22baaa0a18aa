//! A virtio-pci balloon, or an entropy device: config space, BARs and the device behind them. Driven by register accesses and by time.

use super::behaviour::{Behaviour, feature};
use super::bug::Bug;
use super::bus::Bus;
use super::common_config::CommonConfig;
use super::config_space::{ConfigModel, Selected};
use super::entropy::next_random;
use super::hints::Hints;
use super::interrupts::Interrupts;
use super::layout::Structure;
use super::legacy;
use super::pages::pfns;
use super::queue::{NO_VECTOR, Purpose, QueueModel, Request};
use super::quirks::ActualWrites;
use super::ram::HostSide;
use super::requests::number_queues;

/// A statistic as it arrived.
pub type Statistic = (u16, u64);

/// The device.
#[derive(Debug)]
pub struct Balloon {
    pub behaviour: Behaviour,
    pub config: ConfigModel,
    pub common: CommonConfig,
    pub(super) interrupts: Interrupts,
    num_pages: u32,
    actual: u32,
    poison: Option<u32>,
    /// What the host wants to know of free memory, and what it was told.
    pub hints: Hints,
    accesses: u64,
    reads: u64,
    pub(super) completions: u64,
    /// Completions before the last reset.
    pub(super) completions_before: u64,
    pub(super) last_used: Option<u32>,
    pub(super) next_spurious: u64,
    pub(super) next_move: u64,
    /// The statistics buffer in hand, and those read from each that came.
    pub(super) statistics: Option<Request>,
    pub reports: Vec<Vec<Statistic>>,
    /// PFNs in the largest request that came.
    pub largest_request: usize,
    /// Requests that were taken off a queue at a time.
    pub largest_batch: usize,
    /// Until when it is busy with what it has accepted.
    pub(super) busy: u64,
    /// Discards that the host has made of inflated frames.
    pub discards: u64,
    /// Frames reported as free so far.
    pub reported: u64,
    /// Requests that came in a table.
    pub tables: u64,
    /// Requests that could not be served as they came (too long).
    pub skipped: u64,
    pub needless_kicks: u64,
}

impl Balloon {
    /// A device with its BARs assigned from these addresses up.
    pub fn new(behaviour: Behaviour, memory: u32, ports: u32) -> Self {
        let queues = number_queues(&behaviour);
        Self {
            config: ConfigModel::new(&behaviour, memory, ports),
            common: CommonConfig::new(&behaviour, queues),
            interrupts: Interrupts::new(&behaviour),
            num_pages: 0,
            actual: 0,
            poison: None,
            hints: Hints::default(),
            accesses: 0,
            reads: 0,
            completions: 0,
            completions_before: 0,
            last_used: None,
            next_spurious: behaviour.spurious.unwrap_or(0),
            next_move: 0,
            statistics: None,
            reports: Vec::new(),
            largest_request: 0,
            largest_batch: 0,
            busy: 0,
            discards: 0,
            reported: 0,
            tables: 0,
            skipped: 0,
            needless_kicks: 0,
            behaviour,
        }
    }

    // What the host does.

    /// The host wants a balloon of `pages`.
    pub fn set_target(&mut self, pages: u32, bus: &mut Bus) {
        self.num_pages = pages;
        self.common.generation = self.common.generation.wrapping_add(1);
        self.raise_config(bus);
    }

    /// A host that goes on changing its mind has its next word: another target, or the same once more.
    pub(super) fn move_target(&mut self, bus: &mut Bus) {
        let Some((longest, random)) = &mut self.behaviour.moves else { return };
        if bus.now < self.next_move {
            return;
        }
        let chosen = next_random(random);
        self.next_move = bus.now + 1 + (chosen >> 32) % *longest;
        self.set_target((chosen % 4) as u32 * 1000, bus);
    }

    /// The host sets a target, and the interrupt that would tell of it is lost.
    pub fn set_target_silently(&mut self, pages: u32) {
        self.num_pages = pages;
        self.common.generation = self.common.generation.wrapping_add(1);
    }

    /// The host gives a command on hints.
    pub fn command_hints(&mut self, command: u32, bus: &mut Bus) {
        self.hints.give(command);
        self.common.generation = self.common.generation.wrapping_add(1);
        self.raise_config(bus);
    }

    pub fn target(&self) -> u32 {
        self.num_pages
    }

    /// The size that the driver reports.
    pub fn actual(&self) -> u32 {
        self.actual
    }

    /// The host asks for fresh statistics: gives the buffer back. `false` if it has none.
    pub fn request_statistics(&mut self, bus: &mut Bus) -> bool {
        let Some(request) = self.statistics.take() else { return false };
        let index = self.queue_of(Purpose::Statistics).expect("a request came from it");
        self.complete(index, &[request], bus);
        true
    }

    /// Every completion from now on waits for this; `None` takes the stall away.
    pub fn stall_from_now(&mut self, stalled: bool) {
        self.behaviour.stalls_after = stalled.then_some(self.completions);
    }

    pub fn raise_needs_reset(&mut self, bus: &mut Bus) {
        self.common.need_reset();
        self.raise_config(bus);
    }

    /// Takes the device off the bus: all ones from now on.
    pub fn unplug(&mut self) {
        self.behaviour.removed_after = Some(0);
    }

    /// Accesses to its registers, those in configuration space among them.
    pub fn accesses(&self) -> u64 {
        self.accesses
    }

    /// Takes the device off the bus after this many more register accesses.
    pub fn remove_after(&mut self, accesses: u64) {
        self.behaviour.removed_after = Some(self.accesses + accesses);
    }

    /// Requests that were completed, or lied about.
    pub fn completions_so_far(&self) -> u64 {
        self.completions
    }

    /// A function that nobody drives and that pulls its line all the same.
    pub fn pull_line_for_ever(&mut self) {
        self.interrupts.pull();
    }

    /// At rest no buffer may wait for a kick that was not made.
    pub fn check_idle(&mut self, bus: &mut Bus) {
        if self.gone() || !self.common.live() {
            return;
        }
        for queue in self.common.queues.iter().filter(|q| q.kicked.is_none()) {
            let waiting = queue.waiting(bus);
            if waiting == 0 {
                continue;
            }
            bus.misstep("SPLIT-ASUP-04", format!("queue {}: {waiting} buffers wait for a kick", queue.index));
        }
        if !self.stalled() {
            self.hints.check_idle(bus);
        }
    }

    pub fn gone(&self) -> bool {
        self.behaviour.removed_after.is_some_and(|after| self.accesses >= after)
    }

    // What the driver can see.

    pub fn config_read(&mut self, offset: u16, width: u8, bus: &mut Bus) -> u32 {
        if self.gone() {
            bus.ram.forget_host();
            return u32::MAX >> (32 - 8 * u32::from(width));
        }
        match self.config.selected(offset) {
            Some(_) if self.behaviour.has(Bug::AccessReads0) => 0,
            Some(selected) if self.may_select(&selected, offset, width, bus) => {
                self.bar_read(selected.bar, selected.offset, width, bus)
            }
            _ => {
                self.accesses += 1;
                // Interrupt Status is not kept in the register.
                let interrupt = offset == 6 && self.interrupts.asserted(&self.config);
                self.config.read(offset, width) | u32::from(interrupt) << 3
            }
        }
    }

    /// Whether an access to the data of the window in configuration space is one to a virtio structure (4.1.4.9.2).
    fn may_select(&self, selected: &Selected, offset: u16, width: u8, bus: &mut Bus) -> bool {
        let Selected { bar, offset: at, length } = *selected;
        let aligned = [1, 2, 4].contains(&length) && at.is_multiple_of(length.into());
        if !aligned {
            bus.misstep("PCI-CFGACC-01", format!("{length} bytes at {at:#x} of BAR{bar} selected"));
        }
        let ends = [at, at + u64::from(length.max(1)) - 1].map(|at| self.behaviour.layout.find(bar, at));
        let inside = ends.iter().all(|end| match end {
            None | Some((Structure::MsixTable | Structure::PendingBits | Structure::Legacy, _)) => false,
            Some((structure, _)) => ends[0].is_some_and(|(first, _)| first == *structure),
        });
        let whole = offset & 3 == 0 && u32::from(width) == length;
        if !inside || !whole {
            let what = format!("{width} bytes of data accessed with {length} bytes at {at:#x} of BAR{bar} selected");
            bus.misstep("PCI-CFGACC-02", what);
        }
        aligned && inside && whole
    }

    pub fn config_write(&mut self, offset: u16, width: u8, value: u32, bus: &mut Bus) {
        if let Some(selected) = self.config.selected(offset).filter(|_| !self.gone()) {
            if self.behaviour.has(Bug::AccessDropsWrites) {
                self.accesses += 1;
            } else if self.may_select(&selected, offset, width, bus) {
                self.bar_write(selected.bar, selected.offset, width, value, bus);
            }
            return;
        }
        if !self.gone() {
            self.accesses += 1;
            self.config.write(offset, width, value, bus);
            self.interrupts.send_pending(&self.config, bus);
        }
    }

    pub fn bar_read(&mut self, bar: u8, offset: u64, width: u8, bus: &mut Bus) -> u32 {
        if self.gone() {
            bus.ram.forget_host();
            return u32::MAX >> (32 - 8 * u32::from(width));
        }
        self.accesses += 1;
        let value = self.answer(bar, offset, width, bus);
        let twists = self.behaviour.twists.iter().filter(|(read, _)| *read == self.reads);
        let twisted = twists.fold(value, |value, (_, bits)| value ^ bits);
        self.reads += 1;
        twisted & u32::MAX >> (32 - 8 * u32::from(width))
    }

    /// What a register says if the device does not lie.
    fn answer(&mut self, bar: u8, offset: u64, width: u8, bus: &mut Bus) -> u32 {
        match self.behaviour.layout.find(bar, offset) {
            Some((Structure::Common, at)) => self.read_common(at, width, bus),
            Some((Structure::Isr, 0)) if width == 1 => self.interrupts.read_isr(&self.config, bus),
            Some((Structure::Device, at)) => self.read_device_config(at, width, bus),
            Some((Structure::MsixTable, at)) => self.interrupts.read_table(at, width, bus),
            Some((Structure::PendingBits, at)) => self.interrupts.read_pending(at, width),
            Some((Structure::Legacy, at)) => self.read_ports(at, width, bus),
            _ => {
                bus.misstep("PCI-ACC", format!("read of {width} bytes at BAR{bar} {offset:#x}"));
                u32::MAX
            }
        }
    }

    pub fn bar_write(&mut self, bar: u8, offset: u64, width: u8, value: u32, bus: &mut Bus) {
        if self.gone() {
            return;
        }
        self.accesses += 1;
        match self.behaviour.layout.find(bar, offset) {
            Some((Structure::Common, at)) => {
                self.write_state(bus, |common, behaviour, bus| common.write(at, width, value, behaviour, bus));
            }
            Some((Structure::Legacy, at)) => self.write_ports(at, width, value, bus),
            Some((Structure::Notify, at)) => self.kick(at, width, value, bus),
            Some((Structure::Device, at)) => self.write_device_config(at, width, value, bus),
            Some((Structure::MsixTable, at)) => {
                self.interrupts.write_table(at, width, value, bus);
                self.interrupts.send_pending(&self.config, bus);
            }
            _ => bus.misstep("PCI-ACC", format!("write of {width} bytes at BAR{bar} {offset:#x}")),
        }
    }

    fn read_common(&mut self, offset: u64, width: u8, bus: &mut Bus) -> u32 {
        if matches!(offset, 0x1c | 0x3a) {
            self.finish_queue_reset(bus);
        }
        self.read_state(bus, |common, behaviour, bus| common.read(offset, width, behaviour, bus))
    }

    /// A reset of the selected queue is done when the driver can see that it is.
    fn finish_queue_reset(&mut self, bus: &mut Bus) {
        let selected = usize::from(self.common.queue_select);
        let Some(queue) = self.common.queues.get_mut(selected) else { return };
        let purpose = queue.purpose;
        let Some(dropped) = queue.finish_reset(bus.now) else { return };
        match purpose {
            Purpose::Statistics => self.statistics = None,
            _ => dropped.iter().flat_map(pfns).for_each(|pfn| bus.ram.set_host_side(pfn, HostSide::Unknown)),
        }
    }

    /// The legacy interface: its header, then device configuration, which begins later while MSI-X is on.
    fn read_ports(&mut self, offset: u64, width: u8, bus: &mut Bus) -> u32 {
        let header = legacy::header_length(self.config.msix_enabled());
        match offset.checked_sub(header) {
            Some(at) => self.read_device_config(at, width, bus),
            None if (offset, width) == (legacy::ISR, 1) => self.interrupts.read_isr(&self.config, bus),
            None => self.read_state(bus, |common, behaviour, bus| common.read_legacy(offset, width, behaviour, bus)),
        }
    }

    fn write_ports(&mut self, offset: u64, width: u8, value: u32, bus: &mut Bus) {
        let header = legacy::header_length(self.config.msix_enabled());
        match offset.checked_sub(header) {
            Some(at) => self.write_device_config(at, width, value, bus),
            None if offset == legacy::NOTIFY => self.kick_queue(value as u16, width, value, bus),
            None => {
                self.write_state(bus, |common, behaviour, bus| {
                    common.write_legacy(offset, width, value, behaviour, bus);
                });
            }
        }
    }

    /// Lets the driver write a register on which the device's state depends.
    fn write_state(&mut self, bus: &mut Bus, write: impl FnOnce(&mut CommonConfig, &Behaviour, &mut Bus)) {
        let live = self.common.live();
        write(&mut self.common, &self.behaviour, bus);
        if !live && self.common.live() {
            self.check_live(bus);
            if self.common.needs_reset() {
                self.raise_config(bus);
            }
            self.stumble(bus);
            self.misbehave_at_start(bus);
        }
    }

    /// A reset is done when the driver can see that it is; until then the device goes on as it was.
    fn read_state(&mut self, bus: &mut Bus, read: impl FnOnce(&mut CommonConfig, &Behaviour, &mut Bus) -> u32) -> u32 {
        let resetting = self.common.resetting();
        let vector = self.common.queues[0].vector;
        let value = read(&mut self.common, &self.behaviour, bus);
        if resetting && !self.common.resetting() {
            self.interrupts.clear();
            (self.statistics, self.last_used, self.poison, bus.ram.poison) = (None, None, None, None);
            self.hints.reset(bus);
            self.completions_before = self.completions;
            bus.ram.reset_host();
            bus.flush_messages();
            if self.behaviour.has(Bug::InterruptsAfterReset) {
                self.interrupts.raise_queue(vector, 50_000, &self.config, bus);
            }
        }
        value
    }

    fn check_live(&mut self, bus: &mut Bus) {
        if !self.config.bus_master() {
            bus.misstep("PCI-MASTER", "DRIVER_OK with bus mastering off: the device cannot reach its rings");
        }
        if self.common.accepted() & feature::PAGE_POISON != 0 {
            if self.poison.is_none() {
                bus.misstep("BAL-POISON-02", "DRIVER_OK before poison_val is written");
            }
            bus.ram.poison = Some(self.poison.unwrap_or(0));
        }
        let vectors = self.common.queues.iter().map(|q| q.vector).chain([self.common.config_vector]);
        self.interrupts.check_live(vectors.filter(|v| *v != NO_VECTOR).max(), &self.config, bus);
    }

    // Device config.

    fn config_length(&self) -> u64 {
        match self.behaviour.features {
            _ if self.behaviour.entropy.is_some() => 0,
            f if f & feature::PAGE_POISON != 0 => 16,
            f if f & feature::FREE_PAGE_HINT != 0 => 12,
            _ => 8,
        }
    }

    fn read_device_config(&mut self, offset: u64, width: u8, bus: &mut Bus) -> u32 {
        if offset + u64::from(width) > self.config_length() {
            bus.misstep("CFG-04", format!("read of {width} bytes at {offset:#x} of device config"));
            return u32::MAX;
        }
        if width != 4 {
            bus.misstep("CFG-04", format!("read of {width} bytes at {offset:#x} of device config"));
        }
        if offset == 0 && !std::mem::take(&mut self.common.generation_seen) && !self.common.legacy {
            bus.misstep("CFG-03", "num_pages read without config_generation before it");
        }
        let field = match offset & !3 {
            0 => self.num_pages,
            4 => self.actual,
            8 => self.hints.read(self.behaviour.quirks.stop_while_hinting, bus),
            12 => self.poison.unwrap_or(0),
            _ => 0,
        };
        let skip = if self.behaviour.has(Bug::ConfigurationInWordsOnly) { 0 } else { 8 * (offset & 3) };
        let value = field >> skip & (u32::MAX >> (32 - 8 * u32::from(width)));
        if self.behaviour.churn > 0 {
            // The configuration changes right behind the driver's back: what it has just read is old.
            self.behaviour.churn -= 1;
            self.num_pages = self.num_pages.wrapping_add(1);
            self.common.generation = self.common.generation.wrapping_add(1);
        }
        value
    }

    fn write_device_config(&mut self, offset: u64, width: u8, value: u32, bus: &mut Bus) {
        if !self.common.settled() {
            return bus.misstep("INIT-06", format!("device config written at {offset:#x} during negotiation"));
        }
        if offset == 12 && width == 4 && self.behaviour.features & feature::PAGE_POISON != 0 {
            if self.common.live() {
                bus.misstep("BAL-POISON-03", format!("poison_val becomes {value:#x} while the device runs"));
            }
            self.poison = Some(if self.behaviour.has(Bug::PoisonIsDropped) { 0 } else { value });
            return;
        }
        let value = if self.behaviour.has(Bug::ActualIsCut) { value & 0xffff } else { value };
        if self.behaviour.has(Bug::ActualIsTarget) {
            self.num_pages = value;
        }
        let whole = (offset, width) == (4, 4);
        if !whole {
            bus.misstep("BAL-ACTUAL", format!("write of {width} bytes at {offset:#x} of device config"));
        }
        match self.behaviour.quirks.actual {
            ActualWrites::Any if (4..8).contains(&offset) => {
                let (shift, mask) = (8 * (offset - 4), u64::from(u32::MAX >> (32 - 8 * u32::from(width))));
                let kept = u64::from(self.actual) & !(mask << shift);
                self.actual = (kept | (u64::from(value) & mask) << shift) as u32;
            }
            ActualWrites::Whole if whole => self.actual = value,
            _ => {}
        }
    }

    // Queues.

    pub fn queue_of(&self, purpose: Purpose) -> Option<u16> {
        self.common.queues.iter().find(|q| q.purpose == purpose).map(|q| q.index)
    }

    pub fn queue(&self, index: u16) -> &QueueModel {
        &self.common.queues[usize::from(index)]
    }

    /// Requests in the device's hands and PFN requests published and not taken.
    pub fn outstanding(&self, bus: &Bus) -> usize {
        let pfn_queues = self.common.queues.iter().filter(|q| matches!(q.purpose, Purpose::Inflate | Purpose::Deflate));
        pfn_queues.map(|q| q.in_flight.len() + usize::from(q.waiting(bus))).sum()
    }

    // Interrupts.

    pub(super) fn raise_spurious(&mut self, bus: &mut Bus) {
        if self.common.live() {
            self.interrupts.raise_all(&self.config, bus);
        }
    }

    pub(super) fn raise_config(&mut self, bus: &mut Bus) {
        if self.common.live() && !self.gone() {
            let delay = self.interrupt_delay();
            if self.behaviour.quirks.changes_set_both_bits {
                self.interrupts.set_isr_early();
            }
            self.interrupts.raise_config(self.common.config_vector, delay, &self.config, bus);
        }
    }

    pub(super) fn raise_queue(&mut self, index: u16, bus: &mut Bus) {
        let delay = self.interrupt_delay();
        self.interrupts.raise_queue(self.queue(index).vector, delay, &self.config, bus);
    }

    fn interrupt_delay(&mut self) -> u64 {
        self.behaviour.schedule.below(self.behaviour.interrupt_delay + 1)
    }

    /// Whether the function pulls its interrupt line.
    pub fn pulls_line(&self) -> bool {
        self.behaviour.pin && !self.gone() && self.interrupts.pulls_line(&self.config)
    }

    /// Whether memory is part of a ring or request that the device may still use.
    pub fn uses(&self, start: u64, size: u64) -> bool {
        let statistics = self.statistics.iter().flat_map(|r| &r.chain);
        let in_statistics = statistics.into_iter().any(|(_, d)| start <= d.address && d.address < start + size);
        !self.gone() && (in_statistics || self.common.queues.iter().any(|q| q.uses(start, size)))
    }
}
