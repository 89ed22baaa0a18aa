//! The frame allocator shared by threads: behind one lock, and with a magazine for each CPU in front of it.
//!
//! The real allocator and the real magazines over simulated memory, behind the spin locks that the kernel has; each thread
//! is a CPU. A thread takes a burst of frames and gives them back, over and over; how fast all of them are together
//! is told by criterion, and the locks count how often they were found taken and how long they were waited for. `scripts/contention.sh --write`
//! writes docs/contention.svg and the table in docs/contention.md anew.

// A benchmark is an ordinary program of the host.
#![allow(clippy::std_instead_of_core, clippy::unwrap_used)]

#[path = "../chart/mod.rs"]
mod chart;
mod design;
#[path = "../chart/estimates.rs"]
mod estimates;
mod lock;
// Simulated memory is that of the other benchmark, in one size and shape.
#[allow(dead_code)]
#[path = "../scale/memory.rs"]
mod memory;
mod results;
mod threads;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use criterion::{BenchmarkId, Throughput};

use design::Design;
use memory::Memory;
use results::Tallies;

/// How many threads.
const THREADS: [usize; 4] = [1, 2, 4, 8];

/// Simulated memory: enough that nothing runs out.
const MEMORY: u64 = 1 << 30;

/// What each thread does, over and over.
#[derive(Debug, Clone, Copy)]
struct Operation {
    name: &'static str,
    /// Frames of a run.
    frames: u32,
    /// Runs that are taken before they are given back.
    burst: usize,
    /// Bursts of a thread that are measured together, since threads take long to start.
    bursts: usize,
}

impl Operation {
    /// Runs that a thread takes and gives back in one measurement.
    fn pairs(&self) -> usize {
        self.burst * self.bursts
    }
}

const OPERATIONS: [Operation; 2] = [
    // Twice what a magazine holds: it runs empty and full each time.
    Operation { name: "single frames", frames: 1, burst: 256, bursts: 32 },
    Operation { name: "runs of 512", frames: 512, burst: 4, bursts: 256 },
];

fn main() -> ExitCode {
    estimates::main("contention", run)
}

fn run() -> Result<(), chart::Failure> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("contention");
    if !estimates::is_told("--draw") {
        measure_all(&folder).write(&folder)?;
    }
    let tallies = Tallies::read(&folder)?;
    let table = results::table(&folder, &tallies)?;
    println!("{table}");
    if estimates::is_told("--write") {
        results::publish(&folder, &tallies, &table, Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")))?;
    }
    Ok(())
}

fn measure_all(folder: &Path) -> Tallies {
    let mut criterion = estimates::criterion(folder);
    let mut tallies = Tallies::default();
    let mut memory = Memory::new(MEMORY);
    for operation in OPERATIONS {
        let mut group = criterion.benchmark_group(operation.name);
        for design in Design::ALL {
            for threads in THREADS {
                let name = BenchmarkId::new(design.name(), threads);
                group.throughput(Throughput::Elements((threads * operation.pairs()) as u64));
                let mut busy = Duration::ZERO;
                let tally = design.over(&mut memory, threads, |shared| {
                    group.bench_function(name, |bencher| {
                        bencher.iter_custom(|rounds| {
                            let (time, all) = threads::time(shared, threads, operation, rounds);
                            busy += all;
                            time
                        });
                    });
                });
                tallies.add(operation, design, threads, tally, busy);
            }
        }
        group.finish();
    }
    criterion.final_summary();
    tallies
}
