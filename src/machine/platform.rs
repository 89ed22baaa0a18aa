//! The machine as drivers see it.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use crate::boot::{AffinityChoice, Mode};
use crate::machine::devices::config_space::MachineConfig;
use crate::machine::devices::mmio::Window;
use crate::machine::interrupts::lines::{self, NotAttached};
use crate::machine::interrupts::local_apic;
use crate::machine::interrupts::vectors::{self, Handler};
use crate::machine::memory::page_frames::MachineFrames;
use crate::machine::memory::{dma, frames, reclaim};
use crate::machine::paging::{self, Access};
use crate::machine::smp::cpu::Cpu;
use crate::machine::smp::registry;
use crate::machine::start::bring_up::Machine;
use crate::machine::time::clock;
use ballonet::balloon::wire::Tag;
use ballonet::balloon::{BalloonPlatform, Statistics};
use ballonet::memory::FRAME_SIZE;
use ballonet::pci::{Bdf, ConfigSpace, ConfigWindow};
use ballonet::platform::{
    AffinityError, DmaExhausted, InterruptLine, MapError, MsiMessage, Platform, RegisterWindow, Registers, Vector,
    VectorError,
};
use ballonet::raw::RawMemory;

/// Where message-signalled interrupts go; bits 12 to 19 are the APIC id (SDM vol. 3, 12.11.1).
const MSI_ADDRESS: u64 = 0xFEE0_0000;
/// Interrupt Line register (PCI 3.0, 6.2.4).
const INTERRUPT_LINE: u16 = 0x3C;
/// Configuration space of one function (PCIe 5.0, 7.2.2).
const CONFIG_BYTES: u64 = 4096;
/// Line numbers begin here, after those of vectors.
const LINES: u32 = 256;

/// Where every PC has IOAPICs, the HPET and local APICs, but no PCI device.
const BOARD_MEMORY: Range<u64> = 0xFEC0_0000..0xFEF0_0000;
/// Below are the board's ports: interrupt controllers, timers, configuration space, power.
const BOARD_PORTS: u64 = 0x1000;

/// The owner of the addresses that `window` claims, if its function must not claim them: a device may put any address
/// into its BARs.
fn usurped(config: &MachineConfig, claims: &[RegisterWindow], window: &RegisterWindow) -> Option<&'static str> {
    let addresses = |of: &RegisterWindow| of.address..of.address.saturating_add(of.length);
    let Range { start, end } = addresses(window);
    let overlaps = |other: Range<u64>| start < other.end && other.start < end;
    let of_another = |claim: &RegisterWindow| claim.device != window.device && claim.io == window.io;
    if claims.iter().any(|claim| of_another(claim) && overlaps(addresses(claim))) {
        return Some("registers of another function are there");
    }
    let spaces = || config.regions().map(|region| region.range);
    if window.io {
        (window.address < BOARD_PORTS).then_some("the board has its ports there")
    } else if overlaps(BOARD_MEMORY) {
        Some("the board has its interrupt controllers and timers there")
    } else if spaces().any(|range| overlaps(range.start().as_u64()..range.start().as_u64() + range.bytes())) {
        Some("configuration space is there")
    } else {
        None
    }
}

/// The message that raises `vector` on a CPU. Without interrupt remapping a message can only address the first 255 APIC
/// ids.
fn message(cpu: &Cpu, vector: u8) -> Option<MsiMessage> {
    let id = Some(cpu.apic_id()).filter(|&id| id < local_apic::EVERYBODY_XAPIC)?;
    Some(MsiMessage { address: MSI_ADDRESS | u64::from(id) << 12, data: vector.into() })
}

/// The CPU for the next vector: of those that messages can address, the one with the fewest.
fn least_interrupted(choice: AffinityChoice) -> Option<&'static Cpu> {
    let can_be_named = |cpu: &&Cpu| message(cpu, 0).is_some() && (choice == AffinityChoice::Spread || cpu.is_boot());
    registry::all().filter(can_be_named).min_by_key(|cpu| (vectors::on_cpu(cpu.number()), cpu.number()))
}

impl Platform for Machine {
    type Config = MachineConfig;
    type Registers = Window;
    type Memory = RawMemory;

    fn config(&mut self) -> &mut MachineConfig {
        &mut self.config
    }

    fn map(&mut self, window: RegisterWindow) -> Result<Window, MapError> {
        let failed = |reason| MapError { window, reason };
        let length = usize::try_from(window.length).map_err(|_| failed("it is too long"))?;
        if let Some(reason) = usurped(&self.config, &self.claims, &window) {
            return Err(failed(reason));
        }
        if window.io {
            let base = u16::try_from(window.address).map_err(|_| failed("there are only 65536 ports"))?;
            if window.address + window.length > 0x1_0000 {
                return Err(failed("there are only 65536 ports"));
            }
            self.claims.push(window);
            // SAFETY: the ports are a device's, which the caller has checked to be its own.
            return Ok(unsafe { Window::ports(base, length) }.of_device(window));
        }
        let opened = paging::with(|space| {
            space.open_window(window.address, window.length, Access::Device, &mut frames::ForTables)
        });
        match opened {
            Ok(start) => {
                self.claims.push(window);
                // SAFETY: just mapped, until `unmap`; device registers, which are not memory that Rust knows of.
                Ok(unsafe { Window::memory(start, length) }.of_device(window))
            }
            Err(paging::PagingError::Beyond { .. }) => Err(failed("the CPU cannot address it")),
            Err(paging::PagingError::Memory { .. }) => Err(failed("memory is there")),
            Err(_) => Err(failed("page tables or virtual addresses have run out")),
        }
    }

