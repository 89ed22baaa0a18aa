//! The serial port that firmware uses: from the console redirection table (SPCR), otherwise from the debug port table
//! (DBG2); both specified by Microsoft.
//!
//! This runs before there is a heap, so that the first line of the log goes to the right port: it allocates nothing.

use derive_more::Display;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::address::RawAddress;
use super::table::{self, HEADER_SIZE, Header, Signature, TableError};
use super::{AddressSpace, GenericAddress, Rsdp, Tables};
use crate::boot::PhysicalMemory;
use ballonet::memory::PhysAddr;

/// The body of an SPCR, as in its first revision.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSpcr {
    interface: u8,
    reserved: [u8; 3],
    base: RawAddress,
    interrupt_types: u8,
    irq: u8,
    gsi: U32,
    speed: u8,
}

/// The body of a DBG2.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawDbg2 {
    offset: U32,
    count: U32,
}

/// A debug port.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawDevice {
    revision: u8,
    length: U16,
    registers: u8,
    name: [U16; 2],
    oem_data: [U16; 2],
    kind: U16,
    interface: U16,
    reserved: U16,
    register_offset: U16,
    size_offset: U16,
}

/// Interface types compatible with a 16550: full, subset, with a generic address.
const LIKE_16550: [u16; 3] = [0x00, 0x01, 0x12];
/// A debug port of the type serial port.
const SERIAL: u16 = 0x8000;
/// SPCR interrupt types: the 8259's, and an IOAPIC's.
const BY_8259: u8 = 1 << 0;
const BY_IO_APIC: u8 = 1 << 1;
/// The most debug ports to read.
const MOST_DEVICES: u32 = 16;
/// The longest table to read, in bytes: real ones have some 100.
const LONGEST: usize = 1024;

/// An interrupt as firmware gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortInterrupt {
    /// An ISA interrupt.
    Isa(u8),
    /// A global system interrupt.
    Global(u32),
}

/// A 16550-compatible serial port that firmware uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[display("{register}, as {table} says")]
pub struct SerialPort {
    /// The table that names it.
    pub(crate) table: Signature,
    /// Its first register.
    pub(crate) register: GenericAddress,
    /// Its interrupt, if the table gives one.
    pub(crate) interrupt: Option<PortInterrupt>,
    /// Its speed in baud; `None`: keep the current one.
    pub(crate) speed: Option<u32>,
}

impl SerialPort {
    /// The port that the tables below `rsdp` name.
    pub fn find(memory: &impl PhysicalMemory, rsdp: &Rsdp) -> Option<Self> {
        let read = |signature, parse: fn(&[u8]) -> Result<Option<Self>, TableError>| {
            let mut buffer = [0; LONGEST];
            parse(copy(memory, rsdp, signature, &mut buffer)?).ok().flatten()
        };
        read(Signature::SPCR, Self::from_spcr).or_else(|| read(Signature::DBG2, Self::from_dbg2))
    }

    /// Parses an SPCR. `None` if firmware's console is off or not a 16550-compatible serial port.
    ///
    /// # Errors
    /// When the table is damaged.
    pub(crate) fn from_spcr(bytes: &[u8]) -> Result<Option<Self>, TableError> {
        let (_, body) = table::open(bytes, Signature::SPCR)?;
        let (raw, _) = table::body::<RawSpcr>(body)?;
        let Some(register) = GenericAddress::parse(raw.base) else { return Ok(None) };
        let interrupt = match raw.interrupt_types {
            types if types & BY_IO_APIC != 0 => Some(PortInterrupt::Global(raw.gsi.get())),
            types if types & BY_8259 != 0 && raw.irq < 16 => Some(PortInterrupt::Isa(raw.irq)),
            _ => None,
        };
        let speed = match raw.speed {
            3 => Some(9600),
            4 => Some(19200),
            6 => Some(57600),
            7 => Some(115_200),
            _ => None,
        };
        let port = Self { table: Signature::SPCR, register, interrupt, speed };
        Ok(LIKE_16550.contains(&raw.interface.into()).then_some(port))
    }

