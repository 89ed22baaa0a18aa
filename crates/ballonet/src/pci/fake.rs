//! A model of PCI configuration space for tests: functions with BARs that can be sized, bridges that forward, and
//! write-1-to-clear status bits.
//!
//! It is strict. A test fails if it changes BARs with decoding on, clears status bits, writes to host bridges, makes
//! misaligned accesses, or leaves BARs or commands changed at its end.

use core::cell::Cell;
use std::thread::panicking;

use super::register::{BASE_ADDRESS_0, COMMAND, Command, STATUS, Status};
use super::{Bdf, ConfigSpace};

/// Configuration space of one machine.
pub(crate) struct FakeConfig {
    size: u16,
    /// Segment, bus number, and index in `buses`.
    roots: Vec<(u16, u8, usize)>,
    buses: usize,
    functions: Vec<Wired>,
    /// Mistakes of the driver.
    pub(crate) violations: Vec<String>,
    /// Number of reads.
    pub(crate) reads: Cell<usize>,
    /// Number of writes.
    pub(crate) writes: usize,
    /// BARs and commands may be changed at the end.
    pub(crate) changes_expected: bool,
}

/// A function and its connections. Buses here are wires; bridge registers give them their numbers.
struct Wired {
    wire: usize,
    device: u8,
    number: u8,
    behind: Option<usize>,
    function: FakeFunction,
    initial: Vec<u8>,
}

/// A wire to which functions can be attached.
#[derive(Clone, Copy)]
pub(crate) struct Wire(usize);

/// One function's registers.
#[derive(Clone)]
pub(crate) struct FakeFunction {
    bytes: Vec<u8>,
    writable: Vec<u8>,
    cleared_by_one: Vec<u8>,
    events: Vec<u8>,
    /// Sizing a BAR returns only size bits, without type bits.
    bare_sizes: bool,
    last_link: usize,
}

impl FakeFunction {
    /// An endpoint; `class` is base class, sub-class and interface in 24 bits.
    pub(crate) fn new(vendor: u16, device: u16, class: u32) -> Self {
        let mut new = Self {
            bytes: vec![0; 0x1000],
            writable: vec![0; 0x1000],
            cleared_by_one: vec![0; 0x1000],
            events: vec![0; 0x1000],
            bare_sizes: false,
            last_link: 0x34,
        };
        new.set16(0, vendor);
        new.set16(2, device);
        new.set32(8, class << 8 | 1);
        new.mask(COMMAND, 0x0547);
        new.cleared_by_one[7] = (Status::WRITE_ONE_TO_CLEAR.bits() >> 8) as u8;
        new.mask(0x3C, 0xFF);
        new.writable(0x30, 0xFFFF_0001)
    }

    /// A PCI-to-PCI bridge after reset, with all windows.
    pub(crate) fn bridge(vendor: u16, device: u16) -> Self {
        let mut new = Self::new(vendor, device, 0x06_04_00).raw(0x0C, 0x0001_0000).writable(0x30, u32::MAX);
        new.cleared_by_one[0x1F] = 0xF9;
        new.bytes[0x1C] = 0x01;
        new.bytes[0x1D] = 0x01;
        new.writable(0x18, u32::MAX)
            .writable(0x1C, 0xF0F0)
            .writable(0x20, 0xFFF0_FFF0)
            .raw(0x24, 0x0001_0001)
            .writable(0x24, 0xFFF0_FFF0)
            .writable(0x28, u32::MAX)
            .writable(0x2C, u32::MAX)
            .writable(0x3E, 0)
    }

    /// A PCI Express root port.
    pub(crate) fn root_port() -> Self {
        Self::bridge(0x1B36, 0x000C).capability(0x40, 0x10, &[0x42, 0])
    }

    /// Bus numbers set by firmware.
    pub(crate) fn buses(self, primary: u8, secondary: u8, subordinate: u8) -> Self {
        self.raw(0x18, u32::from_le_bytes([primary, secondary, subordinate, 0]))
    }

    /// A bridge's memory window set by firmware.
    pub(crate) fn memory_window(self, first: u32, last: u32) -> Self {
        self.raw(0x20, first >> 16 & 0xFFF0 | last & 0xFFF0_0000)
    }

    /// Sets a register, whatever its writable bits.
    pub(crate) fn raw(mut self, offset: usize, value: u32) -> Self {
        self.set32(offset, value);
        self
    }

    /// Sets the writable bits of a register.
    pub(crate) fn writable(mut self, offset: u16, mask: u32) -> Self {
        let offset = usize::from(offset);
        self.writable[offset..offset + 4].copy_from_slice(&mask.to_le_bytes());
        self
    }

    /// Sets the write-1-to-clear bits of a 16-bit register.
    pub(crate) fn clears_by_one(mut self, offset: usize, mask: u16) -> Self {
        self.events[offset..offset + 2].copy_from_slice(&mask.to_le_bytes());
        self
    }

    /// Marks the device as multifunction.
    pub(crate) fn multifunction(mut self) -> Self {
        self.bytes[0x0E] |= 0x80;
        self
    }

