//! Starting the other CPUs: INIT, then a startup IPI or two for each (SDM vol. 3, 10.4.4).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use ::log::{info, warn};
use derive_more::Display;
use spin::Once;
use x86_64::instructions::interrupts;
use x86_64::registers::control::Cr3;

use crate::acpi::{Madt, Processor, ProcessorState};
use crate::boot::MOST_CPUS;
use crate::console::count as count_of;
use crate::machine::cpu::cpuid::{self, Features};
use crate::machine::cpu::{memory_types, stack};
use crate::machine::interrupts::{local_apic, machine_check, traps, vectors};
use crate::machine::memory::frames;
use crate::machine::paging::{self, tlb};
use crate::machine::smp::cpu::Cpu;
use crate::machine::smp::registry::{self, OTHERS, count};
use crate::machine::smp::trampoline;
use crate::machine::start::image::Image;
use crate::machine::time::clock;
use crate::machine::time::tsc;
use ballonet::memory::{FRAME_SIZE, PhysRange};
use ballonet::platform::Handled;

/// The most processors that are read from the MADT.
const MOST: usize = MOST_CPUS as usize;
/// How long to wait for a processor after its first startup IPI, in nanoseconds; and after the second.
const FIRST_PATIENCE: u64 = 20_000_000;
const SECOND_PATIENCE: u64 = 500_000_000;
/// The total wait for processors that do not start, in nanoseconds; and the wait for each beyond that. Firmware may
/// list thousands that do not exist.
const TOTAL_PATIENCE: u64 = 3_000_000_000;
const LEAST_PATIENCE: u64 = 1_000_000;
/// How long to wait until a started processor runs, in nanoseconds; lost time counts against all of them together.
const JOIN_PATIENCE: u64 = 5_000_000_000;
/// Between INIT and the startup IPI, in nanoseconds: not for virtual machines, whose processors need no time.
const INIT_TIME: u64 = 10_000_000;
/// The most failures that are reported one by one.
const MOST_REPORTED: usize = 8;

/// Starts the processors of the MADT, so that at most `most` CPUs run. `page` is a page for their first code.
///
/// # Safety
/// `page` is memory below [`trampoline::PAGE_LIMIT`] that no other code ever uses, and mapped one to one.
pub(crate) unsafe fn start(features: &Features, madt: &Madt, image: &Image, page: Option<PhysRange>, most: u32) {
    let boot = local_apic::id();
    let most = MOST.min(most.saturating_sub(1) as usize);
    let processors = startable(&madt.processors, boot, local_apic::is_x2apic()).map(|processor| processor.apic_id);
    let processors: Vec<u32> = processors.take(most).collect();
    let wanted = processors.len();
    if wanted == 0 {
        return;
    }
    let Some(page) = page.map(|page| page.start().as_u64()) else {
        return warn!(
            "one CPU of {}: no page below {:#x} is free to start the others",
            wanted + 1,
            trampoline::PAGE_LIMIT
        );
    };
    OTHERS.call_once(|| (0..wanted).map(|_| Once::new()).collect());
    install_vectors();
    let root = Cr3::read().0.start_address().as_u64();
    let tables = image.physical(crate::machine::start::entry::ENTRY_TABLES.address()) as u32;
    // SAFETY: the caller's promise; the entry code's tables map the first 4 GiB and the image, and nothing has changed
    // them.
    unsafe { trampoline::write(page, tables, root, features.nx, enter) };

    processors.iter().copied().for_each(local_apic::send_init);
    if !features.hypervisor {
        wait_for(INIT_TIME, || false);
    }
    let prepared = start_all(&processors, (page / FRAME_SIZE) as u8);
    // By number, whether or not all of them have started.
    if count() > 1
        && let Err(error) = frames::enable_caches(1 + prepared)
    {
        warn!("CPUs share one lock for page frames: {error}");
    }
    match count() {
        1 => info!("1 CPU runs"),
        several => info!("{several} CPUs run"),
    }
}

