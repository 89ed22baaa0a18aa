//! MSI, for functions without MSI-X; this module uses one message (PCI 3.0, 6.8.1).
//!
//! It never requests more than one message, whatever a function offers: the message number in the lowest bits of the
//! data then stays 0.

use super::capability::{Capability, CapabilityError, id};
use super::{Bdf, Command, ConfigSpace, Function};
use crate::bus::MsiMessage;

/// Message control, 16 bits; offset in the capability.
const CONTROL: usize = 2;
/// Message address, 32 bits.
const ADDRESS: usize = 4;
/// Upper half of the address, in functions with 64-bit addresses.
const ADDRESS_UPPER: usize = 8;

/// Message control: MSI is on, and INTx is off.
#[doc(alias = "PCI_MSI_FLAGS_ENABLE")]
const CONTROL_ENABLE: u16 = 1 << 0;
/// Message control: number of messages in use, as a power of two.
#[doc(alias = "PCI_MSI_FLAGS_QSIZE")]
const CONTROL_COUNT: u16 = 7 << 4;
/// Message control: addresses have 64 bits.
#[doc(alias = "PCI_MSI_FLAGS_64BIT")]
const CONTROL_64_BIT: u16 = 1 << 7;
/// Message control: messages can be masked individually.
#[doc(alias = "PCI_MSI_FLAGS_MASKBIT")]
const CONTROL_MASKABLE: u16 = 1 << 8;

/// An MSI capability that is completely inside configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Msi {
    function: Function,
    offset: u16,
    control: u16,
}

/// The registers besides message control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Registers {
    address: u64,
    data: u16,
    mask: u32,
}

impl Msi {
    /// The capability of `function`; `None` if it has none.
    ///
    /// # Errors
    /// When the capability list is broken, or leaves no room for the capability.
    pub(crate) fn find<C: ConfigSpace>(config: &C, function: &Function) -> Result<Option<Self>, CapabilityError> {
        let Some(capability) = function.capability(config, id::MSI)? else { return Ok(None) };
        Self::read(config, function, &capability).map(Some)
    }

    fn read<C: ConfigSpace>(config: &C, function: &Function, capability: &Capability) -> Result<Self, CapabilityError> {
        let control = capability.read16(config, CONTROL)?;
        let new = Self { function: *function, offset: capability.offset, control };
        // This is the last register used here, so all of them exist.
        capability.read16(config, new.data())?;
        if new.is_maskable() {
            capability.read32(config, new.mask())?;
        }
        Ok(new)
    }

    /// Whether the message can be masked.
    const fn is_maskable(&self) -> bool {
        self.control & CONTROL_MASKABLE != 0
    }

    const fn is_64_bit(&self) -> bool {
        self.control & CONTROL_64_BIT != 0
    }

    /// Offset of the message data in the capability.
    const fn data(&self) -> usize {
        if self.is_64_bit() { 0x0C } else { 0x08 }
    }

    /// Offset of the mask bits, in functions that have them.
    const fn mask(&self) -> usize {
        self.data() + 4
    }

    const fn bdf(&self) -> Bdf {
        self.function.bdf
    }

    const fn at(&self, register: usize) -> u16 {
        self.offset + register as u16
    }

    /// Makes the function send `message` and stop asserting INTx. Returns `None`, without changes, if it cannot send
    /// that: an address above 4 GiB with 32-bit addresses, or data of more than 16 bits.
    pub(crate) fn enable<C: ConfigSpace>(self, config: &mut C, message: MsiMessage) -> Option<EnabledMsi> {
        let data = u16::try_from(message.data).ok()?;
        if message.address > u64::from(u32::MAX) && !self.is_64_bit() {
            return None;
        }
        let found = self.registers(config);
        // Off while it is programmed, so that no half-written message is sent.
        self.set_control(config, self.control & !CONTROL_ENABLE);
        self.set_registers(config, Registers { address: message.address, data, mask: found.mask & !1 });
        let command = self.function.set_intx(config, false);
        self.set_control(config, self.control & !CONTROL_COUNT | CONTROL_ENABLE);
        Some(EnabledMsi { msi: self, found, command })
    }

    fn set_control<C: ConfigSpace>(&self, config: &mut C, control: u16) {
        config.write16(self.bdf(), self.at(CONTROL), control);
    }

    fn registers<C: ConfigSpace>(&self, config: &C) -> Registers {
        let upper = if self.is_64_bit() { config.read32(self.bdf(), self.at(ADDRESS_UPPER)) } else { 0 };
        Registers {
            address: u64::from(upper) << 32 | u64::from(config.read32(self.bdf(), self.at(ADDRESS))),
            data: config.read16(self.bdf(), self.at(self.data())),
            mask: if self.is_maskable() { config.read32(self.bdf(), self.at(self.mask())) } else { 0 },
        }
    }

