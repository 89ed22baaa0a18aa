//! Configuration space: functions built of valid parts, with changes in the wrong places.

use std::cell::Cell;
use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use ballonet::pci::Bdf;

/// First byte of the BARs.
pub const BARS: usize = 0x10;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;

/// The registers of a function.
#[derive(Debug, Clone)]
pub struct Registers {
    bytes: Vec<u8>,
    writable: Vec<u8>,
    /// Write-one-to-clear bits.
    cleared: Vec<u8>,
    /// Offset of the next capability, and of the link to it.
    next: usize,
    link: usize,
}

impl Registers {
    /// A function with only a header; `class` has 24 bits.
    pub fn new(vendor: u16, device: u16, class: u32) -> Self {
        let bytes = vec![0; 4096];
        let mut new = Self { writable: bytes.clone(), cleared: bytes.clone(), bytes, next: 0x40, link: 0x34 };
        new.put(0, &vendor.to_le_bytes());
        new.put(2, &device.to_le_bytes());
        new.put(8, &(class << 8 | 1).to_le_bytes());
        new.put(STATUS, &0x2010_u16.to_le_bytes());
        new.allow(COMMAND, &0x0547_u16.to_le_bytes());
        new.allow(0x3c, &[0xff]);
        new.cleared[STATUS + 1] = 0xf9;
        new
    }

    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn allow(&mut self, at: usize, mask: &[u8]) {
        self.writable[at..at + mask.len()].copy_from_slice(mask);
    }

    /// A BAR register: its value, and its writable bits.
    pub fn bar(&mut self, index: usize, value: u32, mask: u32) {
        self.put(BARS + 4 * index, &value.to_le_bytes());
        self.allow(BARS + 4 * index, &mask.to_le_bytes());
    }

    /// The writable registers of a bridge. A `loose` bridge also keeps reserved bits.
    pub fn bridge(&mut self, buses: [u8; 3], windows: [u32; 5], loose: bool) {
        self.bytes[0x0e] |= 1;
        self.put(0x18, &buses);
        self.allow(0x18, &[0xff; 3]);
        for (index, window) in windows.into_iter().enumerate() {
            let at = [0x1c, 0x20, 0x24, 0x28, 0x2c][index];
            self.put(at, &window.to_le_bytes());
            let mask = [0xf0f0, 0xfff0_fff0, 0xfff0_fff0, u32::MAX, u32::MAX][index];
            self.allow(at, &if loose { u32::MAX } else { mask }.to_le_bytes());
        }
        self.allow(0x1e, &[0, 0]);
        self.allow(0x3e, &[0xff; 2]);
    }

    /// Adds a capability without a link to a next one: behind the last one, or at `at`. `link` replaces the link to
    /// it.
    pub fn capability(&mut self, at: Option<u8>, link: Option<u8>, id: u8, body: &[u8]) {
        let at = at.map_or(self.next, |at| usize::from(at).clamp(0x40, 0xfe));
        let end = (at + 2 + body.len()).min(0x100);
        if at + 2 > 0x100 {
            return;
        }
        self.bytes[self.link] = link.unwrap_or(at as u8);
        self.put(at, &[id, 0]);
        self.put(at + 2, &body[..end - at - 2]);
        (self.next, self.link) = (end.next_multiple_of(4), at + 1);
        if id == 0x11 && at + 4 <= 0x100 {
            self.allow(at + 3, &[0xc0]);
        }
    }

    pub fn read(&self, offset: usize, width: usize) -> u32 {
        self.bytes[offset..offset + width].iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
    }

    pub fn write(&mut self, offset: usize, width: usize, value: u32) {
        for (at, new) in (offset..).zip(&value.to_le_bytes()[..width]) {
            let (writable, cleared) = (self.writable[at], self.cleared[at] & new);
            self.bytes[at] = (self.bytes[at] & !writable | new & writable) & !cleared;
        }
    }
}

/// Wrong reads: the number of right reads before, and the xor.
pub type Noise = (u8, u32);

/// Configuration space of all functions.
#[derive(Debug, Default)]
pub struct Space {
    /// Bytes per function.
    pub size: u16,
    pub functions: BTreeMap<Bdf, Registers>,
    noise: Vec<Noise>,
    next_noise: Cell<usize>,
    until_noise: Cell<u32>,
    pub accesses: Cell<u64>,
}

