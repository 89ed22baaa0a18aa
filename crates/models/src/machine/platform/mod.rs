//! [`Platform`] over the machine: config space, mapped registers, DMA memory, vectors, time.

mod config;
mod memory;
mod registers;

pub(crate) use registers::ModelRegisters;

use config::ModelConfig;
use memory::ModelDma;
use registers::Path;

use std::fmt;

use ballonet::balloon::wire::Tag;
use ballonet::balloon::{BalloonPlatform, Statistics};
use ballonet::pci::ConfigWindow;
use ballonet::platform::{
    AffinityError, DeviceAddress, DmaExhausted, Handler, InterruptLine, MapError, MsiMessage, Platform, RegisterWindow,
    Vector, VectorError,
};

use crate::device::Balloon;
use crate::machine::frames::Frames;
use crate::machine::{MMIO_INTERRUPT, MMIO_LENGTH, Machine, NOW, VectorEntry};

/// Cost of an access to a register or to config space, in nanoseconds: an exit to the VMM.
const REGISTER: u64 = 500;
/// Cost of an access to memory, in nanoseconds.
const MEMORY: u64 = 2;

/// The platform that the driver is given.
pub struct ModelPlatform {
    pub frames: Frames,
    /// Additional statistics.
    pub told: Statistics,
    machine: Machine,
    config: ModelConfig,
}

impl ModelPlatform {
    pub fn new(machine: &Machine) -> Self {
        Self {
            frames: Frames::new(machine),
            told: Statistics::default(),
            machine: machine.clone(),
            config: ModelConfig { machine: machine.clone() },
        }
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
        if let DeviceAddress::Mmio(base) = window.device {
            let start = window.address;
            let inside = start >= base && start + window.length <= base + MMIO_LENGTH;
            if !inside || window.io || window.bar.is_some() || state.refuses() {
                return Err(MapError { window, reason: "refused by the test" });
            }
            drop(state);
            return Ok(self.registers(Path::Direct(window)));
        }
        let (DeviceAddress::Pci(function), Some(bar)) = (window.device, window.bar) else {
            panic!("{window}: a window of a BAR names it");
        };
        if decoded.map(|(bdf, bar, _)| (bdf, bar)) != Some((function, bar)) {
            if state.devices.get(&function).is_some_and(|d| !d.gone()) {
                state.bus.misstep("PCI-MAP", format!("{window} mapped, which its BAR does not decode"));
            }
            return Err(MapError { window, reason: "no BAR decodes these addresses" });
        }
        if state.unmappable.contains(&bar) || state.refuses() {
            return Err(MapError { window, reason: "refused by the test" });
        }
        drop(state);
        Ok(self.registers(Path::Direct(window)))
    }

    fn map_through_config(&mut self, window: ConfigWindow) -> Option<ModelRegisters> {
        let mut state = self.machine.state();
        if !state.takes_config_windows || state.refuses() {
            return None;
        }
        drop(state);
        Some(self.registers(Path::Config(window)))
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
        // With several devices, or with resets of single queues, the owner of the memory is unknown.
        let is_pci = |d: &Balloon| d.behaviour.mmio.is_none();
        let masters = |d: &Balloon| {
            is_pci(d) && !d.gone() && d.config.bus_master() && d.common.queues.iter().all(|q| q.resets == 0)
        };
        if state.devices.len() == 1 && state.devices.values().any(masters) {
            state.bus.misstep(
                "CLEAN-02",
                format!("DMA memory {:#x} released to a device that masters the bus", memory.start),
            );
        }
        assert!(state.bus.ram.release_dma(memory.start), "DMA memory is released once");
    }

    fn allocate_vector(
        &mut self,
        name: fmt::Arguments<'_>,
        handler: Handler<ModelRegisters>,
    ) -> Result<Vector, VectorError> {
        let mut state = self.machine.state();
        if state.refuses() || !state.takes_messages {
            return Err(VectorError::NoMessages);
        }
        drop(state);
        self.insert_vector(name, handler, true).map_err(|(error, _)| error)
    }

    fn attach_line(
        &mut self,
        line: InterruptLine,
        name: fmt::Arguments<'_>,
        handler: Handler<ModelRegisters>,
    ) -> Result<Vector, (VectorError, Handler<ModelRegisters>)> {
        let mut state = self.machine.state();
        if state.refuses() || !state.knows_lines {
            return Err((VectorError::NoLine(line), handler));
        }
        if matches!(line, InterruptLine::Wired(wired) if wired != MMIO_INTERRUPT) {
            state.bus.misstep("MMIO-LINE", format!("{line} attached, not {MMIO_INTERRUPT}"));
        }
        drop(state);
        self.insert_vector(name, handler, false)
    }

    fn synchronize_vector(&mut self, vector: &Vector) {
        self.machine.await_elsewhere(vector.number);
    }

    fn release_vector(&mut self, vector: Vector) {
        assert!(vector.message.is_some(), "a line is detached");
        drop(self.remove_vector(&vector));
    }

    fn detach_line(&mut self, vector: Vector) -> Option<Handler<ModelRegisters>> {
        assert!(vector.message.is_none(), "a vector is released");
        self.remove_vector(&vector)
    }

    /// There are four CPUs, selected as on x86 by the address bits from 12 up.
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
    fn registers(&self, path: Path) -> ModelRegisters {
        let mut state = self.machine.state();
        let mapping = state.next_mapping;
        state.next_mapping += 1;
        state.mappings.insert(mapping);
        ModelRegisters { machine: self.machine.clone(), path, mapping }
    }

    /// Ends a vector. Its handler has finished on every CPU.
    fn remove_vector(&self, vector: &Vector) -> Option<Handler<ModelRegisters>> {
        self.machine.await_elsewhere(vector.number);
        let entry = self.machine.state().vectors.remove(&vector.number);
        entry.expect("a vector is released once").handler
    }

    fn insert_vector(
        &self,
        name: fmt::Arguments<'_>,
        handler: Handler<ModelRegisters>,
        message: bool,
    ) -> Result<Vector, (VectorError, Handler<ModelRegisters>)> {
        let mut state = self.machine.state();
        if state.vectors.len() as u32 >= state.vector_limit {
            return Err((VectorError::Exhausted(state.vector_limit), handler));
        }
        let name = name.to_string();
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
