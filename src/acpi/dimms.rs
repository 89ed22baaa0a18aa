//! DIMMs of QEMU's machines (`pc-dimm`), which the firmware's memory map omits.
//!
//! The SRAT does not locate them: it gives the whole hot-plug range, populated or not. The registers of the memory
//! hot-plug device do (QEMU, `docs/specs/acpi_mem_hotplug.rst`); the DSDT gives their ports as constants. NVDIMMs and
//! virtio-mem do not appear there.

use super::host_bridge::constant;
use super::table::{HEADER_SIZE, Header};
use super::{Rsdp, Signature, Tables};
use crate::boot::{PhysRange, PhysicalMemory};
use ballonet::platform::Registers;

/// Bytes of the device's registers.
const LENGTH: usize = 0x18;
/// Write: selects a slot. Read: its DIMM's address and length.
const SELECTOR: usize = 0x0;
const ADDRESS: [usize; 2] = [0x0, 0x4];
const SIZE: [usize; 2] = [0x8, 0xC];
/// Bit 0: a DIMM is present and usable by the guest.
const FLAGS: usize = 0x14;
const ENABLED: u8 = 1 << 0;
/// The most slots to read, whatever the DSDT says; QEMU has at most this many.
const MOST: u32 = 256;

/// The memory hot-plug device of QEMU's machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DimmSlots {
    port: u16,
    count: u32,
}

/// A DIMM, as the registers describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dimm {
    /// Its slot.
    pub slot: u32,
    /// Its physical address.
    pub address: u64,
    /// Its size in bytes.
    pub size: u64,
}

impl Dimm {
    /// Its memory; `None` if that is not a valid range.
    pub(crate) fn range(&self) -> Option<PhysRange> {
        PhysRange::parse(self.address, self.size).ok()
    }
}

impl DimmSlots {
    /// Looks for the device in the DSDT below the root pointer. Allocates nothing: there may be no memory yet.
    pub fn find(memory: &impl PhysicalMemory, rsdp: &Rsdp) -> Option<Self> {
        let (header, address) = dsdt(memory, rsdp)?;
        let (mut port, mut count) = (None, None);
        scan(memory, &header, address, |aml| {
            port = port.or_else(|| Self::port(aml));
            count = count.or_else(|| Self::count(aml));
        });
        Some(Self { port: port?, count: count.unwrap_or(MOST) })
    }

    /// The port in `OperationRegion (HPMR, SystemIO, port, 0x18)`.
    fn port(aml: &[u8]) -> Option<u16> {
        let (port, rest) = constant(aml.strip_prefix(b"\x5B\x80HPMR\x01")?)?;
        let (length, _) = constant(rest)?;
        let last = port.checked_add(LENGTH as u64 - 1)?;
        u16::try_from(last).ok().filter(|_| length == LENGTH as u64).map(|_| port as u16)
    }

    /// The number of slots, from `Name (MDNR, number)`.
    fn count(aml: &[u8]) -> Option<u32> {
        let (count, _) = constant(aml.strip_prefix(b"\x08MDNR")?)?;
        Some(u32::try_from(count).map_or(MOST, |count| count.min(MOST)))
    }

    /// Its first port, and the number of ports.
    pub const fn ports(&self) -> (u16, usize) {
        (self.port, LENGTH)
    }

    /// The DIMMs present. `registers` are the device's.
    pub(crate) fn dimms(self, mut registers: impl Registers) -> impl Iterator<Item = Dimm> {
        (0..self.count).filter_map(move |slot| {
            registers.write32(SELECTOR, slot);
            let number =
                |[low, high]: [usize; 2]| u64::from(registers.read32(high)) << 32 | u64::from(registers.read32(low));
            let is_enabled = registers.read8(FLAGS) & ENABLED != 0;
            is_enabled.then(|| Dimm { slot, address: number(ADDRESS), size: number(SIZE) })
        })
    }
}