impl Space {
    pub fn new(size: u16, noise: Vec<Noise>) -> Self {
        let until = noise.first().map_or(0, |(after, _)| u32::from(*after));
        Self { size, noise, until_noise: Cell::new(until), ..Self::default() }
    }

    pub fn is_quiet(&self) -> bool {
        self.noise.is_empty()
    }

    pub fn read(&self, function: Bdf, offset: u16, width: u16) -> u32 {
        assert!(offset.is_multiple_of(width) && offset + width <= self.size, "{function}: read at {offset:#x}");
        self.accesses.set(self.accesses.get() + 1);
        let ones = u32::MAX >> (32 - 8 * width);
        let registers = self.functions.get(&function);
        let value = registers.map_or(ones, |registers| registers.read(offset.into(), width.into()));
        (value ^ self.disturbance()) & ones
    }

    fn disturbance(&self) -> u32 {
        let Some((_, mask)) = self.noise.get(self.next_noise.get()) else { return 0 };
        match self.until_noise.get() {
            0 => {
                self.next_noise.set(self.next_noise.get() + 1);
                let next = self.noise.get(self.next_noise.get());
                self.until_noise.set(next.map_or(0, |(after, _)| u32::from(*after)));
                *mask
            }
            left => {
                self.until_noise.set(left - 1);
                0
            }
        }
    }

    pub fn write(&mut self, function: Bdf, offset: u16, width: u16, value: u32) {
        assert!(offset.is_multiple_of(width) && offset + width <= self.size, "{function}: write at {offset:#x}");
        self.accesses.set(self.accesses.get() + 1);
        if let Some(registers) = self.functions.get_mut(&function) {
            registers.write(offset.into(), width.into(), value);
        }
    }
}

impl ballonet::pci::ConfigSpace for Space {
    fn size(&self, segment: u16, _bus: u8) -> u16 {
        if segment < 2 { self.size } else { 0 }
    }

    fn read8(&self, function: Bdf, offset: u16) -> u8 {
        self.read(function, offset, 1) as u8
    }

    fn read16(&self, function: Bdf, offset: u16) -> u16 {
        self.read(function, offset, 2) as u16
    }

    fn read32(&self, function: Bdf, offset: u16) -> u32 {
        self.read(function, offset, 4)
    }

    fn write8(&mut self, function: Bdf, offset: u16, value: u8) {
        self.write(function, offset, 1, value.into());
    }

    fn write16(&mut self, function: Bdf, offset: u16, value: u16) {
        self.write(function, offset, 2, value.into());
    }

    fn write32(&mut self, function: Bdf, offset: u16, value: u32) {
        self.write(function, offset, 4, value);
    }
}

/// A capability.
#[derive(Debug, Arbitrary)]
pub enum Capability<'a> {
    /// A virtio structure.
    Virtio { length: Option<u8>, kind: u8, bar: u8, id: u8, offset: u32, size: u32, rest: [u32; 2] },
    /// MSI-X: control, table, pending bits.
    Msix(u16, u32, u32),
    /// PCI Express: its flags.
    Express(u16),
    /// Anything.
    Other(u8, &'a [u8]),
}

impl Capability<'_> {
    /// The capability ID, and the bytes behind the link.
    pub fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Virtio { length, kind, bar, id, offset, size, rest } => {
                let true_length = [16, 16, 20, 16, 16, 20, 16, 16, 24, 16][usize::from(*kind % 10)];
                let mut body = vec![length.unwrap_or(true_length), *kind % 12, *bar % 8, *id, 0, 0];
                for word in [offset, size, &rest[0], &rest[1]] {
                    body.extend(word.to_le_bytes());
                }
                body.truncate(usize::from(true_length) - 2);
                (0x09, body)
            }
            Self::Msix(control, table, pending) => {
                let mut body = control.to_le_bytes().to_vec();
                body.extend(table.to_le_bytes());
                body.extend(pending.to_le_bytes());
                (0x11, body)
            }
            Self::Express(flags) => (0x10, flags.to_le_bytes().to_vec()),
            Self::Other(id, body) => (*id, body.get(..64).unwrap_or(body).to_vec()),
        }
    }
}
