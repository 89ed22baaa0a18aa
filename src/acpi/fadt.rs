//! The FADT: fixed hardware registers, and what of a PC is there (ACPI 6.5, 5.2.9).
//!
//! The table has grown from 116 bytes to 276; what a short one lacks is as if it were zero. Where it has a field twice,
//! the 64-bit one (`X_…`) is preferred unless it is zero.

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::address::RawAddress;
use super::table::{self, HEADER_SIZE, Signature, TableError};
use super::{AddressSpace, GenericAddress};
use crate::memory::PhysAddr;

/// The body, from offset 36 of the table.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFadt {
    firmware_ctrl: U32,
    dsdt: U32,
    reserved_44: u8,
    preferred_pm_profile: u8,
    sci_int: U16,
    smi_cmd: U32,
    acpi_enable: u8,
    acpi_disable: u8,
    s4bios_req: u8,
    pstate_cnt: u8,
    pm1a_evt_blk: U32,
    pm1b_evt_blk: U32,
    pm1a_cnt_blk: U32,
    pm1b_cnt_blk: U32,
    pm2_cnt_blk: U32,
    pm_tmr_blk: U32,
    gpe0_blk: U32,
    gpe1_blk: U32,
    pm1_evt_len: u8,
    pm1_cnt_len: u8,
    pm2_cnt_len: u8,
    pm_tmr_len: u8,
    gpe0_blk_len: u8,
    gpe1_blk_len: u8,
    gpe1_base: u8,
    cst_cnt: u8,
    p_lvl2_lat: U16,
    p_lvl3_lat: U16,
    flush_size: U16,
    flush_stride: U16,
    duty_offset: u8,
    duty_width: u8,
    day_alrm: u8,
    mon_alrm: u8,
    century: u8,
    iapc_boot_arch: U16,
    reserved_111: u8,
    flags: U32,
    reset_reg: RawAddress,
    reset_value: u8,
    arm_boot_arch: U16,
    minor_version: u8,
    x_firmware_ctrl: U64,
    x_dsdt: U64,
    x_pm1a_evt_blk: RawAddress,
    x_pm1b_evt_blk: RawAddress,
    x_pm1a_cnt_blk: RawAddress,
    x_pm1b_cnt_blk: RawAddress,
    x_pm2_cnt_blk: RawAddress,
    x_pm_tmr_blk: RawAddress,
    x_gpe0_blk: RawAddress,
    x_gpe1_blk: RawAddress,
    sleep_control_reg: RawAddress,
    sleep_status_reg: RawAddress,
    hypervisor_vendor: U64,
}

/// The length of the first FADT there was, the least that is taken: it ends with the flags.
const SHORTEST: usize = 116;

const _: () = assert!(size_of::<RawFadt>() + HEADER_SIZE == 276);
const _: () = assert!(core::mem::offset_of!(RawFadt, reset_reg) + HEADER_SIZE == SHORTEST);

/// The revision since which [`BootFlags`] mean something: ACPI 2.0's.
const BOOT_FLAGS_SINCE: u8 = 3;

bitflags! {
    /// Fixed feature flags (ACPI 6.5, table 5.10), those that are used.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct FadtFlags: u32 {
        /// There is no fixed power button: it is a device, or there is none.
        #[doc(alias = "PWR_BUTTON")]
        const NO_FIXED_POWER_BUTTON = 1 << 4;
        /// The PM timer has 32 bits, not 24.
        #[doc(alias = "TMR_VAL_EXT")]
        const PM_TIMER_32_BITS = 1 << 8;
        /// The reset register is there.
        #[doc(alias = "RESET_REG_SUP")]
        const RESET_REGISTER = 1 << 10;
        /// There is none of the fixed hardware (microvm).
        #[doc(alias = "HW_REDUCED_ACPI")]
        const HARDWARE_REDUCED = 1 << 20;
        const _ = !0;
    }
}

bitflags! {
    /// What of a PC is there (IAPC_BOOT_ARCH; ACPI 6.5, table 5.11).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct BootFlags: u16 {
        /// There are devices on an LPC or ISA bus that firmware does not describe.
        const LEGACY_DEVICES = 1 << 0;
        /// There is a keyboard controller at ports 0x60 and 0x64.
        #[doc(alias = "8042")]
        const KEYBOARD_CONTROLLER = 1 << 1;
        /// VGA must not be touched.
        const VGA_ABSENT = 1 << 2;
        /// Message-signalled interrupts must not be enabled.
        const MSI_UNSUPPORTED = 1 << 3;
        /// There is no CMOS real-time clock.
        const CMOS_RTC_ABSENT = 1 << 5;
        const _ = !0;
    }
}

