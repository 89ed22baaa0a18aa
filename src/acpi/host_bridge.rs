//! The PCI host bridge as the DSDT describes it: the addresses that it forwards to its bus, and where configuration
//! space is mapped.
//!
//! The DSDT is AML, which this kernel does not interpret. But QEMU and similar VMMs write a host bridge's resources
//! as constants: a `_CRS` buffer of resource descriptors for bus numbers and addresses, and a `_CBA` that returns a
//! number. A bounded scan finds those; where firmware computes them, it finds nothing.

use alloc::vec::Vec;

use super::table::HEADER_SIZE;
use super::{Signature, Tables};
use crate::boot::PhysicalMemory;
use ballonet::memory::{PhysAddr, PhysRange};

/// The resources that a PCI host bridge forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostBridge {
    /// The first and last bus.
    pub buses: (u8, u8),
    /// Memory windows, in the order of the table.
    pub memory: Vec<PhysRange>,
    /// I/O windows: first and last port.
    pub ports: Vec<(u16, u16)>,
    /// Where the configuration space of bus 0 is mapped, if `_CBA` gives it.
    pub ecam: Option<PhysAddr>,
}

/// The most windows kept of each kind: QEMU writes four, real firmware a dozen.
const MOST: usize = 32;

const NAME_OP: u8 = 0x08;
const BUFFER_OP: u8 = 0x11;
const METHOD_OP: u8 = 0x14;
const RETURN_OP: u8 = 0xa4;
const BYTE_PREFIX: u8 = 0x0a;
const WORD_PREFIX: u8 = 0x0b;
const DWORD_PREFIX: u8 = 0x0c;
const QWORD_PREFIX: u8 = 0x0e;

/// Looks for a host bridge in the DSDT, then in the SSDTs.
pub(super) fn find(memory: &impl PhysicalMemory, tables: &Tables) -> Option<HostBridge> {
    tables.usable(Signature::DSDT).chain(tables.usable(Signature::SSDT)).find_map(|table| {
        let bytes = table.header?.copy(memory, table.address).ok()?;
        HostBridge::scan(bytes.get(HEADER_SIZE..)?)
    })
}

impl HostBridge {
    /// Looks for the first `_CRS` that produces bus numbers.
    pub(crate) fn scan(aml: &[u8]) -> Option<Self> {
        let mut bridge = after(aml, b"_CRS").find_map(|(before, rest)| {
            if !before.ends_with(&[NAME_OP]) {
                return None;
            }
            Self::from_resources(buffer(rest)?)
        })?;
        bridge.ecam = after(aml, b"_CBA").find_map(|(before, rest)| base_address(before, rest));
        Some(bridge)
    }

    /// Parses resource descriptors up to the end tag. `None` if they include no bus numbers.
    fn from_resources(mut bytes: &[u8]) -> Option<Self> {
        let mut buses = None;
        let mut bridge = Self { buses: (0, 0), memory: Vec::new(), ports: Vec::new(), ecam: None };
        while let Some((descriptor, rest)) = Descriptor::take(bytes) {
            bytes = rest;
            let Some(window) = descriptor.window() else { continue };
            match window.kind {
                Kind::Memory => bridge.add_memory(&window),
                Kind::Ports => bridge.add_ports(&window),
                Kind::Buses => buses = Some((u8::try_from(window.first).ok()?, u8::try_from(window.last).ok()?)),
            }
        }
        bridge.buses = buses.filter(|(first, last)| first <= last)?;
        Some(bridge)
    }

    fn add_memory(&mut self, window: &Window) {
        let bytes = window.last.checked_sub(window.first).and_then(|reach| reach.checked_add(1));
        let range = bytes.and_then(|bytes| PhysRange::new(PhysAddr::new(window.first)?, bytes));
        if let Some(range) = range.filter(|_| self.memory.len() < MOST) {
            self.memory.push(range);
        }
    }

    fn add_ports(&mut self, window: &Window) {
        if let (Ok(first), Ok(last)) = (u16::try_from(window.first), u16::try_from(window.last))
            && first <= last
            && self.ports.len() < MOST
        {
            self.ports.push((first, last));
        }
    }
}

