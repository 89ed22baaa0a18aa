//! The machine layer: everything that only an x86-64 PC can do, and the only place that does it.
//!
//! [`entry`] takes over from the loader; [`Entry::bring_up`] turns what it finds into a [`Machine`], which implements the
//! traits of [`ballonet::platform`] for the drivers. Parsing is left to the portable layers; here is the poking.

mod acpi_registers;
pub mod block;
pub mod boot_frames;
pub mod clock;
pub mod config_space;
pub mod cpu;
pub mod cpus;
mod dimms;
pub mod dma;
pub mod entry;
pub mod fault;
pub mod firmware;
pub mod frames;
pub mod heap;
pub mod identity;
pub mod image;
pub mod io_apic;
pub mod keyboard;
pub mod large;
pub mod lines;
pub mod local_apic;
mod lock;
pub mod log;
pub mod machine_check;
mod marks;
pub mod memory_functions;
pub mod memory_types;
pub mod mmio;
pub mod msr;
pub mod nmi;
pub mod paging;
pub mod pic;
mod platform;
pub mod power;
pub mod power_button;
pub mod recovery;
#[doc(hidden)]
pub mod refusal;
pub mod relief;
pub mod scattered;
pub mod screen;
pub mod segments;
pub mod serial;
pub mod stack;
mod start;
mod text;
pub mod timer;
pub mod tlb;
pub mod traps;
pub mod vectors;
mod vga;

pub use image::Image;
pub use start::{Entry, Machine};

use core::sync::atomic::{Ordering, fence};

use x86_64::instructions::interrupts::{self, without_interrupts};

use cpus::{Cpu, Rest};

/// Waits for an interrupt, unless `is_pending` says that there is something to do already. What a handler on this CPU notes
/// between the question and the wait is not lost: interrupts are off from before the one until the instruction after `sti`,
/// which is the other (SDM vol. 2, STI). What another CPU notes is not lost either: it wakes this one, see [`cpus::wake`],
/// unless it has noted it before the question.
pub fn idle_unless(is_pending: impl FnOnce() -> bool) {
    let cpu = Cpu::this();
    interrupts::disable();
    // Behind that, or a device that never falls silent could have everything held back once more before the CPU sleeps.
    vectors::sign_of_life();
    cpu.set_rest(Rest::Looking);
    fence(Ordering::SeqCst);
    if is_pending() {
        cpu.set_rest(Rest::Awake);
        interrupts::enable();
    } else {
        cpu.fall_asleep();
        traps::enable_and_halt();
        // A maskable interrupt has set it awake, anything else has not.
        without_interrupts(|| {
            cpu.set_rest(Rest::Awake);
            tlb::catch_up();
            cpu.note_slept();
        });
    }
}

/// How long this CPU has slept since entry, in nanoseconds, with the interrupts that woke it; 0 until the clock's rate is known.
pub fn asleep() -> u64 {
    Cpu::this().slept()
}
