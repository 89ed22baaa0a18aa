//! The configuration space of one function: header, BARs that can be sized, capability list.

use crate::behaviour::Behaviour;
use crate::behaviour::{Bar, Capability};
use crate::world::Bus;

const COMMAND: u16 = 0x04;
const STATUS: u16 = 0x06;
const BARS: u16 = 0x10;
const INTERRUPT_LINE: u16 = 0x3c;
const FIRST_CAPABILITY: u8 = 0x40;
/// Bits of the status register that a write of 1 clears.
const STATUS_RW1C: u16 = 0xf900;
/// A status bit set from the start (received master abort), to detect a driver that clears it by accident.
const RECEIVED_MASTER_ABORT: u16 = 1 << 13;

const IO_ENABLE: u16 = 1 << 0;
const MEMORY_ENABLE: u16 = 1 << 1;
const BUS_MASTER: u16 = 1 << 2;
const INTX_DISABLE: u16 = 1 << 10;
/// The bits of the command register that a function of this kind keeps.
const COMMAND_BITS: u16 = IO_ENABLE | MEMORY_ENABLE | BUS_MASTER | 1 << 6 | 1 << 8 | INTX_DISABLE;

/// Configuration space of a function.
#[derive(Debug)]
pub struct ConfigModel {
    bytes: [u8; 256],
    bars: [Bar; 6],
    assigned: [u32; 6],
    msix: Option<u16>,
    /// The capability with the window to BARs.
    access: Option<u16>,
    /// Whether BARs return only their size after all ones, and the BARs whose last write was all ones.
    bare_bar_sizes: bool,
    sizing: [bool; 6],
}

/// The target of the window in configuration space.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selected {
    pub bar: u8,
    pub offset: u64,
    pub length: u32,
}

impl ConfigModel {
    /// The function as firmware leaves it: BARs assigned from `memory` and `ports` upwards, decoding mostly off.
    pub(crate) fn new(behaviour: &Behaviour, memory: u32, ports: u32) -> Self {
        let mut model = Self {
            bytes: [0; 256],
            bars: behaviour.layout.bars,
            assigned: [0; 6],
            msix: None,
            access: None,
            bare_bar_sizes: behaviour.quirks.registers.bare_bar_sizes,
            sizing: [false; 6],
        };
        model.put16(0x00, 0x1af4);
        model.put16(0x02, behaviour.device_id);
        model.put16(COMMAND, behaviour.command);
        model.put16(STATUS, 1 << 4 | RECEIVED_MASTER_ABORT);
        model.bytes[0x08] = behaviour.revision;
        model.put16(0x0a, 0x00ff);
        model.put16(0x2c, 0x1af4);
        model.put16(
            0x2e,
            match behaviour.device_id {
                0x1000 => 1,
                0x1001 => 2,
                0x1002 => 5,
                0x1003 => 3,
                0x1005 => 4,
                _ => 0x1100,
            },
        );
        model.bytes[usize::from(INTERRUPT_LINE)] = 11;
        model.bytes[0x3d] = u8::from(behaviour.pin);
        model.assign_bars(memory, ports, behaviour.unplaced);
        model.link_capabilities(behaviour);
        for (offset, value) in &behaviour.config_patches {
            model.bytes[usize::from(*offset)] = *value;
        }
        model
    }

    fn assign_bars(&mut self, memory: u32, ports: u32, unplaced: bool) {
        let (mut memory, mut ports) = (memory, ports);
        for index in 0..6 {
            let value = match self.bars[index] {
                Bar::None => continue,
                Bar::Memory32(size) => {
                    let at = memory.next_multiple_of(size);
                    memory = at + size;
                    at
                }
                Bar::Memory64(size) => {
                    let at = memory.next_multiple_of(size as u32);
                    memory = at + size as u32;
                    // Above 4 GiB, to detect a driver that forgets the upper half.
                    self.assigned[index + 1] = 8;
                    at | 0xc
                }
                Bar::Io(size) => {
                    let at = ports.next_multiple_of(size);
                    ports = at + size;
                    at | 1
                }
            };
            self.assigned[index] = value;
            if unplaced {
                self.assigned[index] &= if value & 1 != 0 { 0x3 } else { 0xf };
                self.assigned.iter_mut().skip(index + 1).for_each(|upper| *upper = 0);
            }
        }
        for index in 0..6 {
            self.put32(BARS + 4 * index as u16, self.assigned[index]);
        }
    }

