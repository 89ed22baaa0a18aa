//! Common to all ACPI tables: signature, header, checksum (ACPI 6.5, 5.2.6).

use alloc::vec::Vec;
use core::fmt;

use derive_more::{Display, Error};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::boot::{PhysicalMemory, Unreadable};

/// Size of the header in bytes.
pub(super) const HEADER_SIZE: usize = size_of::<RawHeader>();

/// The longest table to verify, in bytes. The largest known are SSDTs of servers, of some 3 MiB. A greater length
/// means damage, and summing it would only take time.
pub(super) const LONGEST: u32 = 16 << 20;

/// The longest table to copy, in bytes: enough for a MADT of 65,536 processors, or any known DSDT.
pub(super) const LONGEST_COPY: u32 = 1 << 20;

/// Fixed-width ASCII from firmware, padded with blanks or NULs. Other bytes print as dots.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<const N: usize>(pub [u8; N]);

/// The four characters that identify the kind of a table.
pub(crate) type Signature = Text<4>;

impl Text<4> {
    /// Root table with 64-bit pointers.
    pub(crate) const XSDT: Self = Self(*b"XSDT");
    /// Root table with 32-bit pointers.
    pub(crate) const RSDT: Self = Self(*b"RSDT");
    /// Multiple APIC description table.
    pub(crate) const MADT: Self = Self(*b"APIC");
    /// PCI Express memory mapped configuration space.
    pub(crate) const MCFG: Self = Self(*b"MCFG");
    /// Fixed ACPI description table.
    pub(crate) const FADT: Self = Self(*b"FACP");
    /// Affinity of addresses and CPUs.
    pub(crate) const SRAT: Self = Self(*b"SRAT");
    /// High precision event timer.
    pub(crate) const HPET: Self = Self(*b"HPET");
    /// Differentiated system description table: AML.
    pub(crate) const DSDT: Self = Self(*b"DSDT");
    /// Secondary system description table: more AML.
    pub(crate) const SSDT: Self = Self(*b"SSDT");
    /// Serial port console redirection.
    pub(crate) const SPCR: Self = Self(*b"SPCR");
    /// Debug ports.
    pub(crate) const DBG2: Self = Self(*b"DBG2");

