//! The virtio-mmio devices declared in AML: a `Device` with `_HID` `LNRO0005` and a constant `_CRS`.
//!
//! Every hypervisor that declares them uses this form, so a bounded scan replaces an interpreter.

use alloc::vec::Vec;

use super::host_bridge::{Descriptor, after, buffer, package_length};
use super::table::HEADER_SIZE;
use super::{Polarity, Signature, Tables, Trigger};
use crate::boot::PhysicalMemory;
use ballonet::platform::WiredInterrupt;
use ballonet::virtio::MmioDevice;

/// The hardware ID, as a string in AML.
const HARDWARE_ID: &[u8] = b"\x0dLNRO0005\0";
const NAME_OP: u8 = 0x08;
const DEVICE_OP: [u8; 2] = [0x5b, 0x82];

/// How far before its `_HID` a device may begin, in bytes: opcode, length, name, and other short objects.
const REACH: usize = 128;
/// The most devices used.
const MOST: usize = 64;

/// Resource descriptors (ACPI 6.5, 6.4): fixed memory, and an interrupt by GSI or ISA number.
const FIXED_MEMORY32: u8 = 0x86;
const EXTENDED_INTERRUPT: u8 = 0x89;
/// Without the two length bits.
const ISA_INTERRUPT: u8 = 0x20;

/// Looks for virtio-mmio devices in the DSDT, then in the SSDTs.
pub(super) fn find(memory: &impl PhysicalMemory, tables: &Tables) -> Vec<MmioDevice> {
    let mut devices = Vec::new();
    for table in tables.usable(Signature::DSDT).chain(tables.usable(Signature::SSDT)) {
        let bytes = table.header.and_then(|header| header.copy(memory, table.address).ok());
        devices.extend(scan(bytes.as_deref().and_then(|bytes| bytes.get(HEADER_SIZE..)).unwrap_or(&[])));
    }
    devices.truncate(MOST);
    devices
}

/// The devices in AML.
pub(crate) fn scan(aml: &[u8]) -> impl Iterator<Item = MmioDevice> {
    let named =
        after(aml, b"_HID").filter(|(before, rest)| before.ends_with(&[NAME_OP]) && rest.starts_with(HARDWARE_ID));
    let described = named.filter_map(|(before, rest)| {
        let body = enclosing_device(aml, before.len(), HARDWARE_ID.len().min(rest.len()))?;
        let resources = after(body, b"_CRS")
            .find_map(|(before, rest)| if before.ends_with(&[NAME_OP]) { buffer(rest) } else { None });
        from_resources(resources?)
    });
    described.take(MOST)
}

/// The contents of the innermost `Device` around the `length` bytes at `at`.
fn enclosing_device(aml: &[u8], at: usize, length: usize) -> Option<&[u8]> {
    (at.saturating_sub(REACH)..at).rev().find_map(|start| {
        let rest = aml.get(start..)?.strip_prefix(&DEVICE_OP)?;
        let (size, _) = package_length(rest)?;
        let end = start + DEVICE_OP.len() + size;
        if end < at + length { None } else { aml.get(start..end) }
    })
}

/// Parses resource descriptors up to the end tag. `None` if they give no memory that could hold a device.
fn from_resources(mut bytes: &[u8]) -> Option<MmioDevice> {
    let (mut memory, mut interrupt) = (None, None);
    while let Some((descriptor, rest)) = Descriptor::take(bytes) {
        bytes = rest;
        match descriptor.tag {
            FIXED_MEMORY32 => memory = memory.or_else(|| fixed_memory(descriptor.body)),
            EXTENDED_INTERRUPT => interrupt = interrupt.or_else(|| extended_interrupt(descriptor.body)),
            tag if tag & 0xf8 == ISA_INTERRUPT => interrupt = interrupt.or_else(|| isa_interrupt(descriptor.body)),
            _ => {}
        }
    }
    let (base, length) = memory.filter(|&(base, length)| base != 0 && length != 0)?;
    Some(MmioDevice::new(base.into(), length.into(), interrupt))
}

/// Base and length (6.4.3.4).
fn fixed_memory(body: &[u8]) -> Option<(u32, u32)> {
    let word = |at: usize| Some(u32::from_le_bytes(body.get(at..at + 4)?.try_into().ok()?));
    Some((word(1)?, word(5)?))
}

/// The first interrupt, and how it signals (6.4.3.6).
fn extended_interrupt(body: &[u8]) -> Option<WiredInterrupt> {
    let (&flags, &count) = (body.first()?, body.get(1)?);
    let gsi = u32::from_le_bytes(body.get(2..6)?.try_into().ok()?);
    let trigger = if flags & 2 != 0 { Trigger::Edge } else { Trigger::Level };
    let polarity = if flags & 4 != 0 { Polarity::ActiveLow } else { Polarity::ActiveHigh };
    (count != 0).then_some(WiredInterrupt { gsi, polarity, trigger })
}