/// The DSDT's header and address, if its checksum is right.
fn dsdt(memory: &impl PhysicalMemory, rsdp: &Rsdp) -> Option<(Header, u64)> {
    let roots = [(Signature::XSDT, rsdp.xsdt, 8), (Signature::RSDT, rsdp.rsdt, 4)];
    let root = |(signature, address, size): (Signature, Option<ballonet::memory::PhysAddr>, u32)| {
        sound(memory, signature, address?.as_u64()).map(|header| (header, address, size))
    };
    let (header, address, size) = roots.into_iter().find_map(root)?;
    let entries = ((header.length as usize - HEADER_SIZE) / size as usize).min(Tables::MOST);
    let entry = |index: usize| {
        let place = address?.as_u64() + (HEADER_SIZE + index * size as usize) as u64;
        if size == 8 {
            memory.read_value::<[u8; 8]>(place).ok().map(u64::from_le_bytes)
        } else {
            memory.read_value::<[u8; 4]>(place).ok().map(|bytes| u32::from_le_bytes(bytes).into())
        }
    };
    let fadt =
        (0..entries).filter_map(entry).find_map(|place| Some((sound(memory, Signature::FADT, place)?, place)))?;
    let dsdt = pointer_in_fadt(memory, fadt)?;
    sound(memory, Signature::DSDT, dsdt).map(|header| (header, dsdt))
}

/// The DSDT's address: `X_DSDT`, or `DSDT` if that is missing or 0 (ACPI 6.5, table 5.9).
fn pointer_in_fadt(memory: &impl PhysicalMemory, (header, place): (Header, u64)) -> Option<u64> {
    const DSDT: u32 = 40;
    const X_DSDT: u32 = 140;
    let long = (header.length >= X_DSDT + 8).then(|| memory.read_value::<[u8; 8]>(place + u64::from(X_DSDT)));
    let long = long.and_then(Result::ok).map(u64::from_le_bytes).filter(|&address| address != 0);
    let short = (header.length >= DSDT + 4).then(|| memory.read_value::<[u8; 4]>(place + u64::from(DSDT)));
    long.or_else(|| short.and_then(Result::ok).map(|bytes| u32::from_le_bytes(bytes).into()))
}

/// The header of the table at `address`, if it is the expected table and its checksum is right.
fn sound(memory: &impl PhysicalMemory, expected: Signature, address: u64) -> Option<Header> {
    let header = Header::read(memory, address).ok().filter(|header| header.signature == expected)?;
    header.verify(memory, address).ok().map(|()| header)
}

