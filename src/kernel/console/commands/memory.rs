//! Commands for memory: its states, and memory held to verify its contents.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use ballonet::memory::{Counts, FRAME_SIZE, FrameRun, FrameState};

use crate::boot::parse_size;
use crate::console::count;
use crate::console::events::{self, Frames};
use crate::kernel::console::command::{Answer, Context, say};
use crate::kernel::console::job::Job;
use crate::machine::heap;
use crate::machine::{frames, large, log as serial, paging, reclaim};

/// `mem`.
pub(in super::super) fn mem(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    match arguments {
        [] => show(context.held.bytes()),
        ["map"] => return Some(Answer::Job(Job::list(map()))),
        _ => return None,
    }
    Some(Answer::Done)
}

/// `mem hold`, `mem verify` and `mem release`.
pub(in super::super) fn held(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    let job = match arguments {
        ["hold", size] => match parse_size(size) {
            Ok(wanted) => Job::Hold { wanted, taken: 0 },
            Err(error) => {
                say!("{error}");
                return Some(Answer::Done);
            }
        },
        ["verify"] => Job::Verify { next: 0, bytes: 0, bad: 0 },
        ["release"] => Job::Release { bytes: context.held.bytes() },
        _ => return None,
    };
    Some(Answer::Job(job))
}

/// Shows memory by state; `held` bytes are held.
fn show(held: u64) {
    let counts = frames::counts();
    let sound = frames::with(|frames| frames.check());
    serial::emit(&events::Memory {
        total: Frames(counts.total),
        free: Frames(counts.free),
        used: Frames(counts.used),
        ballooned: Frames(counts.ballooned),
        reserved: Frames(counts.reserved),
        refused: counts.history.refusals,
        sound: sound.is_ok(),
    });
    show_frames(&counts);
    show_heap(held);
    let reclaimed = reclaim::counts();
    say!(
        "{} waited for {} KiB; programs ended for lack of memory: {}",
        count(reclaimed.stalls, "allocation"),
        (reclaimed.frames * FRAME_SIZE) >> 10,
        count(reclaimed.ended, "program")
    );
    say!("mapped: {} onto devices", count(paging::with(|space| space.windows()), "window"));
    match sound {
        Ok(()) => say!("the allocator's records agree with each other"),
        Err(error) => say!("the allocator's records are wrong: {error}"),
    }
}

fn show_frames(counts: &Counts) {
    for (name, frames) in [
        ("total", counts.total),
        ("free", counts.free),
        ("used", counts.used),
        ("ballooned", counts.ballooned),
        ("reserved", counts.reserved),
    ] {
        say!("{name:<10} {frames:>10} frames {:>12} KiB", (frames * FRAME_SIZE) >> 10);
    }
    say!(
        "wholly free: {} of 2 MiB, {} of them reported to the host; the largest free block has {}",
        count(counts.free_regions, "region"),
        counts.reported_regions,
        count(counts.largest_free_block, "frame")
    );
    let history = counts.history;
    say!(
        "{}, {} failed, {}, {} refused",
        count(history.allocations, "allocation"),
        history.failures,
        count(history.frees, "free"),
        history.refusals
    );
}

fn show_heap(held: u64) {
    let (heap, large) = (heap::view(), large::view());
    say!("heap: {} of {} KiB used; held: {} KiB", heap.used >> 10, heap.size >> 10, held >> 10);
    say!(
        "{}, {} KiB in all, {} in pieces",
        count(large.blocks, "large block"),
        (large.frames * FRAME_SIZE) >> 10,
        large.scattered
    );
}

/// The runs of frames of equal state, one per line.
fn map() -> Vec<String> {
    // Collected first: nothing may allocate while frames are locked.
    let count = frames::with(|frames| frames.runs().count());
    let mut runs = Vec::with_capacity(count + 8);
    frames::with(|frames| runs.extend(frames.runs().take(count + 8)));
    let line = |(run, state): &(FrameRun, FrameState)| {
        format!("{:#014x} {:>10} KiB {state}", run.start().start().as_u64(), run.bytes() >> 10)
    };
    runs.iter().map(line).collect()
}
