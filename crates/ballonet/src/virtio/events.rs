//! Interrupt handlers set bits, which the driver takes, and count. They neither allocate nor wait nor touch queues.

use super::queue::QueueIndex;
use super::spec::{ISR_CONFIG, ISR_QUEUE, mmio};
use crate::bus::{Cause, Events, Handled, Registers};

/// The bit for a configuration change. Those below are the queues'.
const CONFIG: u32 = 1 << 31;

/// The ISR byte of a device that is gone. A present one keeps the upper bits clear (4.1.4.5).
const ALL_ONES: u8 = 0xff;

/// Events since the last call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending(u32);

impl Pending {
    /// Takes the recorded events. Later ones stay for the next call.
    pub(crate) fn take(events: &Events) -> Self {
        Self(events.take())
    }

    /// All events, for a device without interrupts.
    pub(crate) const ALL: Self = Self(u32::MAX);

    /// Whether there is no event.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the device configuration may have changed.
    pub const fn config(self) -> bool {
        self.0 & CONFIG != 0
    }

    /// Whether a queue may have completions.
    pub const fn queue(self, queue: QueueIndex) -> bool {
        self.0 & queue.bit() != 0
    }
}

/// The bits of all `queues`, for interrupts that do not say which.
pub(super) fn bits_of(queues: impl IntoIterator<Item = QueueIndex>) -> u32 {
    queues.into_iter().fold(0, |bits, queue| bits | queue.bit())
}

/// The device configuration changed.
#[doc(alias = "vp_config_changed")]
pub(crate) fn config_changed<R>(events: &Events, _bits: u32, _registers: Option<&mut R>) -> Handled {
    events.note(Cause::Config);
    events.raise(CONFIG);
    Handled::Yes
}

/// Buffers of the queues with these `bits` were used. With MSI-X the ISR byte is not used.
#[doc(alias = "vp_vring_interrupt")]
pub(crate) fn vring_interrupt<R>(events: &Events, bits: u32, _registers: Option<&mut R>) -> Handled {
    events.note(Cause::Vring);
    events.raise(bits);
    Handled::Yes
}

/// Records the events in an ISR byte, or in MMIO's interrupt status.
fn note_isr(events: &Events, isr: u8, queues: u32) {
    if isr & ISR_CONFIG != 0 {
        config_changed::<()>(events, 0, None);
    }
    if isr & ISR_QUEUE != 0 {
        vring_interrupt::<()>(events, queues, None);
    }
}

/// The interrupt line: reads the ISR byte, `isr`, which reports the causes and deasserts the line. Both causes may be
/// set.
#[doc(alias = "vp_interrupt")]
pub(crate) fn intx_interrupt<R: Registers>(events: &Events, queues: u32, isr: Option<&mut R>) -> Handled {
    let isr = isr.map_or(0, |isr| isr.read8(0));
    if isr == ALL_ONES {
        // The device seems gone, and another one asserts the line. The driver must check.
        events.raise(CONFIG);
        return Handled::No;
    }
    if isr & (ISR_QUEUE | ISR_CONFIG) == 0 {
        events.note(Cause::Stray);
        return Handled::No;
    }
    note_isr(events, isr, queues);
    Handled::Yes
}

/// The most times that a handler reads the status of a device that keeps interrupting.
const LOOKS: u32 = 8;

/// The registers that the handler of an MMIO device needs: their start, and length.
pub(super) const MMIO_INTERRUPT: usize = mmio::INTERRUPT_STATUS;
pub(super) const MMIO_INTERRUPT_LENGTH: usize = mmio::INTERRUPT_ACK + 4 - MMIO_INTERRUPT;

