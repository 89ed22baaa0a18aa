//! Firmware as a fuzz input: ACPI tables with valid checksums around any contents, and with wrong ones.

use std::collections::BTreeSet;

use arbitrary::Arbitrary;
use ballonet::memory::PhysAddr;
use ballonet_kernel::acpi::{Acpi, DimmSlots, HostBridge, Rsdp, SerialPort, TableState, Tables};
use ballonet_kernel::boot::{MemoryImage, PhysicalMemory};

/// Where firmware's memory begins: the area that is searched for root pointers.
const BASE: u64 = 0xe_0000;
/// Offset of the tables; the root pointer is at offset 0.
const TABLES: usize = 0x40;
const HEADER: usize = 36;

/// Firmware.
#[derive(Debug, Arbitrary)]
pub enum Firmware<'a> {
    /// A root pointer and tables.
    Tables(Root<'a>),
    /// The contents of one table, in a table of each kind.
    Contents(&'a [u8]),
}

/// A root pointer and the tables below it.
#[derive(Debug, Arbitrary)]
pub struct Root<'a> {
    revision: u8,
    /// Whether the RSDT is there.
    rsdt: bool,
    xsdt: bool,
    /// Root table entries that point to no table.
    strays: Vec<u64>,
    tables: Vec<Table<'a>>,
    /// Bytes overwritten at the end: offset and value.
    damage: Vec<(u16, u8)>,
}

/// A table.
#[derive(Debug, Arbitrary)]
pub struct Table<'a> {
    contents: Contents<'a>,
    revision: u8,
    /// The length in the header, if not the true one.
    length: Option<u32>,
    /// Added to the right checksum.
    error: u8,
}

