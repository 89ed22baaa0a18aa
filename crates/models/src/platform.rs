//! [`Platform`] over the machine: config space, mapped registers, DMA memory, vectors, time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ballonet::balloon::wire::Tag;
use ballonet::balloon::{BalloonPlatform, Statistics};
use ballonet::pci::{Bdf, ConfigSpace, ConfigWindow};
use ballonet::platform::{
    AffinityError, DeviceAddress, DmaExhausted, DmaMemory, Handler, InterruptLine, MapError, MsiMessage, Platform,
    RegisterWindow, Registers, Vector, VectorError,
};
use vm_memory::{AtomicAccess, Bytes, GuestAddress, GuestMemoryMmap};

use super::balloon::Balloon;
use super::frames::Frames;
use super::machine::{Machine, NOW, VectorEntry};

/// What an access to a register or to config space costs, in nanoseconds: an exit to the VMM.
const REGISTER: u64 = 500;
/// What an access to memory costs.
const MEMORY: u64 = 2;

/// The platform that the driver is given.
pub struct ModelPlatform {
    pub frames: Frames,
    /// What it tells of its memory beside what is always told.
    pub told: Statistics,
    machine: Machine,
    config: ModelConfig,
}

impl ModelPlatform {
    pub fn new(machine: &Machine) -> Self {
        Self {
            frames: Frames::new(machine),
            told: Statistics::new(),
            machine: machine.clone(),
            config: ModelConfig { machine: machine.clone() },
        }
    }
}

/// Config space of the machine's functions. One segment, through ports: 256 bytes a function.
pub struct ModelConfig {
    machine: Machine,
}

impl ModelConfig {
    fn check(offset: u16, width: u8) {
        assert!(
            offset.is_multiple_of(u16::from(width)) && offset + u16::from(width) <= 256,
            "config access at {offset:#x}"
        );
    }

    fn read(&self, function: Bdf, offset: u16, width: u8) -> u32 {
        Self::check(offset, width);
        let value = {
            let state = &mut *self.machine.state();
            let device = state.devices.get_mut(&function);
            let nobody = u32::MAX >> (32 - 8 * u32::from(width));
            device.map_or(nobody, |d| d.config_read(offset, width, &mut state.bus))
        };
        self.machine.touch(REGISTER);
        value
    }

    fn write(&mut self, function: Bdf, offset: u16, width: u8, value: u32) {
        Self::check(offset, width);
        {
            let state = &mut *self.machine.state();
            if let Some(device) = state.devices.get_mut(&function) {
                device.config_write(offset, width, value, &mut state.bus);
            }
        }
        self.machine.touch(REGISTER);
    }
}

impl ConfigSpace for ModelConfig {
    fn size(&self, segment: u16, _bus: u8) -> u16 {
        if segment == 0 { 256 } else { 0 }
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

/// A mapped window, or one that is reached through configuration space. An access that its bounds or alignment forbid
/// panics, as the contract has it.
pub struct ModelRegisters {
    machine: Machine,
    way: Way,
    mapping: u64,
}

#[derive(Clone, Copy)]
enum Way {
    Mapped(RegisterWindow),
    Config(ConfigWindow),
}

impl ModelRegisters {
    /// The window, for an access that is allowed.
    fn check(&self, offset: usize, width: u8, window: RegisterWindow) {
        let width = usize::from(width);
        assert!(offset.is_multiple_of(width), "{window}: misaligned access at {offset:#x}");
        assert!(offset + width <= self.len(), "{window}: access at {offset:#x}");
    }

    fn read(&self, offset: usize, width: u8) -> u32 {
        let window = match self.way {
            Way::Mapped(window) => window,
            Way::Config(window) => return self.read_config(window, offset, width),
        };
        self.check(offset, width, window);
        let value = {
            let state = &mut *self.machine.state();
            let target = state.decode(window.io, window.address + offset as u64, width.into());
            match target {
                Some((bdf, bar, at)) => {
                    let device = state.devices.get_mut(&bdf).expect("decoded to a device");
                    device.bar_read(bar, at, width, &mut state.bus)
                }
                None => u32::MAX >> (32 - 8 * u32::from(width)),
            }
        };
        self.machine.touch(REGISTER);
        value
    }

    fn write(&mut self, offset: usize, width: u8, value: u32) {
        let window = match self.way {
            Way::Mapped(window) => window,
            Way::Config(window) => return self.write_config(window, offset, width, value),
        };
        self.check(offset, width, window);
        {
            let state = &mut *self.machine.state();
            let target = state.decode(window.io, window.address + offset as u64, width.into());
            if let Some((bdf, bar, at)) = target {
                let device = state.devices.get_mut(&bdf).expect("decoded to a device");
                device.bar_write(bar, at, width, value, &mut state.bus);
            }
        }
        self.machine.touch(REGISTER);
    }

    fn read_config(&self, window: ConfigWindow, offset: usize, width: u8) -> u32 {
        let mut config = ModelConfig { machine: self.machine.clone() };
        self.machine.uninterrupted(|| match width {
            1 => window.read8(&mut config, offset).into(),
            2 => window.read16(&mut config, offset).into(),
            _ => window.read32(&mut config, offset),
        })
    }

    fn write_config(&self, window: ConfigWindow, offset: usize, width: u8, value: u32) {
        let mut config = ModelConfig { machine: self.machine.clone() };
        self.machine.uninterrupted(|| match width {
            1 => window.write8(&mut config, offset, value as u8),
            2 => window.write16(&mut config, offset, value as u16),
            _ => window.write32(&mut config, offset, value),
        });
    }
}

impl Registers for ModelRegisters {
    fn len(&self) -> usize {
        match self.way {
            Way::Mapped(window) => window.length as usize,
            Way::Config(window) => window.len(),
        }
    }

    fn read8(&self, offset: usize) -> u8 {
        self.read(offset, 1) as u8
    }

    fn read16(&self, offset: usize) -> u16 {
        self.read(offset, 2) as u16
    }

    fn read32(&self, offset: usize) -> u32 {
        self.read(offset, 4)
    }

    fn write8(&mut self, offset: usize, value: u8) {
        self.write(offset, 1, value.into());
    }

    fn write16(&mut self, offset: usize, value: u16) {
        self.write(offset, 2, value.into());
    }

    fn write32(&mut self, offset: usize, value: u32) {
        self.write(offset, 4, value);
    }
}

/// DMA memory in guest RAM.
pub struct ModelDma {
    machine: Machine,
    memory: Arc<GuestMemoryMmap>,
    start: u64,
    size: usize,
}

impl ModelDma {
    fn at(&self, offset: usize, len: usize) -> GuestAddress {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.size), "DMA access at {offset:#x}+{len:#x}");
        GuestAddress(self.start + offset as u64)
    }

