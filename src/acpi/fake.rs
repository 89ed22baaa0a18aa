//! Firmware for tests: tables with right checksums, laid out in memory.

use crate::boot::MemoryImage;
use ballonet::memory::PhysAddr;

use super::table::checksum;
use super::{Signature, TableError};

/// Sets the byte at `at` so that the sum of `bytes` is zero.
pub(super) fn seal(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = checksum(bytes).wrapping_neg();
}

/// A table with this body, and with the right length and checksum.
pub(super) fn table(signature: Signature, revision: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = signature.0.to_vec();
    bytes.extend_from_slice(&u32::try_from(36 + body.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(&[revision, 0]);
    bytes.extend_from_slice(b"BOCHS BXPC    ");
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(b"BXPC");
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(body);
    seal(&mut bytes, 9);
    bytes
}

/// The root pointer of ACPI 1.0.
pub(super) fn rsdp_short(rsdt: u32) -> Vec<u8> {
    let mut bytes = b"RSD PTR \0BOCHS \0".to_vec();
    bytes.extend_from_slice(&rsdt.to_le_bytes());
    seal(&mut bytes, 8);
    bytes
}

/// The root pointer of ACPI 2.0 and later.
pub(super) fn rsdp_long(rsdt: u32, xsdt: u64) -> Vec<u8> {
    let mut bytes = rsdp_short(rsdt);
    bytes[15] = 2;
    seal(&mut bytes, 8);
    bytes.extend_from_slice(&36u32.to_le_bytes());
    bytes.extend_from_slice(&xsdt.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    seal(&mut bytes, 32);
    bytes
}

/// A generic address structure.
pub(super) fn gas(space: u8, bit_width: u8, access: u8, address: u64) -> Vec<u8> {
    let mut bytes = vec![space, bit_width, 0, access];
    bytes.extend_from_slice(&address.to_le_bytes());
    bytes
}

/// Memory with tables in it.
pub(super) struct Firmware {
    bytes: Vec<u8>,
}

impl Firmware {
    pub(super) const BASE: u64 = 0x10_0000;

    /// 64 KiB of empty memory.
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; 0x1_0000] }
    }

    /// Puts `bytes` at `address`.
    pub(super) fn place(&mut self, address: u64, bytes: &[u8]) {
        self.at(address)[..bytes.len()].copy_from_slice(bytes);
    }

    /// The bytes from `address` on.
    pub(super) fn at(&mut self, address: u64) -> &mut [u8] {
        &mut self.bytes[usize::try_from(address - Self::BASE).unwrap()..]
    }

    pub(super) fn memory(&self) -> MemoryImage<'_> {
        MemoryImage::new(PhysAddr::new(Self::BASE).unwrap(), &self.bytes)
    }
}

/// Checks what every table parser promises: it refuses a table cut off anywhere, or with any one byte changed.
pub(super) fn assert_damage_is_refused<T>(good: &[u8], parse: impl Fn(&[u8]) -> Result<T, TableError>) {
    assert!(parse(good).is_ok());
    for length in 0..good.len() {
        assert!(matches!(parse(&good[..length]), Err(TableError::Truncated { .. })), "cut off after {length} bytes");
    }
    for at in 0..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 0x10;
        let error = parse(&bad).err();
        let as_expected = match at {
            0..4 => matches!(error, Some(TableError::Signature { .. })),
            4..8 => error.is_some(),
            _ => matches!(error, Some(TableError::Checksum(_))),
        };
        assert!(as_expected, "byte {at} changed: {error:?}");
    }
}

/// Feeds a parser a valid header over bodies of any length and content: it must not panic.
pub(super) fn parse_every_prefix<T>(signature: Signature, body: &[u8], parse: impl Fn(&[u8]) -> Result<T, TableError>) {
    for length in 0..=body.len() {
        for revision in [0, 1, 3, 6, 255] {
            let _ = parse(&table(signature, revision, &body[..length]));
        }
    }
}