/// For each occurrence of `name`, the bytes before and after it.
pub(super) fn after<'a>(aml: &'a [u8], name: &'static [u8; 4]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    aml.windows(4)
        .enumerate()
        .filter(move |(_, window)| window == name)
        .filter_map(move |(at, _)| Some((aml.get(..at)?, aml.get(at + 4..)?)))
}

/// The package length at the start of `aml`, which includes its own bytes, and the number of those (ACPI 6.5,
/// 20.2.4).
pub(super) fn package_length(aml: &[u8]) -> Option<(usize, usize)> {
    let &lead = aml.first()?;
    let more = usize::from(lead >> 6);
    if more == 0 {
        return Some((usize::from(lead), 1));
    }
    let high = aml.get(1..=more)?.iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    Some((high << 4 | usize::from(lead & 0xf), 1 + more))
}

/// The constant at the start of `aml`, and the bytes behind it.
pub(super) fn constant(aml: &[u8]) -> Option<(u64, &[u8])> {
    let (&prefix, rest) = aml.split_first()?;
    let size = match prefix {
        0 | 1 => return Some((prefix.into(), rest)),
        BYTE_PREFIX => 1,
        WORD_PREFIX => 2,
        DWORD_PREFIX => 4,
        QWORD_PREFIX => 8,
        _ => return None,
    };
    let (bytes, rest) = rest.split_at_checked(size)?;
    Some((bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)), rest))
}

/// The contents of the buffer at the start of `aml`.
pub(super) fn buffer(aml: &[u8]) -> Option<&[u8]> {
    let rest = aml.strip_prefix(&[BUFFER_OP])?;
    let (length, own) = package_length(rest)?;
    let (_, contents) = constant(rest.get(own..length)?)?;
    Some(contents)
}

/// The number in `Name (_CBA, n)` or `Method (_CBA) { Return (n) }`.
fn base_address(before: &[u8], rest: &[u8]) -> Option<PhysAddr> {
    let value = if before.ends_with(&[NAME_OP]) {
        constant(rest)?.0
    } else {
        // A method's length is between its opcode and its name: one to four bytes.
        let is_method = (1..=4).any(|own| before.len() > own && before.get(before.len() - own - 1) == Some(&METHOD_OP));
        let (_flags, body) = rest.split_first().filter(|_| is_method)?;
        constant(body.strip_prefix(&[RETURN_OP])?)?.0
    };
    PhysAddr::new(value).filter(|address| address.as_u64() != 0 && address.as_u64().is_multiple_of(1 << 20))
}

/// A resource descriptor (ACPI 6.5, 6.4).
pub(super) struct Descriptor<'a> {
    pub(super) tag: u8,
    pub(super) body: &'a [u8],
}

/// Large address space descriptors with words, double words and quad words.
const WORD_SPACE: u8 = 0x88;
const DWORD_SPACE: u8 = 0x87;
const QWORD_SPACE: u8 = 0x8a;
/// The small descriptor that ends the list.
const END_TAG: u8 = 0x78;

/// The kind of a window.
#[derive(Clone, Copy)]
enum Kind {
    Memory,
    Ports,
    Buses,
}

/// A window that a bridge forwards.
struct Window {
    kind: Kind,
    first: u64,
    last: u64,
}

