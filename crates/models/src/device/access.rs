//! The driver's view of a device: configuration space and BARs.

use super::Balloon;
use super::common::{CommonConfig, legacy};
use super::config_space::Selected;
use super::pages::pfns;
use crate::behaviour::{ActualWrites, Behaviour, Harm, RegisterLie, Structure};
use crate::bug::Bug;
use crate::feature;
use crate::queue::{NO_VECTOR, Purpose, QueueModel};
use crate::world::{Bus, HostSide};

impl Balloon {
    pub(crate) fn config_read(&mut self, offset: u16, width: u8, bus: &mut Bus) -> u32 {
        if self.behaviour.mmio.is_some() {
            // It is not on a PCI bus.
            return u32::MAX >> (32 - 8 * u32::from(width));
        }
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
                let value = self.config.read(offset, width) | u32::from(interrupt) << 3;
                let twisted = twist(value, &self.behaviour.config_twists, self.config_reads);
                self.config_reads += 1;
                twisted & u32::MAX >> (32 - 8 * u32::from(width))
            }
        }
    }

    /// Whether an access through the window in configuration space hits a virtio structure (4.1.4.9.2).
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

    pub(crate) fn config_write(&mut self, offset: u16, width: u8, value: u32, bus: &mut Bus) {
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
        let truth = self.answer(bar, offset, width, bus);
        let value = self.register_lie(bar, offset).unwrap_or(truth);
        let twisted = twist(value, &self.behaviour.twists, self.reads);
        self.reads += 1;
        twisted & u32::MAX >> (32 - 8 * u32::from(width))
    }

    /// The wrong answer to a read of this register, if one is due.
    fn register_lie(&mut self, bar: u8, offset: u64) -> Option<u32> {
        // MMIO registers are not in a BAR.
        let (structure, at) = self.behaviour.layout.find(bar, offset).filter(|_| self.behaviour.mmio.is_none())?;
        let here = |lie: &&mut RegisterLie| lie.structure == structure && lie.offset == at;
        self.behaviour.register_lies.iter_mut().filter(here).find_map(RegisterLie::answer)
    }

    /// The true value of a register.
    fn answer(&mut self, bar: u8, offset: u64, width: u8, bus: &mut Bus) -> u32 {
        if self.behaviour.mmio.is_some() {
            return self.read_mmio(offset, width, bus);
        }
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
        if self.gone() || self.spins() {
            return;
        }
        self.accesses += 1;
        if self.behaviour.mmio.is_some() {
            return self.write_mmio(offset, width, value, bus);
        }
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

    /// The reset of the selected queue completes when the driver can see it.
    pub(super) fn finish_queue_reset(&mut self, bus: &mut Bus) {
        let selected = usize::from(self.common.queue_select);
        let Some(queue) = self.common.queues.get_mut(selected) else { return };
        let purpose = queue.purpose;
        let Some(dropped) = queue.finish_reset(bus.now) else { return };
        match purpose {
            Purpose::Statistics => self.statistics = None,
            Purpose::Held => self.held.retain(|(index, _)| usize::from(*index) != selected),
            Purpose::Served | Purpose::Control => {}
            _ => dropped.iter().flat_map(pfns).for_each(|pfn| bus.ram.set_host_side(pfn, HostSide::Unknown)),
        }
    }

    /// The legacy interface: its header, then device configuration, which begins later while MSI-X is on.
    fn read_ports(&mut self, offset: u64, width: u8, bus: &mut Bus) -> u32 {
        let moves = !self.behaviour.has(Bug::LegacyConfigurationStays);
        let header = legacy::header_length(self.config.msix_enabled() && moves);
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
    pub(super) fn write_state(&mut self, bus: &mut Bus, write: impl FnOnce(&mut CommonConfig, &Behaviour, &mut Bus)) {
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

    /// A reset completes when the driver can see it; until then the device continues unchanged.
    pub(super) fn read_state(
        &mut self,
        bus: &mut Bus,
        read: impl FnOnce(&mut CommonConfig, &Behaviour, &mut Bus) -> u32,
    ) -> u32 {
        let resetting = self.common.resetting();
        let vector = self.common.queues[0].vector;
        let value = read(&mut self.common, &self.behaviour, bus);
        if resetting && !self.common.resetting() {
            self.harmed = self.harmed.filter(|harm| *harm != Harm::Stalls);
            if !self.behaviour.has(Bug::ResetKeepsInterruptStatus) {
                self.interrupts.clear();
            }
            (self.statistics, self.last_used, self.poison, bus.ram.poison) = (None, None, None, None);
            self.hints.reset(bus);
            self.held.clear();
            self.behaviour.forget();
            self.completions_before = self.completions;
            bus.ram.reset_host();
            bus.flush_messages();
            if self.behaviour.has(Bug::InterruptsAfterReset) {
                self.interrupts.raise_queue(vector, 50_000, &self.config, bus);
            }
        }
        value
    }

    /// Whether the device can reach memory: on PCI if bus mastering is on, on MMIO always.
    pub(super) fn masters_bus(&self) -> bool {
        self.behaviour.mmio.is_some() || self.config.bus_master()
    }

    fn check_live(&mut self, bus: &mut Bus) {
        if !self.masters_bus() {
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

    fn other_config(&self) -> Vec<u8> {
        self.behaviour.other.as_ref().map_or_else(Vec::new, |other| other.config(self.behaviour.bug))
    }

    fn config_length(&self) -> u64 {
        let quirk = self.behaviour.quirks.config_length;
        match self.behaviour.features {
            _ if self.behaviour.other.is_some() => self.other_config().len() as u64,
            _ if self.behaviour.entropy.is_some() => 0,
            _ if quirk.is_some() => quirk.unwrap_or(0),
            f if f & feature::PAGE_POISON != 0 => 16,
            f if f & feature::FREE_PAGE_HINT != 0 => 12,
            _ => 8,
        }
    }

    pub(super) fn read_device_config(&mut self, offset: u64, width: u8, bus: &mut Bus) -> u32 {
        if offset + u64::from(width) > self.config_length() {
            bus.misstep("CFG-04", format!("read of {width} bytes at {offset:#x} of device config"));
            return u32::MAX;
        }
        if self.behaviour.other.is_some() {
            let config = self.other_config();
            let bytes = config[offset as usize..].iter().take(width.into()).rev();
            return bytes.fold(0, |value, byte| value << 8 | u32::from(*byte));
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
            // The configuration changes right after the read: the value just read is stale.
            self.behaviour.churn -= 1;
            self.num_pages = self.num_pages.wrapping_add(1);
            self.common.generation = self.common.generation.wrapping_add(1);
        }
        value
    }

    pub(super) fn write_device_config(&mut self, offset: u64, width: u8, value: u32, bus: &mut Bus) {
        if self.behaviour.other.is_some() {
            // A console's emergency write, which may come at any time.
            return;
        }
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

    /// Requests that the device holds, and published PFN requests that it has not taken.
    pub fn outstanding(&self, bus: &Bus) -> usize {
        let pfn_queues = self.common.queues.iter().filter(|q| matches!(q.purpose, Purpose::Inflate | Purpose::Deflate));
        pfn_queues.map(|q| q.in_flight.len() + usize::from(q.waiting(bus))).sum()
    }

    // Interrupts.

    pub(crate) fn raise_spurious(&mut self, bus: &mut Bus) {
        if self.common.live() {
            self.interrupts.raise_all(&self.config, bus);
        }
    }

    pub(crate) fn raise_config(&mut self, bus: &mut Bus) {
        if self.common.live() && !self.gone() {
            let delay = self.interrupt_delay();
            if self.behaviour.quirks.changes_set_both_bits {
                self.interrupts.set_isr_early();
            }
            self.interrupts.raise_config(self.common.config_vector, delay, &self.config, bus);
        }
    }

    pub(crate) fn raise_queue(&mut self, index: u16, bus: &mut Bus) {
        let delay = self.interrupt_delay();
        self.interrupts.raise_queue(self.queue(index).vector, delay, &self.config, bus);
    }

    fn interrupt_delay(&mut self) -> u64 {
        self.behaviour.schedule.below(self.behaviour.interrupt_delay + 1)
    }

    /// Whether the function asserts its interrupt line.
    pub(crate) fn pulls_line(&self) -> bool {
        self.behaviour.pin && !self.gone() && self.interrupts.pulls_line(&self.config)
    }

    /// Whether memory is part of a ring or request that the device may still use.
    pub(crate) fn uses(&self, start: u64, size: u64) -> bool {
        let statistics = self.statistics.iter().flat_map(|r| &r.chain);
        let in_statistics = statistics.into_iter().any(|(_, d)| start <= d.address && d.address < start + size);
        !self.gone() && (in_statistics || self.common.queues.iter().any(|q| q.uses(start, size)))
    }
}

/// The value with bits inverted if a twist is set for this read.
fn twist(value: u32, twists: &[(u64, u32)], read: u64) -> u32 {
    twists.iter().filter(|(at, _)| *at == read).fold(value, |value, (_, bits)| value ^ bits)
}
