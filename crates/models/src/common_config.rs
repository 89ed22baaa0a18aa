//! The common configuration structure: the device's half of initialization, with the driver held to the order of it.

use super::behaviour::{Behaviour, Numbering, feature};
use super::bug::Bug;
use super::bus::Bus;
use super::queue::{NO_VECTOR, Purpose, QueueModel};
use super::quirks::Resets;

const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
pub const DRIVER_OK: u8 = 4;
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
    pub(super) status: u8,
    /// The driver has reset the device by its legacy interface, and so drives it by that.
    pub legacy: bool,
    /// When the reset under way will be done.
    resetting: Option<u64>,
    /// It was reset, and takes no status any more.
    locked: bool,
    pub(super) ever_reset: bool,
    /// The driver has not read status since it wrote `FEATURES_OK`.
    features_unread: bool,
    pub(super) features_final: bool,
    device_select: u32,
    driver_select: u32,
    words_read: u8,
    words_written: u8,
    pub(super) accepted: u64,
    pub config_vector: u16,
    pub(super) config_vector_unread: bool,
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
    pub fn new(behaviour: &Behaviour, queues: Vec<QueueModel>) -> Self {
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

    /// As after a reset. What is counted over the life of the device stays.
    pub(super) fn reset(&mut self, bug: Option<Bug>) {
        for queue in &mut self.queues {
            queue.reset_with(bug);
        }
        self.status = if bug == Some(Bug::ResetKeepsStatus) { ACKNOWLEDGE } else { 0 };
        (self.features_unread, self.features_final) = (false, false);
        (self.words_read, self.words_written, self.accepted) = (0, 0, 0);
        (self.device_select, self.driver_select, self.queue_select) = (0, 0, 0);
        if bug != Some(Bug::ResetKeepsVectors) {
            self.config_vector = NO_VECTOR;
        }
        self.config_vector_unread = false;
    }

    pub fn live(&self) -> bool {
        self.status & DRIVER_OK != 0
    }

    /// Whether the device is reset, and the driver knows.
    pub fn is_reset(&self) -> bool {
        self.status == 0 && self.resetting.is_none() && self.ever_reset
    }

    /// Whether the device is reset, or was told that the driver gave up.
    pub fn stopped(&self) -> bool {
        self.is_reset() || self.failed()
    }

    /// Whether the driver has asked for a reset that does not show as done.
    pub fn resetting(&self) -> bool {
        self.resetting.is_some()
    }

    pub fn failed(&self) -> bool {
        self.status & FAILED != 0
    }

    /// Whether features are settled: the driver may touch device config and queues.
    pub fn settled(&self) -> bool {
        self.features_final && !self.features_unread
    }

    /// Whether the driver has said that it is there, and no more.
    pub fn driver_found(&self) -> bool {
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
            bus.misstep("LEG-CORE-02", format!("{verb} at {offset:#x} of a device that is driven as a legacy one"));
        }
        if offset != 0x14 && self.resetting.is_some() {
            bus.misstep("PCI-COMMON-05", format!("{verb} at {offset:#x} before the reset is done"));
        }
        if offset != 0x14 && !self.ever_reset {
            bus.misstep("INIT-02", format!("{verb} at {offset:#x} before the first reset"));
        }
        true
    }

    pub fn read(&mut self, offset: u64, width: u8, behaviour: &Behaviour, bus: &mut Bus) -> u32 {
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

    pub(super) fn read_status(&mut self, now: u64, behaviour: &Behaviour) -> u8 {
        self.features_unread = false;
        if self.resetting.is_some_and(|done| now >= done) {
            self.resetting = None;
            self.locked |=
                behaviour.quirks.resets == Resets::LockUp && self.live() && self.features_final && !self.needs_reset();
            let sizes: Vec<u16> = self.queues.iter().map(QueueModel::size).collect();
            self.reset(behaviour.bug);
            if behaviour.quirks.registers.keeps_queue_sizes {
                self.queues.iter_mut().zip(sizes).for_each(|(queue, size)| queue.keep_size(size));
            }
        }
        self.status
    }

    pub fn write(&mut self, offset: u64, width: u8, value: u32, behaviour: &Behaviour, bus: &mut Bus) {
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

    pub(super) fn write_status(&mut self, value: u8, behaviour: &Behaviour, bus: &mut Bus) {
        self.status_writes.push(value);
        if self.locked && value != 0 {
            return;
        }
        if value == 0 && behaviour.quirks.resets == Resets::EndInFailed && self.status & DRIVER != 0 && self.ever_reset
        {
            self.status |= FAILED;
            return;
        }
        if value == 0 {
            self.ever_reset = true;
            let time = if self.status == 0 { 0 } else { behaviour.reset_time };
            self.resetting = Some(bus.now.saturating_add(time));
            return;
        }
        if value & FAILED != 0 && self.resetting.is_some() {
            // Giving up on a device that does not finish its reset starts nothing over.
            self.status |= FAILED;
            return;
        }
        if self.resetting.is_some() || !self.ever_reset {
            bus.misstep("PCI-COMMON-05", format!("status {value:#x} written before the reset is done"));
            return;
        }
        if self.failed() {
            bus.misstep("STATUS-03", format!("status {value:#x} written after FAILED"));
            return;
        }
        let kept = self.status & !NEEDS_RESET;
        if value & kept != kept {
            bus.misstep("STATUS-02", format!("status {:#x} overwritten with {value:#x}", self.status));
        }
        match value & !self.status {
            0 => {}
            added if added & FAILED != 0 => {}
            ACKNOWLEDGE if self.status == 0 => {}
            DRIVER if self.status == ACKNOWLEDGE => {}
            added if self.legacy && added & FEATURES_OK != 0 => {
                bus.misstep("LEG-INIT-01", format!("FEATURES_OK in {value:#x} written to a legacy device"));
            }
            FEATURES_OK if self.status == ACKNOWLEDGE | DRIVER => return self.finish_features(value, behaviour, bus),
            DRIVER_OK if self.status == ACKNOWLEDGE | DRIVER | if self.legacy { 0 } else { FEATURES_OK } => {
                self.check_ready(bus);
                let missing = self.queues.iter().any(|queue| queue.purpose != Purpose::Missing && !queue.enabled);
                let refused = behaviour.quirks.wants_every_queue && missing;
                self.status = value | if refused { NEEDS_RESET } else { 0 };
                return;
            }
            _ => bus.misstep("INIT-01", format!("status {:#x} -> {value:#x}", self.status)),
        }
        self.status = value;
    }

    fn finish_features(&mut self, value: u8, behaviour: &Behaviour, bus: &mut Bus) {
        if self.words_read != 3 || self.words_written != 3 {
            bus.misstep(
                "INIT-04",
                format!("feature words read {:#b}, written {:#b}", self.words_read, self.words_written),
            );
        }
        if self.accepted & !self.offered != 0 {
            bus.misstep("FEAT-01", format!("accepted {:#x} of {:#x}", self.accepted, self.offered));
        }
        let reserved = 1 << 25 | 1 << 26 | 1 << 30 | 1 << 31 | 0x003f_ffc0 | 1 << 42 | !0 << 44 | 1 << 37;
        if self.accepted & reserved != 0 {
            bus.misstep("FEAT-05", format!("accepted {:#x}, which holds reserved or unknown bits", self.accepted));
        }
        if self.offered & !self.accepted & 1 << 32 != 0 {
            bus.misstep("RSVD-01", "VERSION_1 not accepted");
        }
        if behaviour.numbering == Numbering::Negotiated {
            self.renumber();
        }
        (self.features_final, self.features_unread) = (true, true);
        if behaviour.quirks.registers.takes_any_feature {
            self.accepted &= self.offered;
        }
        let unoffered = self.accepted & !self.offered != 0 && !behaviour.has(Bug::TakesUnofferedFeatures);
        let too_few = behaviour.has(Bug::WantsAllFeatures) && self.accepted != self.offered;
        let refused = behaviour.refuses_features || unoffered || too_few;
        self.status = if refused { value & !FEATURES_OK } else { value };
    }

    /// Gives the queues from 2 on to the features that were accepted.
    fn renumber(&mut self) {
        let optional = [(1, Purpose::Statistics), (3, Purpose::Hint), (5, Purpose::Reporting)];
        let accepted = self.accepted;
        let purposes = optional.into_iter().filter(|(bit, _)| accepted & 1 << bit != 0).map(|(_, purpose)| purpose);
        for (queue, purpose) in self.queues.iter_mut().skip(2).zip(purposes.chain(std::iter::repeat(Purpose::Spare))) {
            queue.purpose = purpose;
        }
    }

    /// What must be in place when `DRIVER_OK` is set.
    fn check_ready(&mut self, bus: &mut Bus) {
        if self.features_unread {
            bus.misstep("INIT-09", "FEATURES_OK not read back");
        }
        if !self.features_final {
            bus.misstep("INIT-08", "DRIVER_OK before the features are settled");
        }
        if self.config_vector_unread {
            bus.misstep("PCI-MSIX-05", "configuration vector not read back");
        }
        for queue in &self.queues {
            let needed = match queue.purpose {
                Purpose::Inflate | Purpose::Deflate | Purpose::Entropy => true,
                Purpose::Statistics => self.accepted & 1 << 1 != 0,
                _ => false,
            };
            if needed && !queue.enabled {
                bus.misstep("INIT-10", format!("queue {} not enabled at DRIVER_OK", queue.index));
            }
            let filled = queue.enabled && queue.waiting(bus) == 1;
            if needed && queue.purpose == Purpose::Statistics && !filled {
                bus.misstep("BAL-STATS-02", "no statistics buffer queued at DRIVER_OK");
            }
        }
    }

    fn refused(&mut self, behaviour: &Behaviour) -> bool {
        self.vector_writes += 1;
        behaviour.refused_vectors.contains(&(self.vector_writes - 1))
    }

    fn check_vector(vector: u16, behaviour: &Behaviour, bus: &mut Bus) {
        if vector != NO_VECTOR && vector >= behaviour.vectors.unwrap_or(0) {
            bus.misstep("PCI-MSIX-04", format!("vector {vector} of {:?}", behaviour.vectors));
        }
    }

    pub(super) fn write_config_vector(&mut self, vector: u16, behaviour: &Behaviour, bus: &mut Bus) {
        Self::check_vector(vector, behaviour, bus);
        if self.live() {
            bus.misstep("INIT-10", "configuration vector written after DRIVER_OK");
        }
        let refused = vector != NO_VECTOR && (self.refused(behaviour) || is_absent(vector, behaviour));
        self.config_vector = if refused { NO_VECTOR } else { vector };
        self.config_vector_unread = vector != NO_VECTOR;
    }

    pub(super) fn write_queue(&mut self, offset: u64, value: u32, behaviour: &Behaviour, bus: &mut Bus) {
        let idle = self.queues.get(usize::from(self.queue_select)).is_some_and(|q| q.idle.is_some());
        if offset == 0x3a {
            return self.reset_queue(value, behaviour, bus);
        }
        if !self.settled() || self.live() && !idle {
            bus.misstep("INIT-10", format!("queue field {offset:#x} written at status {:#x}", self.status));
        }
        let vector = value as u16;
        let refused =
            offset == 0x1a && vector != NO_VECTOR && (self.refused(behaviour) || is_absent(vector, behaviour));
        let accepted = self.accepted;
        let select = self.queue_select;
        let queue = self.queues.get_mut(usize::from(select)).filter(|q| q.purpose != Purpose::Missing);
        let Some(queue) = queue else {
            bus.misstep("PCI-COMMON-04", format!("write at {offset:#x} for queue {select}, which is not there"));
            return;
        };
        if queue.resetting.is_some() {
            bus.misstep("PCI-COMMON-07", format!("queue {select}: write at {offset:#x} before its reset is done"));
            return;
        }
        if queue.enabled {
            bus.misstep("PCI-COMMON-04", format!("queue {select}: write at {offset:#x} after it was enabled"));
            return;
        }
        match offset {
            0x18 if behaviour.has(Bug::IgnoresQueueSize) => {}
            0x18 => queue.set_size(value as u16, accepted, bus),
            0x1a => {
                Self::check_vector(vector, behaviour, bus);
                queue.vector = if refused { NO_VECTOR } else { vector };
                queue.vector_unread = vector != NO_VECTOR;
            }
            0x1c if value == 1 => {
                if !behaviour.quirks.wants_every_queue {
                    Self::check_accepted(queue, accepted, bus);
                }
                queue.enable(accepted, bus);
            }
            0x1c => bus.misstep("PCI-COMMON-06", format!("queue {select}: queue_enable = {value}")),
            0x20..0x38 => queue.halves[(offset as usize - 0x20) / 4] = Some(value),
            _ => bus.misstep("PCI-ACC", format!("write of {value:#x} at {offset:#x}")),
        }
    }

    /// `queue_reset` = 1. The reset is done when the driver can see that it is; until then the queue goes on as it was.
    fn reset_queue(&mut self, value: u32, behaviour: &Behaviour, bus: &mut Bus) {
        let (accepted, select) = (self.accepted, self.queue_select);
        let queue = self.queues.get_mut(usize::from(select)).filter(|q| q.enabled);
        match queue {
            Some(queue) if value == 1 && accepted & feature::RING_RESET != 0 => {
                let never = behaviour.has(Bug::QueueResetNeverEnds);
                let time = if never { u64::MAX } else { behaviour.queue_reset_time };
                queue.resetting = Some(bus.now.saturating_add(time));
            }
            _ => bus.misstep("QRST-01", format!("queue_reset = {value} for queue {select}, features {accepted:#x}")),
        }
    }

    pub(super) fn check_accepted(queue: &QueueModel, accepted: u64, bus: &mut Bus) {
        let bit = match queue.purpose {
            Purpose::Statistics => 1,
            Purpose::Hint => 3,
            Purpose::Reporting => 5,
            // crosvm's, of which no driver but its own knows.
            Purpose::Own => 7,
            _ => return,
        };
        if accepted & 1 << bit == 0 {
            bus.misstep("FEAT-01", format!("queue {} enabled without its feature", queue.index));
        }
    }
}

/// Whether the MSI-X table has no such vector, and the device knows.
fn is_absent(vector: u16, behaviour: &Behaviour) -> bool {
    let taken = behaviour.quirks.registers.takes_any_vector || behaviour.has(Bug::TakesAbsentVector);
    vector >= behaviour.vectors.unwrap_or(0) && !taken
}

/// What a queue is kicked with once `NOTIF_CONFIG_DATA` is accepted: not its index.
pub fn config_data(index: u16) -> u16 {
    0x701 + 3 * index
}

/// Word `select` of 64 feature bits.
fn word(bits: u64, select: u32) -> u32 {
    if select < 2 { (bits >> (32 * select)) as u32 } else { 0 }
}
