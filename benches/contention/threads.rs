//! Threads that run the same operation at the same time.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::Operation;
use super::design::Shared;

/// Runs `operation` `rounds` times on each of `threads` threads. Returns the time from the common start until the
/// last thread ends, and the sum of the threads' running times.
pub(crate) fn time(shared: &Shared<'_>, threads: usize, operation: Operation, rounds: u64) -> (Duration, Duration) {
    let barrier = Barrier::new(threads);
    let spans = thread::scope(|scope| {
        let start = |cpu| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                let begin = Instant::now();
                work(shared, cpu, operation, rounds);
                (begin, Instant::now())
            })
        };
        let running: Vec<_> = (0..threads).map(start).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let begin = spans.iter().map(|span| span.0).min().unwrap();
    let end = spans.iter().map(|span| span.1).max().unwrap();
    (end - begin, spans.iter().map(|span| span.1 - span.0).sum())
}

fn work(shared: &Shared<'_>, cpu: usize, operation: Operation, rounds: u64) {
    let mut runs = Vec::with_capacity(operation.burst);
    for _ in 0..rounds * operation.bursts as u64 {
        runs.extend((0..operation.burst).map(|_| shared.allocate(cpu, operation.frames)));
        runs.drain(..).for_each(|run| shared.free(cpu, black_box(run)));
    }
}