    /// The interrupt pin, 1 to 4.
    pub(crate) fn pin(mut self, pin: u8) -> Self {
        self.bytes[0x3D] = pin;
        self
    }

    /// The command register set by firmware.
    pub(crate) fn command(mut self, command: Command) -> Self {
        self.set16(usize::from(COMMAND), command.bits());
        self
    }

    /// Status bits that are set.
    pub(crate) fn status(mut self, status: Status) -> Self {
        let bits = self.bytes(STATUS, 2) as u16 | status.bits();
        self.set16(usize::from(STATUS), bits);
        self
    }

    /// A BAR register with type bits and a mask of writable address bits, sane or not.
    pub(crate) fn bar(self, index: u16, value: u32, mask: u32) -> Self {
        self.raw(usize::from(BASE_ADDRESS_0 + 4 * index), value).writable(BASE_ADDRESS_0 + 4 * index, mask)
    }

    /// Makes BARs answer sizing with size bits only, without type bits.
    pub(crate) fn bare_sizes(mut self) -> Self {
        self.bare_sizes = true;
        self
    }

    /// An I/O BAR.
    pub(crate) fn io(self, index: u16, address: u32, size: u32) -> Self {
        self.bar(index, address | 1, !(size - 1))
    }

    /// A 32-bit memory BAR.
    pub(crate) fn memory32(self, index: u16, address: u32, size: u32) -> Self {
        self.bar(index, address, !(size - 1))
    }

    /// A 64-bit memory BAR.
    pub(crate) fn memory64(self, index: u16, address: u64, size: u64, prefetchable: bool) -> Self {
        let (mask, bits) = (!(size - 1), 0x4 | u32::from(prefetchable) << 3);
        self.bar(index, address as u32 | bits, mask as u32).bar(index + 1, (address >> 32) as u32, (mask >> 32) as u32)
    }

    /// Appends a capability whose bytes from 2 on are `body`.
    pub(crate) fn capability(mut self, offset: u8, id: u8, body: &[u8]) -> Self {
        let at = usize::from(offset);
        let link = core::mem::replace(&mut self.last_link, at + 1);
        self.bytes[link] = offset;
        self.bytes[at] = id;
        self.bytes[at + 1] = 0;
        self.bytes[at + 2..at + 2 + body.len()].copy_from_slice(body);
        self.status(Status::CAPABILITY_LIST)
    }

    /// Sets a byte.
    pub(crate) fn byte(mut self, offset: usize, value: u8) -> Self {
        self.bytes[offset] = value;
        self
    }

