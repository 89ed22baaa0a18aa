//! ACPI events: fixed events in the PM1 registers, and general-purpose events (ACPI 6.5, 4.8.3 and 4.8.4).
//!
//! The kernel handles one event, the power button; it disables every other enabled event. Only AML describes
//! general-purpose events, so the kernel cannot handle them, and an event left enabled would assert the ACPI
//! interrupt permanently.

use alloc::vec::Vec;

use bitflags::bitflags;

use ballonet::platform::Registers;

bitflags! {
    /// The bits of the PM1 registers: a set status bit records the event, a set enable bit lets it interrupt (ACPI
    /// 6.5, tables 4.14 and 4.15).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct FixedEvents: u16 {
        /// The PM timer has overflowed.
        #[doc(alias = "TMR_STS")]
        const TIMER = 1 << 0;
        /// Firmware has released the global lock.
        #[doc(alias = "GBL_STS")]
        const GLOBAL_LOCK = 1 << 5;
        /// The power button was pressed.
        #[doc(alias = "PWRBTN_STS")]
        const POWER_BUTTON = 1 << 8;
        /// The sleep button was pressed.
        #[doc(alias = "SLPBTN_STS")]
        const SLEEP_BUTTON = 1 << 9;
        /// The real-time clock's alarm.
        #[doc(alias = "RTC_STS")]
        const ALARM = 1 << 10;
        /// In the enable register: PCI Express does *not* wake the machine. Firmware chooses this; it stays as it is.
        #[doc(alias = "PCIEXP_WAKE_DIS")]
        const NO_EXPRESS_WAKE = 1 << 14;
        const _ = !0;
    }
}

/// The events that raise the ACPI interrupt.
const INTERRUPTING: FixedEvents = FixedEvents::TIMER
    .union(FixedEvents::GLOBAL_LOCK)
    .union(FixedEvents::POWER_BUTTON)
    .union(FixedEvents::SLEEP_BUTTON)
    .union(FixedEvents::ALARM);

/// A block of event registers: status, and an enable register that selects which events raise the ACPI interrupt.
/// Both windows have the same length. Writing 1 to a status bit clears it.
#[derive(Debug)]
pub(crate) struct EventBlock<R> {
    /// The status registers.
    pub status: R,
    /// The enable registers.
    pub enable: R,
}

/// The cause of an ACPI interrupt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Happened {
    /// An enabled event occurred: ACPI raised the interrupt.
    pub claimed: bool,
    /// The power button was pressed.
    pub power_button: bool,
}

/// The event registers of a machine.
#[derive(Debug)]
pub(crate) struct Events<R> {
    fixed: Vec<EventBlock<R>>,
    general: Vec<EventBlock<R>>,
}

impl<R: Registers> Events<R> {
    /// `fixed`: the PM1 blocks, with windows of 16 bits each. `general`: general-purpose blocks of any length.
    pub(crate) fn new(fixed: Vec<EventBlock<R>>, general: Vec<EventBlock<R>>) -> Self {
        Self { fixed, general }
    }

    /// Clears the status and enables only the power button. `false` if the registers do not keep that: no hardware
    /// responds, or there is no such button.
    pub(crate) fn watch_power_button(&mut self) -> bool {
        self.enable_only(FixedEvents::POWER_BUTTON);
        // Absent hardware reads all ones.
        self.fixed.iter().any(|block| block.enabled() & INTERRUPTING == FixedEvents::POWER_BUTTON)
    }

    /// Clears the status and disables every event, so that none wakes the machine after power-off.
    pub(crate) fn silence(&mut self) {
        self.enable_only(FixedEvents::empty());
    }

    fn enable_only(&mut self, wanted: FixedEvents) {
        for block in &mut self.fixed {
            block.set_enabled(block.enabled() & FixedEvents::NO_EXPRESS_WAKE | wanted);
            block.clear(block.noted());
        }
        for block in &mut self.general {
            for at in 0..block.enable.len() {
                block.enable.write8(at, 0);
                block.status.write8(at, block.status.read8(at));
            }
        }
    }

