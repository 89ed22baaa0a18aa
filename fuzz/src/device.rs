//! A virtio-pci balloon with both interfaces, which works by the rules until it is made to lie: in a register, in a queue,
//! or by going away.

use std::collections::{BTreeSet, VecDeque};

use arbitrary::Arbitrary;
use ballonet::virtio::{QueueAddresses, RingFormat};

use crate::dma::Pool;
use crate::frames::Frames;
use crate::pci::{Registers, Space};
use crate::ring::{Part, Ring, Taken};

/// Where the BARs are: of the structures, of MSI-X, of the ports.
const STRUCTURES: u64 = 0x80_0000_0000;
const MSIX: u64 = 0xfebd_0000;
const PORTS: u64 = 0xc000;
/// Queues of a balloon at most.
pub const QUEUES: usize = 5;
/// The queues that are not for frame numbers. All five are there, so that they have these numbers on any reading.
const STATISTICS: usize = 2;
const HINTING: usize = 3;
const REPORTING: usize = 4;
const NO_VECTOR: u16 = 0xffff;
const EVENT_IDX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;
const RING_PACKED: u64 = 1 << 34;
const IN_ORDER: u64 = 1 << 35;

/// Registers of either interface, to lie in: structure and offset.
const PLACES: [(Structure, u64); 44] = {
    use Structure::{Common, Config, Isr, Pending, Ports, Table};
    [
        (Common, 0x00),
        (Common, 0x04),
        (Common, 0x08),
        (Common, 0x0c),
        (Common, 0x10),
        (Common, 0x12),
        (Common, 0x14),
        (Common, 0x15),
        (Common, 0x16),
        (Common, 0x18),
        (Common, 0x1a),
        (Common, 0x1c),
        (Common, 0x1e),
        (Common, 0x20),
        (Common, 0x28),
        (Common, 0x30),
        (Common, 0x38),
        (Common, 0x3a),
        (Isr, 0),
        (Config, 0),
        (Config, 4),
        (Config, 8),
        (Config, 12),
        (Table, 0),
        (Table, 4),
        (Table, 8),
        (Table, 12),
        (Table, 16),
        (Table, 28),
        (Table, 44),
        (Pending, 0),
        (Ports, 0x00),
        (Ports, 0x04),
        (Ports, 0x08),
        (Ports, 0x0c),
        (Ports, 0x0e),
        (Ports, 0x10),
        (Ports, 0x12),
        (Ports, 0x13),
        (Ports, 0x14),
        (Ports, 0x16),
        (Ports, 0x18),
        (Ports, 0x1c),
        (Ports, 0x20),
    ]
};

/// What is in a BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Structure {
    Common,
    Isr,
    Config,
    Notify,
    Table,
    Pending,
    Ports,
    Nothing,
}

/// The interfaces that a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Interfaces {
    Modern,
    Transitional,
    Legacy,
}

/// What a device is.
#[derive(Debug, Arbitrary)]
pub struct Make {
    interfaces: Interfaces,
    /// Features that it does not offer.
    missing: u64,
    sizes: [u8; QUEUES],
    vectors: Option<u8>,
    pin: bool,
    multiplier: u8,
    /// The command register as firmware left it.
    command: u8,
    /// Whether it returns requests that it has to return in order by one entry for all.
    batches: bool,
    patches: Vec<(u8, u8)>,
}

/// A register that reads wrong: some reads of it, after some others.
#[derive(Debug, Clone, Arbitrary)]
pub struct Lie {
    place: u8,
    after: u8,
    times: u8,
    value: u32,
}

/// A queue and its registers.
#[derive(Debug)]
struct Queue {
    most: u16,
    size: u16,
    vector: u16,
    addresses: [u64; 3],
    ring: Option<Ring>,
    taken: Vec<Taken>,
    kicked: bool,
}

