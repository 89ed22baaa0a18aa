//! The machine layer: everything that only an x86-64 PC can do, and the only place that does it.
//!
//! [`entry`] takes over from the loader; [`Entry::bring_up`] turns what it finds into a [`Machine`], which implements the
//! traits of [`ballonet::platform`] for the drivers. Parsing is left to the portable layers; here is the poking.

mod acpi_registers;
pub(crate) mod block;
pub(crate) mod boot_frames;
pub(crate) mod clock;
pub(crate) mod config_space;
pub(crate) mod cpu;
pub(crate) mod cpus;
mod dimms;
pub(crate) mod dma;
pub(crate) mod entry;
pub(crate) mod fault;
pub(crate) mod firmware;
pub(crate) mod frames;
pub(crate) mod heap;
pub(crate) mod identity;
pub(crate) mod image;
pub(crate) mod io_apic;
pub(crate) mod keyboard;
pub(crate) mod large;
pub(crate) mod lines;
pub(crate) mod local_apic;
mod lock;
pub(crate) mod log;
pub(crate) mod machine_check;
mod marks;
pub(crate) mod memory_functions;
pub(crate) mod memory_types;
pub(crate) mod mmio;
pub(crate) mod msr;
pub(crate) mod nmi;
pub(crate) mod paging;
pub(crate) mod pic;
mod platform;
pub(crate) mod power;
pub(crate) mod power_button;
pub(crate) mod recovery;
#[doc(hidden)]
pub(crate) mod refusal;
pub(crate) mod relief;
pub(crate) mod scattered;
pub(crate) mod screen;
pub(crate) mod segments;
pub(crate) mod serial;
pub(crate) mod stack;
pub(crate) mod start;
mod text;
pub(crate) mod timer;
pub(crate) mod tlb;
pub(crate) mod traps;
pub(crate) mod vectors;
mod vga;

pub(crate) use image::Image;
pub(crate) use start::Entry;
pub(crate) use start::Machine;

use core::sync::atomic::{Ordering, fence};

use x86_64::instructions::interrupts::{self, without_interrupts};

use cpus::{Cpu, Rest};

/// Waits for an interrupt, unless `is_pending` says that there is something to do already. What a handler on this CPU notes
/// between the question and the wait is not lost: interrupts are off from before the one until the instruction after `sti`,
/// which is the other (SDM vol. 2, STI). What another CPU notes is not lost either: it wakes this one, see [`cpus::wake`],
/// unless it has noted it before the question.
pub(crate) fn idle_unless(is_pending: impl FnOnce() -> bool) {
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
pub(crate) fn asleep() -> u64 {
    Cpu::this().slept()
}
