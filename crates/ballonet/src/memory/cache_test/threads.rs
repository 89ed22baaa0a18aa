//! Threads as CPUs: however they allocate, free and pass on frames, each frame has one owner.

use core::sync::atomic::AtomicU32;
use std::sync::Barrier;
use std::thread;

use super::*;

/// The owner of each frame of [`SMALL`]: at most one, whatever threads do.
struct Owners(Vec<AtomicU32>);

impl Owners {
    const NOBODY: u32 = 0;
    const WANDERING: u32 = u32::MAX;

    fn new() -> Self {
        Self((0..1024).map(|_| AtomicU32::new(Self::NOBODY)).collect())
    }

    fn shift(&self, run: FrameRun, from: u32, to: u32) -> FrameRun {
        for frame in run.pfns() {
            let owner = &self.0[(frame.0 - (16 * MIB / FRAME_SIZE) as u32) as usize];
            assert_eq!(owner.swap(to, Ordering::Relaxed), from, "{frame}");
        }
        run
    }
}

/// One CPU: allocates, frees, drains, reads counts, and exchanges frames with others, as random numbers decide.
fn live(machine: &Machine<'_>, cpu: usize, owners: &Owners, wandering: &Mutex<Vec<FrameRun>>) {
    let me = cpu as u32 + 1;
    let mut held = Vec::new();
    let mut random = 0x9E37_79B9_7F4A_7C15 + cpu as u64;
    for _ in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let got = match random >> 58 {
            0..28 => machine.allocate(cpu).ok(),
            28 => machine.allocate_run(16, 1).ok(),
            29 => machine.take(|frames| frames.take_free(40)),
            30 => {
                machine.drain();
                None
            }
            31 => {
                assert_eq!(machine.counts().total, 1024);
                None
            }
            32..36 => {
                let mut wandering = wandering.lock().unwrap();
                let other = wandering.pop();
                wandering.extend(held.pop().map(|run| owners.shift(run, me, Owners::WANDERING)));
                held.extend(other.map(|run| owners.shift(run, Owners::WANDERING, me)));
                None
            }
            other => {
                let place = (random >> 20) as usize % held.len().max(1);
                if other > 36 && place < held.len() {
                    let run: FrameRun = held.swap_remove(place);
                    machine.free(cpu, owners.shift(run, me, Owners::NOBODY)).unwrap();
                }
                None
            }
        };
        held.extend(got.map(|run| owners.shift(run, Owners::NOBODY, me)));
    }
    held.into_iter().for_each(|run| machine.free(cpu, owners.shift(run, me, Owners::NOBODY)).unwrap());
}

#[test]
fn concurrent_cpus_never_share_a_frame_and_lose_none() {
    on(&SMALL, |machine| {
        let (owners, wandering) = (Owners::new(), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for cpu in 0..CPUS {
                let (owners, wandering) = (&owners, &wandering);
                scope.spawn(move || live(machine, cpu, owners, wandering));
            }
        });
        wandering.into_inner().unwrap().into_iter().for_each(|run| machine.free(0, run).unwrap());
        machine.drain();
        let counts = machine.counts();
        assert_eq!((counts.free, counts.free_regions, counts.history.refusals), (1024, 2, 0));
        assert_eq!(machine.caches.len(), 0);
    });
}

#[test]
fn when_two_cpus_free_the_same_frame_at_once_one_is_refused() {
    on(&SMALL, |machine| {
        for round in 0..1000 {
            let pair = machine.allocate_run(2, 1).unwrap();
            let single = pair.split(1).0;
            // Alternately: both free the first frame, or one CPU frees both frames at once.
            let runs = [if round % 2 == 0 { single } else { pair }, single];
            let meet = Barrier::new(2);
            let free = |cpu: usize| {
                meet.wait();
                machine.free(cpu, runs[cpu]).is_ok()
            };
            let [ours, theirs] = thread::scope(|scope| {
                let other = scope.spawn(|| free(1));
                [free(0), other.join().unwrap()]
            });
            assert!(ours != theirs, "exactly one of the two");
            // The frames still allocated.
            for frame in pair.pfns() {
                let _ = machine.free(0, FrameRun::new(frame, 1).unwrap());
            }
        }
        machine.drain();
        assert_eq!((machine.counts().free, machine.counts().used), (1024, 0));
    });
}