/// The lowest interrupt in the mask; edge-triggered and active high by default (6.4.2.1).
fn isa_interrupt(body: &[u8]) -> Option<WiredInterrupt> {
    let mask = u16::from_le_bytes(body.get(..2)?.try_into().ok()?);
    let flags = body.get(2).copied().unwrap_or(1);
    let trigger = if flags & 1 != 0 { Trigger::Edge } else { Trigger::Level };
    let polarity = if flags & 8 != 0 { Polarity::ActiveLow } else { Polarity::ActiveHigh };
    (mask != 0).then_some(WiredInterrupt { gsi: mask.trailing_zeros(), polarity, trigger })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const EDGE_HIGH: [u8; 9] = [0x89, 6, 0, 0b0011, 1, 12, 0, 0, 0];
    const LEVEL_LOW: [u8; 9] = [0x89, 6, 0, 0b0101, 1, 33, 0, 0, 0];
    const IRQ_5: [u8; 3] = [0x22, 0x20, 0];

    fn memory(base: u32, length: u32) -> Vec<u8> {
        let mut bytes = vec![0x86, 9, 0, 1];
        bytes.extend(base.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes
    }

    /// A device as QEMU and Firecracker encode it.
    fn device(hardware_id: &[u8], resources: &[&[u8]]) -> Vec<u8> {
        let mut template = resources.concat();
        template.extend([0x79, 0]);
        let mut body = b"VR00\x08_HID".to_vec();
        body.extend(hardware_id);
        body.extend(b"\x08_UID\x0a\x07\x08_CRS\x11");
        body.extend([template.len() as u8 + 3, 0x0a, template.len() as u8]);
        body.extend(&template);
        let length = body.len() + 2;
        let mut aml = vec![0x5b, 0x82, 0x40 | (length & 0xf) as u8, (length >> 4) as u8];
        aml.extend(body);
        aml
    }

    fn wired(gsi: u32, polarity: Polarity, trigger: Trigger) -> Option<WiredInterrupt> {
        Some(WiredInterrupt { gsi, polarity, trigger })
    }

    #[test]
    fn devices_are_found_with_their_interrupts_among_others() {
        let mut aml = b"\x10\x20_SB_".to_vec();
        aml.extend(device(HARDWARE_ID, &[&memory(0xfeb0_0e00, 0x200), &EDGE_HIGH]));
        aml.extend(device(b"\x0dQEMU0002\0", &[&memory(0x510, 0xc), &LEVEL_LOW]));
        aml.extend(device(HARDWARE_ID, &[&LEVEL_LOW, &memory(0xc000_1000, 0x1000)]));
        aml.extend(device(HARDWARE_ID, &[&memory(0xd000_0000, 0x1000), &IRQ_5]));
        aml.extend(device(HARDWARE_ID, &[&memory(0xd000_1000, 0x1000)]));
        let found: Vec<_> = scan(&aml).collect();
        let expected = [
            MmioDevice::new(0xfeb0_0e00, 0x200, wired(12, Polarity::ActiveHigh, Trigger::Edge)),
            MmioDevice::new(0xc000_1000, 0x1000, wired(33, Polarity::ActiveLow, Trigger::Level)),
            MmioDevice::new(0xd000_0000, 0x1000, wired(5, Polarity::ActiveHigh, Trigger::Edge)),
            MmioDevice::new(0xd000_1000, 0x1000, None),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_device_without_memory_takes_none_from_the_next() {
        let mut aml = device(HARDWARE_ID, &[&EDGE_HIGH]);
        aml.extend(device(b"\x0dQEMU0002\0", &[&memory(0x510, 0xc)]));
        assert_eq!(scan(&aml).count(), 0);
        assert_eq!(scan(&device(HARDWARE_ID, &[&memory(0, 0x200), &EDGE_HIGH])).count(), 0, "nothing is at 0");
    }

    #[test]
    fn every_truncation_is_survived() {
        let aml = device(HARDWARE_ID, &[&memory(0xfeb0_0e00, 0x200), &EDGE_HIGH]);
        assert_eq!(scan(&aml).count(), 1);
        for length in 0..aml.len() {
            assert_eq!(scan(&aml[..length]).count(), 0, "at {length}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(mut noise: Vec<u8>, at: proptest::sample::Index, aml in proptest::bool::ANY) {
            if aml {
                let place = at.index(noise.len() + 1);
                noise.splice(place..place, device(HARDWARE_ID, &[&memory(1, 2), &EDGE_HIGH]));
            }
            proptest::prop_assert!(scan(&noise).count() <= MOST);
        }
    }
}
