//! TLB shootdown: stale translations after the page tables have changed.
//!
//! A new mapping needs no flush: the TLB does not cache entries that are not present (SDM vol. 3, 5.10.4.1). Every CPU
//! must flush an unmapped page before its addresses or its frames are reused. So each change has a generation number,
//! and each CPU records the last one it has applied. A sleeping CPU is not interrupted: it compares the number before
//! it does anything else (`wake_up`). The others are interrupted, and waited for.
//!
//! A CPU whose interrupts are blocked because they came too fast is interrupted by an NMI.
//!
//! A CPU that waits for a [`Lock`](crate::machine::lock::Lock) has interrupts off, and the CPU that waits here may hold
//! the lock. So a CPU that waits for a lock checks the number, too.

use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::instructions::tlb;

use crate::machine::interrupts::{local_apic, numbers};
use crate::machine::smp::cpu::{Cpu, SleepState};
use crate::machine::smp::registry;
use crate::machine::time::tsc;

/// Changes so far.
static GENERATION: AtomicU64 = AtomicU64::new(0);
/// How often CPUs were interrupted.
static INTERRUPTED: AtomicU64 = AtomicU64::new(0);
/// The longest wait for a CPU, in TSC ticks of some GHz: far longer than an overcommitted host deschedules it.
const PATIENCE: u64 = 60_000_000_000;

/// Makes every CPU flush unmapped addresses from its TLB, and waits until all have. Mappings in use have not changed.
///
/// # Panics
/// When a CPU does not answer: its stale entries would allow access to another owner's memory.
pub(crate) fn flush_everywhere() {
    let generation = GENERATION.fetch_add(1, Ordering::SeqCst) + 1;
    catch_up();
    if registry::count() == 1 {
        return;
    }
    let this = Cpu::this().number();
    let is_behind =
        |cpu: &&Cpu| cpu.generation.load(Ordering::SeqCst) < generation && cpu.sleep_state() != SleepState::Asleep;
    let others = || registry::all().filter(|cpu| cpu.number() != this);
    for cpu in others().filter(|cpu| is_behind(cpu)) {
        local_apic::send(cpu.apic_id(), numbers::FLUSH);
        INTERRUPTED.fetch_add(1, Ordering::Relaxed);
    }
    let start = tsc::now();
    while let Some(cpu) = others().find(|cpu| is_behind(cpu)) {
        // The awaited CPU may be waiting for this one.
        catch_up();
        insist(cpu);
        assert!(tsc::now().saturating_sub(start) < PATIENCE, "CPU {} does not answer", cpu.number());
        core::hint::spin_loop();
    }
}

/// Sends an NMI, once, to a CPU that takes no other interrupt.
fn insist(cpu: &Cpu) {
    if cpu.is_held.load(Ordering::Relaxed) && !cpu.is_to_catch_up.swap(true, Ordering::SeqCst) {
        local_apic::send_nmi(cpu.apic_id());
        INTERRUPTED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Called for an NMI: calls [`catch_up`] if the NMI was sent for that, and returns whether it was.
pub(crate) fn catch_up_by_nmi() -> bool {
    let is_asked = Cpu::this().is_to_catch_up.swap(false, Ordering::SeqCst);
    if is_asked {
        catch_up();
    }
    is_asked
}

/// Flushes the TLB of the current CPU, if anything was unmapped since its last flush.
pub(crate) fn catch_up() {
    let cpu = Cpu::this();
    let generation = GENERATION.load(Ordering::SeqCst);
    if cpu.generation.load(Ordering::Relaxed) != generation {
        // There are no global pages.
        tlb::flush_all();
        // An NMI in between has applied a later one.
        cpu.generation.fetch_max(generation, Ordering::SeqCst);
    }
}

/// An interrupt has come to the current CPU: if it slept, it is awake now. Called before anything else in an interrupt.
pub(crate) fn wake_up(cpu: &Cpu, vector: u8) {
    if cpu.sleep_state() == SleepState::Awake {
        return;
    }
    // An NMI, which comes with interrupts off, may precede the `hlt`, which is then still executed and must be woken
    // from. Its handler accesses nothing that is ever unmapped.
    if vector >= numbers::FIRST_EXTERNAL {
        cpu.set_sleep_state(SleepState::Awake);
    }
    catch_up();
}

/// How often CPUs were interrupted to flush.
pub(crate) fn interrupted() -> u64 {
    INTERRUPTED.load(Ordering::Relaxed)
}
