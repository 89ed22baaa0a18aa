//! The common configuration structure: the device's half of initialization, with checks of the driver's order.

pub(super) mod legacy;
pub(super) mod mmio;
mod queues;
mod status;

use crate::behaviour::Behaviour;
use crate::bug::Bug;
use crate::queue::{NO_VECTOR, QueueModel};
use crate::world::Bus;

const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
pub(crate) const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const NEEDS_RESET: u8 = 64;
const FAILED: u8 = 128;

/// The fields: offset, width, whether the driver may write.
const FIELDS: [(u64, u8, bool); 22] = [
    (0x00, 4, true),
    (0x04, 4, false),
    (0x08, 4, true),
    (0x0c, 4, true),
    (0x10, 2, true),
    (0x12, 2, false),
    (0x14, 1, true),
    (0x15, 1, false),
    (0x16, 2, true),
    (0x18, 2, true),
    (0x1a, 2, true),
    (0x1c, 2, true),
    (0x1e, 2, false),
    (0x20, 4, true),
    (0x24, 4, true),
    (0x28, 4, true),
    (0x2c, 4, true),
    (0x30, 4, true),
    (0x34, 4, true),
    (0x38, 2, false),
    (0x3a, 2, true),
    (0x3c, 2, false),
];

/// The structure, and what the driver has done so far.
#[derive(Debug)]
pub struct CommonConfig {
    offered: u64,
    pub(crate) status: u8,
    /// The driver has reset the device by its legacy interface, so this is the one in use.
    pub legacy: bool,
    /// When the current reset completes.
    resetting: Option<u64>,
    /// It was reset, and ignores the status from then on.
    locked: bool,
    pub(crate) ever_reset: bool,
    /// The driver has not read status since it wrote `FEATURES_OK`.
    features_unread: bool,
    pub(crate) features_final: bool,
    device_select: u32,
    driver_select: u32,
    words_read: u8,
    words_written: u8,
    pub(crate) accepted: u64,
    /// State behind registers that only MMIO has.
    mmio: mmio::MmioState,
    pub config_vector: u16,
    pub(crate) config_vector_unread: bool,
    vector_writes: u32,
    pub generation: u8,
    /// The driver has read the generation since it last read a field of device config.
    pub generation_seen: bool,
    pub queue_select: u16,
    pub queues: Vec<QueueModel>,
    /// Status as the driver wrote it over the whole life of the device.
    pub status_writes: Vec<u8>,
}

impl CommonConfig {
    pub(crate) fn new(behaviour: &Behaviour, queues: Vec<QueueModel>) -> Self {
        Self {
            offered: behaviour.features,
            status: behaviour.first_status,
            legacy: false,
            resetting: None,
            locked: false,
            ever_reset: false,
            features_unread: false,
            features_final: false,
            device_select: 0,
            driver_select: 0,
            words_read: 0,
            words_written: 0,
            accepted: 0,
            mmio: mmio::MmioState::default(),
            config_vector: NO_VECTOR,
            config_vector_unread: false,
            vector_writes: 0,
            generation: 0,
            generation_seen: false,
            queue_select: 0,
            queues,
            status_writes: Vec::new(),
        }
    }

    /// As after a reset. Counters over the life of the device stay.
    pub(crate) fn reset(&mut self, bug: Option<Bug>) {
        for queue in &mut self.queues {
            queue.reset_with(bug);
        }
        self.status = if bug == Some(Bug::ResetKeepsStatus) { ACKNOWLEDGE } else { 0 };
        (self.features_unread, self.features_final) = (false, false);
        (self.words_read, self.words_written, self.accepted) = (0, 0, 0);
        (self.device_select, self.driver_select, self.queue_select) = (0, 0, 0);
        self.mmio = mmio::MmioState::default();
        if bug != Some(Bug::ResetKeepsVectors) {
            self.config_vector = NO_VECTOR;
        }
        self.config_vector_unread = false;
    }

