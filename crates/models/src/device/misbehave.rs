//! The effects of a device's bug beyond single registers.

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress};

use super::Balloon;
use crate::behaviour::Harm;
use crate::bug::Bug;
use crate::feature;
use crate::queue::{INDIRECT, Purpose, Request, WRITE};
use crate::world::Bus;

impl Balloon {
    fn has(&self, bug: Bug) -> bool {
        self.behaviour.has(bug)
    }

    /// Applies the harm of the driver's last violation.
    pub(crate) fn suffer(&mut self, bus: &mut Bus) {
        match bus.take_harm() {
            None => {}
            Some(Harm::Dies) => self.unplug(),
            // The third word of the driver's memory, which is not in a ring.
            Some(Harm::Overwrites) => bus.ram.scribble(2, 0xeeee),
            Some(harm) => self.harmed = Some(harm),
        }
    }

    /// Whether it loops in its VMM.
    pub(crate) fn spins(&self) -> bool {
        self.harmed == Some(Harm::Spins)
    }

    /// Whether a request is taken and never used.
    pub(crate) fn loses(&self, index: u16, request: &Request) -> bool {
        let Some(bug) = self.behaviour.bug else { return false };
        if self.behaviour.other.as_ref().is_some_and(|other| other.loses(request, Some(bug))) {
            return true;
        }
        let queue = self.queue(index);
        let table = request.chain.first().is_some_and(|(_, head)| head.flags & INDIRECT != 0);
        let accepted = |bit| self.common.accepted() & bit != 0;
        match bug {
            Bug::LosesChains => request.chain.len() > 1 && !table,
            Bug::LosesTables => table,
            Bug::LosesUnaligned => request.chain.iter().any(|(_, d)| d.address % 4 != 0),
            Bug::LosesLarge => request.bytes.len() > 4 * 64,
            Bug::LosesRingsOfOne => queue.size() == 1,
            Bug::LosesOddRings => !queue.size().is_power_of_two(),
            Bug::StopsAtTheWrap => queue.completed > 40_000,
            Bug::LosesReports => queue.purpose == Purpose::Reporting,
            Bug::LosesToldDeflates => queue.purpose == Purpose::Deflate && accepted(feature::MUST_TELL_HOST),
            Bug::LosesPoisoned => queue.purpose == Purpose::Inflate && accepted(feature::PAGE_POISON),
            Bug::QueueResetStopsAll => self.common.queues.iter().any(|q| q.idle.is_some()),
            Bug::ResetQueueStaysDead => queue.resets > 0,
            _ => false,
        }
    }

    /// The bug's effect at `DRIVER_OK`.
    pub(crate) fn misbehave_at_start(&mut self, bus: &mut Bus) {
        if self.has(Bug::IsrIsSetEarly) {
            self.interrupts.set_isr_early();
        }
        if self.has(Bug::ForgetsEarlyBuffers) {
            self.common.queues.iter_mut().filter(|q| q.enabled).for_each(|queue| drop(queue.take_available(bus)));
        }
    }

    /// The bug's effect after a kick was handled.
    pub(crate) fn misbehave_when_asked(&mut self, index: u16, bus: &mut Bus) {
        match self.behaviour.bug {
            Some(Bug::AsksForNoKicks) => self.queue(index).suppress(1, bus),
            Some(Bug::SuppressionIsJunk) => self.queue(index).suppress(0x103, bus),
            _ => {}
        }
    }

    /// The bug's effect when a request is used.
    pub(crate) fn misbehave_at_completion(&mut self, index: u16, request: &Request, bus: &mut Bus) {
        let [(driver, _), (device, length)] = self.queue(index).driver_and_device_areas();
        let memory = bus.ram.memory();
        let flip = |at: u64| {
            let byte = memory.load::<u8>(GuestAddress(at), Ordering::Relaxed).expect("ring in RAM");
            memory.store(byte ^ 0xff, GuestAddress(at), Ordering::Relaxed).expect("ring in RAM");
        };
        let readable = |flags: u16| flags & (WRITE | INDIRECT) == 0;
        match self.behaviour.bug {
            Some(Bug::WritesReadable) => {
                let buffer = request.chain.iter().find(|(_, d)| readable(d.flags));
                if let Some((_, buffer)) = buffer {
                    flip(buffer.address);
                }
            }
            // Bytes without a meaning: the ring keeps working.
            Some(Bug::WritesDriverArea) => {
                memory.write_obj(0xffff_u16, GuestAddress(driver)).expect("ring in RAM");
            }
            Some(Bug::WritesBehindRing) => {
                memory.write_obj(0x99_u8, GuestAddress(device + length)).expect("ring in RAM");
            }
            _ => {}
        }
    }
}
