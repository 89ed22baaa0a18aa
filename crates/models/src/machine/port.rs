//! A root port with a hot-plug slot, and the card in it.

use ballonet::pci::Bdf;

use super::Machine;
use crate::behaviour::Behaviour;
use crate::device::Balloon;

/// Where the port has its PCI Express capability, and the slot's registers in it (PCIe 5.0, 7.5.3).
const EXPRESS: u16 = 0x40;
const SLOT_CONTROL: u16 = EXPRESS + 0x18;
const SLOT_STATUS: u16 = EXPRESS + 0x1a;
/// Slot capabilities: button, power controller, both indicators, hot-plug; slot 1.
const SLOT_CAPABILITIES: u32 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 19;

/// Slot control: the power is off.
const POWER_OFF: u16 = 1 << 10;
/// Slot status: events, and a card that is there.
const BUTTON: u16 = 1 << 0;
const PRESENCE_CHANGED: u16 = 1 << 3;
const COMMAND_COMPLETED: u16 = 1 << 4;
const LINK_CHANGED: u16 = 1 << 8;
const EVENTS: u16 = BUTTON | PRESENCE_CHANGED | COMMAND_COMPLETED | LINK_CHANGED;
const PRESENT: u16 = 1 << 6;

/// The port. The bus behind it is bus 1, with one card.
#[derive(Debug)]
pub(crate) struct Port {
    pub(super) at: Bdf,
    pub(super) card: Bdf,
    command: u16,
    control: u16,
    events: u16,
    present: bool,
    /// Power stays on whatever the driver writes.
    stuck: bool,
}

impl Port {
    fn powered(&self) -> bool {
        self.stuck || self.control & POWER_OFF == 0
    }

    /// Whether a function is behind the port and cannot be reached.
    pub(super) fn hides(&self, function: Bdf) -> bool {
        function == self.card && !(self.present && self.powered())
    }

    fn dword(&self, offset: u16) -> u32 {
        let up = self.present && self.powered();
        match offset {
            0x00 => 0x000c_1b36,
            0x04 => 0x0010_0000 | u32::from(self.command),
            0x08 => 0x0604_0000,
            0x0c => 0x0001_0000,
            0x18 => 0x0001_0100,
            0x34 => EXPRESS.into(),
            EXPRESS => 0x0142_0010,
            // The link reports whether it is up.
            0x4c => 1 << 20,
            0x50 => u32::from(up) << 29,
            0x54 => SLOT_CAPABILITIES,
            SLOT_CONTROL => {
                let status = self.events | if self.present { PRESENT } else { 0 };
                u32::from(self.control) | u32::from(status) << 16
            }
            _ => 0,
        }
    }

    pub(super) fn read(&self, offset: u16, width: u8) -> u32 {
        self.dword(offset & !3) >> (8 * (offset & 3)) & u32::MAX >> (32 - 8 * u32::from(width))
    }

    /// Returns whether the card loses its power.
    pub(super) fn write(&mut self, offset: u16, width: u8, value: u32) -> bool {
        let value = value as u16;
        match (offset, width) {
            (0x04, 2) => self.command = value,
            (SLOT_STATUS, 2) => self.events &= !(value & EVENTS),
            (SLOT_CONTROL, 2) => {
                let before = self.powered();
                self.control = value;
                self.events |= COMMAND_COMPLETED;
                if before && !self.powered() {
                    self.present = false;
                    self.events |= PRESENCE_CHANGED | LINK_CHANGED;
                    return true;
                }
            }
            _ => panic!("write of {value:#x} ({width} bytes) to offset {offset:#x} of a port"),
        }
        false
    }
}

impl Machine {
    /// A machine with one balloon in a hot-plug slot: the balloon's address, and the port's.
    pub fn with_slot(mib: u32, behaviour: Behaviour) -> (Self, Bdf, Bdf) {
        let machine = Self::new(mib);
        let place = |bus, device| Bdf::new(0, bus, device, 0).expect("a function number");
        let (at, card) = (place(0, 1), place(1, 0));
        machine.plug(card, behaviour);
        // Power and its indicator are on.
        let control = 0x01c0;
        let port = Port { at, card, command: 0x0007, control, events: 0, present: true, stuck: false };
        machine.state().port = Some(port);
        (machine, card, at)
    }

    fn port<T>(&self, act: impl FnOnce(&mut Port) -> T) -> T {
        act(self.state().port.as_mut().expect("a machine with a slot"))
    }

    /// The host wants the card back: the driver that serves the slot may switch its power off.
    pub fn press_button(&self) {
        self.port(|port| port.events |= BUTTON);
    }

    /// The slot no longer switches power off: a card stays reachable.
    pub fn stick_power(&self) {
        self.port(|port| port.stuck = true);
    }

    /// Puts a card into the slot, with the registers that power-on gives it. Returns the device that was there before.
    pub fn insert(&self, behaviour: Behaviour) -> Balloon {
        let card = self.port(|port| {
            port.present = true;
            port.events |= PRESENCE_CHANGED | BUTTON;
            port.card
        });
        let before = self.state().devices.remove(&card).expect("the card before");
        self.plug(card, Behaviour { unplaced: true, command: 0, first_status: 0, ..behaviour });
        before
    }
}
