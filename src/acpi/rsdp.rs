//! The root pointer, which locates all tables (ACPI 6.5, 5.2.5).

use derive_more::{Display, Error};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Text;
use super::table::checksum;
use crate::boot::{PhysRange, PhysicalMemory, Unreadable};
use ballonet::memory::PhysAddr;

const SIGNATURE: [u8; 8] = *b"RSD PTR ";

/// The root pointer of ACPI 1.0.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRsdp {
    signature: [u8; 8],
    checksum: u8,
    oem_id: [u8; 6],
    revision: u8,
    rsdt: U32,
}

/// What revision 2 appends.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawExtension {
    length: U32,
    xsdt: U64,
    checksum: u8,
    reserved: [u8; 3],
}

const SHORT_SIZE: usize = size_of::<RawRsdp>();
const LONG_SIZE: usize = SHORT_SIZE + size_of::<RawExtension>();

/// Why there is no root pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum RsdpError {
    /// The address is not in readable memory.
    #[display("no ACPI root pointer: {_0}")]
    Unreadable(Unreadable),
    /// There are too few bytes.
    #[display("no ACPI root pointer: it is cut off after {_0} bytes")]
    Truncated(#[error(not(source))] usize),
    /// The signature is wrong.
    #[display("no ACPI root pointer: the signature is {_0}")]
    Signature(#[error(not(source))] Text<8>),
    /// The first 20 bytes do not sum to zero.
    #[display("the ACPI root pointer's checksum is off by {_0:#04x}")]
    Checksum(#[error(not(source))] u8),
    /// Revision 2 or later, and its 36 bytes do not sum to zero.
    #[display("the ACPI root pointer's extended checksum is off by {_0:#04x}")]
    ExtendedChecksum(#[error(not(source))] u8),
    /// Revision 2 or later, and the given length is too small.
    #[display("the ACPI root pointer's length of {_0} bytes is too small")]
    Length(#[error(not(source))] u32),
}

/// The root pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rsdp {
    /// 0 for ACPI 1.0, 2 for later versions.
    pub revision: u8,
    /// The machine's maker.
    pub oem_id: Text<6>,
    /// The root table with 32-bit pointers, if one is given.
    pub rsdt: Option<PhysAddr>,
    /// The root table with 64-bit pointers, if one is given.
    pub xsdt: Option<PhysAddr>,
}

impl Rsdp {
    /// Where PC firmware puts the root pointer if it is not in the extended BIOS data area.
    pub(crate) const BIOS_AREA: (u64, u64) = (0xe_0000, 0x2_0000);

    /// Parses the root pointer at the start of `bytes`.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, RsdpError> {
        let (raw, rest) = RawRsdp::read_from_prefix(bytes).map_err(|_| RsdpError::Truncated(bytes.len()))?;
        let (rsdp, has_extension) = Self::parse_short(&raw)?;
        let xsdt = if has_extension { parse_extension(bytes, rest)? } else { 0 };
        Ok(Self { xsdt: pointer(xsdt), ..rsdp })
    }

    /// Parses the part of ACPI 1.0. Also returns whether an extension follows.
    fn parse_short(raw: &RawRsdp) -> Result<(Self, bool), RsdpError> {
        if raw.signature != SIGNATURE {
            return Err(RsdpError::Signature(Text(raw.signature)));
        }
        match checksum(raw.as_bytes()) {
            0 => {}
            sum => return Err(RsdpError::Checksum(sum)),
        }
        let rsdt = pointer(raw.rsdt.get().into());
        let rsdp = Self { revision: raw.revision, oem_id: Text(raw.oem_id), rsdt, xsdt: None };
        Ok((rsdp, raw.revision >= 2))
    }

    /// Reads the root pointer at `address`.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub(crate) fn read(memory: &impl PhysicalMemory, address: PhysAddr) -> Result<Self, RsdpError> {
        Self::read_within(memory, address, LONG_SIZE as u64)
    }

    /// Reads the root pointer at `address`, using at most `room` bytes.
    fn read_within(memory: &impl PhysicalMemory, address: PhysAddr, room: u64) -> Result<Self, RsdpError> {
        let mut bytes = [0; LONG_SIZE];
        // The short form may end just before the end of memory.
        if room >= LONG_SIZE as u64 && memory.read(address, &mut bytes).is_ok() {
            return Self::parse(&bytes);
        }
        if room < SHORT_SIZE as u64 {
            return Err(RsdpError::Truncated(room as usize));
        }
        let short: RawRsdp = memory.read_value(address.as_u64()).map_err(RsdpError::Unreadable)?;
        Self::parse_short(&short).map(|(rsdp, _)| rsdp)
    }

    /// The root pointer: the one in the loader's range, or one where PC firmware puts it. `problem` receives the
    /// reason why the loader's is not used.
    pub(crate) fn locate(
        memory: &impl PhysicalMemory,
        from_loader: Option<PhysRange>,
        problem: &mut dyn FnMut(PhysAddr, RsdpError),
    ) -> Option<Self> {
        if let Some(range) = from_loader {
            match Self::read_within(memory, range.start(), range.bytes()) {
                Ok(rsdp) => return Some(rsdp),
                Err(error) => problem(range.start(), error),
            }
        }
        Self::search_bios(memory).and_then(|address| Self::read(memory, address).ok())
    }

    /// Searches `area` for a root pointer at multiples of 16 (ACPI 6.5, 5.2.5.1). Skips damaged ones and unreadable
    /// memory.
    pub(crate) fn search(memory: &impl PhysicalMemory, area: PhysRange) -> Option<PhysAddr> {
        let first = area.start().as_u64().next_multiple_of(16);
        (first..area.end()).step_by(16).filter_map(PhysAddr::new).find(|&address| {
            memory.read_value::<[u8; 8]>(address.as_u64()) == Ok(SIGNATURE) && Self::read(memory, address).is_ok()
        })
    }

    /// Searches where PC firmware puts the root pointer: the first KiB of the extended BIOS data area, then the BIOS
    /// area, 0xE0000 to 0xFFFFF.
    pub fn search_bios(memory: &impl PhysicalMemory) -> Option<PhysAddr> {
        let (start, length) = Self::BIOS_AREA;
        let bios = PhysRange::parse(start, length).ok();
        [extended_data_area(memory), bios].into_iter().flatten().find_map(|area| Self::search(memory, area))
    }
}

/// The first KiB of the extended BIOS data area; the word at 0x40E is its segment.
fn extended_data_area(memory: &impl PhysicalMemory) -> Option<PhysRange> {
    let segment: [u8; 2] = memory.read_value(0x40e).ok()?;
    let start = u64::from(u16::from_le_bytes(segment)) << 4;
    if start == 0 { None } else { PhysRange::parse(start, 1024).ok() }
}

/// The XSDT's address, after checks of the extension `rest` behind the short form.
fn parse_extension(bytes: &[u8], rest: &[u8]) -> Result<u64, RsdpError> {
    let (raw, _) = RawExtension::read_from_prefix(rest).map_err(|_| RsdpError::Truncated(bytes.len()))?;
    if (raw.length.get() as usize) < LONG_SIZE {
        return Err(RsdpError::Length(raw.length.get()));
    }
    match checksum(bytes.get(..LONG_SIZE).unwrap_or(bytes)) {
        0 => Ok(raw.xsdt.get()),
        sum => Err(RsdpError::ExtendedChecksum(sum)),
    }
}

fn pointer(address: u64) -> Option<PhysAddr> {
    if address == 0 { None } else { PhysAddr::new(address) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::acpi::fake::{Firmware, rsdp_long, rsdp_short, seal};
    use crate::boot::MemoryImage;

    #[test]
    fn both_forms_are_read() {
        let short = Rsdp::parse(&rsdp_short(0x1234)).unwrap();
        assert_eq!((short.revision, short.rsdt, short.xsdt), (0, PhysAddr::new(0x1234), None));
        let long = Rsdp::parse(&rsdp_long(0, 0x1_0000_0000)).unwrap();
        assert_eq!((long.revision, long.rsdt, long.xsdt), (2, None, PhysAddr::new(0x1_0000_0000)));
        assert_eq!(long.oem_id.to_string(), "BOCHS");
    }

    #[test]
    fn any_byte_changed_or_missing_is_noticed() {
        for good in [rsdp_short(0x1234), rsdp_long(0x1234, 0x5678)] {
            for length in 0..good.len() {
                assert!(matches!(Rsdp::parse(&good[..length]), Err(RsdpError::Truncated(_))));
            }
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 1;
                let error = Rsdp::parse(&bad).unwrap_err();
                match at {
                    0..8 => assert!(matches!(error, RsdpError::Signature(_))),
                    8..20 => assert!(matches!(error, RsdpError::Checksum(_)), "byte {at}: {error}"),
                    _ => assert!(matches!(error, RsdpError::ExtendedChecksum(_)), "byte {at}: {error}"),
                }
            }
        }
    }

    #[test]
    fn a_length_too_short_for_the_long_form_is_refused() {
        let mut bytes = rsdp_long(0, 0x1000);
        bytes[20] = 20;
        seal(&mut bytes, 32);
        assert_eq!(Rsdp::parse(&bytes), Err(RsdpError::Length(20)));
    }

    #[test]
    fn a_short_root_pointer_may_end_where_memory_does() {
        let bytes = rsdp_short(0x1234);
        let memory = MemoryImage::new(PhysAddr::new(0x1000).unwrap(), &bytes);
        assert!(Rsdp::read(&memory, PhysAddr::new(0x1000).unwrap()).is_ok());
        assert!(matches!(Rsdp::read(&memory, PhysAddr::new(0x1010).unwrap()), Err(RsdpError::Unreadable(_))));
    }

    #[test]
    fn no_more_is_read_than_the_loader_has() {
        let mut firmware = Firmware::new();
        firmware.place(Firmware::BASE, &rsdp_long(0x1234, 0x5678));
        let mut problems = Vec::new();
        let mut locate = |room| {
            let range = PhysRange::parse(Firmware::BASE, room).ok();
            Rsdp::locate(&firmware.memory(), range, &mut |address, error| problems.push((address.as_u64(), error)))
        };
        let whole = locate(36).unwrap();
        assert_eq!((whole.rsdt, whole.xsdt), (PhysAddr::new(0x1234), PhysAddr::new(0x5678)));
        // A tag that holds the ACPI 1.0 form has no extension, whatever the revision.
        let short = locate(20).unwrap();
        assert_eq!((short.revision, short.rsdt, short.xsdt), (2, PhysAddr::new(0x1234), None));
        assert_eq!(locate(19), None);
        assert_eq!(problems, [(Firmware::BASE, RsdpError::Truncated(19))]);
    }

    #[test]
    fn where_the_loader_gives_none_that_is_sound_the_bios_area_is_searched() {
        let mut bytes = vec![0; 0x10_0000];
        bytes[0xf_5a40..][..20].copy_from_slice(&rsdp_short(0x1234));
        let memory = MemoryImage::new(PhysAddr::new(0).unwrap(), &bytes);
        let mut problems = Vec::new();
        for from_loader in [None, PhysRange::parse(0x5000, 36).ok(), PhysRange::parse(0x1000_0000, 36).ok()] {
            let mut problem = |address: PhysAddr, error| problems.push((address.as_u64(), error));
            let found = Rsdp::locate(&memory, from_loader, &mut problem);
            assert_eq!(found.and_then(|rsdp| rsdp.rsdt), PhysAddr::new(0x1234), "{from_loader:?}");
        }
        assert!(matches!(problems[..], [(0x5000, RsdpError::Signature(_)), (0x1000_0000, RsdpError::Unreadable(_))]));
    }

    #[test]
    fn the_search_takes_aligned_and_undamaged_root_pointers_only() {
        let mut firmware = Firmware::new();
        let area = PhysRange::parse(Firmware::BASE + 1, 0x1000).unwrap();
        firmware.place(Firmware::BASE + 0x108, &rsdp_short(0x1));
        let mut damaged = rsdp_short(0x2);
        damaged[12] ^= 1;
        firmware.place(Firmware::BASE + 0x200, &damaged);
        assert_eq!(Rsdp::search(&firmware.memory(), area), None);
        firmware.place(Firmware::BASE + 0x300, &rsdp_short(0x3));
        assert_eq!(Rsdp::search(&firmware.memory(), area), PhysAddr::new(Firmware::BASE + 0x300));
    }

    #[test]
    fn a_search_in_memory_that_is_not_there_ends() {
        let memory = MemoryImage::new(PhysAddr::new(0).unwrap(), &[]);
        assert_eq!(Rsdp::search_bios(&memory), None);
        let top = PhysRange::parse((1 << 52) - 20, 20).unwrap();
        assert_eq!(Rsdp::search(&memory, top), None);
    }

    #[test]
    fn the_extended_bios_data_area_comes_before_the_bios() {
        let mut bytes = vec![0; 0x10_0000];
        bytes[0xf_5a40..][..20].copy_from_slice(&rsdp_short(1));
        let base = PhysAddr::new(0).unwrap();
        assert_eq!(Rsdp::search_bios(&MemoryImage::new(base, &bytes)), PhysAddr::new(0xf_5a40));
        bytes[0x40e..0x410].copy_from_slice(&0x9fc0u16.to_le_bytes());
        bytes[0x9_fc10..][..20].copy_from_slice(&rsdp_short(2));
        assert_eq!(Rsdp::search_bios(&MemoryImage::new(base, &bytes)), PhysAddr::new(0x9_fc10));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_root_pointer_or_an_error(bytes: Vec<u8>) {
            let _ = Rsdp::parse(&bytes);
        }
    }
}