/// The device.
#[derive(Debug, Default)]
pub struct Device {
    modern: bool,
    ports: bool,
    features: u64,
    multiplier: u64,
    queues: Vec<Queue>,
    status: u8,
    accepted: u64,
    selects: [u32; 3],
    config_vector: u16,
    generation: u8,
    num_pages: u32,
    /// What the host wants to know of free memory, and what free frames hold.
    hint_command: u32,
    poison: u32,
    pub actual: u32,
    isr: u8,
    /// MSI-X: the entries, and which are pending.
    table: Vec<([u32; 4], bool)>,
    messages: VecDeque<u32>,
    lies: Vec<Lie>,
    gone: bool,
    batches: bool,
    /// Nothing untrue has been said yet.
    pub honest: bool,
    /// The driver has asked for a reset and not seen the end of it.
    pub resetting: bool,
    /// Frames in requests that the driver has made and the device not returned.
    held: BTreeSet<u32>,
}

impl Make {
    /// A modern interface and nothing else.
    pub fn modern() -> Self {
        Self {
            interfaces: Interfaces::Modern,
            missing: 0,
            sizes: [1; QUEUES],
            vectors: None,
            pin: false,
            multiplier: 0,
            command: 0,
            batches: false,
            patches: Vec::new(),
        }
    }

