//! A program that allocates continuously and measures allocation latency while the balloon works.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::console::events::{self, Nanoseconds};
use crate::machine::{clock, log as serial};
use ballonet_check::bench::Histogram;

/// Time between two rounds of allocations, in nanoseconds: 1 ms.
const PERIOD: u64 = 1_000_000;
/// Allocations per round.
const ROUND: usize = 64;
/// Blocks held at a time: each allocation first frees the oldest.
const HELD: usize = 64;
/// Sizes of blocks in bytes.
const SIZES: [usize; 8] = [16, 48, 128, 512, 1500, 4096, 16 << 10, 64 << 10];

/// The program, if it runs.
#[derive(Default)]
pub(super) struct Latency(Option<Box<Program>>);

/// A program that runs.
struct Program {
    /// TSC ticks of each allocation.
    histogram: Histogram,
    failed: u64,
    blocks: [Vec<u8>; HELD],
    /// State of the size generator (xorshift: never 0).
    random: u64,
    /// When the next round is due, in nanoseconds since entry.
    due: u64,
}

impl Latency {
    /// Starts it, with nothing recorded.
    pub(super) fn start(&mut self) {
        self.0 = Some(Box::new(Program {
            histogram: Histogram::new(),
            failed: 0,
            blocks: [const { Vec::new() }; HELD],
            random: 1,
            due: 0,
        }));
    }

    /// Ends it and reports what it measured.
    pub(super) fn stop(&mut self) {
        match self.0.take() {
            Some(program) => program.report(),
            None => serial::line(format_args!("no measurement runs; `latency start` starts one")),
        }
    }

    /// Allocates if a round is due.
    pub(super) fn sample(&mut self, now: u64) {
        if let Some(program) = &mut self.0
            && now >= program.due
        {
            program.due = now + PERIOD;
            (0..ROUND).for_each(|place| program.allocate(place % HELD));
        }
    }

    /// When the next round is due, in nanoseconds since entry.
    pub(super) fn next_round(&self) -> Option<u64> {
        self.0.as_ref().map(|program| program.due)
    }
}

impl Program {
    /// Replaces the block at an index and writes its first byte: the time counts until the memory is usable.
    fn allocate(&mut self, place: usize) {
        let size = SIZES[self.next_random() as usize % SIZES.len()];
        let block = &mut self.blocks[place];
        *block = Vec::new();
        let start = clock::tsc_in_order();
        let outcome = block.try_reserve_exact(size);
        if outcome.is_ok() {
            block.push(1);
        }
        self.histogram.record(clock::tsc_in_order().saturating_sub(start));
        self.failed += u64::from(outcome.is_err());
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn report(&self) {
        let share = |permille| clock::duration(self.histogram.permille(permille));
        let (count, failed, most) = (self.histogram.count(), self.failed, clock::duration(self.histogram.most()));
        let [p50, p99, p999] = [500, 990, 999].map(share);
        serial::emit(&events::Latency {
            count,
            failed,
            p50: Nanoseconds(p50),
            p99: Nanoseconds(p99),
            p999: Nanoseconds(p999),
            max: Nanoseconds(most),
        });
        if serial::is_text() {
            let counted = crate::console::count(count, "allocation");
            serial::line(format_args!("{counted} of 16 B to 64 KiB, {failed} failed"));
            serial::line(format_args!("in ns: 50 % up to {p50}, 99 % {p99}, 99.9 % {p999}, the longest {most}"));
        }
    }
}