    /// Returns and clears the events that occurred, and disables unwanted ones.
    pub(crate) fn take(&mut self) -> Happened {
        let mut happened = Happened::default();
        for block in &mut self.fixed {
            let enabled = block.enabled();
            let active = block.noted() & enabled & INTERRUPTING;
            if active.is_empty() {
                continue;
            }
            let unwanted = active - FixedEvents::POWER_BUTTON;
            if !unwanted.is_empty() {
                block.set_enabled(enabled - unwanted);
            }
            block.clear(active);
            happened.claimed = true;
            happened.power_button |= active.contains(FixedEvents::POWER_BUTTON);
        }
        for block in &mut self.general {
            happened.claimed |= block.turn_off_active();
        }
        happened
    }
}

impl<R: Registers> EventBlock<R> {
    fn noted(&self) -> FixedEvents {
        FixedEvents::from_bits_retain(self.status.read16(0))
    }

    fn enabled(&self) -> FixedEvents {
        FixedEvents::from_bits_retain(self.enable.read16(0))
    }

    fn set_enabled(&mut self, events: FixedEvents) {
        self.enable.write16(0, events.bits());
    }

    fn clear(&mut self, events: FixedEvents) {
        self.status.write16(0, events.bits());
    }

    /// Disables active general-purpose events, byte by byte. Returns whether there were any.
    fn turn_off_active(&mut self) -> bool {
        let mut any = false;
        for at in 0..self.enable.len() {
            let enabled = self.enable.read8(at);
            let active = self.status.read8(at) & enabled;
            if active != 0 {
                self.enable.write8(at, enabled & !active);
                self.status.write8(at, active);
                any = true;
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    /// Status and enable registers as in hardware, and the events whose cause persists.
    #[derive(Debug, Default)]
    struct Hardware {
        status: Vec<u8>,
        enable: Vec<u8>,
        stuck: Vec<u8>,
        absent: bool,
    }

    impl Hardware {
        fn new(bytes: usize) -> Rc<RefCell<Self>> {
            let zeros = vec![0; bytes];
            Rc::new(RefCell::new(Self { status: zeros.clone(), enable: zeros.clone(), stuck: zeros, absent: false }))
        }

        fn is_asserted(&self) -> bool {
            self.status.iter().zip(&self.enable).any(|(status, enable)| status & enable != 0)
        }
    }

    /// One of the two windows.
    #[derive(Debug)]
    struct Window(Rc<RefCell<Hardware>>, bool);

    impl Registers for Window {
        fn len(&self) -> usize {
            self.0.borrow().status.len()
        }

        fn read8(&self, offset: usize) -> u8 {
            let hardware = self.0.borrow();
            match (hardware.absent, self.1) {
                (true, _) => 0xFF,
                (_, true) => hardware.status[offset],
                (_, false) => hardware.enable[offset],
            }
        }

        fn write8(&mut self, offset: usize, value: u8) {
            let mut hardware = self.0.borrow_mut();
            if hardware.absent {
                return;
            }
            if self.1 {
                hardware.status[offset] = hardware.status[offset] & !value | hardware.stuck[offset];
            } else {
                hardware.enable[offset] = value;
            }
        }

        fn read16(&self, offset: usize) -> u16 {
            u16::from_le_bytes([self.read8(offset), self.read8(offset + 1)])
        }

        fn write16(&mut self, offset: usize, value: u16) {
            let [low, high] = value.to_le_bytes();
            self.write8(offset, low);
            self.write8(offset + 1, high);
        }

        fn read32(&self, _: usize) -> u32 {
            panic!("no event register has 32 bits")
        }

        fn write32(&mut self, _: usize, _: u32) {
            panic!("no event register has 32 bits")
        }
    }

    fn block(hardware: &Rc<RefCell<Hardware>>) -> EventBlock<Window> {
        EventBlock { status: Window(Rc::clone(hardware), true), enable: Window(Rc::clone(hardware), false) }
    }

    fn press(hardware: &Rc<RefCell<Hardware>>) {
        hardware.borrow_mut().status[1] |= 1;
    }

    #[test]
    fn a_press_is_taken_once_and_lets_the_line_go() {
        let pm1 = Hardware::new(2);
        press(&pm1); // long ago
        let mut events = Events::new(vec![block(&pm1)], vec![]);
        assert!(events.watch_power_button());
        assert_eq!(events.take(), Happened::default());
        press(&pm1);
        assert!(pm1.borrow().is_asserted());
        assert_eq!(events.take(), Happened { claimed: true, power_button: true });
        assert!(!pm1.borrow().is_asserted());
        assert_eq!(events.take(), Happened::default());
    }

    #[test]
    fn the_button_may_be_in_the_second_block() {
        let (a, b) = (Hardware::new(2), Hardware::new(2));
        let mut events = Events::new(vec![block(&a), block(&b)], vec![]);
        assert!(events.watch_power_button());
        press(&b);
        assert!(events.take().power_button);
    }

    #[test]
    fn what_firmware_left_enabled_is_turned_off_but_its_choice_of_waking_stays() {
        let (pm1, gpe) = (Hardware::new(2), Hardware::new(3));
        pm1.borrow_mut().enable = vec![0x21, 0x46];
        gpe.borrow_mut().enable = vec![0xff, 0x81, 0x10];
        let mut events = Events::new(vec![block(&pm1)], vec![block(&gpe)]);
        assert!(events.watch_power_button());
        assert_eq!(pm1.borrow().enable, [0x00, 0x41]);
        assert_eq!(gpe.borrow().enable, [0, 0, 0]);
        events.silence();
        assert_eq!(pm1.borrow().enable, [0x00, 0x40]);
    }

    #[test]
    fn an_unwanted_event_cannot_storm() {
        let (pm1, gpe) = (Hardware::new(2), Hardware::new(2));
        let mut events = Events::new(vec![block(&pm1)], vec![block(&gpe)]);
        assert!(events.watch_power_button());
        // Firmware enables an event behind the kernel's back, and its cause persists.
        for hardware in [&pm1, &gpe] {
            let mut hardware = hardware.borrow_mut();
            (hardware.enable[0], hardware.status[0], hardware.stuck[0]) = (0x20, 0x20, 0x20);
        }
        assert_eq!(events.take(), Happened { claimed: true, power_button: false });
        assert!(!pm1.borrow().is_asserted() && !gpe.borrow().is_asserted());
        assert_eq!(events.take(), Happened::default());
        press(&pm1);
        assert!(events.take().power_button, "the button still works");
    }

    #[test]
    fn where_nothing_answers_there_is_no_button() {
        let pm1 = Hardware::new(2);
        pm1.borrow_mut().absent = true;
        assert!(!Events::new(vec![block(&pm1)], vec![]).watch_power_button());
        assert!(!Events::<Window>::new(vec![], vec![]).watch_power_button());
    }

    proptest! {
        #[test]
        fn whatever_the_registers_hold_one_look_lets_the_line_go(
            pm1 in any::<[[u8; 2]; 3]>(),
            gpe in any::<[[u8; 4]; 3]>(),
        ) {
            let (fixed, general) = (Hardware::new(2), Hardware::new(4));
            // Reserved bits of the PM1 registers raise no interrupt.
            let [low, high] = INTERRUPTING.bits().to_le_bytes();
            let raising = |[a, b]: [u8; 2]| vec![a & low, b & high];
            *fixed.borrow_mut() = Hardware {
                status: raising(pm1[0]),
                enable: raising(pm1[1]),
                // A held button sets its bit only once.
                stuck: vec![pm1[0][0] & pm1[2][0] & low, pm1[0][1] & pm1[2][1] & high & !1],
                absent: false,
            };
            *general.borrow_mut() = Hardware {
                status: gpe[0].to_vec(),
                enable: gpe[1].to_vec(),
                stuck: gpe[0].iter().zip(gpe[2]).map(|(status, stuck)| status & stuck).collect(),
                absent: false,
            };
            let asserted = fixed.borrow().is_asserted() || general.borrow().is_asserted();
            let mut events = Events::new(vec![block(&fixed)], vec![block(&general)]);
            prop_assert_eq!(events.take().claimed, asserted);
            prop_assert!(!fixed.borrow().is_asserted() && !general.borrow().is_asserted());
        }
    }
}