    /// Parses a DBG2. `None` if it has no 16550-compatible serial port.
    ///
    /// # Errors
    /// When the table is damaged.
    pub(crate) fn from_dbg2(bytes: &[u8]) -> Result<Option<Self>, TableError> {
        let (_, body) = table::open(bytes, Signature::DBG2)?;
        let (raw, _) = table::body::<RawDbg2>(body)?;
        // Offsets are relative to the start of the table.
        let mut rest = bytes.get(..HEADER_SIZE + body.len()).and_then(|table| table.get(raw.offset.get() as usize..));
        for _ in 0..raw.count.get().min(MOST_DEVICES) {
            let Some(device) = rest else { break };
            if let Some(register) = serial_register(device) {
                return Ok(Some(Self { table: Signature::DBG2, register, interrupt: None, speed: None }));
            }
            rest = RawDevice::read_from_prefix(device).ok().and_then(|(raw, _)| {
                // A length of 0 would not advance.
                device.get(usize::from(raw.length.get()).max(size_of::<RawDevice>())..)
            });
        }
        Ok(None)
    }

    /// The first of its I/O ports; `None` if its registers are not in I/O space.
    pub(crate) fn io_port(&self) -> Option<u16> {
        (self.register.space == AddressSpace::Io).then(|| u16::try_from(self.register.address).ok()).flatten()
    }
}

/// The first register of the debug port at the start of `device`, if that is a 16550-compatible serial port.
fn serial_register(device: &[u8]) -> Option<GenericAddress> {
    let (raw, _) = RawDevice::read_from_prefix(device).ok()?;
    let device = device.get(..raw.length.get().into())?;
    if raw.kind.get() != SERIAL || !LIKE_16550.contains(&raw.interface.get()) || raw.registers == 0 {
        return None;
    }
    let (register, _) = RawAddress::read_from_prefix(device.get(raw.register_offset.get().into()..)?).ok()?;
    GenericAddress::parse(register)
}

/// Copies the first table with this signature whose header can be read.
fn copy<'b>(memory: &impl PhysicalMemory, rsdp: &Rsdp, signature: Signature, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let address = tables(memory, rsdp)
        .find(|&address| Header::read(memory, address).is_ok_and(|header| header.signature == signature))?;
    let header = Header::read(memory, address).ok()?;
    let bytes = buffer.get_mut(..header.length as usize)?;
    memory.read(PhysAddr::new(address)?, bytes).ok()?;
    Some(bytes)
}