    fn link_capabilities(&mut self, behaviour: &Behaviour) {
        let mut at = FIRST_CAPABILITY;
        let mut link = 0x34;
        for capability in &behaviour.layout.capabilities {
            self.bytes[link] = at;
            link = usize::from(at) + 1;
            let bytes = encode(capability, behaviour.vectors.unwrap_or(1));
            if bytes[0] == 0x09 && bytes.get(3) == Some(&5) {
                self.access = Some(u16::from(at));
            }
            if matches!(capability, Capability::Msix { .. }) {
                self.msix = Some(u16::from(at));
            }
            self.bytes[usize::from(at)..usize::from(at) + bytes.len()].copy_from_slice(&bytes);
            at += (bytes.len() as u8).next_multiple_of(4);
        }
        self.bytes[link] = behaviour.layout.last_link;
    }

    fn put16(&mut self, offset: u16, value: u16) {
        self.bytes[usize::from(offset)..][..2].copy_from_slice(&value.to_le_bytes());
    }

    fn put32(&mut self, offset: u16, value: u32) {
        self.bytes[usize::from(offset)..][..4].copy_from_slice(&value.to_le_bytes());
    }

    fn get16(&self, offset: u16) -> u16 {
        u16::from_le_bytes([self.bytes[usize::from(offset)], self.bytes[usize::from(offset) + 1]])
    }

    fn get32(&self, offset: u16) -> u32 {
        u32::from(self.get16(offset)) | u32::from(self.get16(offset + 2)) << 16
    }

    fn command(&self) -> u16 {
        self.get16(COMMAND)
    }

    /// Sets the subsystem IDs: vendor in the low half, device in the high one.
    pub fn set_subsystem(&mut self, ids: u32) {
        self.bytes[0x2c..0x30].copy_from_slice(&ids.to_le_bytes());
    }

    /// The command register without its INTx bit, which a departing driver leaves set.
    pub fn decoding(&self) -> u16 {
        self.command() & !INTX_DISABLE
    }

    pub fn bus_master(&self) -> bool {
        self.command() & BUS_MASTER != 0
    }

    pub(crate) fn intx_disabled(&self) -> bool {
        self.command() & INTX_DISABLE != 0
    }

    /// MSI-X message control, 0 without MSI-X.
    fn msix_control(&self) -> u16 {
        self.msix.map_or(0, |at| self.get16(at + 2))
    }

    pub fn msix_enabled(&self) -> bool {
        self.msix_control() & 1 << 15 != 0
    }

    pub(crate) fn msix_all_masked(&self) -> bool {
        self.msix_control() & 1 << 14 != 0
    }

    /// Where a BAR decodes now: first address and length, `None` while its decoding is off.
    pub(crate) fn decoded(&self, index: u8) -> Option<(bool, u64, u64)> {
        let at = BARS + 4 * u16::from(index);
        let (io, address, length) = match *self.bars.get(usize::from(index))? {
            Bar::None => return None,
            Bar::Memory32(size) => (false, u64::from(self.get32(at) & !0xf), u64::from(size)),
            Bar::Memory64(size) => {
                (false, u64::from(self.get32(at) & !0xf) | u64::from(self.get32(at + 4)) << 32, size)
            }
            Bar::Io(size) => (true, u64::from(self.get32(at) & !3), u64::from(size)),
        };
        let enable = if io { IO_ENABLE } else { MEMORY_ENABLE };
        (self.command() & enable != 0).then_some((io, address, length))
    }

    /// The target of the window in configuration space, if `offset` is that of its data.
    pub(crate) fn selected(&self, offset: u16) -> Option<Selected> {
        let at = self.access.filter(|at| offset & !3 == at + 16)?;
        let (bar, offset) = (self.bytes[usize::from(at) + 4], self.get32(at + 8).into());
        Some(Selected { bar, offset, length: self.get32(at + 12) })
    }

    /// Whether every BAR holds what firmware put there.
    pub fn bars_restored(&self) -> bool {
        (0..6).all(|i| self.get32(BARS + 4 * i) == self.assigned[usize::from(i)])
    }

    /// Whether a write of 1 has cleared the status bit that was set from the start.
    pub fn status_cleared(&self) -> bool {
        self.get16(STATUS) & RECEIVED_MASTER_ABORT == 0
    }

    /// Reads `width` bytes.
    pub(crate) fn read(&self, offset: u16, width: u8) -> u32 {
        let read = |value, i| value << 8 | u32::from(self.bytes[usize::from(offset + i)]);
        (0..u16::from(width)).rev().fold(0, read) & !self.hidden_type(offset)
    }

    /// The type bits of a BAR that the device hides while it is sized.
    fn hidden_type(&self, offset: u16) -> u32 {
        let index = usize::from(offset.wrapping_sub(BARS) / 4);
        if !self.bare_bar_sizes || !self.sizing.get(index).is_some_and(|sizing| *sizing) {
            return 0;
        }
        match self.bars[index] {
            Bar::None => 0,
            Bar::Io(_) => 0x3,
            Bar::Memory32(_) | Bar::Memory64(_) => 0xf,
        }
    }