    fn map_through_config(&mut self, window: ConfigWindow) -> Option<Window> {
        Some(Window::through_config(self.config.paths(), window))
    }

    fn map_config(&mut self, function: Bdf) -> Option<Window> {
        let address = self.config.address(function)?;
        let opened =
            paging::with(|space| space.open_window(address, CONFIG_BYTES, Access::Device, &mut frames::ForTables));
        // SAFETY: just mapped, until `unmap`; configuration registers of one function, which are not memory that Rust
        // knows of. Both access paths to them work at the same time.
        opened.ok().map(|start| unsafe { Window::memory(start, CONFIG_BYTES as usize) })
    }

    fn unmap(&mut self, registers: Window) {
        if let Some(place) = self.claims.iter().position(|claim| registers.claim() == Some(claim)) {
            self.claims.swap_remove(place);
        }
        if let Some(start) = registers.pointer() {
            let length = registers.len() as u64;
            paging::with(|space| space.close_window(start, length));
        }
    }

    fn allocate_dma(&mut self, size: usize, align: usize) -> Result<RawMemory, DmaExhausted> {
        dma::allocate(size, align).ok_or(DmaExhausted { size, align })
    }

    fn release_dma(&mut self, memory: RawMemory) {
        dma::free(memory);
    }

    fn allocate_vector(&mut self, name: fmt::Arguments<'_>, handler: Handler) -> Result<Vector, VectorError> {
        let options = self.options();
        // An interrupt that was sent before a read completed has arrived after it, but only on the CPU that reads;
        // tests count interrupts.
        let affinity = if options.mode == Mode::Check { AffinityChoice::Boot } else { options.affinity };
        let cpu = least_interrupted(affinity).ok_or(VectorError::NoMessages)?;
        let vector = vectors::allocate_on(cpu.number(), name.to_string(), handler)?;
        Ok(Vector { number: vector.into(), message: message(cpu, vector) })
    }

    fn synchronize_vector(&mut self, vector: &Vector) {
        match u8::try_from(vector.number) {
            Ok(number) => vectors::synchronize(number),
            Err(_) => lines::synchronize(),
        }
    }

    fn set_vector_affinity(&mut self, vector: &Vector, cpu: u32) -> Result<MsiMessage, AffinityError> {
        let line = AffinityError::Line(vector.number);
        let number = u8::try_from(vector.number).ok().filter(|_| vector.message.is_some()).ok_or(line)?;
        let found = registry::get(cpu).and_then(|cpu| message(cpu, number)).ok_or(AffinityError::NoCpu(cpu))?;
        vectors::set_affinity(number, cpu);
        Ok(found)
    }

    fn vector_affinity(&self, vector: &Vector) -> u32 {
        u8::try_from(vector.number).map_or(0, vectors::affinity)
    }

    fn release_vector(&mut self, vector: Vector) {
        if let Ok(number) = u8::try_from(vector.number) {
            vectors::release(number);
        }
    }

    fn attach_line(
        &mut self,
        line: InterruptLine,
        name: fmt::Arguments<'_>,
        handler: Handler,
    ) -> Result<Vector, (VectorError, Handler)> {
        let unknown = VectorError::NoLine(line);
        let (id, name) = (u8::try_from(local_apic::id()).unwrap_or(0), name.to_string());
        let attached = match line {
            InterruptLine::Pin { function, .. } => {
                let line = self.config.read8(function, INTERRUPT_LINE);
                lines::attach(line, self.madt(), id, name, handler)
            }
            InterruptLine::Wired(wired) => lines::attach_to(Vec::from([wired.into()]), id, name, handler),
            _ => return Err((unknown, handler)),
        };
        match attached {
            Ok(id) => Ok(Vector { number: LINES + id, message: None }),
            Err(NotAttached { error, handler }) => Err((error.unwrap_or(unknown), handler)),
        }
    }

    fn detach_line(&mut self, vector: Vector) -> Option<Handler> {
        lines::detach(vector.number.checked_sub(LINES)?)
    }

    fn now(&self) -> u64 {
        clock::nanoseconds()
    }

    fn relax(&self) {
        vectors::note_progress();
        core::hint::spin_loop();
    }
}

impl BalloonPlatform for Machine {
    type Frames = MachineFrames;

    fn frames(&mut self) -> &mut MachineFrames {
        &mut self.frames
    }

    /// This kernel's statistics. It has no swap, no page cache and no huge page pool, and a page fault is fatal: those
    /// are 0. Memory is reclaimed only for waiting allocations ([`reclaim`]), never in the background. Frames requested
    /// from a balloon for that count as *scanned*, returned ones as *reclaimed*.
    fn statistics(&self) -> Statistics {
        let counts = frames::counts();
        let free = counts.free * FRAME_SIZE;
        let reclaimed = reclaim::counts();
        Statistics::default()
            .with(Tag::SwapIn, 0)
            .with(Tag::SwapOut, 0)
            .with(Tag::MajorFaults, 0)
            .with(Tag::MinorFaults, 0)
            .with(Tag::Free, free)
            .with(Tag::Total, (counts.total - counts.ballooned) * FRAME_SIZE)
            .with(Tag::Available, free)
            .with(Tag::Caches, 0)
            .with(Tag::HugePages, 0)
            .with(Tag::HugePageFailures, 0)
            .with(Tag::OomKills, reclaimed.ended)
            .with(Tag::AllocationStalls, reclaimed.stalls)
            .with(Tag::AsyncScan, 0)
            .with(Tag::DirectScan, reclaimed.asked.max(reclaimed.frames))
            .with(Tag::AsyncReclaim, 0)
            .with(Tag::DirectReclaim, reclaimed.frames)
    }
}
