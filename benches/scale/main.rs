//! The frame allocator from 1 GiB to 16 TiB: the size of its records, and that no operation gets slower with more
//! memory.
//!
//! The real allocator runs over simulated maps. Each operation is a pair that leaves the state unchanged: a run
//! allocated and freed, a run to report found and returned. It is measured with free memory and in the worst shapes.
//! `scripts/scale.sh` updates docs/scale.svg and the table in docs/scale.md.

// A benchmark is an ordinary program of the host.
#![allow(clippy::std_instead_of_core, clippy::unwrap_used)]

#[path = "../chart/mod.rs"]
mod chart;
#[path = "../chart/estimates.rs"]
mod estimates;
mod memory;
mod results;

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;

use ballonet::memory::{Frames, PageFrames, REGION_FRAMES, ReportFrames};
use criterion::{BenchmarkId, Criterion};

use memory::{Memory, SIZES, Shape};

/// A measured operation: its name, and a function that leaves the frames as they were.
type Operation = (&'static str, fn(&mut Frames<'_>));

const OPERATIONS: [Operation; 3] = [
    ("allocate and free 2 MiB", |frames| allocate(frames, REGION_FRAMES)),
    ("allocate and free 4 KiB", |frames| allocate(frames, 1)),
    ("find 2 MiB to report", |frames| {
        let run = frames.take_unreported(REGION_FRAMES, 0).unwrap();
        frames.release(black_box(run));
    }),
];

fn allocate(frames: &mut Frames<'_>, count: u32) {
    let run = frames.allocate(count, count).unwrap();
    frames.free(black_box(run)).unwrap();
}

fn main() -> ExitCode {
    estimates::main("scale", run)
}

fn run() -> Result<(), chart::Failure> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scale");
    if !estimates::is_told("--draw") {
        measure_all(&folder);
    }
    let table = results::table(&folder)?;
    println!("{table}");
    if !estimates::is_fast() {
        results::publish(&folder, &table, Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")))?;
    }
    Ok(())
}

fn measure_all(folder: &Path) {
    let mut criterion = estimates::criterion(folder).configure_from_args();
    for (size, bytes) in SIZES {
        let mut memory = Memory::new(bytes);
        for shape in Shape::ALL {
            measure(&mut criterion, size, shape, &mut memory.frames_in(shape));
        }
    }
    criterion.final_summary();
}

fn measure(criterion: &mut Criterion, size: &str, shape: Shape, frames: &mut Frames<'_>) {
    for (operation, act) in OPERATIONS {
        let mut group = criterion.benchmark_group(operation);
        group.bench_function(BenchmarkId::new(shape.name(), size), |bencher| bencher.iter(|| act(frames)));
        group.finish();
    }
    frames.check().unwrap();
}