/// What is in a table.
#[derive(Debug, Arbitrary)]
pub enum Contents<'a> {
    /// Interrupt controllers: address, flags, and entries with kind and length (if not the true one).
    Madt(u32, u32, Vec<(u8, Option<u8>, &'a [u8])>),
    /// Configuration space: address, segment, first and last bus.
    Mcfg(Vec<(u64, u16, u8, u8)>),
    /// Fixed hardware; the DSDT is table number `dsdt`, or at any address.
    Fadt {
        dsdt: Option<u8>,
        fields: &'a [u8],
    },
    Hpet(&'a [u8]),
    Aml {
        secondary: bool,
        pieces: Vec<Aml<'a>>,
    },
    Other([u8; 4], &'a [u8]),
}

/// Pieces of AML.
#[derive(Debug, Arbitrary)]
pub enum Aml<'a> {
    Bytes(&'a [u8]),
    /// `Name (_S5, Package () { … })`.
    SoftOff(u8, &'a [u8]),
    /// `Name (_CRS, Buffer () { … })`, of windows: tag, kind, flags, first and last address.
    Resources(Vec<(u8, u8, u8, u64, u64)>),
    /// `Method (_CBA) { Return (…) }`.
    BaseAddress(u32),
}

/// Parses everything and checks the results.
pub fn run(firmware: &Firmware<'_>) {
    match firmware {
        Firmware::Tables(root) => read(&root.image()),
        Firmware::Contents(bytes) => parse(bytes),
    }
}

/// The tables that are parsed, by signature.
const PARSED: [&[u8; 4]; 9] = [b"FACP", b"APIC", b"MCFG", b"SRAT", b"HPET", b"SPCR", b"DBG2", b"DSDT", b"SSDT"];
/// Those of them that are used once.
const SINGLE: [&[u8; 4]; 5] = [b"APIC", b"MCFG", b"FACP", b"HPET", b"DSDT"];

/// The same contents in a table of each kind.
fn parse(bytes: &[u8]) {
    let table = |signature: &&[u8; 4]| Table {
        contents: match *signature {
            b"FACP" => Contents::Fadt { dsdt: Some(6), fields: bytes },
            signature => Contents::Other(*signature, bytes),
        },
        revision: 2,
        length: None,
        error: 0,
    };
    // The FADT comes last: it points to the DSDT, and so to a table before it.
    let tables = PARSED.iter().skip(1).chain(PARSED.first()).map(table).collect();
    let root = Root { revision: 2, rsdt: false, xsdt: true, strays: Vec::new(), tables, damage: Vec::new() };
    read(&root.image());
}

fn read(image: &[u8]) {
    let base = PhysAddr::new(BASE).expect("below 2^52");
    let memory = MemoryImage::new(base, image);
    let found = Rsdp::search_bios(&memory);
    let acpi = match Acpi::read(&memory, found.unwrap_or(base)) {
        Ok(acpi) => acpi,
        Err(error) => {
            assert!(found.is_none(), "an error, {error}, and a root pointer");
            return;
        }
    };
    check_tables(&acpi.tables, &memory);
    let _ = SerialPort::find(&memory, &acpi.rsdp);
    let ports = DimmSlots::find(&memory, &acpi.rsdp).map(|slots| slots.ports());
    assert!(ports.is_none_or(|(port, length)| usize::from(port) + length <= 0x1_0000));
    // One each for the DSDT, the root tables, and other flaws of the root table; and flaws of entries, each of two bytes
    // or more, in the MADT, MCFG and SRAT.
    let entries = Tables::MOST + 3 * image.len() / 2;
    assert!(acpi.problems.len() <= entries + 8, "{} problems", acpi.problems.len());
    for problem in &acpi.problems {
        expect_printable(&problem.to_string());
    }
    acpi.host_bridge.iter().for_each(check_bridge);
}

/// Text that goes to a terminal must hold no control characters.
fn expect_printable(text: &str) {
    assert!(!text.is_empty() && !text.contains(|c: char| c.is_ascii_control()), "{text:?}");
}

fn check_tables(tables: &Tables, memory: &MemoryImage<'_>) {
    assert!(tables.list.len() <= Tables::MOST + 1);
    assert!(tables.root.is_some() || tables.list.is_empty(), "tables without a root table");
    let mut single = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    for table in &tables.list {
        expect_printable(&table.to_string());
        assert!(addresses.insert(table.address), "{table} comes twice");
        if table.state != TableState::Good {
            continue;
        }
        let header = table.header.expect("a table that is used has a header");
        let mut bytes = vec![0; header.length as usize];
        let start = PhysAddr::new(table.address).expect("a table that is used has an address");
        memory.read(start, &mut bytes).expect("a table that is used can be read");
        assert_eq!(bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0, "{table}");
        if SINGLE.contains(&&header.signature.0) {
            assert!(single.insert(header.signature.0), "{table} is used, and another");
        }
    }
}

fn check_bridge(bridge: &HostBridge) {
    assert!(bridge.buses.0 <= bridge.buses.1);
    assert!(bridge.memory.len() <= 32 && bridge.ports.len() <= 32);
    assert!(bridge.ports.iter().all(|(first, last)| first <= last));
    assert!(bridge.ecam.is_none_or(|base| base.as_u64() != 0 && base.as_u64().is_multiple_of(1 << 20)));
}

impl Root<'_> {
    fn image(&self) -> Vec<u8> {
        let mut image = vec![0; TABLES];
        let mut addresses: Vec<u64> = Vec::new();
        for table in self.tables.iter().take(64) {
            addresses.push(BASE + image.len() as u64);
            let start = image.len();
            image.extend(table.bytes(&addresses, start));
            image.resize(image.len().next_multiple_of(16), 0);
        }
        addresses.extend(self.strays.iter().take(1024));
        let mut root = |present: bool, signature: &[u8; 4], width: usize| -> u64 {
            if !present {
                return 0;
            }
            let pointers: Vec<u8> =
                addresses.iter().flat_map(|address| address.to_le_bytes()[..width].to_vec()).collect();
            let at = image.len();
            image.extend(finish(*signature, 1, &pointers, None, 0));
            BASE + at as u64
        };
        let (rsdt, xsdt) = (root(self.rsdt, b"RSDT", 4), root(self.xsdt, b"XSDT", 8));
        let pointer = self.pointer(rsdt as u32, xsdt);
        image[..36].copy_from_slice(&pointer);
        for (at, value) in &self.damage {
            let at = usize::from(*at) % image.len();
            image[at] = *value;
        }
        image
    }

    fn pointer(&self, rsdt: u32, xsdt: u64) -> [u8; 36] {
        let mut bytes = [0; 36];
        bytes[..8].copy_from_slice(b"RSD PTR ");
        bytes[15] = self.revision;
        bytes[16..20].copy_from_slice(&rsdt.to_le_bytes());
        bytes[20] = 36;
        bytes[24..32].copy_from_slice(&xsdt.to_le_bytes());
        bytes[8] = balance(&bytes[..20]);
        bytes[32] = balance(&bytes);
        bytes
    }
}

/// The byte that makes the sum of all bytes 0.
fn balance(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte))
}

/// A table: header and contents.
fn finish(signature: [u8; 4], revision: u8, contents: &[u8], length: Option<u32>, error: u8) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend(contents);
    let length = length.unwrap_or(bytes.len() as u32);
    bytes[..4].copy_from_slice(&signature);
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8] = revision;
    let summed = bytes.len().min(length as usize).max(10);
    bytes[9] = balance(&bytes[..summed]).wrapping_add(error);
    bytes
}

