//! `resources`: counts everything that the kernel has allocated, to prove that all of it comes back.

use ballonet::memory::FRAME_SIZE;

use crate::console::count;
use crate::console::events::{self, Bytes, Frames, ResourceCounts};
use crate::kernel::console::command::{Answer, Context, say};
use crate::machine::heap;
use crate::machine::{dma, frames, large, lines, log as serial, paging, vectors};

/// `resources`.
pub(in super::super) fn resources(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    let [] = arguments else { return None };
    lines::trim();
    let counts = frames::counts();
    let now = events::ResourceCounts {
        free: Frames(counts.free),
        used: Frames(counts.used),
        ballooned: Frames(counts.ballooned),
        orphans: Frames(context.balloons.orphans()),
        dma: dma::regions() as u64,
        vectors: vectors::allocated() as u64,
        lines: lines::views().len() as u64,
        mappings: paging::with(|space| space.windows()) as u64,
        heap: Bytes(heap::view().used as u64 + large::view().frames * FRAME_SIZE),
        heap_mapped: Bytes(heap::view().size as u64),
        balloons: context.balloons.drivers().count() as u64,
    };
    serial::emit(&now);
    if serial::is_text() {
        show(&now);
    }
    Some(Answer::Done)
}

fn show(counts: &ResourceCounts) {
    let [free, used, ballooned, orphans] =
        [counts.free, counts.used, counts.ballooned, counts.orphans].map(|Frames(frames)| frames);
    say!(
        "frames of {FRAME_SIZE} bytes: {free} free, {used} used, {ballooned} ballooned, {orphans} of these without a balloon"
    );
    say!(
        "{}, {}, {}, {}, {} of heap, {}",
        count(counts.dma, "DMA region"),
        count(counts.vectors, "vector"),
        count(counts.lines, "line"),
        count(counts.mappings, "mapping"),
        count(counts.heap.0, "byte"),
        count(counts.balloons, "balloon")
    );
}
