//! Per-CPU state.

use core::arch::asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use x86_64::registers::model_specific::Msr;

use crate::machine::cpu::cpuid;
use crate::machine::cpu::segments::Segments;
use crate::machine::cpu::stack::Tops;
use crate::machine::interrupts::numbers::FIRST_EXTERNAL;
use crate::machine::smp::slot::Slot;
use crate::machine::time::{clock, tsc};

/// `IA32_GS_BASE` (SDM vol. 4, table 2-2).
const GS_BASE: u32 = 0xC000_0101;

/// What the kernel keeps for a CPU. GS points to it.
#[repr(C)]
pub(crate) struct Cpu {
    /// Its own address, read through GS; 0 until the CPU has claimed it.
    this: AtomicU64,
    /// The top of its stack, for the entry code.
    stack: AtomicU64,
    number: u32,
    apic_id: AtomicU32,
    is_running: AtomicBool,
    has_stopped: AtomicBool,
    sleep_state: AtomicU8,
    /// TSC ticks that it has slept, excluding the current sleep.
    slept: AtomicU64,
    /// The TSC when it last went to sleep.
    asleep_since: AtomicU64,
    /// The TSC when it was started.
    started: AtomicU64,
    /// The last page table generation that it has applied: see [`tlb`](crate::machine::paging::tlb).
    pub(crate) generation: AtomicU64,
    /// A pending NMI tells it to flush its TLB.
    pub(crate) is_to_catch_up: AtomicBool,
    /// Interrupts and exceptions, by vector.
    counts: [AtomicU64; 256],
    /// Interrupts since the interrupted code last showed progress.
    pub(crate) burst: AtomicU32,
    /// Whether its local APIC blocks interrupts.
    pub(crate) is_held: AtomicBool,
    pub(super) job: Slot,
    segments: Segments,
}

/// Whether a CPU sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum SleepState {
    /// Awake.
    Awake,
    /// About to sleep: checks one last time for work.
    Looking,
    /// Waits for an interrupt; until then it accesses no memory that could have been unmapped.
    Asleep,
}

impl Cpu {
    /// A CPU that does not run yet.
    pub(crate) const fn new(number: u32) -> Self {
        Self {
            this: AtomicU64::new(0),
            stack: AtomicU64::new(0),
            number,
            apic_id: AtomicU32::new(0),
            is_running: AtomicBool::new(false),
            has_stopped: AtomicBool::new(false),
            sleep_state: AtomicU8::new(SleepState::Awake as u8),
            slept: AtomicU64::new(0),
            asleep_since: AtomicU64::new(0),
            started: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            is_to_catch_up: AtomicBool::new(false),
            counts: [const { AtomicU64::new(0) }; 256],
            burst: AtomicU32::new(0),
            is_held: AtomicBool::new(false),
            job: Slot::new(),
            segments: Segments::new(),
        }
    }

    /// The offset of the stack pointer, for the entry code.
    pub(crate) const STACK: usize = offset_of!(Self, stack);

    /// Sets the stack on which it starts.
    pub(crate) fn set_stack(&self, top: u64) {
        self.stack.store(top, Ordering::Relaxed);
    }

    /// The current CPU.
    pub(crate) fn this() -> &'static Self {
        let this: *const Self;
        // SAFETY: `take` has set GS to a `Cpu` that lives permanently and begins with its own address. Code does not
        // migrate between CPUs.
        unsafe {
            asm!("mov {}, gs:[0]", out(reg) this, options(pure, readonly, nostack, preserves_flags));
            &*this
        }
    }

    /// Makes this the current CPU.
    pub(crate) fn take(&'static self) {
        let address = core::ptr::from_ref(self) as u64;
        self.this.store(address, Ordering::Relaxed);
        // SAFETY: GS is used for nothing else, and `self` lives permanently.
        unsafe { Msr::new(GS_BASE).write(address) };
    }

    pub(crate) fn set_running(&self) {
        self.is_running.store(true, Ordering::Release);
    }

    /// Records its local APIC's ID.
    pub(crate) fn set_apic_id(&self, id: u32) {
        self.apic_id.store(id, Ordering::Relaxed);
    }

    /// Loads the CPU's own descriptor tables, with these interrupt stacks.
    pub(crate) fn load_segments(&'static self, tops: &Tops) {
        self.segments.load(tops);
    }

    /// Its number.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Whether this is the boot CPU, which runs the main loop.
    pub(crate) fn is_boot(&self) -> bool {
        self.number == 0
    }

    /// Its local APIC's ID.
    pub(crate) fn apic_id(&self) -> u32 {
        self.apic_id.load(Ordering::Relaxed)
    }

    /// Whether it runs.
    pub(crate) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Acquire)
    }

    /// Records the TSC when it began to run.
    pub(crate) fn set_started(&self, tsc: u64) {
        self.started.store(tsc, Ordering::Relaxed);
    }

    /// The TSC when it began to run.
    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// How long it has run, asleep or not, in nanoseconds: the boot CPU since entry.
    pub(crate) fn up(&self) -> u64 {
        clock::duration(tsc::now().saturating_sub(self.started()))
    }

    /// How long it has slept, in nanoseconds.
    pub(crate) fn slept(&self) -> u64 {
        let still = match self.sleep_state() {
            SleepState::Asleep => tsc::now().saturating_sub(self.asleep_since.load(Ordering::Relaxed)),
            SleepState::Awake | SleepState::Looking => 0,
        };
        clock::duration(self.slept.load(Ordering::Relaxed) + still)
    }

    /// Records that it goes to sleep now.
    pub(crate) fn fall_asleep(&self) {
        self.asleep_since.store(tsc::now(), Ordering::Relaxed);
        self.set_sleep_state(SleepState::Asleep);
    }

    /// Records that it has slept until now.
    pub(crate) fn note_slept(&self) {
        let ticks = tsc::now().saturating_sub(self.asleep_since.load(Ordering::Relaxed));
        self.slept.fetch_add(ticks, Ordering::Relaxed);
    }

    /// Counts an interrupt. Interrupts of one vector do not nest, so no count is lost.
    pub(crate) fn count(&self, vector: u8) {
        let count = &self.counts[usize::from(vector)];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// How often `vector` has come to it since the vector has its owner.
    pub(crate) fn counted(&self, vector: u8) -> u64 {
        self.counts[usize::from(vector)].load(Ordering::Relaxed)
    }

    pub(crate) fn forget_count(&self, vector: u8) {
        self.counts[usize::from(vector)].store(0, Ordering::Relaxed);
    }

    /// How often all device vectors and the kernel's own vectors have come to it.
    pub(crate) fn interrupts(&self) -> u64 {
        (FIRST_EXTERNAL..=u8::MAX).map(|vector| self.counted(vector)).sum()
    }

    /// Whether it sleeps.
    pub(crate) fn sleep_state(&self) -> SleepState {
        match self.sleep_state.load(Ordering::SeqCst) {
            0 => SleepState::Awake,
            1 => SleepState::Looking,
            _ => SleepState::Asleep,
        }
    }

    pub(crate) fn set_sleep_state(&self, state: SleepState) {
        self.sleep_state.store(state as u8, Ordering::SeqCst);
    }

    /// Whether it has halted permanently.
    pub(crate) fn has_stopped(&self) -> bool {
        self.has_stopped.load(Ordering::Acquire)
    }

    /// Halts permanently.
    pub(crate) fn stop(&self) -> ! {
        self.has_stopped.store(true, Ordering::Release);
        cpuid::halt()
    }
}
