//! Several CPUs: each has its own state, and none uses a mapping that another has removed.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::machine::paging::{self, Access};
use crate::machine::smp::{self, Cpu, JobError, SleepState};
use crate::machine::{clock, fault, frames, heap, idle_unless, local_apic, nmi, stack, timer, vectors};
use ballonet::memory::FrameRun;

use crate::tests::suite::{Skip, Test, kernel_test, tests};
use crate::tests::support::{Counter, Hooked, ONE_CPU, PATIENCE_NS, Storm, pass, wait_until};

pub(super) const TESTS: &[Test] = tests![
    every_cpu_runs_jobs_on_a_stack_of_its_own,
    jobs_that_cannot_be_done_are_refused,
    what_is_unmapped_is_forgotten_by_every_cpu,
    what_is_unmapped_is_forgotten_by_a_cpu_that_takes_no_interrupts,
    what_is_unmapped_is_forgotten_by_a_cpu_that_an_nmi_has_woken,
    a_storm_lets_a_cpu_that_means_to_sleep_wake_up,
    a_cpu_that_sleeps_is_woken_by_what_another_notes,
    all_cpus_allocate_and_free_at_once_and_nothing_is_lost,
];

/// The numbers of the CPUs that accept jobs.
fn others() -> Result<Vec<u32>, Skip> {
    let others: Vec<_> = smp::all().map(Cpu::number).filter(|&number| number != 0).collect();
    if others.is_empty() { Err(Skip::because(ONE_CPU)) } else { Ok(others) }
}

/// Gives a CPU a job.
#[track_caller]
fn start(cpu: u32, job: impl FnOnce() + Send + 'static) {
    smp::run(cpu, Box::new(job)).unwrap_or_else(|error| panic!("{error}"));
}

/// Waits until a CPU has done its job.
#[track_caller]
fn finish(cpu: u32) {
    wait_until(|| smp::get(cpu).is_some_and(|cpu| !cpu.is_busy()));
}

/// Runs a job on a CPU, to its end.
#[track_caller]
fn run_on(cpu: u32, job: impl FnOnce() + Send + 'static) {
    start(cpu, job);
    finish(cpu);
}

kernel_test! {
    fn every_cpu_runs_jobs_on_a_stack_of_its_own() {
        let mut stacks = Vec::new();
        for cpu in others()? {
            let (number, place) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU64::new(0)));
            let (its_number, its_place) = (Arc::clone(&number), Arc::clone(&place));
            run_on(cpu, move || {
                let local = 0u8;
                its_place.store(&raw const local as u64, Ordering::SeqCst);
                its_number.store(Cpu::this().number(), Ordering::SeqCst);
            });
            let place = place.load(Ordering::SeqCst);
            assert_eq!(number.load(Ordering::SeqCst), cpu);
            assert!(fault::is_on_stack(place, 1) && stack::OTHERS.contains(&place), "{place:#x}");
            let is_mapped = |address| paging::with(|space| space.lookup(address)).is_some();
            let guard = (0..=64).map(|page| place - page * 4096).find(|&address| !is_mapped(address));
            assert!(guard.is_some_and(|guard| !fault::is_on_stack(guard, 1)), "no guard page below {place:#x}");
            stacks.push(place);
        }
        stacks.sort_unstable();
        assert!(stacks.windows(2).all(|pair| pair[1] - pair[0] >= 0x1_0000), "{stacks:x?}");
        assert!(smp::get(0).is_some_and(|boot| boot.apic_id() == crate::machine::local_apic::id()));
    }
}

kernel_test! {
    fn jobs_that_cannot_be_done_are_refused() {
        let count = smp::count();
        let try_on = |cpu| smp::run(cpu, Box::new(|| {}));
        assert_eq!(try_on(0), Err(JobError::Boot(0)));
        assert_eq!(try_on(count), Err(JobError::NoCpu(count)));
        assert_eq!(try_on(u32::MAX), Err(JobError::NoCpu(u32::MAX)));
        let cpu = others()?[0];
        let go = Arc::new(AtomicBool::new(false));
        let awaited = Arc::clone(&go);
        start(cpu, move || wait_until(|| awaited.load(Ordering::SeqCst)));
        assert_eq!(try_on(cpu), Err(JobError::Busy(cpu)));
        go.store(true, Ordering::SeqCst);
        finish(cpu);
        run_on(cpu, || {});
    }
}

