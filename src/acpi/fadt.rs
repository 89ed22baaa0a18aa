//! The FADT: fixed hardware registers, and which PC devices exist (ACPI 6.5, 5.2.9).
//!
//! The table has grown from 116 to 276 bytes; fields that a short one lacks count as zero. Of two fields for the same
//! register, the 64-bit one (`X_…`) is used unless it is zero.

mod raw;

use bitflags::bitflags;
use zerocopy::little_endian::U32;

use self::raw::RawFadt;
use super::address::RawAddress;
use super::table::{self, Signature, TableError};
use super::{AddressSpace, GenericAddress};
use ballonet::memory::PhysAddr;

/// [`BootFlags`] are valid from this revision (ACPI 2.0) on.
const BOOT_FLAGS_SINCE: u8 = 3;

bitflags! {
    /// The fixed feature flags used here (ACPI 6.5, table 5.10).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct FadtFlags: u32 {
        /// There is no fixed power button: it is a device, or there is none.
        #[doc(alias = "PWR_BUTTON")]
        const NO_FIXED_POWER_BUTTON = 1 << 4;
        /// The PM timer has 32 bits, not 24.
        #[doc(alias = "TMR_VAL_EXT")]
        const PM_TIMER_32_BITS = 1 << 8;
        /// The reset register exists.
        #[doc(alias = "RESET_REG_SUP")]
        const RESET_REGISTER = 1 << 10;
        /// There is no fixed hardware (microvm).
        #[doc(alias = "HW_REDUCED_ACPI")]
        const HARDWARE_REDUCED = 1 << 20;
        const _ = !0;
    }
}

bitflags! {
    /// Which PC devices exist (IAPC_BOOT_ARCH; ACPI 6.5, table 5.11).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct BootFlags: u16 {
        /// There are devices on an LPC or ISA bus that firmware does not describe.
        const LEGACY_DEVICES = 1 << 0;
        /// There is a keyboard controller at ports 0x60 and 0x64.
        #[doc(alias = "8042")]
        const KEYBOARD_CONTROLLER = 1 << 1;
        /// VGA must not be accessed.
        const VGA_ABSENT = 1 << 2;
        /// Message-signalled interrupts must not be enabled.
        const MSI_UNSUPPORTED = 1 << 3;
        /// There is no CMOS real-time clock.
        const CMOS_RTC_ABSENT = 1 << 5;
        const _ = !0;
    }
}

/// How to take over ACPI mode from firmware: by writes to its SMI port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SmiCommand {
    /// The port.
    pub port: u32,
    /// The byte that enables ACPI mode; 0 if it cannot be switched.
    pub enable: u8,
    /// The byte that disables it.
    pub disable: u8,
}

/// The registers of a PM1 event block, of equal width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pm1Event {
    /// Events that occurred; write ones to clear.
    pub status: GenericAddress,
    /// The events that raise the SCI.
    pub enable: GenericAddress,
}

/// A block of general-purpose event registers: status in the first half, enable in the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GpeBlock {
    /// The first status register.
    pub status: GenericAddress,
    /// The first enable register.
    pub enable: GenericAddress,
    /// Number of 8-bit status registers, and of enable registers.
    pub registers: u8,
}

/// The power management timer, counting at 3.579545 MHz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PmTimer {
    /// Its register, in memory or I/O space, read 32 bits at a time.
    pub register: GenericAddress,
    /// Its width in bits: 24 or 32.
    pub bits: u8,
}

/// How to reset the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResetRegister {
    /// The register, 8 bits wide.
    pub register: GenericAddress,
    /// The value to write.
    pub value: u8,
}