/// Calls `look` for each byte of the table, with a window that starts there.
fn scan(memory: &impl PhysicalMemory, header: &Header, address: u64, mut look: impl FnMut(&[u8])) {
    /// Bytes per window: longer than any pattern.
    const SEEN: usize = 32;
    const CHUNK: usize = 512;
    let length = header.length as usize;
    for start in (HEADER_SIZE..length).step_by(CHUNK) {
        let mut chunk = [0; CHUNK + SEEN];
        let size = chunk.len().min(length - start);
        let Some(bytes) = chunk.get_mut(..size) else { return };
        let place = address.checked_add(start as u64).and_then(ballonet::memory::PhysAddr::new);
        if place.is_none_or(|place| memory.read(place, bytes).is_err()) {
            return;
        }
        (0..size.min(CHUNK)).filter_map(|at| bytes.get(at..)).for_each(&mut look);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::acpi::fake::{Firmware, rsdp_long, rsdp_short, table};

    /// The device's registers, with DIMMs in some slots.
    struct Slots {
        dimms: Vec<(u32, u64, u64)>,
        selected: u32,
    }

    impl Registers for Slots {
        fn len(&self) -> usize {
            LENGTH
        }

        fn read8(&self, offset: usize) -> u8 {
            assert_eq!(offset, 0x14);
            self.dimms.iter().any(|dimm| dimm.0 == self.selected).into()
        }

        fn read16(&self, offset: usize) -> u16 {
            panic!("nothing of 16 bits is at {offset}")
        }

        fn read32(&self, offset: usize) -> u32 {
            let dimm = self.dimms.iter().find(|dimm| dimm.0 == self.selected).expect("no DIMM there");
            [dimm.1, dimm.1 >> 32, dimm.2, dimm.2 >> 32][offset / 4] as u32
        }

        fn write8(&mut self, offset: usize, _: u8) {
            panic!("nothing is written at {offset}")
        }

        fn write16(&mut self, offset: usize, _: u16) {
            panic!("nothing is written at {offset}")
        }

        fn write32(&mut self, offset: usize, value: u32) {
            assert_eq!(offset, 0);
            self.selected = value;
        }
    }

    const RSDT: u64 = Firmware::BASE + 0x100;
    const FADT: u64 = Firmware::BASE + 0x200;
    const DSDT: u64 = Firmware::BASE + 0x400;

    /// As QEMU encodes it.
    const REGION: &[u8] = b"\x5B\x80HPMR\x01\x0B\x00\x0A\x0A\x18";

    fn firmware(aml: &[u8], long: bool) -> (Firmware, Rsdp) {
        let mut firmware = Firmware::new();
        let mut fadt = vec![0; 116];
        fadt[4..8].copy_from_slice(&(DSDT as u32).to_le_bytes());
        let (root, rsdp) = if long {
            (table(Signature::XSDT, 1, &FADT.to_le_bytes()), rsdp_long(0, RSDT))
        } else {
            (table(Signature::RSDT, 1, &(FADT as u32).to_le_bytes()), rsdp_short(RSDT as u32))
        };
        firmware.place(RSDT, &root);
        firmware.place(FADT, &table(Signature::FADT, 3, &fadt));
        firmware.place(DSDT, &table(Signature::DSDT, 1, aml));
        (firmware, Rsdp::parse(&rsdp).unwrap())
    }

    fn found(aml: &[u8], long: bool) -> Option<DimmSlots> {
        let (firmware, rsdp) = firmware(aml, long);
        DimmSlots::find(&firmware.memory(), &rsdp)
    }

    #[test]
    fn the_device_is_found_wherever_it_is_in_the_dsdt() {
        for before in [0, 1, 500, 505, 511, 512, 700, 5000] {
            let aml = [&vec![0x5B; before], REGION, &vec![0; before], b"\x08MDNR\x0A\x04".as_slice()].concat();
            for long in [false, true] {
                assert_eq!(found(&aml, long), Some(DimmSlots { port: 0xA00, count: 4 }), "behind {before} bytes");
            }
        }
        assert_eq!(found(REGION, true).unwrap().count, MOST);
    }

    #[test]
    fn what_is_not_the_device_is_not_asked() {
        for aml in [
            &b""[..],
            b"\x5B\x80HPMR\x01\x0B\x00\x0A\x0A\x17",
            b"\x5B\x80HPMR\x00\x0B\x00\x0A\x0A\x18",
            b"\x5B\x80HPMX\x01\x0B\x00\x0A\x0A\x18",
            b"\x5B\x80HPMR\x01\x0B\xF8\xFF\x0A\x18",
            b"\x5B\x80HPMR\x01\x0C\x00\x00\x01\x00\x0A\x18",
            b"\x5B\x80HPMR\x01\x0B\x00",
        ] {
            assert_eq!(found(aml, true), None, "{}", aml.escape_ascii());
        }
        let (mut firmware, rsdp) = firmware(REGION, true);
        firmware.at(DSDT)[40] ^= 1;
        assert_eq!(DimmSlots::find(&firmware.memory(), &rsdp), None, "a damaged DSDT is not believed");
    }

    #[test]
    fn dimms_are_those_that_are_enabled() {
        let slots = DimmSlots { port: 0xA00, count: 4 };
        let all = vec![(0, 0x1_0000_0000, 0x1000_0000), (3, 0x1_1000_0000, 0x8000_0000_0000), (4, 0, 1)];
        let dimms: Vec<_> = slots.dimms(Slots { dimms: all, selected: 99 }).collect();
        let dimm = |slot, address, size| Dimm { slot, address, size };
        assert_eq!(dimms, [dimm(0, 0x1_0000_0000, 0x1000_0000), dimm(3, 0x1_1000_0000, 0x8000_0000_0000)]);
        assert_eq!(dimm(0, 0x1000, 0).range(), None);
        assert_eq!(dimm(0, u64::MAX, 2).range(), None);
    }

    proptest! {
        #[test]
        fn any_dsdt_has_ports_or_not(aml: Vec<u8>, rest: Vec<u8>) {
            if let Some(slots) = found(&[&aml, b"\x5B\x80HPMR\x01".as_slice(), &rest].concat(), true) {
                let (port, length) = slots.ports();
                prop_assert!(usize::from(port) + length <= 0x1_0000 && slots.count <= MOST);
            }
        }
    }
}