    fn aligned(&self, offset: usize, len: usize) -> GuestAddress {
        assert!(offset.is_multiple_of(len), "misaligned DMA access at {offset:#x}");
        self.at(offset, len)
    }

    fn load<T: AtomicAccess>(&self, offset: usize) -> T {
        self.machine.touch(MEMORY);
        self.memory.load(self.aligned(offset, size_of::<T>()), Ordering::Relaxed).expect("DMA memory in RAM")
    }

    fn store<T: AtomicAccess>(&mut self, offset: usize, value: T) {
        self.memory.store(value, self.aligned(offset, size_of::<T>()), Ordering::Relaxed).expect("DMA memory in RAM");
        self.machine.touch(MEMORY);
    }
}

impl DmaMemory for ModelDma {
    fn device_address(&self) -> u64 {
        self.start
    }

    fn len(&self) -> usize {
        self.size
    }

    fn load16(&self, offset: usize) -> u16 {
        self.load(offset)
    }

    fn load32(&self, offset: usize) -> u32 {
        self.load(offset)
    }

    fn load64(&self, offset: usize) -> u64 {
        self.load(offset)
    }

    fn store16(&mut self, offset: usize, value: u16) {
        self.store(offset, value);
    }

    fn store32(&mut self, offset: usize, value: u32) {
        self.store(offset, value);
    }

    fn store64(&mut self, offset: usize, value: u64) {
        self.store(offset, value);
    }

    fn write_bytes(&mut self, offset: usize, bytes: &[u8]) {
        self.memory.write_slice(bytes, self.at(offset, bytes.len())).expect("DMA memory in RAM");
        self.machine.touch(MEMORY);
    }

    fn read_bytes(&self, offset: usize, bytes: &mut [u8]) {
        self.memory.read_slice(bytes, self.at(offset, bytes.len())).expect("DMA memory in RAM");
        self.machine.touch(MEMORY);
    }
}

impl Platform for ModelPlatform {
    type Config = ModelConfig;
    type Registers = ModelRegisters;
    type Memory = ModelDma;

    fn config(&mut self) -> &mut ModelConfig {
        &mut self.config
    }

    fn map(&mut self, window: RegisterWindow) -> Result<ModelRegisters, MapError> {
        let mut state = self.machine.state();
        let decoded = state.decode(window.io, window.address, window.length);
        let (DeviceAddress::Pci(function), Some(bar)) = (window.device, window.bar) else {
            panic!("{window}: this machine has PCI devices only");
        };
        if decoded.map(|(bdf, bar, _)| (bdf, bar)) != Some((function, bar)) {
            if state.devices.get(&function).is_some_and(|d| !d.gone()) {
                state.bus.misstep("PCI-MAP", format!("{window} mapped, which that BAR does not decode"));
            }
            return Err(MapError { window, reason: "no BAR decodes these addresses" });
        }
        if state.unmappable.contains(&bar) || state.refuses() {
            return Err(MapError { window, reason: "the test has it so" });
        }
        drop(state);
        Ok(self.registers(Way::Mapped(window)))
    }

    fn map_through_config(&mut self, window: ConfigWindow) -> Option<ModelRegisters> {
        let mut state = self.machine.state();
        if !state.takes_config_windows || state.refuses() {
            return None;
        }
        drop(state);
        Some(self.registers(Way::Config(window)))
    }