/// The contents of the FADT. Fixed registers are `None` on hardware-reduced machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fadt {
    /// The table's revision.
    pub(crate) revision: u8,
    /// Address of the DSDT.
    pub(crate) dsdt: Option<PhysAddr>,
    /// The interrupt for ACPI events: an ISA interrupt if there is an 8259, otherwise a GSI.
    pub(crate) sci_interrupt: u16,
    /// How to enable ACPI mode; `None` if it is always on.
    pub(crate) smi_command: Option<SmiCommand>,
    /// First half of the PM1 event registers.
    pub(crate) pm1a_event: Option<Pm1Event>,
    /// Second half of the PM1 event registers.
    pub(crate) pm1b_event: Option<Pm1Event>,
    /// First half of the PM1 control register.
    pub(crate) pm1a_control: Option<GenericAddress>,
    /// Second half of the PM1 control register.
    pub(crate) pm1b_control: Option<GenericAddress>,
    /// General-purpose events: the first block and the second.
    pub(crate) general_events: [Option<GpeBlock>; 2],
    /// The power management timer.
    pub(crate) pm_timer: Option<PmTimer>,
    /// How to reset the machine.
    pub(crate) reset: Option<ResetRegister>,
    /// The sleep control register of hardware-reduced machines.
    pub(crate) sleep_control: Option<GenericAddress>,
    /// The sleep status register of hardware-reduced machines.
    pub(crate) sleep_status: Option<GenericAddress>,
    /// Fixed feature flags.
    pub(crate) flags: FadtFlags,
    /// Which PC devices exist; `None` in tables too old for this field.
    pub(crate) boot_flags: Option<BootFlags>,
}

impl Fadt {
    /// Parses a FADT of any revision.
    ///
    /// # Errors
    /// When the table is damaged or shorter than that of ACPI 1.0.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        let (header, body) = table::open(bytes, Signature::FADT)?;
        let raw = RawFadt::parse(body)?;
        Ok(Self::from_raw(header.revision, &raw))
    }

    fn from_raw(revision: u8, raw: &RawFadt) -> Self {
        let flags = FadtFlags::from_bits_retain(raw.flags.get());
        let fixed = !flags.contains(FadtFlags::HARDWARE_REDUCED);
        Self {
            revision,
            dsdt: dsdt(raw),
            sci_interrupt: raw.sci_int.get(),
            smi_command: smi_command(raw).filter(|_| fixed),
            pm1a_event: pm1_event(raw.x_pm1a_evt_blk, raw.pm1a_evt_blk, raw.pm1_evt_len).filter(|_| fixed),
            pm1b_event: pm1_event(raw.x_pm1b_evt_blk, raw.pm1b_evt_blk, raw.pm1_evt_len).filter(|_| fixed),
            pm1a_control: register(raw.x_pm1a_cnt_blk, raw.pm1a_cnt_blk, raw.pm1_cnt_len).filter(|_| fixed),
            pm1b_control: register(raw.x_pm1b_cnt_blk, raw.pm1b_cnt_blk, raw.pm1_cnt_len).filter(|_| fixed),
            general_events: [
                gpe_block(raw.x_gpe0_blk, raw.gpe0_blk, raw.gpe0_blk_len).filter(|_| fixed),
                gpe_block(raw.x_gpe1_blk, raw.gpe1_blk, raw.gpe1_blk_len).filter(|_| fixed),
            ],
            pm_timer: pm_timer(raw, flags).filter(|_| fixed),
            reset: reset(raw, flags),
            sleep_control: GenericAddress::parse(raw.sleep_control_reg),
            sleep_status: GenericAddress::parse(raw.sleep_status_reg),
            flags,
            boot_flags: (revision >= BOOT_FLAGS_SINCE).then(|| BootFlags::from_bits_retain(raw.iapc_boot_arch.get())),
        }
    }

    /// Whether to expect a keyboard controller: tables without this flag imply one.
    pub(crate) fn has_keyboard_controller(&self) -> bool {
        self.boot_flags.is_none_or(|flags| flags.contains(BootFlags::KEYBOARD_CONTROLLER))
    }
}

