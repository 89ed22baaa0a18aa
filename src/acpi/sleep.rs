//! Power-off: the values of `\_S5` for the PM1 control registers (ACPI 6.5, 7.4.2.5 and 4.8.3.2).
//!
//! `_S5` is AML, but every compiler encodes it in the same few bytes, so a bounded scan replaces an interpreter.

use super::table::HEADER_SIZE;
use super::{Signature, Tables};
use crate::boot::PhysicalMemory;

/// The sleep type of a sleep state: 3 bits for each half of the PM1 control register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SleepType {
    /// For `PM1a`, and for the sleep control register of hardware-reduced machines.
    #[doc(alias = "SLP_TYPa")]
    pub a: u8,
    /// For `PM1b`.
    #[doc(alias = "SLP_TYPb")]
    pub b: u8,
}

const NAME_OP: u8 = 0x08;
const ROOT_CHAR: u8 = b'\\';
const PACKAGE_OP: u8 = 0x12;
const ZERO_OP: u8 = 0x00;
const ONE_OP: u8 = 0x01;
const BYTE_PREFIX: u8 = 0x0a;
const WORD_PREFIX: u8 = 0x0b;
const DWORD_PREFIX: u8 = 0x0c;

/// Looks for `_S5` in the DSDT, then in the SSDTs.
pub(super) fn find_soft_off(memory: &impl PhysicalMemory, tables: &Tables) -> Option<SleepType> {
    tables.usable(Signature::DSDT).chain(tables.usable(Signature::SSDT)).find_map(|table| {
        let bytes = table.header?.copy(memory, table.address).ok()?;
        SleepType::find_soft_off(bytes.get(HEADER_SIZE..)?)
    })
}

impl SleepType {
    /// Looks for `Name (_S5, Package () { a, b, ... })` in AML; `None` if it is missing or not constant.
    pub(crate) fn find_soft_off(aml: &[u8]) -> Option<Self> {
        aml.windows(4).enumerate().filter(|(_, name)| name == b"_S5_").find_map(|(at, _)| {
            let (before, after) = (aml.get(..at)?, aml.get(at + 4..)?);
            let is_name = before.ends_with(&[NAME_OP]) || before.ends_with(&[NAME_OP, ROOT_CHAR]);
            if is_name { package(after) } else { None }
        })
    }
}

/// The first two elements of the package at the start of `aml`.
fn package(aml: &[u8]) -> Option<SleepType> {
    let rest = aml.strip_prefix(&[PACKAGE_OP])?;
    // The top two bits of the first length byte give the number of further ones.
    let length_bytes = 1 + usize::from(rest.first()? >> 6);
    let (&count, elements) = rest.get(length_bytes..)?.split_first()?;
    let (a, rest) = constant(elements)?;
    let b = if count >= 2 { constant(rest)?.0 } else { a };
    Some(SleepType { a: a & 7, b: b & 7 })
}

/// The low byte of the constant at the start of `aml`, and the bytes behind it.
fn constant(aml: &[u8]) -> Option<(u8, &[u8])> {
    let (&prefix, rest) = aml.split_first()?;
    let width = match prefix {
        ZERO_OP | ONE_OP => return Some((prefix, rest)),
        BYTE_PREFIX => 1,
        WORD_PREFIX => 2,
        DWORD_PREFIX => 4,
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(width)?;
    Some((*value.first()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn soft_off_is_found_as_compilers_write_it() {
        // Name (_S5, Package (4) { 0, 0, 0, 0 }), as in QEMU.
        assert_eq!(SleepType::find_soft_off(b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00"), Some(SleepType { a: 0, b: 0 }));
        // Name (\_S5, Package (2) { 7, 5 }) with byte constants, between other objects.
        let aml = b"_S5_\x14\x08\\_S5_\x12\x06\x02\x0a\x07\x0a\x05\x14\x20";
        assert_eq!(SleepType::find_soft_off(aml), Some(SleepType { a: 7, b: 5 }));
        // A two-byte package length, a word, and One; then a package of one element.
        assert_eq!(
            SleepType::find_soft_off(b"\x08_S5_\x12\x48\x00\x02\x0b\x06\x00\x01"),
            Some(SleepType { a: 6, b: 1 })
        );
        assert_eq!(SleepType::find_soft_off(b"\x08_S5_\x12\x04\x01\x0a\x05"), Some(SleepType { a: 5, b: 5 }));
    }

    #[test]
    fn what_is_not_a_package_of_constants_is_not_soft_off() {
        for aml in [
            &b""[..],
            b"_S5_",
            b"\x08_S5_",
            b"\x08_S4_\x12\x06\x04\x00\x00\x00\x00",
            b"\x14_S5_\x12\x06\x04\x00\x00\x00\x00",
            b"\x08_S5_\x12\x06\x04ABCD",
            b"\x08_S5_\x12\xc6",
            b"\x08_S5_\x12\x06\x04\x0a",
            b"\x08_S5_\x12\x06\x04\x0c\x00\x00",
        ] {
            assert_eq!(SleepType::find_soft_off(aml), None, "{}", aml.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_behind_the_name_are_soft_off_or_not(mut before: Vec<u8>, after: Vec<u8>) {
            before.extend_from_slice(b"\x08_S5_\x12");
            before.extend_from_slice(&after);
            if let Some(found) = SleepType::find_soft_off(&before) {
                prop_assert!(found.a <= 7 && found.b <= 7);
            }
        }
    }
}