/// Allocates a frame and sets its first word to `word`.
fn frame_with(word: u64) -> FrameRun {
    let run = frames::allocate(1, 1).expect("a frame is free");
    // SAFETY: the frame belongs to this test, and memory is mapped one to one.
    unsafe { (run.address() as *mut u64).write_volatile(word) };
    run
}

/// Opens a window onto a frame and returns its address.
fn open(frame: FrameRun) -> u64 {
    let address = frame.address();
    let window = paging::with(|space| space.open_window(address, 4096, Access::ReadOnly, &mut frames::ForTables));
    window.expect("there are addresses").as_ptr() as u64
}

fn close(window: u64) {
    let start = core::ptr::NonNull::new(window as *mut u8).expect("a window's address");
    paging::with(|space| space.close_window(start, 4096));
}

fn read(address: u64) -> u64 {
    // SAFETY: called only while a window is open there.
    unsafe { (address as *const u64).read_volatile() }
}

kernel_test! {
    fn what_is_unmapped_is_forgotten_by_every_cpu() {
        let (first, second) = (frame_with(0xAAAA), frame_with(0xBBBB));
        for (cpu, is_busy) in others()?.into_iter().flat_map(|cpu| [(cpu, true), (cpu, false)]) {
            let window = open(first);
            let (seen, go) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
            let (look, last_look) = (Arc::clone(&seen), Arc::clone(&seen));
            let awaited = Arc::clone(&go);
            start(cpu, move || {
                look.store(read(window), Ordering::SeqCst);
                if is_busy {
                    wait_until(|| awaited.load(Ordering::SeqCst));
                    look.store(read(window), Ordering::SeqCst);
                }
            });
            wait_until(|| seen.load(Ordering::SeqCst) == 0xAAAA);
            if !is_busy {
                finish(cpu);
                wait_until(|| smp::get(cpu).is_some_and(|cpu| cpu.sleep_state() == SleepState::Asleep));
            }
            close(window);
            assert_eq!(open(second), window, "the addresses are used again");
            if is_busy {
                go.store(true, Ordering::SeqCst);
                finish(cpu);
            } else {
                run_on(cpu, move || last_look.store(read(window), Ordering::SeqCst));
            }
            close(window);
            assert_eq!(seen.load(Ordering::SeqCst), 0xBBBB, "CPU {cpu} remembers the first frame; busy: {is_busy}");
        }
        for frame in [first, second] {
            frames::free(frame).expect("the frame was allocated");
        }
    }
}

kernel_test! {
    fn what_is_unmapped_is_forgotten_by_a_cpu_that_takes_no_interrupts() {
        let cpu = others()?[0];
        let (first, second) = (frame_with(0xAAAA), frame_with(0xBBBB));
        let window = open(first);
        let (step, seen) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU64::new(0)));
        let (its_step, look) = (Arc::clone(&step), Arc::clone(&seen));
        start(cpu, move || {
            // It shows no progress: after a thousand interrupts the kernel holds further ones back.
            let held = vectors::holds();
            while vectors::holds() == held {
                local_apic::send_to_self(vectors::WAKE);
            }
            look.store(read(window), Ordering::SeqCst);
            its_step.store(1, Ordering::SeqCst);
            while its_step.load(Ordering::SeqCst) == 1 {
                core::hint::spin_loop();
            }
            look.store(read(window), Ordering::SeqCst);
        });
        wait_until(|| step.load(Ordering::SeqCst) == 1);
        assert_eq!(seen.load(Ordering::SeqCst), 0xAAAA);
        close(window);
        assert_eq!(open(second), window, "the addresses are used again");
        // Each of these also receives an NMI.
        for _ in 0..10 {
            let another = open(first);
            close(another);
        }
        step.store(2, Ordering::SeqCst);
        finish(cpu);
        close(window);
        assert_eq!(seen.load(Ordering::SeqCst), 0xBBBB, "CPU {cpu} remembers the first frame");
        assert!(nmi::take_unreported().is_none(), "the kernel does not report its own NMIs");
        for frame in [first, second] {
            frames::free(frame).expect("the frame was allocated");
        }
    }
}