fn dsdt(raw: &RawFadt) -> Option<PhysAddr> {
    let (wide, narrow) = (raw.x_dsdt.get(), u64::from(raw.dsdt.get()));
    PhysAddr::new(if wide != 0 { wide } else { narrow }).filter(|address| address.as_u64() != 0)
}

fn smi_command(raw: &RawFadt) -> Option<SmiCommand> {
    let port = raw.smi_cmd.get();
    (port != 0).then_some(SmiCommand { port, enable: raw.acpi_enable, disable: raw.acpi_disable })
}

/// The register in the wide field; if that is empty, the narrow field's, `length` bytes in I/O space.
fn register(wide: RawAddress, narrow: U32, length: u8) -> Option<GenericAddress> {
    GenericAddress::parse(wide).or_else(|| GenericAddress::io(narrow.get(), length))
}

/// An event block is `length` bytes: status in the first half, enable in the second.
fn pm1_event(wide: RawAddress, narrow: U32, length: u8) -> Option<Pm1Event> {
    let block = register(wide, narrow, length)?;
    let half = length / 2;
    if half == 0 {
        return None;
    }
    let status = block.following(0).map(|status| GenericAddress { bit_width: half.saturating_mul(8), ..status })?;
    Some(Pm1Event { status, enable: block.following(half)? })
}

/// A block of `length` bytes. The wide field's 8-bit width is too small for the longest block.
fn gpe_block(wide: RawAddress, narrow: U32, length: u8) -> Option<GpeBlock> {
    let registers = length / 2;
    let status = register(wide, narrow, length).filter(|_| registers != 0)?;
    Some(GpeBlock { status, enable: status.following(registers)?, registers })
}

fn pm_timer(raw: &RawFadt, flags: FadtFlags) -> Option<PmTimer> {
    // A length of zero means no timer, whatever the address.
    let register = register(raw.x_pm_tmr_blk, raw.pm_tmr_blk, raw.pm_tmr_len).filter(|_| raw.pm_tmr_len != 0)?;
    let reachable = matches!(register.space, AddressSpace::Memory | AddressSpace::Io);
    let bits = if flags.contains(FadtFlags::PM_TIMER_32_BITS) { 32 } else { 24 };
    reachable.then_some(PmTimer { register, bits })
}