    fn unmap(&mut self, registers: ModelRegisters) {
        assert!(self.machine.state().mappings.remove(&registers.mapping), "a mapping ends once");
    }

    fn allocate_dma(&mut self, size: usize, align: usize) -> Result<ModelDma, DmaExhausted> {
        assert!(align.is_power_of_two(), "DMA alignment {align}");
        let mut state = self.machine.state();
        if state.refuses() || state.dma_limit == 0 {
            return Err(DmaExhausted { size, align });
        }
        state.dma_limit -= 1;
        let start = state.bus.ram.allocate_dma(size as u64, align as u64).ok_or(DmaExhausted { size, align })?;
        let memory = state.bus.ram.memory().clone();
        Ok(ModelDma { machine: self.machine.clone(), memory, start, size })
    }

    fn release_dma(&mut self, memory: ModelDma) {
        let state = &mut *self.machine.state();
        if state.devices.values().any(|d| d.uses(memory.start, memory.size as u64)) {
            state.bus.misstep("CLEAN-02", format!("DMA memory {:#x} released while the device uses it", memory.start));
        }
        // With more than one device nobody can tell whose memory it was, nor with one whose queues are reset one by one.
        let masters = |d: &Balloon| !d.gone() && d.config.bus_master() && d.common.queues.iter().all(|q| q.resets == 0);
        if state.devices.len() == 1 && state.devices.values().any(masters) {
            state.bus.misstep(
                "CLEAN-02",
                format!("DMA memory {:#x} released to a device that masters the bus", memory.start),
            );
        }
        assert!(state.bus.ram.release_dma(memory.start), "DMA memory is released once");
    }

    fn allocate_vector(&mut self, name: String, handler: Handler) -> Result<Vector, VectorError> {
        let mut state = self.machine.state();
        if state.refuses() || !state.takes_messages {
            return Err(VectorError::NoMessages);
        }
        drop(state);
        self.insert_vector(name, handler, true)
    }

    fn attach_line(&mut self, line: InterruptLine, name: String, handler: Handler) -> Result<Vector, VectorError> {
        let mut state = self.machine.state();
        if state.refuses() || !state.knows_lines {
            return Err(VectorError::NoLine(line));
        }
        drop(state);
        self.insert_vector(name, handler, false)
    }

    fn synchronize_vector(&mut self, vector: &Vector) {
        self.machine.await_elsewhere(vector.number);
    }

    fn release_vector(&mut self, vector: Vector) {
        self.machine.await_elsewhere(vector.number);
        let entry = self.machine.state().vectors.remove(&vector.number);
        // Dropped with the machine unlocked: a handler may own register windows.
        drop(entry.expect("a vector is released once"));
    }

    /// There are four CPUs; a message names one as on x86, by bits 12 up of its address.
    fn set_vector_affinity(&mut self, vector: &Vector, cpu: u32) -> Result<MsiMessage, AffinityError> {
        let old = vector.message.ok_or(AffinityError::Line(vector.number))?;
        if cpu > 3 {
            return Err(AffinityError::NoCpu(cpu));
        }
        let message = MsiMessage { address: 0xfee0_0000 | u64::from(cpu) << 12, ..old };
        let mut state = self.machine.state();
        state.vectors.get_mut(&vector.number).expect("an allocated vector").message = Some(message);
        Ok(message)
    }

    fn vector_affinity(&self, vector: &Vector) -> u32 {
        vector.message.map_or(0, |message| (message.address >> 12) as u32 & 0xff)
    }

    fn now(&self) -> u64 {
        self.machine.touch(NOW);
        self.machine.now()
    }

    fn relax(&self) {
        self.machine.touch(NOW);
    }
}

impl ModelPlatform {
    fn registers(&self, way: Way) -> ModelRegisters {
        let mut state = self.machine.state();
        let mapping = state.next_mapping;
        state.next_mapping += 1;
        state.mappings.insert(mapping);
        ModelRegisters { machine: self.machine.clone(), way, mapping }
    }

    fn insert_vector(&self, name: String, handler: Handler, message: bool) -> Result<Vector, VectorError> {
        let mut state = self.machine.state();
        if state.vectors.len() as u32 >= state.vector_limit {
            return Err(VectorError::Exhausted(state.vector_limit));
        }
        let number = state.next_number;
        state.next_number += 1;
        let message = message.then_some(MsiMessage { address: 0xfee0_0000, data: number });
        state.vectors.insert(number, VectorEntry { name, message, handler: Some(handler), elsewhere: false, count: 0 });
        Ok(Vector { number, message })
    }
}

impl BalloonPlatform for ModelPlatform {
    type Frames = Frames;

    fn frames(&mut self) -> &mut Frames {
        &mut self.frames
    }

    fn statistics(&self) -> Statistics {
        let (free, total) = (self.frames.free() * 4096, self.frames.total() * 4096);
        self.told.with(Tag::Free, free).with(Tag::Total, total).with(Tag::Available, free)
    }
}