/// The addresses in the root table: the XSDT's, or the RSDT's if the XSDT is unusable.
fn tables(memory: &impl PhysicalMemory, rsdp: &Rsdp) -> impl Iterator<Item = u64> {
    let usable = |address: PhysAddr, signature: Signature| {
        let header = Header::read(memory, address.as_u64()).ok()?;
        let good = header.signature == signature && header.verify(memory, address.as_u64()).is_ok();
        good.then_some((address.as_u64(), header.length as usize))
    };
    let wide = rsdp.xsdt.and_then(|address| usable(address, Signature::XSDT));
    let narrow = if wide.is_none() { rsdp.rsdt.and_then(|address| usable(address, Signature::RSDT)) } else { None };
    let width = if wide.is_some() { size_of::<U64>() } else { size_of::<U32>() };
    let (start, length) = wide.or(narrow).unwrap_or((0, HEADER_SIZE));
    let count = (length.saturating_sub(HEADER_SIZE) / width).min(Tables::MOST);
    (0..count).filter_map(move |index| {
        let entry = start.checked_add((HEADER_SIZE + index * width) as u64)?;
        match width {
            4 => memory.read_value::<U32>(entry).ok().map(|address| address.get().into()),
            _ => memory.read_value::<U64>(entry).ok().map(U64::get),
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::acpi::fake::{
        Firmware, assert_damage_is_refused, gas, parse_every_prefix, rsdp_long, rsdp_short, table,
    };

    /// An SPCR of revision 2, as on servers.
    fn spcr(interface: u8, base: &[u8], interrupt: [u8; 6], speed: u8) -> Vec<u8> {
        [&[interface, 0, 0, 0], base, &interrupt, &[speed, 0, 1, 0, 3, 0], &[0xff; 4], &[0; 12]].concat()
    }

    fn com2() -> Vec<u8> {
        spcr(0, &gas(1, 8, 1, 0x2F8), [1, 3, 0, 0, 0, 0], 7)
    }

    /// A debug port with one register, at the end of its name.
    fn device(kind: u16, interface: u16, register: &[u8]) -> Vec<u8> {
        let name = b"\\_SB.COM1\0";
        let length = 22 + register.len() + name.len();
        let words = |words: &[usize]| words.iter().flat_map(|&word| (word as u16).to_le_bytes()).collect::<Vec<_>>();
        let head = [&[0][..], &words(&[length]), &[1], &words(&[name.len(), 22 + register.len(), 0, 0])].concat();
        let kinds = words(&[kind.into(), interface.into(), 0, 22, 22 + register.len()]);
        [&head[..], &kinds, register, name].concat()
    }

    fn dbg2(devices: &[Vec<u8>]) -> Vec<u8> {
        let count = u32::try_from(devices.len()).unwrap();
        [&44u32.to_le_bytes()[..], &count.to_le_bytes(), &devices.concat()].concat()
    }

    #[test]
    fn a_console_is_where_the_table_says() {
        let port = SerialPort::from_spcr(&table(Signature::SPCR, 2, &com2())).unwrap().unwrap();
        assert_eq!(
            (port.io_port(), port.interrupt, port.speed),
            (Some(0x2F8), Some(PortInterrupt::Isa(3)), Some(115_200))
        );
        assert_eq!(port.to_string(), "I/O 0x2f8, as SPCR says");
        let by_io_apic = spcr(1, &gas(1, 8, 1, 0x3E8), [3, 4, 19, 0, 0, 0], 0);
        let port = SerialPort::from_spcr(&table(Signature::SPCR, 4, &by_io_apic)).unwrap().unwrap();
        assert_eq!((port.interrupt, port.speed), (Some(PortInterrupt::Global(19)), None));
        let in_memory = spcr(0x12, &gas(0, 32, 3, 0xFEDC_9000), [0; 6], 7);
        let port = SerialPort::from_spcr(&table(Signature::SPCR, 2, &in_memory)).unwrap().unwrap();
        assert_eq!((port.io_port(), port.interrupt), (None, None));
        assert_eq!(port.to_string(), "memory 0xfedc9000, as SPCR says");
    }

    #[test]
    fn a_console_that_is_off_or_another_is_none() {
        for body in [spcr(0, &gas(1, 8, 1, 0), [0; 6], 7), spcr(3, &gas(0, 32, 3, 0x900_0000), [0; 6], 7)] {
            assert_eq!(SerialPort::from_spcr(&table(Signature::SPCR, 2, &body)), Ok(None));
        }
        // No ISA interrupt has this number, and no I/O port this address.
        let body = spcr(0, &gas(1, 8, 1, 0x1_02F8), [1, 77, 0, 0, 0, 0], 9);
        let port = SerialPort::from_spcr(&table(Signature::SPCR, 2, &body)).unwrap().unwrap();
        assert_eq!((port.io_port(), port.interrupt, port.speed), (None, None, None));
    }

    #[test]
    fn of_debug_ports_the_first_serial_one_counts() {
        let usb = device(0x8002, 0, &gas(0, 32, 3, 0xFE00_0000));
        let other = device(SERIAL, 3, &gas(0, 32, 3, 0x900_0000));
        let com3 = device(SERIAL, 0x12, &gas(1, 8, 1, 0x3E8));
        let port =
            SerialPort::from_dbg2(&table(Signature::DBG2, 0, &dbg2(&[usb.clone(), other, com3]))).unwrap().unwrap();
        assert_eq!(port.io_port(), Some(0x3E8));
        assert_eq!(SerialPort::from_dbg2(&table(Signature::DBG2, 0, &dbg2(&[usb]))), Ok(None));
        assert_eq!(SerialPort::from_dbg2(&table(Signature::DBG2, 0, &dbg2(&[]))), Ok(None));
    }

    /// Lengths and offsets that leave the table, loop, or point behind its end.
    #[test]
    fn debug_ports_that_cannot_be_are_passed_over() {
        let good = device(SERIAL, 0, &gas(1, 8, 1, 0x3F8));
        let with = |at: usize, value: u16| {
            let mut device = good.clone();
            device[at..at + 2].copy_from_slice(&value.to_le_bytes());
            device
        };
        for bad in [with(1, 0), with(1, 21), with(1, 0xFFFF), with(18, 0xFFFF), with(18, 40)] {
            let body = dbg2(&[bad.clone(), bad.clone(), bad]);
            assert_eq!(SerialPort::from_dbg2(&table(Signature::DBG2, 0, &body)), Ok(None));
        }
        let mut far = dbg2(&[good]);
        for offset in [200u32, u32::MAX] {
            far[..4].copy_from_slice(&offset.to_le_bytes());
            far[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
            assert_eq!(SerialPort::from_dbg2(&table(Signature::DBG2, 0, &far)), Ok(None));
        }
    }

    #[test]
    fn damage_is_refused() {
        assert_damage_is_refused(&table(Signature::SPCR, 2, &com2()), SerialPort::from_spcr);
        parse_every_prefix(Signature::SPCR, &com2(), SerialPort::from_spcr);
        let ports = dbg2(&[device(SERIAL, 0, &gas(1, 8, 1, 0x3F8))]);
        assert_damage_is_refused(&table(Signature::DBG2, 0, &ports), SerialPort::from_dbg2);
        parse_every_prefix(Signature::DBG2, &ports, SerialPort::from_dbg2);
    }

    const RSDT: u64 = Firmware::BASE + 0x100;
    const XSDT: u64 = Firmware::BASE + 0x200;
    const FIRST: u64 = Firmware::BASE + 0x1000;
    const SECOND: u64 = Firmware::BASE + 0x2000;

    fn find(firmware: &Firmware) -> Option<SerialPort> {
        let memory = firmware.memory();
        let rsdp = Rsdp::read(&memory, PhysAddr::new(Firmware::BASE).unwrap()).ok()?;
        SerialPort::find(&memory, &rsdp)
    }

    /// Firmware with a DBG2 that names COM1, and optionally an SPCR before it.
    fn firmware(spcr: Option<&[u8]>) -> Firmware {
        let mut firmware = Firmware::new();
        let debug = dbg2(&[device(SERIAL, 0, &gas(1, 8, 1, 0x3F8))]);
        let first = spcr.map_or(table(Signature::SSDT, 1, &[0; 40]), |body| table(Signature::SPCR, 2, body));
        firmware.place(Firmware::BASE, &rsdp_long(u32::try_from(RSDT).unwrap(), XSDT));
        firmware.place(
            XSDT,
            &table(Signature::XSDT, 1, &[SECOND.to_le_bytes(), 0x10u64.to_le_bytes(), FIRST.to_le_bytes()].concat()),
        );
        let narrow: Vec<u8> = [SECOND, FIRST].iter().flat_map(|&at| u32::try_from(at).unwrap().to_le_bytes()).collect();
        firmware.place(RSDT, &table(Signature::RSDT, 1, &narrow));
        firmware.place(FIRST, &first);
        firmware.place(SECOND, &table(Signature::DBG2, 0, &debug));
        firmware
    }

    fn found(firmware: &Firmware) -> Option<u16> {
        find(firmware)?.io_port()
    }

    #[test]
    fn the_console_goes_before_debug_ports() {
        let com2 = com2();
        assert_eq!(found(&firmware(Some(&com2))), Some(0x2F8));
        assert_eq!(found(&firmware(None)), Some(0x3F8));
        // Uses the RSDT if the XSDT is missing or bad.
        let mut old = firmware(Some(&com2));
        old.at(XSDT)[9] ^= 1;
        assert_eq!(found(&old), Some(0x2F8));
        old.place(Firmware::BASE, &rsdp_short(u32::try_from(RSDT).unwrap()));
        assert_eq!(found(&old), Some(0x2F8));
        // A damaged table is ignored.
        let mut damaged = firmware(Some(&com2));
        damaged.at(FIRST)[50] ^= 1;
        assert_eq!(found(&damaged), Some(0x3F8));
        damaged.at(SECOND)[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(found(&damaged), None);
    }

    proptest! {
        #[test]
        fn any_body_is_a_table_or_an_error(body: Vec<u8>, devices in prop::collection::vec(any::<[u8; 24]>(), 0..8)) {
            let _ = SerialPort::from_spcr(&table(Signature::SPCR, 2, &body));
            let _ = SerialPort::from_dbg2(&table(Signature::DBG2, 0, &body));
            let devices: Vec<_> = devices.into_iter().map(|bytes| bytes.to_vec()).collect();
            let _ = SerialPort::from_dbg2(&table(Signature::DBG2, 0, &dbg2(&devices)));
        }

        #[test]
        fn any_firmware_is_survived(bytes in prop::collection::vec((0usize..0x3000, any::<u8>()), 0..64)) {
            let mut firmware = firmware(Some(&com2()));
            for (at, byte) in bytes {
                firmware.at(Firmware::BASE)[at] = byte;
            }
            let _ = find(&firmware);
        }
    }
}
