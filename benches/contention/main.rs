//! The frame allocator shared by threads: behind one lock, and with a magazine for each CPU in front of it.
//!
//! It runs the real allocator and the real magazines over simulated memory, behind spin locks like the kernel's. Each
//! thread plays one CPU: it allocates a burst of frames and frees them, over and over. Criterion measures their total
//! throughput; the locks count waits and the time spent waiting. `scripts/contention.sh --write` updates
//! docs/contention.svg and the table in docs/contention.md.

// A benchmark is an ordinary program of the host.
#![allow(clippy::std_instead_of_core, clippy::unwrap_used)]

#[path = "../chart/mod.rs"]
mod chart;
mod design;
#[path = "../chart/estimates.rs"]
mod estimates;
mod lock;
// Shared with the other benchmark; used here in one size and shape.
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

/// Thread counts.
const THREADS: [usize; 4] = [1, 2, 4, 8];

/// Bytes of simulated memory: enough that allocation never fails.
const MEMORY: u64 = 1 << 30;

/// What each thread repeats.
#[derive(Debug, Clone, Copy)]
struct Operation {
    name: &'static str,
    /// Frames of a run.
    frames: u32,
    /// Runs allocated before they are freed.
    burst: usize,
    /// Bursts per thread and measurement: many, since threads take long to start.
    bursts: usize,
}

impl Operation {
    /// Runs that a thread allocates and frees in one measurement.
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