fn reset(raw: &RawFadt, flags: FadtFlags) -> Option<ResetRegister> {
    let register = GenericAddress::parse(raw.reset_reg)?;
    flags.contains(FadtFlags::RESET_REGISTER).then_some(ResetRegister { register, value: raw.reset_value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::raw::SHORTEST;
    use super::*;
    use crate::acpi::fake::{assert_damage_is_refused, gas, parse_every_prefix, table};
    use crate::acpi::table::HEADER_SIZE;

    /// A table's body. Tests set fields by their offsets in the table.
    struct Body(Vec<u8>);

    impl Body {
        fn of_table(length: usize) -> Self {
            Self(vec![0; length - HEADER_SIZE])
        }

        fn set(mut self, offset: usize, bytes: &[u8]) -> Self {
            self.0[offset - HEADER_SIZE..][..bytes.len()].copy_from_slice(bytes);
            self
        }

        fn parse(&self, revision: u8) -> Fadt {
            Fadt::parse(&table(Signature::FADT, revision, &self.0)).unwrap()
        }
    }

    /// As QEMU's pc machine has it: revision 1, 116 bytes.
    fn pc() -> Body {
        Body::of_table(116)
            .set(40, &0x07fe_0040u32.to_le_bytes())
            .set(46, &[9, 0])
            .set(48, &[0xb2, 0, 0, 0, 0xf1, 0xf0])
            .set(56, &0x600u32.to_le_bytes())
            .set(64, &0x604u32.to_le_bytes())
            .set(76, &0x608u32.to_le_bytes())
            .set(88, &[4, 2, 0, 4])
            .set(112, &0x80a5u32.to_le_bytes())
    }

    /// As QEMU's q35 has it: revision 3, 244 bytes.
    fn q35() -> Body {
        let Body(mut bytes) = pc();
        bytes.resize(244 - HEADER_SIZE, 0);
        Body(bytes)
            .set(109, &2u16.to_le_bytes())
            .set(112, &0x0000_84a5u32.to_le_bytes())
            .set(116, &gas(1, 8, 0, 0xcf9))
            .set(128, &[0x0f])
            .set(140, &0x07fe_0080u64.to_le_bytes())
            .set(148, &gas(1, 32, 0, 0x700))
            .set(172, &gas(1, 16, 2, 0x704))
            .set(208, &gas(1, 32, 3, 0x708))
    }

    fn io(address: u64, bit_width: u8, access_bytes: Option<u8>) -> GenericAddress {
        GenericAddress { space: AddressSpace::Io, bit_width, bit_offset: 0, access_bytes, address }
    }

    #[test]
    fn the_shortest_table_gives_ports() {
        let fadt = pc().parse(1);
        assert_eq!(fadt.dsdt, PhysAddr::new(0x07fe_0040));
        assert_eq!(fadt.sci_interrupt, 9);
        assert_eq!(fadt.smi_command, Some(SmiCommand { port: 0xb2, enable: 0xf1, disable: 0xf0 }));
        let event = Pm1Event { status: io(0x600, 16, None), enable: io(0x602, 16, None) };
        assert_eq!((fadt.pm1a_event, fadt.pm1b_event), (Some(event), None));
        assert_eq!((fadt.pm1a_control, fadt.pm1b_control), (Some(io(0x604, 16, None)), None));
        assert_eq!(fadt.pm_timer, Some(PmTimer { register: io(0x608, 32, None), bits: 24 }));
        assert_eq!((fadt.reset, fadt.sleep_control, fadt.boot_flags), (None, None, None));
        assert!(fadt.has_keyboard_controller());
    }

    #[test]
    fn wide_fields_are_preferred() {
        let fadt = q35().parse(3);
        assert_eq!(fadt.dsdt, PhysAddr::new(0x07fe_0080));
        assert_eq!(fadt.pm1a_event.unwrap().status, io(0x700, 16, None));
        assert_eq!(fadt.pm1a_event.unwrap().enable, io(0x702, 16, None));
        assert_eq!(fadt.pm1a_control, Some(io(0x704, 16, Some(2))));
        assert_eq!(fadt.pm_timer.unwrap().register, io(0x708, 32, Some(4)));
        assert_eq!(fadt.reset, Some(ResetRegister { register: io(0xcf9, 8, None), value: 0x0f }));
        assert_eq!(fadt.boot_flags, Some(BootFlags::KEYBOARD_CONTROLLER));
        assert_eq!(q35().set(140, &[0; 8]).parse(3).dsdt, PhysAddr::new(0x07fe_0040));
    }

    #[test]
    fn general_purpose_events_are_in_two_halves() {
        let fadt =
            q35().set(80, &0x620u32.to_le_bytes()).set(92, &[16, 8]).set(232, &gas(0, 64, 1, 0xfed8_0300)).parse(3);
        let [Some(first), Some(second)] = fadt.general_events else { panic!("{:?}", fadt.general_events) };
        assert_eq!((first.status.space, first.status.address), (AddressSpace::Io, 0x620));
        assert_eq!((first.enable.address, first.registers), (0x628, 8));
        assert_eq!((second.status.space, second.status.address), (AddressSpace::Memory, 0xfed8_0300));
        assert_eq!((second.enable.address, second.registers), (0xfed8_0304, 4));
        assert_eq!(q35().set(80, &0x620u32.to_le_bytes()).set(92, &[1, 8]).parse(3).general_events, [None, None]);
    }

    #[test]
    fn flags_decide_what_is_there() {
        let flags = |bits: u32| q35().set(112, &bits.to_le_bytes()).parse(3);
        assert_eq!(flags(1 << 8).pm_timer.unwrap().bits, 32);
        assert_eq!(flags(0).pm_timer.unwrap().bits, 24);
        assert_eq!(flags(0).reset, None);
        let boot = |bits: u16| q35().set(109, &bits.to_le_bytes()).parse(3);
        assert!(!boot(0).has_keyboard_controller());
        assert!(boot(1 << 3).boot_flags.unwrap().contains(BootFlags::MSI_UNSUPPORTED));
        assert!(boot(1 << 2).boot_flags.unwrap().contains(BootFlags::VGA_ABSENT));
    }

    #[test]
    fn a_hardware_reduced_machine_has_no_fixed_registers() {
        let Body(mut bytes) = q35();
        bytes.resize(276 - HEADER_SIZE, 0);
        let fadt = Body(bytes)
            .set(112, &(1u32 << 20 | 1 << 10).to_le_bytes())
            .set(116, &gas(0, 8, 1, 0xfea0_0202))
            .set(244, &gas(0, 8, 1, 0xfea0_0200))
            .set(256, &gas(0, 8, 1, 0xfea0_0201))
            .parse(5);
        let fixed = [fadt.pm1a_control, fadt.pm1b_control, fadt.pm_timer.map(|timer| timer.register)];
        assert_eq!(fixed, [None; 3]);
        assert_eq!((fadt.smi_command, fadt.pm1a_event, fadt.pm1b_event), (None, None, None));
        let memory = |register: Option<GenericAddress>| register.map(|found| (found.space, found.address));
        assert_eq!(memory(fadt.sleep_control), Some((AddressSpace::Memory, 0xfea0_0200)));
        assert_eq!(memory(fadt.sleep_status), Some((AddressSpace::Memory, 0xfea0_0201)));
        assert_eq!(memory(fadt.reset.map(|reset| reset.register)), Some((AddressSpace::Memory, 0xfea0_0202)));
    }

    #[test]
    fn registers_that_cannot_be_are_left_out() {
        assert_eq!(pc().set(91, &[0]).parse(1).pm_timer, None);
        assert_eq!(pc().set(88, &[1]).parse(1).pm1a_event, None);
        assert_eq!(q35().set(208, &gas(2, 32, 0, 0x708)).parse(3).pm_timer, None);
        assert_eq!(q35().set(140, &u64::MAX.to_le_bytes()).parse(3).dsdt, None);
        let top = q35().set(88, &[255]).set(148, &gas(0, 32, 0, u64::MAX)).parse(3);
        assert_eq!(top.pm1a_event, None);
    }

    #[test]
    fn every_length_of_the_table_is_read_as_far_as_it_goes() {
        let Body(full) = q35();
        for length in 0..full.len() {
            let table = table(Signature::FADT, 3, &full[..length]);
            match Fadt::parse(&table) {
                Ok(fadt) => {
                    assert!(table.len() >= SHORTEST);
                    assert_eq!(fadt.reset.is_some(), table.len() >= 129);
                    assert_eq!(fadt.dsdt, PhysAddr::new(if table.len() < 148 { 0x07fe_0040 } else { 0x07fe_0080 }));
                    assert_eq!(fadt.pm1a_event.unwrap().status.address, if table.len() < 244 { 0x600 } else { 0x700 });
                }
                Err(error) => {
                    assert_eq!(error, TableError::TooShort { length: table.len(), needed: SHORTEST });
                    assert!(table.len() < SHORTEST);
                }
            }
        }
    }

    #[test]
    fn damage_is_refused() {
        assert_damage_is_refused(&table(Signature::FADT, 3, &q35().0), Fadt::parse);
        parse_every_prefix(Signature::FADT, &[0xff; 300], Fadt::parse);
    }

    proptest! {
        #[test]
        fn any_body_is_a_table_or_an_error(body in prop::collection::vec(any::<u8>(), 0..400), revision: u8) {
            let _ = Fadt::parse(&table(Signature::FADT, revision, &body));
        }
    }
}