    /// The device and its configuration space.
    pub fn build(&self, lies: Vec<Lie>) -> (Device, Registers) {
        let modern = self.interfaces != Interfaces::Legacy;
        let ports = self.interfaces != Interfaces::Modern;
        let vectors = self.vectors.map(|vectors| vectors % 9 + 1);
        let mut registers = Registers::new(0x1af4, if ports { 0x1002 } else { 0x1045 }, 0x00_ff00);
        registers.put(4, &[self.command & 7]);
        registers.put(8, &[u8::from(!ports)]);
        registers.put(0x2c, &[0xf4, 0x1a, 5, 0]);
        registers.put(0x3c, &[11, u8::from(self.pin)]);
        if ports {
            registers.bar(0, PORTS as u32 | 1, !0x3f);
        }
        if let Some(vectors) = vectors {
            registers.bar(1, MSIX as u32, !0xfff);
            registers.capability(None, None, 0x11, &[vectors - 1, 0, 1, 0, 0, 0, 1, 8, 0, 0]);
        }
        let multiplier = [4, 2, 0, 3, 8, 0x1000][usize::from(self.multiplier) % 6];
        if modern {
            registers.bar(4, STRUCTURES as u32 | 0xc, !0x3fff);
            registers.bar(5, (STRUCTURES >> 32) as u32, u32::MAX);
            for (kind, offset, length) in
                [(1, 0, 0x1000_u32), (3, 0x1000, 0x1000), (4, 0x2000, 0x1000), (2, 0x3000, 0x1000)]
            {
                let mut body = vec![if kind == 2 { 20 } else { 16 }, kind, 4, 0, 0, 0];
                body.extend(u32::to_le_bytes(offset));
                body.extend(length.to_le_bytes());
                if kind == 2 {
                    body.extend(u32::to_le_bytes(multiplier));
                }
                registers.capability(None, None, 0x09, &body);
            }
            registers.capability(None, None, 0x09, &[20, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            registers.open_window();
        }
        for (at, value) in &self.patches {
            registers.put((*at).into(), &[*value]);
        }
        let mut device = Device {
            modern,
            ports,
            features: (1 << 44) - 1 & !self.missing | if modern { VERSION_1 } else { 0 },
            multiplier: multiplier.into(),
            table: vec![([0, 0, 0, 1], false); vectors.unwrap_or(0).into()],
            status: 0x0f,
            batches: self.batches,
            honest: self.patches.is_empty(),
            lies,
            ..Device::default()
        };
        let packed = device.features & RING_PACKED != 0;
        device.queues = self.sizes.iter().map(|size| Queue::new(queue_size(*size, packed))).collect();
        device.reset();
        (device, registers)
    }

    pub fn is_patched(&self) -> bool {
        !self.patches.is_empty()
    }

    pub fn command(&self) -> u16 {
        u16::from(self.command & 7)
    }
}

fn queue_size(size: u8, packed: bool) -> u16 {
    if packed { u16::from(size) + 1 } else { 1 << (size % 9) }
}

impl Queue {
    fn new(most: u16) -> Self {
        Self { most, size: most, vector: NO_VECTOR, addresses: [0; 3], ring: None, taken: Vec::new(), kicked: false }
    }
}

impl Device {
    fn reset(&mut self) {
        for queue in &mut self.queues {
            *queue = Queue::new(queue.most);
        }
        (self.status, self.accepted, self.selects) = (0, 0, [0; 3]);
        (self.config_vector, self.isr) = (NO_VECTOR, 0);
        (self.hint_command, self.poison) = (0, 0);
        self.held.clear();
    }

    fn locate(&self, address: u64, space: &Space) -> (Structure, u64) {
        let inside = |start: u64, length: u64| address.checked_sub(start).filter(|offset| *offset < length);
        if let Some(offset) = inside(STRUCTURES, 0x4000).filter(|_| self.modern) {
            let structures = [Structure::Common, Structure::Isr, Structure::Config, Structure::Notify];
            return (structures[(offset >> 12) as usize], offset & 0xfff);
        }
        if let Some(offset) = inside(MSIX, 0x1000) {
            return if offset < 0x800 { (Structure::Table, offset) } else { (Structure::Pending, offset - 0x800) };
        }
        match inside(PORTS, 0x40).filter(|_| self.ports) {
            Some(offset) => {
                let header = if msix_on(space) { 0x18 } else { 0x14 };
                offset.checked_sub(header).map_or((Structure::Ports, offset), |at| (Structure::Config, at))
            }
            None => (Structure::Nothing, 0),
        }
    }

    fn queue(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(self.selects[2] as usize)
    }

    /// The driver reads a register.
    pub fn read(&mut self, address: u64, width: u8, space: &Space) -> u32 {
        let ones = u32::MAX >> (32 - 8 * u32::from(width));
        let at = self.locate(address, space);
        let value = if self.gone { ones } else { self.value(at) };
        let value = self.lie(at, value) & ones;
        if matches!(at, (Structure::Common, 0x14) | (Structure::Ports, 0x12)) && matches!(value, 0 | 0xff) {
            // Done, or nobody there to do it.
            self.resetting = false;
        }
        value
    }

    fn lie(&mut self, at: (Structure, u64), value: u32) -> u32 {
        for lie in &mut self.lies {
            if PLACES[usize::from(lie.place) % PLACES.len()] != at {
                continue;
            }
            if lie.after > 0 {
                lie.after -= 1;
            } else if lie.times > 0 {
                // For ever, if often enough.
                lie.times -= u8::from(lie.times < 0xf0);
                self.honest &= lie.value == value;
                return lie.value;
            }
        }
        value
    }

    fn value(&mut self, at: (Structure, u64)) -> u32 {
        match at {
            (Structure::Common, offset) => self.common(offset),
            (Structure::Isr, _) | (Structure::Ports, 0x13) => std::mem::take(&mut self.isr).into(),
            (Structure::Config, 0) => self.num_pages,
            (Structure::Config, 4) => self.actual,
            (Structure::Config, 8) => self.hint_command,
            (Structure::Config, 12) => self.poison,
            (Structure::Table, offset) => {
                let entry = self.table.get(offset as usize / 16);
                entry.map_or(u32::MAX, |(words, _)| words[offset as usize / 4 % 4])
            }
            (Structure::Pending, _) => 0,
            (Structure::Ports, offset) => self.port(offset),
            _ => 0,
        }
    }

    fn common(&mut self, offset: u64) -> u32 {
        let word = |bits: u64, select: u32| if select < 2 { (bits >> (32 * select)) as u32 } else { 0 };
        let index = self.selects[2];
        match offset {
            0x04 => word(self.features, self.selects[0]),
            0x0c => word(self.accepted, self.selects[1]),
            0x10 => self.config_vector.into(),
            0x12 => QUEUES as u32,
            0x14 => self.status.into(),
            0x15 => self.generation.into(),
            0x16 => index,
            _ => self.queue().map_or(0, |queue| match offset {
                0x18 => queue.size.into(),
                0x1a => queue.vector.into(),
                0x1c => queue.ring.is_some().into(),
                0x1e => index,
                0x38 => 0x40 + index,
                _ => 0,
            }),
        }
    }

    fn port(&mut self, offset: u64) -> u32 {
        match offset {
            0x00 => self.features as u32,
            0x04 => self.accepted as u32,
            0x0e => self.selects[2],
            0x12 => self.status.into(),
            0x14 => self.config_vector.into(),
            _ => self.queue().map_or(0, |queue| match offset {
                0x08 => queue.ring.as_ref().map_or(0, |_| (queue.addresses[0] >> 12) as u32),
                0x0c => queue.size.into(),
                0x16 => queue.vector.into(),
                _ => 0,
            }),
        }
    }

    /// The driver writes a register.
    pub fn write(&mut self, (address, width): (u64, u8), value: u32, space: &Space) {
        let at = self.locate(address, space);
        let status = matches!(at, (Structure::Common, 0x14) | (Structure::Ports, 0x12));
        if status && value == 0 {
            self.resetting = true;
        }
        if self.gone {
            return;
        }
        match at {
            _ if status => self.set_status(value as u8),
            (Structure::Common, offset) => self.set_common(offset, value),
            (Structure::Ports, 0x10) => self.kick(value as u16),
            (Structure::Ports, offset) => self.set_port(offset, value),
            (Structure::Notify, offset) => {
                let index = offset.checked_div(self.multiplier).map_or(value as u16, |index| index as u16);
                // With NOTIF_CONFIG_DATA a queue has another name.
                let named = if self.multiplier == 0 && self.accepted >> 39 & 1 != 0 { 0x40 } else { 0 };
                self.kick(index.wrapping_sub(named));
            }
            (Structure::Config, 4) if width == 4 => self.actual = value,
            (Structure::Config, 12) if width == 4 => {
                assert!(self.status & 4 == 0, "poison_val changes while the device runs");
                self.poison = value;
            }
            (Structure::Table, offset) => self.set_entry(offset as usize, value),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u8) {
        match value {
            0 => self.reset(),
            _ => self.status = value,
        }
    }

    fn set_common(&mut self, offset: u64, value: u32) {
        match offset {
            0x00 => self.selects[0] = value,
            0x08 => self.selects[1] = value,
            0x0c if self.selects[1] < 2 => {
                let shift = 32 * self.selects[1];
                self.accepted = self.accepted & !(0xffff_ffff << shift) | u64::from(value) << shift;
            }
            0x10 => self.config_vector = self.vector(value),
            0x16 => self.selects[2] = value,
            0x1a => {
                let vector = self.vector(value);
                if let Some(queue) = self.queue() {
                    queue.vector = vector;
                }
            }
            0x1c if value == 1 => self.enable(),
            _ => {
                if let Some(queue) = self.queue() {
                    match offset {
                        0x18 => queue.size = value as u16,
                        0x20..0x38 => {
                            let (which, shift) = ((offset as usize - 0x20) / 8, offset % 8 * 8);
                            let kept = queue.addresses[which] & !(0xffff_ffff << shift);
                            queue.addresses[which] = kept | u64::from(value) << shift;
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    fn set_port(&mut self, offset: u64, value: u32) {
        match offset {
            0x04 => self.accepted = value.into(),
            0x0e => self.selects[2] = value,
            0x14 => self.config_vector = self.vector(value),
            // As QEMU has it.
            0x08 if value == 0 => self.reset(),
            0x08 => {
                if let Some(queue) = self.queue() {
                    let (start, size) = (u64::from(value) << 12, u64::from(queue.size));
                    let available = start + 16 * size;
                    queue.addresses = [start, available, (available + 6 + 2 * size).next_multiple_of(4096)];
                }
                self.enable();
            }
            0x16 => {
                let vector = self.vector(value);
                if let Some(queue) = self.queue() {
                    queue.vector = vector;
                }
            }
            _ => {}
        }
    }

    /// A vector as the device takes it.
    fn vector(&self, value: u32) -> u16 {
        if (value as usize) < self.table.len() { value as u16 } else { NO_VECTOR }
    }

    fn enable(&mut self) {
        let (accepted, honest) = (self.accepted, self.honest);
        let format = if accepted & RING_PACKED != 0 { RingFormat::Packed } else { RingFormat::Split };
        if let Some(queue) = self.queue().filter(|queue| queue.size > 0) {
            let [descriptors, driver, device] = queue.addresses;
            let at = QueueAddresses { descriptors, driver, device };
            let aligned = descriptors % 16 == 0 && driver % 2 == 0 && device % 4 == 0;
            assert!(aligned && descriptors != 0 || !honest, "{at:x?}");
            queue.ring = Some(Ring::new(format, queue.size, at, accepted & EVENT_IDX != 0));
        }
    }

    fn set_entry(&mut self, offset: usize, value: u32) {
        let Some((words, pending)) = self.table.get_mut(offset / 16) else { return };
        words[offset / 4 % 4] = value;
        if words[3] & 1 == 0 && std::mem::take(pending) {
            self.messages.push_back(words[2]);
        }
    }

    fn raise(&mut self, vector: u16) {
        let Some((words, pending)) = self.table.get_mut(usize::from(vector)) else { return };
        if words[3] & 1 != 0 {
            *pending = true;
        } else if !self.messages.contains(&words[2]) {
            // One that is on its way stands for all that are raised until it arrives.
            self.messages.push_back(words[2]);
        }
    }

    /// The message that arrives next, if MSI-X is on.
    pub fn next_message(&mut self, control: u16) -> Option<u32> {
        if control >> 14 == 2 { self.messages.pop_front() } else { None }
    }

    pub fn pulls_line(&self) -> bool {
        self.isr != 0 && !self.gone
    }

    fn raise_config(&mut self) {
        if self.status & 4 != 0 {
            self.isr |= 2;
            self.raise(self.config_vector);
        }
    }

    /// The host sets a target.
    pub fn set_target(&mut self, pages: u32) {
        self.num_pages = pages;
        self.generation = self.generation.wrapping_add(1);
        self.raise_config();
    }

    pub fn target(&self) -> u32 {
        self.num_pages
    }

    /// The host asks for hints, or for no more.
    pub fn command_hints(&mut self, command: u32) {
        self.hint_command = command;
        self.generation = self.generation.wrapping_add(1);
        self.raise_config();
    }

    /// Whether the host is not done with what was hinted.
    pub fn hints_wanted(&self) -> bool {
        self.hint_command != 1
    }

    /// The device says that it needs a reset, or puts other bits into its status.
    pub fn disturb_status(&mut self, bits: u8) {
        self.honest = false;
        self.status |= bits;
        self.raise_config();
    }

    /// The device is pulled out.
    pub fn vanish(&mut self) {
        (self.gone, self.honest) = (true, false);
    }

    pub fn add_lie(&mut self, lie: Lie) {
        self.lies.push(lie);
    }

    // Queues.

    fn kick(&mut self, index: u16) {
        let running = self.status & 4 != 0;
        assert!(running || !self.honest, "queue {index} kicked at status {:#x}", self.status);
        if let Some(queue) = self.queues.get_mut(usize::from(index)) {
            queue.kicked = true;
        }
    }

    /// Takes what is available on a queue that was kicked; whether there was anything.
    pub fn take(&mut self, index: usize, (pool, frames): (&Pool, &Frames)) -> bool {
        let honest = self.honest;
        let Some(queue) = self.queues.get_mut(index).filter(|queue| queue.kicked) else {
            return false;
        };
        queue.kicked = false;
        let Some(ring) = &mut queue.ring else { return false };
        let mut any = false;
        // Asked for more, it looks once more. Memory may hold anything, so that this has to end.
        for _ in 0..1024 {
            let Some(taken) = ring.take(pool) else {
                ring.want_kicks(true, pool);
                match ring.take(pool) {
                    Some(taken) => {
                        any = true;
                        hold(&mut self.held, index, &taken, honest, pool, frames);
                        queue.taken.push(taken);
                        continue;
                    }
                    None => break,
                }
            };
            any = true;
            hold(&mut self.held, index, &taken, honest, pool, frames);
            queue.taken.push(taken);
        }
        any
    }

    /// Returns a buffer, if there is one.
    pub fn put(&mut self, index: usize, which: usize, length: u32, pool: &Pool) -> bool {
        let Some(queue) = self.queues.get_mut(index) else { return false };
        let which = if self.accepted & IN_ORDER == 0 { which } else { 0 };
        let Some(which) = which.checked_rem(queue.taken.len()) else { return false };
        let taken = queue.taken.remove(which);
        // The length of what it wrote: it has nothing to write to.
        let length = if self.honest { 0 } else { length };
        self.finish(index, &[taken], length, pool)
    }

    fn finish(&mut self, index: usize, batch: &[Taken], length: u32, pool: &Pool) -> bool {
        for pfn in batch.iter().flat_map(|taken| pfns(index, taken, pool)) {
            self.held.remove(&pfn);
        }
        let queue = &mut self.queues[index];
        let Some(ring) = &mut queue.ring else { return false };
        if ring.put(batch, length, pool) {
            self.isr |= 1;
            let vector = queue.vector;
            self.raise(vector);
        }
        !batch.is_empty()
    }

    /// Takes and returns all that it can, but for statistics, which it keeps. Whether there was anything.
    pub fn serve(&mut self, (pool, frames): (&Pool, &Frames)) -> bool {
        if self.gone {
            return false;
        }
        let mut any = false;
        for index in 0..self.queues.len() {
            any |= self.take(index, (pool, frames));
            if index == STATISTICS {
                continue;
            }
            if self.batches && self.accepted & IN_ORDER != 0 {
                let batch = std::mem::take(&mut self.queues[index].taken);
                any |= self.finish(index, &batch, 0, pool);
            }
            while self.put(index, 0, 0, pool) {
                any = true;
            }
        }
        any
    }

    /// Lies in a queue: a used entry that nobody asked for, with an interrupt for it.
    pub fn forge(&mut self, index: usize, (id, length, advance): (u32, u32, u16), pool: &Pool) {
        self.honest = false;
        if let Some(queue) = self.queues.get_mut(index)
            && let Some(ring) = &mut queue.ring
        {
            ring.forge(id, length, advance, pool);
            let vector = queue.vector;
            self.isr |= 1;
            self.raise(vector);
        }
    }

    /// Frames that the device has not returned are nobody else's.
    pub fn expect_returned(&self, pfn: u32) {
        assert!(!self.honest || !self.held.contains(&pfn), "frame {pfn:#x} is still with the device");
    }
}

/// The frames that a request lends: named by number, or reported as they are.
fn pfns(index: usize, taken: &Taken, pool: &Pool) -> Vec<u32> {
    let parts = taken.parts.iter();
    match index {
        HINTING | REPORTING => {
            let parts = parts.filter(|part| part.writable);
            let frames = |part: &Part| (0..part.length.min(1 << 24) >> 12).zip((part.address >> 12) as u32..);
            parts.flat_map(frames).map(|(_, pfn)| pfn).collect()
        }
        STATISTICS => Vec::new(),
        _ => {
            let parts = parts.filter(|part| !part.writable);
            let numbers = |part: &Part| (0..part.length.min(1024) / 4).map(|at| u64::from(4 * at)).collect::<Vec<_>>();
            parts.flat_map(|part| numbers(part).into_iter().map(|at| pool.read32(part.address + at))).collect()
        }
    }
}

fn hold(held: &mut BTreeSet<u32>, index: usize, taken: &Taken, honest: bool, pool: &Pool, frames: &Frames) {
    for pfn in pfns(index, taken, pool) {
        let fresh = held.insert(pfn);
        assert!(!honest || fresh, "frame {pfn:#x} comes twice");
        assert!(!honest || frames.is_drivers(pfn), "frame {pfn:#x} is not the driver's to give");
    }
    let length: u32 = taken.parts.iter().map(|part| part.length).fold(0, u32::saturating_add);
    assert!(
        !honest || index == STATISTICS || length > 0 && length.is_multiple_of(4),
        "{length} bytes of frame numbers"
    );
}

fn msix_on(space: &Space) -> bool {
    space.functions.values().next().is_some_and(|registers| registers.msix_control() >> 15 != 0)
}
