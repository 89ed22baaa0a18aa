//! The legacy interface: registers in the ports of BAR 0, with the driver held to the rules of virtio before version 1.
//!
//! State and queues are those of [`CommonConfig`]; this adds the legacy registers for them, and the differences.

use crate::behaviour::Behaviour;
use crate::bug::Bug;
use crate::device::common::CommonConfig;
use crate::queue::{NO_VECTOR, Purpose};
use crate::world::Bus;

/// The ISR byte.
pub(crate) const ISR: u64 = 0x13;
/// The doorbell.
pub(crate) const NOTIFY: u64 = 0x10;
const STATUS: u64 = 0x12;
/// Alignment of rings.
const ALIGN: u64 = 4096;
const ANY_LAYOUT: u64 = 1 << 27;
/// The bit that unmasks drivers which accept everything offered.
const BAD_FEATURE: u64 = 1 << 30;

/// The fields of the header: offset, width, whether the driver may write. The last two exist only with MSI-X.
const FIELDS: [(u64, u8, bool); 10] = [
    (0x00, 4, false),
    (0x04, 4, true),
    (0x08, 4, true),
    (0x0c, 2, false),
    (0x0e, 2, true),
    (NOTIFY, 2, true),
    (STATUS, 1, true),
    (ISR, 1, false),
    (0x14, 2, true),
    (0x16, 2, true),
];

/// Where the device configuration starts.
pub(crate) fn header_length(msix: bool) -> u64 {
    if msix { 0x18 } else { 0x14 }
}

impl CommonConfig {
    fn check_legacy(&self, offset: u64, width: u8, writing: bool, bus: &mut Bus) -> bool {
        let verb = if writing { "write" } else { "read" };
        let field = FIELDS.iter().find(|(at, ..)| *at == offset);
        if field.is_none_or(|(_, right, writable)| width != *right || writing && !writable) {
            bus.misstep("LEG-PCI-01", format!("{verb} of {width} bytes at {offset:#x} of the legacy header"));
            return false;
        }
        if offset == STATUS {
            return true;
        }
        if !self.ever_reset {
            bus.misstep("INIT-02", format!("{verb} at {offset:#x} before the first reset"));
        } else if !self.legacy {
            bus.misstep(
                "LEG-CORE-02",
                format!("legacy {verb} at {offset:#x} of a device that is driven as a modern one"),
            );
        } else if self.resetting() {
            bus.misstep("PCI-COMMON-05", format!("{verb} at {offset:#x} before the reset is done"));
        }
        true
    }

    /// The low 32 feature bits, and those that only the legacy interface offers.
    pub(super) fn legacy_offer(&self, behaviour: &Behaviour) -> u64 {
        (behaviour.features | behaviour.legacy_features) & 0xffff_ffff
    }

    pub(crate) fn read_legacy(&mut self, offset: u64, width: u8, behaviour: &Behaviour, bus: &mut Bus) -> u32 {
        if !self.check_legacy(offset, width, false, bus) || offset == NOTIFY {
            return u32::MAX;
        }
        let queue = self.queues.get_mut(usize::from(self.queue_select)).filter(|q| q.purpose != Purpose::Missing);
        match offset {
            0x00 => self.legacy_offer(behaviour) as u32,
            0x04 => self.accepted as u32,
            0x08 => {
                let page =
                    queue.filter(|q| q.enabled || q.shown_enabled).map_or(0, |q| (q.ring_start() / ALIGN) as u32);
                if page != 0 && behaviour.has(Bug::LegacyPageReadsBackWrong) { page + 1 } else { page }
            }
            0x0c => queue.map_or(0, |q| behaviour.size_lie.unwrap_or(q.size()).into()),
            0x0e => self.queue_select.into(),
            STATUS => self.read_status(bus.now, behaviour).into(),
            0x14 => {
                self.config_vector_unread = false;
                self.config_vector.into()
            }
            _ => queue
                .map_or(NO_VECTOR, |q| {
                    q.vector_unread = false;
                    q.vector
                })
                .into(),
        }
    }

    pub(crate) fn write_legacy(&mut self, offset: u64, width: u8, value: u32, behaviour: &Behaviour, bus: &mut Bus) {
        if !self.check_legacy(offset, width, true, bus) {
            return;
        }
        if self.failed() && offset != STATUS {
            bus.misstep("STATUS-03", format!("write at {offset:#x} after FAILED"));
        }
        match offset {
            0x04 => self.write_legacy_features(value.into(), behaviour, bus),
            0x08 if value == 0 && behaviour.has(Bug::LegacyPage0IsIgnored) => {}
            0x08 => self.write_frame(value, bus),
            0x0e => self.queue_select = value as u16,
            STATUS => {
                // The interface used for the reset counts as the one that drives the device.
                self.legacy |= value == 0;
                self.write_status(value as u8, behaviour, bus);
            }
            0x14 => self.write_config_vector(value as u16, behaviour, bus),
            _ => self.write_queue(0x1a, value, behaviour, bus),
        }
    }

    pub(super) fn write_legacy_features(&mut self, value: u64, behaviour: &Behaviour, bus: &mut Bus) {
        let offered = self.legacy_offer(behaviour);
        if self.features_final || !self.driver_found() {
            bus.misstep("INIT-08", format!("features {value:#x} written outside of state ACKNOWLEDGE DRIVER"));
        }
        if value & !offered != 0 {
            bus.misstep("FEAT-01", format!("accepted {value:#x} of {offered:#x}"));
        }
        if offered & !value & ANY_LAYOUT != 0 {
            bus.misstep("LEG-RSVD-01", "ANY_LAYOUT not accepted");
        }
        if value & BAD_FEATURE != 0 {
            bus.misstep("LEG-RSVD-02", "bit 30 accepted");
        }
        // As in QEMU: accepting that bit clears all features.
        self.accepted = if value & BAD_FEATURE != 0 { 0 } else { value };
        self.features_final = true;
    }

    /// The address of the selected queue, in frames.
    pub(super) fn write_frame(&mut self, frame: u32, bus: &mut Bus) {
        let (select, accepted) = (self.queue_select, self.accepted);
        if !self.settled() || self.live() {
            bus.misstep("INIT-10", format!("queue {select}: address written before features or after DRIVER_OK"));
        }
        if frame == 0 {
            bus.misstep("LEG-VQ", format!("queue {select}: frame 0, which resets the whole device"));
            return self.reset(None);
        }
        let queue = self.queues.get_mut(usize::from(select)).filter(|q| q.purpose != Purpose::Missing);
        let Some(queue) = queue.filter(|q| !q.enabled) else {
            return bus.misstep("LEG-VQ", format!("queue {select}: address for a queue that is missing or in use"));
        };
        let (start, size) = (u64::from(frame) * ALIGN, u64::from(queue.size()));
        let available = start + 16 * size;
        let used = (available + 2 * (3 + size)).next_multiple_of(ALIGN);
        let end = (used + 2 * 3 + 8 * size).next_multiple_of(ALIGN);
        if !bus.ram.in_dma(start, end - start) {
            return bus
                .misstep("LEG-VQ-03", format!("queue {select}: {start:#x}-{end:#x} is not one block of DMA memory"));
        }
        for (which, address) in [start, available, used].into_iter().enumerate() {
            queue.halves[2 * which] = Some(address as u32);
            queue.halves[2 * which + 1] = Some((address >> 32) as u32);
        }
        Self::check_accepted(queue, accepted, bus);
        queue.enable(accepted, bus);
    }
}