impl<'a> Descriptor<'a> {
    /// The descriptor at the start of `bytes`, and the rest; `None` at the end tag or past the end.
    pub(super) fn take(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&tag, rest) = bytes.split_first()?;
        let (length, rest) = if tag & 0x80 != 0 {
            let (length, rest) = rest.split_at_checked(2)?;
            (usize::from(length[1]) << 8 | usize::from(length[0]), rest)
        } else {
            (usize::from(tag & 7), rest)
        };
        let (body, rest) = rest.split_at_checked(length)?;
        if tag & 0xf8 == END_TAG { None } else { Some((Self { tag, body }, rest)) }
    }

    /// The window, if the descriptor is for an address space that the device produces (6.4.3.5).
    fn window(&self) -> Option<Window> {
        let size = match self.tag {
            WORD_SPACE => 2,
            DWORD_SPACE => 4,
            QWORD_SPACE => 8,
            _ => return None,
        };
        let (head, values) = self.body.split_at_checked(3)?;
        let kind = match head.first()? {
            0 => Kind::Memory,
            1 => Kind::Ports,
            2 => Kind::Buses,
            _ => return None,
        };
        // General flags, bit 0: the device consumes the range itself.
        if head.get(1)? & 1 != 0 {
            return None;
        }
        let value = |index: usize| {
            let bytes = values.get(index * size..(index + 1) * size)?;
            Some(bytes.iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte)))
        };
        // Granularity, first, last, translation, length. A window of length 0 does not exist.
        (value(4)? != 0).then_some(Window { kind, first: value(1)?, last: value(2)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn space(tag: u8, kind: u8, flags: u8, size: usize, values: [u64; 5]) -> Vec<u8> {
        let mut body = vec![kind, flags, 0];
        for value in values {
            body.extend_from_slice(&value.to_le_bytes()[..size]);
        }
        let mut bytes = vec![tag, body.len() as u8, 0];
        bytes.extend(body);
        bytes
    }

    fn crs(descriptors: &[Vec<u8>]) -> Vec<u8> {
        let mut contents: Vec<u8> = descriptors.concat();
        contents.extend([0x79, 0]);
        let mut rest = vec![WORD_PREFIX];
        rest.extend((contents.len() as u16).to_le_bytes());
        rest.extend(contents);
        // A two-byte package length includes itself.
        let length = rest.len() + 2;
        let mut aml = b"\x08_CRS\x11".to_vec();
        aml.extend([0x40 | (length & 0xf) as u8, (length >> 4) as u8]);
        aml.extend(rest);
        aml
    }

    /// As in QEMU's microvm.
    fn microvm() -> Vec<u8> {
        let mut aml = crs(&[space(QWORD_SPACE, 0, 1, 8, [0, 0xe000_0000, 0xefff_ffff, 0, 0x1000_0000])]);
        aml.extend(b"\x14\x0c_CBA\x00\xa4\x0c\x00\x00\x00\xe0");
        aml.extend(crs(&[
            space(WORD_SPACE, 2, 0, 2, [0, 0, 0xff, 0, 0x100]),
            space(WORD_SPACE, 1, 0, 2, [0, 0xd00, 0xffff, 0, 0xf300]),
            space(DWORD_SPACE, 0, 0, 4, [0, 0xc000_0000, 0xdfff_ffff, 0, 0x2000_0000]),
            space(QWORD_SPACE, 0, 0, 8, [0, 0xc0_0000_0000, 0xff_ffff_ffff, 0, 0x40_0000_0000]),
            space(QWORD_SPACE, 0, 0, 8, [0, 0, 0, 0, 0]),
        ]));
        aml
    }

    fn range(first: u64, last: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(first).unwrap(), last - first + 1).unwrap()
    }

    #[test]
    fn windows_and_configuration_space_are_found_among_other_resources() {
        let bridge = HostBridge::scan(&microvm()).unwrap();
        assert_eq!(bridge.buses, (0, 255));
        assert_eq!(bridge.memory, [range(0xc000_0000, 0xdfff_ffff), range(0xc0_0000_0000, 0xff_ffff_ffff)]);
        assert_eq!(bridge.ports, [(0xd00, 0xffff)]);
        assert_eq!(bridge.ecam, PhysAddr::new(0xe000_0000));
    }

    #[test]
    fn resources_without_bus_numbers_are_no_host_bridge() {
        let aml = crs(&[space(DWORD_SPACE, 0, 0, 4, [0, 0xc000_0000, 0xdfff_ffff, 0, 0x2000_0000])]);
        assert_eq!(HostBridge::scan(&aml), None);
    }

    #[test]
    fn every_truncation_is_survived() {
        let aml = microvm();
        for length in 0..aml.len() {
            let cut = HostBridge::scan(&aml[..length]);
            assert!(cut.is_none_or(|bridge| bridge.memory.len() <= 2), "at {length}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(mut noise: Vec<u8>, at: proptest::sample::Index, aml in proptest::bool::ANY) {
            if aml {
                let place = at.index(noise.len() + 1);
                noise.splice(place..place, microvm());
            }
            let _ = HostBridge::scan(&noise);
        }
    }
}