    fn set_registers<C: ConfigSpace>(&self, config: &mut C, registers: Registers) {
        let bdf = self.bdf();
        config.write32(bdf, self.at(ADDRESS), registers.address as u32);
        if self.is_64_bit() {
            config.write32(bdf, self.at(ADDRESS_UPPER), (registers.address >> 32) as u32);
        }
        config.write16(bdf, self.at(self.data()), registers.data);
        if self.is_maskable() {
            config.write32(bdf, self.at(self.mask()), registers.mask);
        }
    }
}

/// A function with MSI on. Call [`EnabledMsi::disable`] to end that; dropping this value leaves MSI on.
#[derive(Debug)]
#[must_use = "MSI stays on until it is disabled"]
pub(crate) struct EnabledMsi {
    msi: Msi,
    found: Registers,
    /// The command register as found; only its INTx bit matters.
    command: Command,
}

impl EnabledMsi {
    /// Turns MSI off and restores everything as found.
    pub(crate) fn disable<C: ConfigSpace>(self, config: &mut C) {
        let Self { msi, found, command } = self;
        msi.set_control(config, msi.control & !CONTROL_ENABLE);
        msi.set_registers(config, found);
        msi.set_control(config, msi.control);
        msi.function.set_intx(config, !command.contains(Command::INTX_DISABLE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::fake::{FakeConfig, FakeFunction};

    /// A function with an MSI capability at 0x60, with these control bits, all writable.
    fn with(control: u16) -> (FakeConfig, Function) {
        let fake = FakeFunction::new(0x8086, 0x3420, 0).capability(0x60, 0x05, &control.to_le_bytes());
        let fake = fake.writable(0x60, 0x0071_0000).writable(0x64, !3).writable(0x68, u32::MAX);
        let fake = fake.writable(0x6C, u32::MAX).writable(0x70, u32::MAX).raw(0x70, 0xF);
        let (config, bdf) = FakeConfig::with(fake);
        let function = Function::probe(&config, bdf).unwrap();
        (config, function)
    }

    const MESSAGE: MsiMessage = MsiMessage { address: 0xFEE0_0000, data: 0x41 };

    #[test]
    fn one_message_is_sent_and_everything_is_put_back() {
        // Two of eight messages in use, 64 bits, maskable.
        let (mut config, function) = with(CONTROL_64_BIT | CONTROL_MASKABLE | 1 << 4 | 3 << 1);
        let bdf = function.bdf;
        let registers = |config: &FakeConfig| [0x60, 0x64, 0x68, 0x6C, 0x70].map(|at| config.read32(bdf, at));
        let before = registers(&config);
        let msi = Msi::find(&config, &function).unwrap().unwrap();
        let enabled = msi.enable(&mut config, MsiMessage { address: 0x1_FEE0_1000, data: 0x41 }).unwrap();
        let control = config.read16(bdf, 0x62);
        assert_eq!((control & CONTROL_ENABLE, control & CONTROL_COUNT), (1, 0));
        assert_eq!(registers(&config)[1..4], [0xFEE0_1000, 1, 0x41]);
        assert_eq!(config.read32(bdf, 0x70) & 1, 0, "not masked");
        assert!(function.command(&config).contains(Command::INTX_DISABLE));
        enabled.disable(&mut config);
        assert_eq!(registers(&config), before);
        assert!(!function.command(&config).contains(Command::INTX_DISABLE));
    }

    #[test]
    fn data_follows_a_32_bit_address() {
        let (mut config, function) = with(0);
        let msi = Msi::find(&config, &function).unwrap().unwrap();
        let enabled = msi.enable(&mut config, MESSAGE).unwrap();
        assert_eq!(config.read32(function.bdf, 0x68), 0x41);
        enabled.disable(&mut config);
    }

    #[test]
    fn a_message_that_does_not_fit_is_refused_untouched() {
        let (mut config, function) = with(0);
        let msi = Msi::find(&config, &function).unwrap().unwrap();
        let writes = config.writes;
        assert!(msi.enable(&mut config, MsiMessage { address: 1 << 32, ..MESSAGE }).is_none());
        assert!(msi.enable(&mut config, MsiMessage { data: 0x1_0000, ..MESSAGE }).is_none());
        assert_eq!(config.writes, writes);
    }

    #[test]
    fn a_capability_cut_off_by_the_end_of_configuration_space_is_named() {
        let (config, bdf) = FakeConfig::with(FakeFunction::new(1, 2, 0).capability(0xF4, 0x05, &[0x80, 0]));
        let error = Msi::find(&config, &Function::probe(&config, bdf).unwrap()).unwrap_err();
        assert!(matches!(error, CapabilityError::Truncated { at: 0x0C, .. }), "{error}");
    }
}
