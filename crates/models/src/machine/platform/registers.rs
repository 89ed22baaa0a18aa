//! Registers of the machine, mapped or reached through configuration space.

use ballonet::pci::ConfigWindow;
use ballonet::platform::{RegisterWindow, Registers};

use super::REGISTER;
use super::config::ModelConfig;
use crate::machine::Machine;

/// A mapped window, or one that is reached through configuration space. An access out of bounds or misaligned panics,
/// as the contract demands.
pub struct ModelRegisters {
    pub(super) machine: Machine,
    pub(super) path: Path,
    pub(super) mapping: u64,
}

#[derive(Clone, Copy)]
pub(super) enum Path {
    Direct(RegisterWindow),
    Config(ConfigWindow),
}

impl ModelRegisters {
    /// The window, for an access that is allowed.
    fn check(&self, offset: usize, width: u8, window: RegisterWindow) {
        let width = usize::from(width);
        assert!(offset.is_multiple_of(width), "{window}: misaligned access at {offset:#x}");
        assert!(offset + width <= self.len(), "{window}: access at {offset:#x}");
    }

    fn read(&self, offset: usize, width: u8) -> u32 {
        let window = match self.path {
            Path::Direct(window) => window,
            Path::Config(window) => return self.read_config(window, offset, width),
        };
        self.check(offset, width, window);
        let value = {
            let state = &mut *self.machine.state();
            let target = state.decode(window.io, window.address + offset as u64, width.into());
            match target {
                Some((bdf, bar, at)) => {
                    let device = state.devices.get_mut(&bdf).expect("decoded to a device");
                    device.bar_read(bar, at, width, &mut state.bus)
                }
                None => u32::MAX >> (32 - 8 * u32::from(width)),
            }
        };
        self.machine.touch(REGISTER);
        value
    }

    fn write(&mut self, offset: usize, width: u8, value: u32) {
        let window = match self.path {
            Path::Direct(window) => window,
            Path::Config(window) => return self.write_config(window, offset, width, value),
        };
        self.check(offset, width, window);
        {
            let state = &mut *self.machine.state();
            let target = state.decode(window.io, window.address + offset as u64, width.into());
            if let Some((bdf, bar, at)) = target {
                let device = state.devices.get_mut(&bdf).expect("decoded to a device");
                device.bar_write(bar, at, width, value, &mut state.bus);
            }
        }
        self.machine.touch(REGISTER);
    }

    fn read_config(&self, window: ConfigWindow, offset: usize, width: u8) -> u32 {
        let mut config = ModelConfig { machine: self.machine.clone() };
        self.machine.uninterrupted(|| window.read(&mut config, offset, width.into()))
    }

    fn write_config(&self, window: ConfigWindow, offset: usize, width: u8, value: u32) {
        let mut config = ModelConfig { machine: self.machine.clone() };
        self.machine.uninterrupted(|| window.write(&mut config, offset, width.into(), value));
    }
}

impl Registers for ModelRegisters {
    fn len(&self) -> usize {
        match self.path {
            Path::Direct(window) => window.length as usize,
            Path::Config(window) => window.length as usize,
        }
    }

    fn read8(&self, offset: usize) -> u8 {
        self.read(offset, 1) as u8
    }

    fn read16(&self, offset: usize) -> u16 {
        self.read(offset, 2) as u16
    }

    fn read32(&self, offset: usize) -> u32 {
        self.read(offset, 4)
    }

    fn write8(&mut self, offset: usize, value: u8) {
        self.write(offset, 1, value.into());
    }

    fn write16(&mut self, offset: usize, value: u16) {
        self.write(offset, 2, value.into());
    }

    fn write32(&mut self, offset: usize, value: u32) {
        self.write(offset, 4, value);
    }
}