    pub(crate) fn live(&self) -> bool {
        self.status & DRIVER_OK != 0
    }

    /// Whether the device is reset, and the driver has seen it.
    pub fn is_reset(&self) -> bool {
        self.status == 0 && self.resetting.is_none() && self.ever_reset
    }

    /// Whether the device is reset, or has FAILED set.
    pub fn stopped(&self) -> bool {
        self.is_reset() || self.failed()
    }

    /// Whether a reset is requested but not visible as complete.
    pub(crate) fn resetting(&self) -> bool {
        self.resetting.is_some()
    }

    pub fn failed(&self) -> bool {
        self.status & FAILED != 0
    }

    /// Whether features are negotiated, so that the driver may access device config and queues.
    pub(crate) fn settled(&self) -> bool {
        self.features_final && !self.features_unread
    }

    /// Whether the status is exactly ACKNOWLEDGE and DRIVER.
    pub(crate) fn driver_found(&self) -> bool {
        self.status == ACKNOWLEDGE | DRIVER
    }

    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    pub fn need_reset(&mut self) {
        self.status |= NEEDS_RESET;
    }

    pub fn needs_reset(&self) -> bool {
        self.status & NEEDS_RESET != 0
    }

    fn check_access(&mut self, offset: u64, width: u8, writing: bool, bus: &mut Bus) -> bool {
        let verb = if writing { "write" } else { "read" };
        let Some(&(_, right_width, writable)) = FIELDS.iter().find(|(at, ..)| *at == offset) else {
            bus.misstep("PCI-ACC", format!("{verb} of {width} bytes at {offset:#x} of common config"));
            return false;
        };
        if width != right_width {
            let clause = match right_width {
                1 => "PCI-ACC-01",
                2 => "PCI-ACC-02",
                _ => "PCI-ACC-03",
            };
            bus.misstep(clause, format!("{verb} of {width} bytes at {offset:#x} of common config"));
            return false;
        }
        if writing && !writable {
            bus.misstep("PCI-COMMON-01", format!("write to read-only field {offset:#x}"));
            return false;
        }
        if offset != 0x14 && self.legacy {
            bus.misstep("LEG-CORE-02", format!("{verb} at {offset:#x} of a device driven by its legacy interface"));
        }
        if offset != 0x14 && self.resetting.is_some() {
            bus.misstep("PCI-COMMON-05", format!("{verb} at {offset:#x} before the reset is done"));
        }
        if offset != 0x14 && !self.ever_reset {
            bus.misstep("INIT-02", format!("{verb} at {offset:#x} before the first reset"));
        }
        true
    }