/// How to take ACPI mode from firmware: by writing to its SMI port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SmiCommand {
    /// The port.
    pub port: u32,
    /// The byte that turns ACPI mode on; 0 if it cannot be turned.
    pub enable: u8,
    /// The byte that turns it off.
    pub disable: u8,
}

/// The registers of a PM1 event block, of the same width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pm1Event {
    /// What has happened; write ones to clear.
    pub status: GenericAddress,
    /// What raises the SCI.
    pub enable: GenericAddress,
}

/// The power management timer, counting at 3.579545 MHz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PmTimer {
    /// Its register, in memory or I/O space, read 32 bits at a time.
    pub register: GenericAddress,
    /// How many of the bits count: 24 or 32.
    pub bits: u8,
}

/// How to reset the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetRegister {
    /// The register, 8 bits wide.
    pub register: GenericAddress,
    /// What to write to it.
    pub value: u8,
}

/// What the FADT says. The fixed registers are `None` where the hardware-reduced flag says that there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fadt {
    /// The table's revision.
    pub revision: u8,
    /// Where the DSDT is.
    pub dsdt: Option<PhysAddr>,
    /// The interrupt for ACPI events: an ISA interrupt where there is an 8259, else a global one.
    pub sci_interrupt: u16,
    /// How to turn ACPI mode on; `None` where it is always on.
    pub smi_command: Option<SmiCommand>,
    /// First half of the PM1 event registers.
    pub pm1a_event: Option<Pm1Event>,
    /// Second half of the PM1 event registers.
    pub pm1b_event: Option<Pm1Event>,
    /// First half of the PM1 control register.
    pub pm1a_control: Option<GenericAddress>,
    /// Second half of the PM1 control register.
    pub pm1b_control: Option<GenericAddress>,
    /// The power management timer.
    pub pm_timer: Option<PmTimer>,
    /// How to reset the machine.
    pub reset: Option<ResetRegister>,
    /// Where hardware-reduced machines are put to sleep.
    pub sleep_control: Option<GenericAddress>,
    /// Where hardware-reduced machines say that they woke up.
    pub sleep_status: Option<GenericAddress>,
    /// Fixed feature flags.
    pub flags: FadtFlags,
    /// What of a PC is there; `None` in tables too old to say.
    pub boot_flags: Option<BootFlags>,
}

impl Fadt {
    /// Reads a FADT of any revision.
    ///
    /// # Errors
    /// When the table is damaged or shorter than that of ACPI 1.0.
    pub fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        let (header, body) = table::open(bytes, Signature::FADT)?;
        let length = HEADER_SIZE + body.len();
        if length < SHORTEST {
            return Err(TableError::TooShort { length, needed: SHORTEST });
        }
        let mut raw = RawFadt::new_zeroed();
        raw.as_mut_bytes().iter_mut().zip(body).for_each(|(field, byte)| *field = *byte);
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
            pm_timer: pm_timer(raw, flags).filter(|_| fixed),
            reset: reset(raw, flags),
            sleep_control: GenericAddress::parse(raw.sleep_control_reg),
            sleep_status: GenericAddress::parse(raw.sleep_status_reg),
            flags,
            boot_flags: (revision >= BOOT_FLAGS_SINCE).then(|| BootFlags::from_bits_retain(raw.iapc_boot_arch.get())),
        }
    }

    /// Whether to expect a keyboard controller: so it was before tables told.
    pub fn has_keyboard_controller(&self) -> bool {
        self.boot_flags.is_none_or(|flags| flags.contains(BootFlags::KEYBOARD_CONTROLLER))
    }

    /// Whether message-signalled interrupts may be enabled.
    pub fn allows_msi(&self) -> bool {
        self.boot_flags.is_none_or(|flags| !flags.contains(BootFlags::MSI_UNSUPPORTED))
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

/// The register that the wide field points out, else the narrow one's, `length` bytes in I/O space.
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

fn pm_timer(raw: &RawFadt, flags: FadtFlags) -> Option<PmTimer> {
    // A length of zero says that there is no timer, whatever the address.
    let register = register(raw.x_pm_tmr_blk, raw.pm_tmr_blk, raw.pm_tmr_len).filter(|_| raw.pm_tmr_len != 0)?;
    let reachable = matches!(register.space, AddressSpace::Memory | AddressSpace::Io);
    let bits = if flags.contains(FadtFlags::PM_TIMER_32_BITS) { 32 } else { 24 };
    reachable.then_some(PmTimer { register, bits })
}

fn reset(raw: &RawFadt, flags: FadtFlags) -> Option<ResetRegister> {
    let register = GenericAddress::parse(raw.reset_reg)?;
    flags.contains(FadtFlags::RESET_REGISTER).then_some(ResetRegister { register, value: raw.reset_value })
}
