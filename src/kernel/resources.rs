//! What the kernel has given out, counted: proof that what went came back.

use crate::console::count;
use crate::machine::{dma, frames, large, lines, log as serial, paging, vectors};
use ballonet::memory::FRAME_SIZE;

use super::balloons::Balloons;
use crate::machine::heap;

/// Counts of all that can leak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resources {
    /// Frames by state.
    free: u64,
    used: u64,
    ballooned: u64,
    /// Frames that balloons left with their hosts when they went, of those that are ballooned.
    orphans: u64,
    /// Pieces of memory shared with devices.
    dma: usize,
    /// Interrupt vectors of devices.
    vectors: usize,
    /// Interrupt lines of devices.
    lines: usize,
    /// Windows onto device registers.
    mappings: usize,
    /// Bytes of the heap in use.
    heap: usize,
    /// Devices with a driver.
    balloons: usize,
}

impl Resources {
    /// Counts now.
    pub(super) fn count(balloons: &Balloons) -> Self {
        lines::trim();
        let lines = lines::views().len();
        let counts = frames::counts();
        Self {
            free: counts.free,
            used: counts.used,
            ballooned: counts.ballooned,
            orphans: balloons.orphans(),
            dma: dma::regions(),
            vectors: vectors::allocated(),
            lines,
            mappings: paging::with(|space| space.windows()),
            heap: heap::view().used + (large::view().frames * FRAME_SIZE) as usize,
            balloons: balloons.drivers().count(),
        }
    }

    /// Tells them.
    pub(super) fn tell(&self) {
        let named = [
            ("free", self.free),
            ("used", self.used),
            ("ballooned", self.ballooned),
            ("orphans", self.orphans),
            ("dma", self.dma as u64),
            ("vectors", self.vectors as u64),
            ("lines", self.lines as u64),
            ("mappings", self.mappings as u64),
            ("heap", self.heap as u64),
            ("balloons", self.balloons as u64),
        ];
        serial::emit("resources", |line| {
            named.iter().fold(line, |line, (name, count)| line.number(name, *count));
        });
        if !serial::is_text() {
            return;
        }
        let [free, used, ballooned, orphans] = [self.free, self.used, self.ballooned, self.orphans];
        serial::line(format_args!(
            "frames of {FRAME_SIZE} bytes: {free} free, {used} used, {ballooned} ballooned, of these {orphans} without a balloon"
        ));
        serial::line(format_args!(
            "{}, {}, {}, {}, {} of heap, {}",
            count(self.dma, "DMA region"),
            count(self.vectors, "vector"),
            count(self.lines, "line"),
            count(self.mappings, "mapping"),
            count(self.heap, "byte"),
            count(self.balloons, "balloon")
        ));
    }
}