/// Starts the processors with these ids, one by one. Returns for how many there are stacks.
fn start_all(processors: &[u32], vector: u8) -> usize {
    let (mut prepared, mut failures) = (0, 0);
    let mut patience = Patience::new();
    // A processor that has not started has not used its `Cpu`.
    let mut spare = None;
    for &apic_id in processors {
        let next = spare.take().or_else(|| prepare(prepared + 1).inspect(|_| prepared += 1));
        let Some(cpu) = next else {
            warn!("{} of {} CPUs: there is no memory for more stacks", prepared + 1, processors.len() + 1);
            break;
        };
        let Err(failure) = bring_in(apic_id, cpu, vector, &mut patience) else { continue };
        failures += 1;
        if failures <= MOST_REPORTED {
            warn!("the CPU with APIC ID {apic_id} {failure}");
        }
        spare = matches!(failure, Failure::NotStarted).then_some(cpu);
    }
    if failures > MOST_REPORTED {
        warn!("{} failed to start", count_of(failures - MOST_REPORTED, "more CPU"));
    }
    prepared as usize
}

/// Registers the vectors by which CPUs interrupt each other.
fn install_vectors() {
    // Its arrival is its whole effect.
    vectors::install(vectors::WAKE, String::from("wake"), vectors::Handler::new(|| Handled::Yes));
    let flush = || {
        tlb::catch_up();
        Handled::Yes
    };
    vectors::install(vectors::FLUSH, String::from("flush"), vectors::Handler::new(flush));
}

/// How a processor failed to run as it should.
#[derive(Display)]
enum Failure {
    #[display("did not start")]
    NotStarted,
    #[display("started, but never reported running")]
    Lost,
    #[display("is not used: the one with APIC ID {_0}, which had been given up, started late and took its place")]
    Other(u32),
    #[display("has a TSC that is {_0} ticks off: do not compare times taken on it with others")]
    Clock(u64),
}

/// Waits for processors that may not start or not run, in nanoseconds.
struct Patience {
    to_come: u64,
    to_join: u64,
}

impl Patience {
    const fn new() -> Self {
        Self { to_come: TOTAL_PATIENCE, to_join: JOIN_PATIENCE }
    }

    /// For one processor to start, after its first startup IPI, and after its second.
    fn to_come(&self) -> [u64; 2] {
        [FIRST_PATIENCE, SECOND_PATIENCE].map(|patience| patience.min(self.to_come).max(LEAST_PATIENCE))
    }

    /// For a started one to run.
    fn to_join(&self) -> u64 {
        self.to_join.max(LEAST_PATIENCE)
    }

    /// One has not started.
    fn has_not_come(&mut self) {
        self.to_come = self.to_come.saturating_sub(self.to_come().iter().sum());
    }

    /// One has started, but does not run.
    fn is_lost(&mut self) {
        self.to_join = 0;
    }
}

/// The processors that can be started: enabled, addressable, and not the current one.
fn startable(processors: &[Processor], boot: u32, x2apic: bool) -> impl Iterator<Item = Processor> {
    let can_be_named = move |id: u32| x2apic && id != local_apic::EVERYBODY || id < local_apic::EVERYBODY_XAPIC;
    let is_wanted = move |processor: &&Processor| {
        processor.state == ProcessorState::Enabled && processor.apic_id != boot && can_be_named(processor.apic_id)
    };
    processors.iter().filter(is_wanted).copied()
}

/// The CPU with this number, and its stacks; `None` if there is no memory for them.
fn prepare(number: u32) -> Option<&'static Cpu> {
    // CPUs get at most half of memory.
    let counts = frames::with(|frames| frames.counts());
    if counts.free <= counts.total / 2 + stack::FRAMES_A_CPU {
        return None;
    }
    let tops = paging::with(|space| space.map_stacks(number, &mut frames::ForTables)).ok()?;
    let cpu: &'static Cpu = Box::leak(Box::new(Cpu::new(number)));
    cpu.set_stack(tops.main);
    OTHERS.get()?.get(number as usize - 1)?.call_once(|| cpu);
    Some(cpu)
}