kernel_test! {
    fn what_is_unmapped_is_forgotten_by_a_cpu_that_an_nmi_has_woken() {
        let cpu = others()?[0];
        let _hook = Hooked::with(|frame| frame.vector == u64::from(nmi::VECTOR));
        let (first, second) = (frame_with(0xAAAA), frame_with(0xBBBB));
        let window = open(first);
        assert_eq!(read(window), 0xAAAA);
        let step = Arc::new(AtomicU32::new(0));
        let its_step = Arc::clone(&step);
        start(cpu, move || {
            wait_until(|| smp::boot().sleep_state() == SleepState::Asleep);
            // An NMI before `hlt` need not wake the CPU.
            wait_until(|| {
                local_apic::send_nmi(smp::boot().apic_id());
                pass(1_000_000);
                its_step.load(Ordering::SeqCst) == 1
            });
            close(window);
            assert_eq!(open(second), window, "the addresses are used again");
            its_step.store(2, Ordering::SeqCst);
        });
        timer::disarm();
        idle_unless(|| false);
        let rest = Cpu::this().sleep_state();
        step.store(1, Ordering::SeqCst);
        while step.load(Ordering::SeqCst) != 2 {
            core::hint::spin_loop();
        }
        let seen = read(window);
        finish(cpu);
        close(window);
        assert_eq!((rest, seen), (SleepState::Awake, 0xBBBB));
        for frame in [first, second] {
            frames::free(frame).expect("the frame was allocated");
        }
    }
}

kernel_test! {
    fn a_storm_lets_a_cpu_that_means_to_sleep_wake_up() {
        let cpu = others()?[0];
        let storm = Storm::new();
        let counter = Counter::with("storm", storm.ask_again());
        let vector = counter.vector;
        storm.set_vector(vector);
        run_on(cpu, move || local_apic::send_to_self(vector));
        counter.wait_for(5000);
        storm.stop();
        run_on(cpu, || {});
    }
}

/// Rounds of the tests that look for races.
const ROUNDS: u64 = 300;

kernel_test! {
    fn a_cpu_that_sleeps_is_woken_by_what_another_notes() {
        let cpu = others()?[0];
        let asked = Arc::new(AtomicU64::new(0));
        let answered = Arc::new(AtomicU64::new(0));
        let (question, answer) = (Arc::clone(&asked), Arc::clone(&answered));
        start(cpu, move || {
            for round in 1..=ROUNDS {
                wait_until(|| question.load(Ordering::SeqCst) == round);
                // At varying moments while the other CPU goes to sleep.
                (0..round % 50 * 20).for_each(|_| core::hint::spin_loop());
                answer.store(round, Ordering::Relaxed);
                smp::wake(smp::boot());
            }
        });
        timer::take_fired();
        timer::arm_at(clock::nanoseconds() + PATIENCE_NS);
        for round in 1..=ROUNDS {
            asked.store(round, Ordering::SeqCst);
            while answered.load(Ordering::Relaxed) < round {
                idle_unless(|| answered.load(Ordering::Relaxed) == round || timer::has_fired());
                assert!(!timer::has_fired(), "nothing has woken the CPU in round {round}");
            }
        }
        timer::disarm();
        finish(cpu);
    }
}

kernel_test! {
    fn all_cpus_allocate_and_free_at_once_and_nothing_is_lost() {
        let others = others()?;
        let before = frames::counts();
        for &cpu in &others {
            start(cpu, move || {
                for round in 0..ROUNDS {
                    churn(u64::from(cpu) << 32 | round);
                }
            });
        }
        (0..ROUNDS).for_each(churn);
        others.iter().for_each(|&cpu| finish(cpu));
        frames::with(|frames| frames.check()).expect("the records are sound");
        let after = frames::counts();
        // The heap keeps the frames by which it has grown.
        let heap = heap::view().size as u64 / 4096;
        assert!(after.used <= before.used + heap, "{} frames were in use, {} are", before.used, after.used);
    }
}

/// Allocates frames and blocks of several sizes, marks them, verifies the marks, and frees them.
fn churn(mark: u64) {
    let runs: Vec<FrameRun> = [1, 1, 3, 16].iter().filter_map(|&frames| frames::allocate(frames, 1).ok()).collect();
    let pages = || runs.iter().flat_map(|run| run.pfns()).map(|pfn| pfn.start().as_u64() as *mut u64);
    // SAFETY: these frames belong to this call, and memory is mapped one to one.
    pages().for_each(|page| unsafe { page.write_volatile(mark) });
    let blocks: Vec<Vec<u64>> = [10, 100, 20_000].iter().map(|&words| alloc::vec![mark; words]).collect();
    for page in pages() {
        // SAFETY: as above.
        assert_eq!(unsafe { page.read_volatile() }, mark, "a frame has another owner");
    }
    assert!(blocks.iter().flatten().all(|&word| word == mark), "a block has another owner");
    runs.into_iter().for_each(|run| frames::free(run).expect("the frames were allocated"));
}
