//! The device status, and the conditions for each of its steps.

use super::{ACKNOWLEDGE, CommonConfig, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET};
use crate::behaviour::{Behaviour, Numbering, Resets};
use crate::bug::Bug;
use crate::queue::{Purpose, QueueModel};
use crate::world::Bus;

impl CommonConfig {
    pub(crate) fn read_status(&mut self, now: u64, behaviour: &Behaviour) -> u8 {
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

    pub(crate) fn write_status(&mut self, value: u8, behaviour: &Behaviour, bus: &mut Bus) {
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
            // FAILED on a device that does not finish its reset does not restart the reset.
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

    /// Assigns the queues from 2 on to the accepted features.
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
}
