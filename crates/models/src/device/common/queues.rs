//! The registers of queues and vectors.

use super::CommonConfig;
use crate::behaviour::Behaviour;
use crate::bug::Bug;
use crate::feature;
use crate::queue::{NO_VECTOR, Purpose, QueueModel};
use crate::world::Bus;

impl CommonConfig {
    fn refused(&mut self, behaviour: &Behaviour) -> bool {
        self.vector_writes += 1;
        behaviour.refused_vectors.contains(&(self.vector_writes - 1))
    }

    fn check_vector(vector: u16, behaviour: &Behaviour, bus: &mut Bus) {
        if vector != NO_VECTOR && vector >= behaviour.vectors.unwrap_or(0) {
            bus.misstep("PCI-MSIX-04", format!("vector {vector} of {:?}", behaviour.vectors));
        }
    }

    pub(crate) fn write_config_vector(&mut self, vector: u16, behaviour: &Behaviour, bus: &mut Bus) {
        Self::check_vector(vector, behaviour, bus);
        if self.live() {
            bus.misstep("INIT-10", "configuration vector written after DRIVER_OK");
        }
        let refused = vector != NO_VECTOR && (self.refused(behaviour) || is_absent(vector, behaviour));
        self.config_vector = if refused { NO_VECTOR } else { vector };
        self.config_vector_unread = vector != NO_VECTOR;
    }

    pub(crate) fn write_queue(&mut self, offset: u64, value: u32, behaviour: &Behaviour, bus: &mut Bus) {
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
            bus.misstep("PCI-COMMON-04", format!("write at {offset:#x} for queue {select}, which does not exist"));
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

    /// `queue_reset` = 1. The reset completes when the driver can see it; until then the queue continues unchanged.
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

    pub(crate) fn check_accepted(queue: &QueueModel, accepted: u64, bus: &mut Bus) {
        let bit = match queue.purpose {
            Purpose::Statistics => 1,
            Purpose::Hint => 3,
            Purpose::Reporting => 5,
            // crosvm's, known only to its own driver.
            Purpose::Own => 7,
            _ => return,
        };
        if accepted & 1 << bit == 0 {
            bus.misstep("FEAT-01", format!("queue {} enabled without its feature", queue.index));
        }
    }
}

/// Whether the MSI-X table has no such vector, and the device checks it.
fn is_absent(vector: u16, behaviour: &Behaviour) -> bool {
    let taken = behaviour.quirks.registers.takes_any_vector || behaviour.has(Bug::TakesAbsentVector);
    vector >= behaviour.vectors.unwrap_or(0) && !taken
}