    fn set16(&mut self, offset: usize, value: u16) {
        self.bytes[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn set32(&mut self, offset: usize, value: u32) {
        self.bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn mask(&mut self, offset: u16, mask: u16) {
        let offset = usize::from(offset);
        self.writable[offset..offset + 2].copy_from_slice(&mask.to_le_bytes());
    }

    /// The `size` bytes at `offset` as a number.
    fn bytes(&self, offset: u16, size: u16) -> u32 {
        let value = (0..size).rev().fold(0, |value, at| value << 8 | u32::from(self.bytes[usize::from(offset + at)]));
        let sized = self.bare_sizes && size == 4 && self.bars().contains(&usize::from(offset));
        let mask = (0..size).rev().fold(0, |mask, at| mask << 8 | u32::from(self.writable[usize::from(offset + at)]));
        if sized && value & mask == mask { mask } else { value }
    }

    fn is_bridge(&self) -> bool {
        self.bytes[0x0E] & 0x7F == 1
    }

    /// The registers that are BARs.
    fn bars(&self) -> core::ops::Range<usize> {
        0x10..if self.is_bridge() { 0x18 } else { 0x28 }
    }

    /// Whether the BAR of the byte at `offset` is decoded.
    fn is_decoded(&self, offset: usize) -> bool {
        let io = self.bytes[offset & !3] & 1 != 0;
        let bit = if io { Command::IO } else { Command::MEMORY };
        self.bytes(COMMAND, 2) as u16 & bit.bits() != 0
    }

    /// Writes a byte as the function would; returns the violation, if any.
    fn write(&mut self, offset: usize, value: u8) -> Option<&'static str> {
        let (old, writable) = (self.bytes[offset], self.writable[offset]);
        let cleared = value & self.cleared_by_one[offset] & old;
        let new = ((old & !writable) | (value & writable)) & !cleared & !(value & self.events[offset]);
        let decoded = self.bars().contains(&offset) && self.is_decoded(offset);
        self.bytes[offset] = new;
        if cleared != 0 {
            Some("cleared status bits")
        } else if decoded && new != old {
            Some("changed a BAR with decoding on")
        } else if self.bars().contains(&offset) && self.bytes(10, 2) == 0x0600 {
            Some("wrote a BAR of a host bridge")
        } else {
            None
        }
    }
}

impl FakeConfig {
    /// A machine whose functions have `size` bytes of configuration space, with root bus 0.
    pub(crate) fn new(size: u16) -> (Self, Wire) {
        let mut new = Self {
            size,
            roots: Vec::new(),
            buses: 0,
            functions: Vec::new(),
            violations: Vec::new(),
            reads: Cell::new(0),
            writes: 0,
            changes_expected: false,
        };
        let root = new.root(0, 0);
        (new, root)
    }

    /// A machine with one endpoint, at 00:03.0.
    pub(crate) fn with(function: FakeFunction) -> (Self, Bdf) {
        let (mut new, root) = Self::new(0x1000);
        new.add(root, 3, 0, function);
        (new, Bdf::new(0, 0, 3, 0).unwrap())
    }

    /// Adds a root bus.
    pub(crate) fn root(&mut self, segment: u16, bus: u8) -> Wire {
        let wire = self.wire();
        self.roots.push((segment, bus, wire.0));
        wire
    }

    fn wire(&mut self) -> Wire {
        self.buses += 1;
        Wire(self.buses - 1)
    }

    /// Attaches a function to a wire; returns the wire behind it, which only a bridge uses.
    pub(crate) fn add(&mut self, wire: Wire, device: u8, number: u8, function: FakeFunction) -> Wire {
        let behind = self.wire();
        let initial = function.bytes.clone();
        let behind_index = function.is_bridge().then_some(behind.0);
        self.functions.push(Wired { wire: wire.0, device, number, behind: behind_index, function, initial });
        behind
    }

    /// Unplugs everything.
    pub(crate) fn unplug_all(&mut self) {
        self.functions.clear();
    }

    /// Resets the function whose other side is `behind`, like a power loss: its BARs and its command.
    pub(crate) fn reset(&mut self, behind: Wire) {
        // Wires are created with functions, the root's before all.
        if let Some(wired) = self.functions.get_mut(behind.0 - self.roots.len()) {
            let initial = wired.initial.clone();
            wired.function.bytes = initial;
        }
    }

    /// Makes the current state the one to restore.
    pub(crate) fn checkpoint(&mut self) {
        for wired in &mut self.functions {
            wired.initial = wired.function.bytes.clone();
        }
    }

    fn wire_of(&self, segment: u16, bus: u8) -> Option<usize> {
        let mut wires: Vec<usize> = Vec::new();
        for &(of, number, wire) in &self.roots {
            if of == segment && number == bus {
                return Some(wire);
            }
            if of == segment {
                wires.push(wire);
            }
        }
        while let Some(wire) = wires.pop() {
            for on in self.functions.iter().filter(|on| on.wire == wire) {
                let (secondary, subordinate) = (on.function.bytes[0x19], on.function.bytes[0x1A]);
                match on.behind {
                    Some(behind) if secondary == bus && secondary != 0 => return Some(behind),
                    Some(behind) if secondary < bus && bus <= subordinate => wires.push(behind),
                    _ => {}
                }
            }
        }
        None
    }

    fn index(&self, bdf: Bdf) -> Option<usize> {
        let wire = self.wire_of(bdf.segment(), bdf.bus())?;
        self.functions.iter().position(|on| (on.wire, on.device, on.number) == (wire, bdf.device(), bdf.function()))
    }

    fn check(&self, offset: u16, size: u16) {
        assert!(offset.is_multiple_of(size) && offset + size <= self.size, "access of {size} bytes at {offset:#x}");
    }

    fn read(&self, bdf: Bdf, offset: u16, size: u16) -> u32 {
        self.check(offset, size);
        self.reads.set(self.reads.get() + 1);
        self.index(bdf).map_or(u32::MAX, |index| self.functions[index].function.bytes(offset, size))
    }

    fn write(&mut self, bdf: Bdf, offset: u16, bytes: &[u8]) {
        self.check(offset, bytes.len() as u16);
        self.writes += 1;
        let Some(index) = self.index(bdf) else { return };
        for (at, byte) in (usize::from(offset)..).zip(bytes) {
            if let Some(what) = self.functions[index].function.write(at, *byte) {
                self.violations.push(format!("{bdf}: {what} by writing {bytes:x?} at {offset:#x}"));
            }
        }
    }
}

impl ConfigSpace for FakeConfig {
    fn size(&self, segment: u16, _bus: u8) -> u16 {
        if self.roots.iter().any(|root| root.0 == segment) { self.size } else { 0 }
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
        self.write(function, offset, &[value]);
    }

    fn write16(&mut self, function: Bdf, offset: u16, value: u16) {
        self.write(function, offset, &value.to_le_bytes());
    }

    fn write32(&mut self, function: Bdf, offset: u16, value: u32) {
        self.write(function, offset, &value.to_le_bytes());
    }
}

impl Drop for FakeConfig {
    fn drop(&mut self) {
        if panicking() {
            return;
        }
        assert!(self.violations.is_empty(), "violations: {:#?}", self.violations);
        for Wired { device, number, function, initial, .. } in &self.functions {
            let kept = self.changes_expected
                || function.bytes[4..6] == initial[4..6] && function.bytes[function.bars()] == initial[function.bars()];
            assert!(kept, "device {device} function {number}: command or BARs were not put back");
        }
    }
}
