//! Configuration space of the machine.

use ballonet::pci::{Bdf, ConfigSpace};

use super::REGISTER;
use crate::machine::Machine;

/// Config space of the machine's functions. One segment, through ports: 256 bytes per function.
pub struct ModelConfig {
    pub(super) machine: Machine,
}

impl ModelConfig {
    fn check(offset: u16, width: u8) {
        assert!(
            offset.is_multiple_of(u16::from(width)) && offset + u16::from(width) <= 256,
            "config access at {offset:#x}"
        );
    }

    fn read(&self, function: Bdf, offset: u16, width: u8) -> u32 {
        Self::check(offset, width);
        let value = {
            let state = &mut *self.machine.state();
            let hidden = state.hides(function);
            let device = state.devices.get_mut(&function).filter(|_| !hidden);
            let nobody = u32::MAX >> (32 - 8 * u32::from(width));
            match &state.port {
                Some(port) if port.at == function => port.read(offset, width),
                _ => device.map_or(nobody, |d| d.config_read(offset, width, &mut state.bus)),
            }
        };
        self.machine.touch(REGISTER);
        value
    }

    fn write(&mut self, function: Bdf, offset: u16, width: u8, value: u32) {
        Self::check(offset, width);
        {
            let state = &mut *self.machine.state();
            let hidden = state.hides(function);
            if let Some(port) = state.port.as_mut().filter(|port| port.at == function) {
                let (falls, card) = (port.write(offset, width, value), port.card);
                if let Some(device) = state.devices.get_mut(&card).filter(|_| falls) {
                    device.unplug();
                }
            } else if let Some(device) = state.devices.get_mut(&function).filter(|_| !hidden) {
                device.config_write(offset, width, value, &mut state.bus);
            }
        }
        self.machine.touch(REGISTER);
    }
}

impl ConfigSpace for ModelConfig {
    fn size(&self, segment: u16, _bus: u8) -> u16 {
        if segment == 0 { 256 } else { 0 }
    }

    fn read8(&self, function: Bdf, offset: u16) -> u8 {
        self.read(function, offset, 1) as u8
    }

    fn read16(&self, function: Bdf, offset: u16) -> u16 {
        self.read(function, offset, 2) as u16
    }

    fn read32(&self, function: Bdf, offset: u16) -> u32 {
        self.read(function, offset, 4)
    }

    fn write8(&mut self, function: Bdf, offset: u16, value: u8) {
        self.write(function, offset, 1, value.into());
    }

    fn write16(&mut self, function: Bdf, offset: u16, value: u16) {
        self.write(function, offset, 2, value.into());
    }

    fn write32(&mut self, function: Bdf, offset: u16, value: u32) {
        self.write(function, offset, 4, value);
    }
}
