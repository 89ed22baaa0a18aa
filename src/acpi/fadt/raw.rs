//! The FADT's layout in memory.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::acpi::address::RawAddress;
use crate::acpi::table::{HEADER_SIZE, TableError};

/// The body, from offset 36 of the table.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawFadt {
    pub(super) firmware_ctrl: U32,
    pub(super) dsdt: U32,
    pub(super) reserved_44: u8,
    pub(super) preferred_pm_profile: u8,
    pub(super) sci_int: U16,
    pub(super) smi_cmd: U32,
    pub(super) acpi_enable: u8,
    pub(super) acpi_disable: u8,
    pub(super) s4bios_req: u8,
    pub(super) pstate_cnt: u8,
    pub(super) pm1a_evt_blk: U32,
    pub(super) pm1b_evt_blk: U32,
    pub(super) pm1a_cnt_blk: U32,
    pub(super) pm1b_cnt_blk: U32,
    pub(super) pm2_cnt_blk: U32,
    pub(super) pm_tmr_blk: U32,
    pub(super) gpe0_blk: U32,
    pub(super) gpe1_blk: U32,
    pub(super) pm1_evt_len: u8,
    pub(super) pm1_cnt_len: u8,
    pub(super) pm2_cnt_len: u8,
    pub(super) pm_tmr_len: u8,
    pub(super) gpe0_blk_len: u8,
    pub(super) gpe1_blk_len: u8,
    pub(super) gpe1_base: u8,
    pub(super) cst_cnt: u8,
    pub(super) p_lvl2_lat: U16,
    pub(super) p_lvl3_lat: U16,
    pub(super) flush_size: U16,
    pub(super) flush_stride: U16,
    pub(super) duty_offset: u8,
    pub(super) duty_width: u8,
    pub(super) day_alrm: u8,
    pub(super) mon_alrm: u8,
    pub(super) century: u8,
    pub(super) iapc_boot_arch: U16,
    pub(super) reserved_111: u8,
    pub(super) flags: U32,
    pub(super) reset_reg: RawAddress,
    pub(super) reset_value: u8,
    pub(super) arm_boot_arch: U16,
    pub(super) minor_version: u8,
    pub(super) x_firmware_ctrl: U64,
    pub(super) x_dsdt: U64,
    pub(super) x_pm1a_evt_blk: RawAddress,
    pub(super) x_pm1b_evt_blk: RawAddress,
    pub(super) x_pm1a_cnt_blk: RawAddress,
    pub(super) x_pm1b_cnt_blk: RawAddress,
    pub(super) x_pm2_cnt_blk: RawAddress,
    pub(super) x_pm_tmr_blk: RawAddress,
    pub(super) x_gpe0_blk: RawAddress,
    pub(super) x_gpe1_blk: RawAddress,
    pub(super) sleep_control_reg: RawAddress,
    pub(super) sleep_status_reg: RawAddress,
    pub(super) hypervisor_vendor: U64,
}

/// The table lengths at which a version's fields end: the flags, where the first FADT ended; the reset register and
/// its value; the 64-bit table pointers; the wide registers; the sleep registers; everything. A table of another
/// length is read as the next shorter one, so that no field is half read.
const LAYOUTS: [usize; 6] = [SHORTEST, 129, 148, 244, 268, 276];

/// The length of the first FADT, the shortest accepted.
pub(super) const SHORTEST: usize = 116;

const _: () = assert!(size_of::<RawFadt>() + HEADER_SIZE == 276);
const _: () = assert!(core::mem::offset_of!(RawFadt, reset_reg) + HEADER_SIZE == SHORTEST);

impl RawFadt {
    /// Parses the body, with zeros for missing fields.
    pub(super) fn parse(body: &[u8]) -> Result<Self, TableError> {
        let length = HEADER_SIZE + body.len();
        let Some(layout) = LAYOUTS.into_iter().rfind(|&layout| layout <= length) else {
            return Err(TableError::TooShort { length, needed: SHORTEST });
        };
        let mut raw = Self::new_zeroed();
        let whole = body.iter().take(layout - HEADER_SIZE);
        raw.as_mut_bytes().iter_mut().zip(whole).for_each(|(field, byte)| *field = *byte);
        Ok(raw)
    }
}