    pub(crate) fn read(&mut self, offset: u64, width: u8, behaviour: &Behaviour, bus: &mut Bus) -> u32 {
        if !self.check_access(offset, width, false, bus) {
            return u32::MAX;
        }
        if offset == 0x1a
            && let Some(queue) = self.queues.get_mut(usize::from(self.queue_select))
        {
            queue.vector_unread = false;
        }
        let absent = usize::from(self.queue_select) >= self.queues.len();
        let select = if absent && behaviour.has(Bug::AbsentQueueIsQueue0) { 0 } else { self.queue_select };
        let shared = behaviour.has(Bug::SharedQueueAddresses) && (0x20..0x38).contains(&offset);
        let select = if shared { 1 } else { select };
        let queue = self.queues.get(usize::from(select));
        let quirks = behaviour.quirks.registers;
        let hidden = quirks.silent_until_driver && self.status & DRIVER == 0 && !matches!(offset, 0x14 | 0x15)
            || quirks.hides_accepted && offset == 0x0c
            || quirks.hides_addresses && (0x20..0x38).contains(&offset);
        if hidden {
            return 0;
        }
        let upper = if quirks.shows_upper_halves && matches!(offset, 0x28 | 0x30) { 1 } else { 0 };
        match offset {
            0x00 => self.device_select,
            0x04 => self.read_feature_word(behaviour),
            0x08 => self.driver_select,
            0x0c => word(self.accepted, self.driver_select),
            0x10 => {
                self.config_vector_unread = false;
                self.config_vector.into()
            }
            0x12 => behaviour.num_queues.unwrap_or(self.queues.len() as u16).into(),
            0x14 => self.read_status(bus.now, behaviour).into(),
            0x15 => {
                self.generation_seen = true;
                if quirks.no_generation {
                    return 0;
                }
                if behaviour.has(Bug::GenerationCountsReads) {
                    self.generation = self.generation.wrapping_add(1);
                }
                self.generation.into()
            }
            0x16 => self.queue_select.into(),
            0x18 => queue.map_or(0, |q| if q.size() == 0 { 0 } else { behaviour.size_lie.unwrap_or(q.size()).into() }),
            0x1a if behaviour.has(Bug::VectorReadsBackWrong) => {
                queue.map_or(NO_VECTOR, |q| q.vector.saturating_add(1)).into()
            }
            0x1a => queue.map_or(NO_VECTOR, |q| q.vector).into(),
            0x1c if behaviour.has(Bug::QueueEnableReads0) => 0,
            0x1c => queue.is_some_and(|q| q.enabled || q.shown_enabled).into(),
            0x3a => queue.is_some_and(|q| q.resetting.is_some()).into(),
            0x1e => queue.map_or(0, |q| behaviour.notify_off.unwrap_or(q.index * behaviour.notify_stride)).into(),
            0x38 => queue.map_or(0, |q| config_data(q.index).into()),
            0x20..0x38 => queue.and_then(|q| q.halves[(offset as usize - 0x20) / 4 + upper]).unwrap_or(0),
            _ => 0,
        }
    }

    fn read_feature_word(&mut self, behaviour: &Behaviour) -> u32 {
        if self.device_select < 2 {
            self.words_read |= 1 << self.device_select;
        }
        let fewer = behaviour.has(Bug::FeaturesChange) && self.features_final;
        let offered = if fewer { self.offered & 1 << 32 } else { self.offered };
        let repeats = behaviour.has(Bug::FeatureWordsRepeat);
        word(offered, if repeats { self.device_select % 2 } else { self.device_select })
    }

    pub(crate) fn write(&mut self, offset: u64, width: u8, value: u32, behaviour: &Behaviour, bus: &mut Bus) {
        if !self.check_access(offset, width, true, bus) {
            return;
        }
        if self.failed() && offset != 0x14 {
            bus.misstep("STATUS-03", format!("write at {offset:#x} after FAILED"));
        }
        match offset {
            0x00 => self.device_select = value,
            0x08 => self.driver_select = value,
            0x0c => self.write_features(value, bus),
            0x10 => self.write_config_vector(value as u16, behaviour, bus),
            0x14 => {
                self.legacy &= value != 0;
                self.write_status(value as u8, behaviour, bus);
            }
            0x16 => self.queue_select = value as u16,
            _ => self.write_queue(offset, value, behaviour, bus),
        }
    }

    fn write_features(&mut self, value: u32, bus: &mut Bus) {
        if self.status & DRIVER == 0 || self.features_final {
            bus.misstep("INIT-08", format!("features written at status {:#x}", self.status));
        }
        if self.driver_select < 2 {
            self.words_written |= 1 << self.driver_select;
            let shift = 32 * self.driver_select;
            self.accepted = self.accepted & !(0xffff_ffff << shift) | u64::from(value) << shift;
        } else if value != 0 {
            bus.misstep("FEAT-05", format!("feature word {} written with {value:#x}", self.driver_select));
        }
    }
}

/// The value for kicks of a queue once `NOTIF_CONFIG_DATA` is accepted: not its index.
pub(crate) fn config_data(index: u16) -> u16 {
    0x701 + 3 * index
}

/// Word `select` of 64 feature bits.
fn word(bits: u64, select: u32) -> u32 {
    if select < 2 { (bits >> (32 * select)) as u32 } else { 0 }
}
