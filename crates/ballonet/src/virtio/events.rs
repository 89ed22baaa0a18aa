//! What interrupt handlers do: set bits, which the driver takes, and count. They neither allocate nor wait nor touch
//! queues.

use super::queue::QueueIndex;
use super::spec::{ISR_CONFIG, ISR_QUEUE, mmio};
use crate::bus::{Cause, Events, Handled, Registers};

/// The bit for a configuration change. Those below are the queues'.
const CONFIG: u32 = 1 << 31;

/// The ISR byte of a device that is not there. One that is there leaves the upper bits clear (4.1.4.5).
const ALL_ONES: u8 = 0xff;

/// What happened since it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending(u32);

impl Pending {
    /// What is in `events`. What happens from now on is for the next time.
    pub(crate) fn take(events: &Events) -> Self {
        Self(events.take())
    }

    /// All that could happen, for a device that has no interrupts.
    pub(crate) const ALL: Self = Self(u32::MAX);

    /// Whether nothing happened.
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

/// Buffers of the queues with these `bits` were used. With MSI-X the ISR byte is left alone: it means nothing there.
#[doc(alias = "vp_vring_interrupt")]
pub(crate) fn vring_interrupt<R>(events: &Events, bits: u32, _registers: Option<&mut R>) -> Handled {
    events.note(Cause::Vring);
    events.raise(bits);
    Handled::Yes
}

/// Notes what the bits of the ISR byte, or of the register that MMIO has in its place, stand for.
fn note_isr(events: &Events, isr: u8, queues: u32) {
    if isr & ISR_CONFIG != 0 {
        config_changed::<()>(events, 0, None);
    }
    if isr & ISR_QUEUE != 0 {
        vring_interrupt::<()>(events, queues, None);
    }
}

/// The interrupt line: reads the ISR byte, `isr`, which tells what it was and takes the line back. It can have been
/// both.
#[doc(alias = "vp_interrupt")]
pub(crate) fn intx_interrupt<R: Registers>(events: &Events, queues: u32, isr: Option<&mut R>) -> Handled {
    let isr = isr.map_or(0, |isr| isr.read8(0));
    if isr == ALL_ONES {
        // It is gone, for all that can be seen, and whoever holds the line is another. The driver is to come and look.
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

/// The most times that a handler looks at a device that asks again and again.
const LOOKS: u32 = 8;

/// The registers that the handler of an MMIO device needs: where they start, and how long they are.
pub(super) const MMIO_INTERRUPT: usize = mmio::INTERRUPT_STATUS;
pub(super) const MMIO_INTERRUPT_LENGTH: usize = mmio::INTERRUPT_ACK + 4 - MMIO_INTERRUPT;

/// MMIO: reads why the device interrupts, and takes back what is known of that (4.2.2.2, 4.2.3.4.1). Bits that mean
/// nothing are left alone.
///
/// On an edge-triggered line the next interrupt comes only after all bits were clear, so the handler looks until they
/// are, or until a device that never lets go has been looked at often enough: then everything is taken to have
/// happened.
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
    fn each_handler_leaves_its_own_bits() {
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
    fn a_device_that_is_gone_is_looked_at_and_claims_nothing() {
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