    /// Writes `width` bytes.
    pub(crate) fn write(&mut self, offset: u16, width: u8, value: u32, bus: &mut Bus) {
        match offset {
            COMMAND if width == 2 => self.write_command(value as u16, bus),
            COMMAND if width == 4 => {
                self.write_command(value as u16, bus);
                self.write_status((value >> 16) as u16, bus);
            }
            STATUS if width == 2 => self.write_status(value as u16, bus),
            0x0c | 0x0d | INTERRUPT_LINE if width == 1 => self.bytes[usize::from(offset)] = value as u8,
            0x10..0x28 if width == 4 => self.write_bar(offset, value, bus),
            _ if self.access.is_some_and(|at| offset == at + 4) && width == 1 => {
                self.bytes[usize::from(offset)] = value as u8;
            }
            _ if self.access.is_some_and(|at| offset == at + 8 || offset == at + 12) && width == 4 => {
                self.put32(offset, value);
            }
            // No expansion ROM: reads as 0 whatever is written.
            0x30 if width == 4 => {}
            _ if self.msix.is_some_and(|at| offset == at + 2) && width == 2 => {
                let kept = self.msix_control() & 0x3fff;
                self.put16(offset, kept | value as u16 & 0xc000);
            }
            _ if self.msix == Some(offset) && width == 4 => {
                let kept = self.msix_control() & 0x3fff;
                self.put16(offset + 2, kept | (value >> 16) as u16 & 0xc000);
            }
            // The only capability whose fields a driver may write.
            _ if self.access.is_some_and(|at| offset == at + 4) && width == 1 => {
                self.bytes[usize::from(offset)] = value as u8;
            }
            _ if self.access.is_some_and(|at| [at + 8, at + 12].contains(&offset)) && width == 4 => {
                self.put32(offset, value);
            }
            _ => bus.misstep("PCI-CAP-08", format!("write of {value:#x} ({width} bytes) to config offset {offset:#x}")),
        }
    }

    fn write_command(&mut self, value: u16, bus: &mut Bus) {
        self.put16(COMMAND, value & COMMAND_BITS);
        for index in 0..6 {
            if let Some((io, 0, _)) = self.decoded(index) {
                bus.misstep("PCI-BAR", format!("BAR{index} (ports: {io}) decodes with no address"));
            }
        }
    }

    fn write_status(&mut self, value: u16, bus: &mut Bus) {
        let cleared = self.get16(STATUS) & value & STATUS_RW1C;
        if cleared != 0 {
            bus.misstep("PCI-STATUS", format!("status bits {cleared:#06x} cleared by a write of {value:#06x}"));
        }
        self.put16(STATUS, self.get16(STATUS) & !cleared);
    }

    fn write_bar(&mut self, offset: u16, value: u32, bus: &mut Bus) {
        let index = usize::from((offset - BARS) / 4);
        self.sizing[index] = value == u32::MAX;
        let upper_half = index > 0 && matches!(self.bars[index - 1], Bar::Memory64(_));
        let (size, flags, enable) = match self.bars[index] {
            Bar::Memory32(size) => (u64::from(size), 0, MEMORY_ENABLE),
            Bar::Memory64(size) => (size, 0xc, MEMORY_ENABLE),
            Bar::Io(size) => (u64::from(size), 1, IO_ENABLE),
            Bar::None if upper_half => {
                let Bar::Memory64(size) = self.bars[index - 1] else { return };
                self.check_decode(MEMORY_ENABLE, index, bus);
                return self.put32(offset, value & (!(size - 1) >> 32) as u32);
            }
            Bar::None => return,
        };
        self.check_decode(enable, index, bus);
        self.put32(offset, value & !(size - 1) as u32 | flags);
    }

    fn check_decode(&self, enable: u16, index: usize, bus: &mut Bus) {
        if self.command() & enable != 0 {
            bus.misstep("PCI-BAR", format!("BAR{index} written with decoding on"));
        }
    }
}

/// The bytes of a capability, link 0.
fn encode(capability: &Capability, vectors: u16) -> Vec<u8> {
    match capability {
        Capability::Virtio { cfg_type, bar, offset, length, multiplier } => {
            let len = if multiplier.is_some() { 20 } else { 16 };
            let mut bytes = vec![0x09, 0, len, *cfg_type, *bar, 0, 0, 0];
            bytes.extend(offset.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend(multiplier.iter().flat_map(|m| m.to_le_bytes()));
            bytes
        }
        Capability::PciAccess => [&[0x09, 0, 20, 5][..], &[0; 16]].concat(),
        Capability::Msix { table_bar, table, pending_bar, pending } => {
            let mut bytes = vec![0x11, 0];
            bytes.extend((vectors - 1).to_le_bytes());
            bytes.extend((table | u32::from(*table_bar)).to_le_bytes());
            bytes.extend((pending | u32::from(*pending_bar)).to_le_bytes());
            bytes
        }
        Capability::Raw(bytes) => bytes.clone(),
    }
}
