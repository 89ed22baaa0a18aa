//! Interrupts as atomic bits, which the handlers set and the driver takes.
//!
//! A handler does no more than this: set bits and count. It neither allocates nor waits nor touches queues.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::queue::QueueIndex;
use super::spec::{ISR_CONFIG, ISR_QUEUE};
use crate::bus::{Handled, Registers};

/// The bit for a configuration change. Those below are the queues'.
const CONFIG: u32 = 1 << 31;

/// The ISR byte of a device that is not there. One that is there leaves the upper bits clear (4.1.4.5).
const ALL_ONES: u8 = 0xff;

/// What happened since it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending(u32);

impl Pending {
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

/// Shared by a driver and its interrupt handlers.
#[derive(Debug)]
pub struct Events {
    pending: AtomicU32,
    /// The queues that the device has, as bits; what an interrupt that does not name one stands for.
    queues: u32,
    configs: AtomicUsize,
    vrings: AtomicUsize,
    strays: AtomicUsize,
}

impl Events {
    /// Nothing happened yet, on these queues.
    pub(crate) fn new(queues: impl IntoIterator<Item = QueueIndex>) -> Self {
        Self {
            pending: AtomicU32::new(0),
            queues: queues.into_iter().fold(0, |bits, queue| bits | queue.bit()),
            configs: AtomicUsize::new(0),
            vrings: AtomicUsize::new(0),
            strays: AtomicUsize::new(0),
        }
    }

    /// Takes what happened. What happens from now on is for the next time.
    pub(crate) fn take(&self) -> Pending {
        Pending(self.pending.swap(0, Ordering::Acquire))
    }

    /// Whether something happened. With interrupts off, right before the CPU is put to sleep by `sti; hlt`, no
    /// answer of *no* can be out of date.
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire) != 0
    }

    /// Interrupts that stood for a configuration change.
    pub(crate) fn config_interrupts(&self) -> usize {
        self.configs.load(Ordering::Relaxed)
    }

    /// Interrupts for used buffers.
    pub(crate) fn vring_interrupts(&self) -> usize {
        self.vrings.load(Ordering::Relaxed)
    }

    /// Interrupts on a shared line that were another device's or spurious.
    pub(crate) fn stray_interrupts(&self) -> usize {
        self.strays.load(Ordering::Relaxed)
    }

    fn raise(&self, bits: u32) {
        self.pending.fetch_or(bits, Ordering::Release);
    }
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// MSI-X: the device configuration changed.
#[doc(alias = "vp_config_changed")]
pub(crate) fn config_changed(events: &Events) -> Handled {
    count(&events.configs);
    events.raise(CONFIG);
    Handled::Yes
}

/// MSI-X, a vector to each queue: buffers of `queue` were used. The ISR byte is left alone: it means nothing here.
pub(crate) fn vring_interrupt(events: &Events, queue: QueueIndex) -> Handled {
    count(&events.vrings);
    events.raise(queue.bit());
    Handled::Yes
}

/// MSI-X, one vector for all queues: buffers of some queue were used.
#[doc(alias = "vp_vring_interrupt")]
pub(crate) fn shared_vring_interrupt(events: &Events) -> Handled {
    count(&events.vrings);
    events.raise(events.queues);
    Handled::Yes
}

/// The interrupt line: reads the ISR byte, which tells what it was and takes the line back. It can have been both.
#[doc(alias = "vp_interrupt")]
pub(crate) fn intx_interrupt<R: Registers>(events: &Events, isr: &R) -> Handled {
    let isr = isr.read8(0);
    if isr == ALL_ONES {
        // It is gone, for all that can be seen, and whoever holds the line is another. The driver is to come and look.
        events.raise(CONFIG);
        return Handled::No;
    }
    if isr & (ISR_QUEUE | ISR_CONFIG) == 0 {
        count(&events.strays);
        return Handled::No;
    }
    if isr & ISR_CONFIG != 0 {
        config_changed(events);
    }
    if isr & ISR_QUEUE != 0 {
        shared_vring_interrupt(events);
    }
    Handled::Yes
}

/// The most times that a handler looks at a device that asks again and again.
const LOOKS: u32 = 8;

/// MMIO: reads why the device interrupts, and takes back what is known of that (4.2.2.2, 4.2.3.4.1). Bits that mean nothing
/// are left alone.
///
/// On an edge-triggered line the next interrupt comes only after all bits were clear, so the handler looks until they are,
/// or until a device that never lets go has been looked at often enough: then everything is taken to have happened.
#[doc(alias = "vm_interrupt")]
pub(super) fn mmio_interrupt<R: Registers>(events: &Events, registers: &mut R, status: usize, ack: usize) -> Handled {
    let mut handled = Handled::No;
    for _ in 0..LOOKS {
        let found = registers.read32(status);
        if found == u32::MAX {
            // As for the ISR byte.
            events.raise(CONFIG);
            return Handled::No;
        }
        let known = found & u32::from(ISR_QUEUE | ISR_CONFIG);
        if known == 0 {
            if handled == Handled::No {
                count(&events.strays);
            }
            return handled;
        }
        registers.write32(ack, known);
        if known & u32::from(ISR_CONFIG) != 0 {
            config_changed(events);
        }
        if known & u32::from(ISR_QUEUE) != 0 {
            shared_vring_interrupt(events);
        }
        handled = Handled::Yes;
    }
    events.raise(CONFIG | events.queues);
    handled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(number: u16) -> QueueIndex {
        QueueIndex::new(number).unwrap()
    }

    fn events() -> Events {
        Events::new([queue(0), queue(2)])
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
        let events = events();
        vring_interrupt(&events, queue(2));
        let pending = events.take();
        assert!(pending.queue(queue(2)) && !pending.queue(queue(0)) && !pending.config());
        shared_vring_interrupt(&events);
        let pending = events.take();
        assert!(pending.queue(queue(2)) && pending.queue(queue(0)) && !pending.queue(queue(1)) && !pending.config());
        config_changed(&events);
        let pending = events.take();
        assert!(pending.config() && !pending.queue(queue(0)));
        assert_eq!((events.config_interrupts(), events.vring_interrupts()), (1, 2));
    }

    #[test]
    fn taking_leaves_nothing() {
        let events = events();
        assert!(!events.is_pending());
        config_changed(&events);
        assert!(events.is_pending());
        assert!(!events.take().is_empty());
        assert!(events.take().is_empty() && !events.is_pending());
    }

    #[test]
    fn one_interrupt_for_config_and_queues_is_taken_as_both() {
        let events = events();
        assert_eq!(intx_interrupt(&events, &Isr(3.into())), Handled::Yes);
        let pending = events.take();
        assert!(pending.config() && pending.queue(queue(0)));
    }

    #[test]
    fn a_device_that_is_gone_is_looked_at_and_claims_nothing() {
        let events = events();
        assert_eq!(intx_interrupt(&events, &Isr(0xff.into())), Handled::No);
        let pending = events.take();
        assert!(pending.config() && !pending.queue(queue(0)));
    }

    #[test]
    fn an_interrupt_of_another_device_is_not_ours_and_counted() {
        let events = events();
        let isr = Isr(0.into());
        for _ in 0..3 {
            assert_eq!(intx_interrupt(&events, &isr), Handled::No);
        }
        assert!(!events.is_pending());
        assert_eq!(events.stray_interrupts(), 3);
    }
}