    /// For a table whose header cannot be read.
    pub(super) const UNKNOWN: Self = Self(*b"    ");
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.map(|byte| match byte {
            0 => b' ',
            b' '..=b'~' => byte,
            _ => b'.',
        });
        f.pad(core::str::from_utf8(&shown).unwrap_or("").trim_end())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Why a table is unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum TableError {
    /// The table is not in readable memory.
    #[display("{_0}")]
    Unreadable(Unreadable),
    /// The length in its header is invalid.
    #[display("its length of {_0} bytes is invalid")]
    Length(#[error(not(source))] u32),
    /// It is too long to copy.
    #[display("its length of {_0} bytes is too much to read")]
    TooLong(#[error(not(source))] u32),
    /// It has fewer bytes than its header says.
    #[display("it is cut off: {available} of {length} bytes")]
    Truncated {
        /// The length in the header; the header's own size if that is cut off.
        length: usize,
        /// The bytes that exist.
        available: usize,
    },
    /// It is another table.
    #[display("it is {found}, not {expected}")]
    Signature {
        /// The expected signature.
        expected: Signature,
        /// The signature found.
        found: Signature,
    },
    /// Its bytes do not sum to zero.
    #[display("its checksum is off by {_0:#04x}")]
    Checksum(#[error(not(source))] u8),
    /// It is shorter than this kind of table must be.
    #[display("it is too short: {length} bytes where {needed} are needed")]
    TooShort {
        /// Its length in bytes.
        length: usize,
        /// The minimum length.
        needed: usize,
    },
    /// Its address of a device is invalid.
    #[display("its address {_0:#x} is invalid")]
    Address(#[error(not(source))] u64),
    /// There is no memory for a copy.
    #[display("there is no memory for a copy of {_0} bytes")]
    OutOfMemory(#[error(not(source))] u32),
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    signature: [u8; 4],
    length: U32,
    revision: u8,
    checksum: u8,
    oem_id: [u8; 6],
    oem_table_id: [u8; 8],
    oem_revision: U32,
    creator_id: [u8; 4],
    creator_revision: U32,
}

/// The fields of a table's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The kind of the table.
    pub signature: Signature,
    /// Its length in bytes, the header included.
    pub length: u32,
    /// Revision of the table's layout.
    pub revision: u8,
    /// The machine's maker.
    pub oem_id: Text<6>,
    /// The maker's name for the table.
    pub oem_table_id: Text<8>,
    /// The maker's revision.
    pub oem_revision: u32,
}

impl Header {
    /// Reads the header at `address`, which comes from firmware. Does not check the length in it.
    pub(super) fn read(memory: &impl PhysicalMemory, address: u64) -> Result<Self, TableError> {
        memory.read_value::<RawHeader>(address).map(Self::from).map_err(TableError::Unreadable)
    }

    /// Checks length and checksum of the table at `address` with this header, without copying it.
    pub(super) fn verify(&self, memory: &impl PhysicalMemory, address: u64) -> Result<(), TableError> {
        /// Bytes summed at a time: they fit the stack, and divide the page size, so that few reads straddle pages.
        const CHUNK: u32 = 256;
        if !(HEADER_SIZE as u32..=LONGEST).contains(&self.length) {
            return Err(TableError::Length(self.length));
        }
        let mut sum = 0u8;
        for offset in (0..self.length).step_by(CHUNK as usize) {
            let mut chunk = [0; CHUNK as usize];
            let length = CHUNK.min(self.length - offset) as usize;
            read_at(memory, address, offset, chunk.get_mut(..length).unwrap_or(&mut []))?;
            sum = sum.wrapping_add(checksum(&chunk));
        }
        if sum == 0 { Ok(()) } else { Err(TableError::Checksum(sum)) }
    }

    /// Copies the table at `address` with this header. Bounds its length, does not verify its checksum.
    pub(super) fn copy(&self, memory: &impl PhysicalMemory, address: u64) -> Result<Vec<u8>, TableError> {
        if self.length > LONGEST_COPY {
            return Err(TableError::TooLong(self.length));
        }
        let length = self.length as usize;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|_| TableError::OutOfMemory(self.length))?;
        bytes.resize(length, 0);
        read_at(memory, address, 0, &mut bytes)?;
        Ok(bytes)
    }
}

fn read_at(memory: &impl PhysicalMemory, base: u64, offset: u32, bytes: &mut [u8]) -> Result<(), TableError> {
    let unreadable = Unreadable { address: base, length: bytes.len() };
    let address = base.checked_add(u64::from(offset)).and_then(ballonet::memory::PhysAddr::new);
    memory.read(address.ok_or(TableError::Unreadable(unreadable))?, bytes).map_err(TableError::Unreadable)
}

impl From<RawHeader> for Header {
    fn from(raw: RawHeader) -> Self {
        Self {
            signature: Text(raw.signature),
            length: raw.length.get(),
            revision: raw.revision,
            oem_id: Text(raw.oem_id),
            oem_table_id: Text(raw.oem_table_id),
            oem_revision: raw.oem_revision.get(),
        }
    }
}

/// The sum of all bytes: 0 if the checksum is right.
pub(super) fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
}

/// The header and body of the table at the start of `bytes`, after checks of signature, length and checksum.
pub(super) fn open(bytes: &[u8], expected: Signature) -> Result<(Header, &[u8]), TableError> {
    let cut_off = |length| TableError::Truncated { length, available: bytes.len() };
    let (raw, _) = RawHeader::read_from_prefix(bytes).map_err(|_| cut_off(HEADER_SIZE))?;
    let header = Header::from(raw);
    if header.signature != expected {
        return Err(TableError::Signature { expected, found: header.signature });
    }
    let length = header.length as usize;
    if length < HEADER_SIZE {
        return Err(TableError::Length(header.length));
    }
    let bytes = bytes.get(..length).ok_or(cut_off(length))?;
    match checksum(bytes) {
        0 => Ok((header, bytes.get(HEADER_SIZE..).unwrap_or(&[]))),
        sum => Err(TableError::Checksum(sum)),
    }
}

/// The structure at the start of a table's body.
pub(super) fn body<T: FromBytes>(body: &[u8]) -> Result<(T, &[u8]), TableError> {
    T::read_from_prefix(body)
        .map_err(|_| TableError::TooShort { length: HEADER_SIZE + body.len(), needed: HEADER_SIZE + size_of::<T>() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::acpi::fake::{Firmware, seal, table};

    #[test]
    fn text_of_firmware_is_fit_to_be_printed() {
        assert_eq!(Text(*b"BOCHS \0").to_string(), "BOCHS");
        assert_eq!(Text(*b"\x1b[2J\xff").to_string(), ".[2J.");
        assert_eq!(format!("{:6}|", Text(*b"AB  ")), "AB    |");
    }

    #[test]
    fn bytes_behind_the_table_are_no_part_of_it() {
        let mut bytes = table(Signature::HPET, 1, &[1, 2, 3]);
        bytes.extend([0xaa; 5]);
        assert_eq!(open(&bytes, Signature::HPET).unwrap().1, [1, 2, 3]);
    }

    #[test]
    fn absurd_lengths_are_named() {
        for length in [0u32, 35, LONGEST + 1, u32::MAX] {
            let mut bytes = table(Signature::SSDT, 1, &[]);
            bytes[4..8].copy_from_slice(&length.to_le_bytes());
            seal(&mut bytes, 9);
            let mut firmware = Firmware::new();
            firmware.place(Firmware::BASE, &bytes);
            let header = Header::read(&firmware.memory(), Firmware::BASE).unwrap();
            assert_eq!(header.verify(&firmware.memory(), Firmware::BASE), Err(TableError::Length(length)));
            if length < 36 {
                assert_eq!(open(&bytes, Signature::SSDT), Err(TableError::Length(length)));
            }
        }
    }

    #[test]
    fn a_table_is_summed_up_to_its_last_byte() {
        for length in [0, 1, 219, 220, 221, 475, 476, 477, 5000] {
            let mut firmware = Firmware::new();
            let bytes = table(Signature::SSDT, 1, &vec![7; length]);
            firmware.place(Firmware::BASE + 8, &bytes);
            let header = Header::read(&firmware.memory(), Firmware::BASE + 8).unwrap();
            assert_eq!(header.verify(&firmware.memory(), Firmware::BASE + 8), Ok(()));
            assert_eq!(header.copy(&firmware.memory(), Firmware::BASE + 8), Ok(bytes.clone()));
            firmware.at(Firmware::BASE + 8)[bytes.len() - 1] ^= 1;
            assert!(matches!(
                header.verify(&firmware.memory(), Firmware::BASE + 8),
                Err(TableError::Checksum(_) | TableError::Length(_))
            ));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_table_or_an_error(bytes: Vec<u8>) {
            let _ = open(&bytes, Signature::MADT);
        }

        #[test]
        fn any_address_and_length_are_survived(address: u64, length: u32) {
            let firmware = Firmware::new();
            let _ = Header::read(&firmware.memory(), address);
            let header = Header { length, ..Header::read(&firmware.memory(), Firmware::BASE).unwrap() };
            prop_assert!(header.verify(&firmware.memory(), address).is_err());
            prop_assert!(header.copy(&firmware.memory(), address).is_err() || address - Firmware::BASE < 0x1_0000);
        }
    }
}