/// Starts the processor with this id as `cpu`, and waits until it runs.
fn bring_in(apic_id: u32, cpu: &'static Cpu, vector: u8, patience: &mut Patience) -> Result<(), Failure> {
    trampoline::await_next(cpu);
    let before = tsc::now();
    let comes = |patience| {
        local_apic::send_startup(apic_id, vector);
        wait_for(patience, trampoline::has_come)
    };
    if !patience.to_come().into_iter().any(comes) && !trampoline::await_none() {
        patience.has_not_come();
        return Err(Failure::NotStarted);
    }
    if !wait_for(patience.to_join(), || cpu.is_running()) {
        patience.is_lost();
        return Err(Failure::Lost);
    }
    if cpu.apic_id() != apic_id {
        return Err(Failure::Other(cpu.apic_id()));
    }
    // It has read its TSC in between.
    let (after, then) = (tsc::now(), cpu.started());
    let off = before.saturating_sub(then).max(then.saturating_sub(after));
    if off > 0 { Err(Failure::Clock(off)) } else { Ok(()) }
}

/// Waits until `done`, for `patience` nanoseconds at most.
fn wait_for(patience: u64, done: impl Fn() -> bool) -> bool {
    let start = clock::nanoseconds();
    while !done() {
        if clock::nanoseconds().saturating_sub(start) > patience {
            return done();
        }
        core::hint::spin_loop();
    }
    true
}

/// The first Rust code of another CPU than the boot CPU.
pub(crate) extern "C" fn enter(cpu: &'static Cpu) -> ! {
    cpu.take();
    let features = Features::detect();
    cpu.load_segments(&stack::tops(cpu.number()));
    traps::load();
    cpuid::enable(&features);
    memory_types::set_pat(&features);
    machine_check::begin(&features);
    local_apic::setup::enable(&features);
    registry::join(cpu);
    // From here on it takes part in TLB shootdowns; it missed earlier ones.
    tlb::catch_up();
    interrupts::enable();
    cpu.serve_jobs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor(apic_id: u32, state: ProcessorState) -> Processor {
        Processor { uid: 0, apic_id, state }
    }

    #[test]
    fn thousands_that_do_not_come_cost_seconds_and_not_half_an_hour() {
        let mut patience = Patience::new();
        assert_eq!(patience.to_come(), [FIRST_PATIENCE, SECOND_PATIENCE]);
        let total: u64 = (0..MOST).map(|_| (patience.to_come().iter().sum::<u64>(), patience.has_not_come()).0).sum();
        assert_eq!(patience.to_come(), [LEAST_PATIENCE; 2], "and each is waited for a little");
        assert!(total < 12_000_000_000, "{total} ns");
        let total: u64 = (0..MOST).map(|_| (patience.to_join(), patience.is_lost()).0).sum();
        assert!(total < 12_000_000_000, "{total} ns");
    }

    #[test]
    fn those_that_are_enabled_and_can_be_named_are_started() {
        use ProcessorState::{Disabled, Enabled, OnlineCapable};
        let all = [
            processor(3, Enabled),
            processor(0, Enabled),
            processor(1, Disabled),
            processor(2, OnlineCapable),
            processor(254, Enabled),
            processor(255, Enabled),
            processor(0x1_0003, Enabled),
            processor(u32::MAX, Enabled),
        ];
        let ids = |x2apic| startable(&all, 0, x2apic).map(|processor| processor.apic_id).collect::<Vec<_>>();
        assert_eq!(ids(true), [3, 254, 255, 0x1_0003]);
        assert_eq!(ids(false), [3, 254], "xAPIC mode has 8 bits for an ID, of which 255 is everybody");
    }
}