/// MMIO: reads why the device interrupts, and acknowledges the known bits (4.2.2.2, 4.2.3.4.1). Undefined bits are
/// ignored.
///
/// On an edge-triggered line the next interrupt comes only after all bits were clear, so the handler repeats until they
/// are. After [`LOOKS`] reads it gives up and records every event.
#[doc(alias = "vm_interrupt")]
pub(super) fn mmio_interrupt<R: Registers>(events: &Events, queues: u32, registers: Option<&mut R>) -> Handled {
    let Some(registers) = registers else { return Handled::No };
    let mut handled = Handled::No;
    for _ in 0..LOOKS {
        let found = registers.read32(mmio::INTERRUPT_STATUS - MMIO_INTERRUPT);
        if found == u32::MAX {
            // As for the ISR byte.
            events.raise(CONFIG);
            return Handled::No;
        }
        // The low bits are those of the ISR byte.
        let known = found as u8 & (ISR_QUEUE | ISR_CONFIG);
        if known == 0 {
            if handled == Handled::No {
                events.note(Cause::Stray);
            }
            return handled;
        }
        registers.write32(mmio::INTERRUPT_ACK - MMIO_INTERRUPT, known.into());
        note_isr(events, known, queues);
        handled = Handled::Yes;
    }
    events.raise(CONFIG | queues);
    handled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(number: u16) -> QueueIndex {
        QueueIndex::new(number).unwrap()
    }

    /// An ISR byte that holds one value and, like the real one, is cleared by reading.
    struct Isr(core::cell::Cell<u8>);

    impl Registers for Isr {
        fn len(&self) -> usize {
            1
        }
        fn read8(&self, offset: usize) -> u8 {
            assert_eq!(offset, 0);
            self.0.take()
        }
        fn read16(&self, _: usize) -> u16 {
            panic!("the ISR is a byte")
        }
        fn read32(&self, _: usize) -> u32 {
            panic!("the ISR is a byte")
        }
        fn write8(&mut self, _: usize, _: u8) {
            panic!("the ISR is read only")
        }
        fn write16(&mut self, _: usize, _: u16) {
            panic!("the ISR is read only")
        }
        fn write32(&mut self, _: usize, _: u32) {
            panic!("the ISR is read only")
        }
    }

    #[test]
    fn each_handler_records_its_own_bits() {
        let events = Events::new();
        vring_interrupt::<Isr>(&events, bits_of([queue(2)]), None);
        let pending = Pending::take(&events);
        assert!(pending.queue(queue(2)) && !pending.queue(queue(0)) && !pending.config());
        vring_interrupt::<Isr>(&events, bits_of([queue(0), queue(2)]), None);
        let pending = Pending::take(&events);
        assert!(pending.queue(queue(2)) && pending.queue(queue(0)) && !pending.queue(queue(1)) && !pending.config());
        config_changed::<Isr>(&events, 0, None);
        let pending = Pending::take(&events);
        assert!(pending.config() && !pending.queue(queue(0)) && Pending::take(&events).is_empty());
        assert_eq!((events.count(Cause::Config), events.count(Cause::Vring)), (1, 2));
    }

    #[test]
    fn one_interrupt_for_config_and_queues_is_taken_as_both() {
        let events = Events::new();
        assert_eq!(intx_interrupt(&events, 1, Some(&mut Isr(3.into()))), Handled::Yes);
        let pending = Pending::take(&events);
        assert!(pending.config() && pending.queue(queue(0)));
    }

    #[test]
    fn a_device_that_is_gone_is_checked_and_claims_no_interrupt() {
        let events = Events::new();
        assert_eq!(intx_interrupt(&events, 1, Some(&mut Isr(0xff.into()))), Handled::No);
        let pending = Pending::take(&events);
        assert!(pending.config() && !pending.queue(queue(0)));
    }

    #[test]
    fn an_interrupt_of_another_device_is_not_ours_and_counted() {
        let events = Events::new();
        let mut isr = Isr(0.into());
        for _ in 0..3 {
            assert_eq!(intx_interrupt(&events, 1, Some(&mut isr)), Handled::No);
        }
        assert!(!events.is_pending());
        assert_eq!(events.count(Cause::Stray), 3);
    }
}