impl Table<'_> {
    /// The bytes; `addresses` are those of the tables so far, this one the last.
    fn bytes(&self, addresses: &[u64], start: usize) -> Vec<u8> {
        let (signature, contents) = self.contents.bytes(addresses);
        let contents = contents.get(..0x1000).unwrap_or(&contents);
        debug_assert!(start >= TABLES);
        finish(signature, self.revision, contents, self.length, self.error)
    }
}

impl Contents<'_> {
    fn bytes(&self, addresses: &[u64]) -> ([u8; 4], Vec<u8>) {
        match self {
            Self::Madt(address, flags, entries) => {
                let mut bytes = [address.to_le_bytes(), flags.to_le_bytes()].concat();
                for (kind, length, body) in entries {
                    bytes.extend([*kind, length.unwrap_or((body.len() as u8).wrapping_add(2))]);
                    bytes.extend(*body);
                }
                (*b"APIC", bytes)
            }
            Self::Mcfg(regions) => {
                let mut bytes = vec![0; 8];
                for (address, segment, first, last) in regions {
                    bytes.extend(address.to_le_bytes());
                    bytes.extend(segment.to_le_bytes());
                    bytes.extend([*first, *last, 0, 0, 0, 0]);
                }
                (*b"MCFG", bytes)
            }
            Self::Fadt { dsdt, fields } => {
                let mut bytes = fields.to_vec();
                if let Some(address) = dsdt.and_then(|table| addresses.get(usize::from(table)))
                    && let Some(field) = bytes.get_mut(4..8)
                {
                    field.copy_from_slice(&address.to_le_bytes()[..4]);
                }
                (*b"FACP", bytes)
            }
            Self::Hpet(bytes) => (*b"HPET", bytes.to_vec()),
            Self::Aml { secondary, pieces } => {
                let signature = if *secondary { *b"SSDT" } else { *b"DSDT" };
                (signature, pieces.iter().flat_map(Aml::bytes).collect())
            }
            Self::Other(signature, bytes) => (*signature, bytes.to_vec()),
        }
    }
}

impl Aml<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.to_vec(),
            Self::SoftOff(count, elements) => {
                [b"\x08_S5_\x12", &[(elements.len() as u8 & 0x3f).wrapping_add(2), *count][..], elements].concat()
            }
            Self::Resources(windows) => resources(windows),
            Self::BaseAddress(base) => [b"\x14\x0c_CBA\x00\xa4\x0c", &base.to_le_bytes()[..]].concat(),
        }
    }
}

fn resources(windows: &[(u8, u8, u8, u64, u64)]) -> Vec<u8> {
    let mut contents = Vec::new();
    for (tag, kind, flags, first, last) in windows.iter().take(48) {
        let (tag, width) = [(0x88, 2), (0x87, 4), (0x8a, 8), (*tag, 1)][usize::from(*tag) % 4];
        let mut body = vec![*kind % 4, *flags, 0];
        let length = last.wrapping_sub(*first).wrapping_add(1);
        for value in [0, *first, *last, 0, length] {
            body.extend(&value.to_le_bytes()[..width]);
        }
        contents.extend([tag, body.len() as u8, 0]);
        contents.extend(body);
    }
    contents.extend([0x79, 0]);
    let inner = [&[0x0b][..], &(contents.len() as u16).to_le_bytes(), &contents].concat();
    let length = inner.len() + 2;
    let head = [0x40 | (length & 0xf) as u8, (length >> 4) as u8];
    [b"\x08_CRS\x11", &head[..], &inner].concat()
}
