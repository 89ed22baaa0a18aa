//! Large blocks of the heap: whole frames, straight from the frame allocator, and back to it as soon as they are freed.
//!
//! Usually they are contiguous in physical memory and are used through the one-to-one map, which needs no page tables.
//! If free memory is fragmented, a block gets virtual addresses of its own over scattered frames
//! ([`scattered`](crate::machine::memory::scattered)). So no allocation fails because of fragmentation.
//!
//! Large blocks never take the memory that the kernel needs to continue (page tables, small blocks, queues of a
//! restarted device): memory is reclaimed first ([`frames::make_room`]), and if there is none, the allocation fails.

use core::alloc::Layout;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::machine::memory::frames;
use crate::machine::memory::scattered::ELASTIC;
use crate::machine::paging;
use ballonet::memory::{FRAME_SIZE, FrameRun, Pfn, PhysAddr};

/// Blocks from this size on are large, in bytes: rounded up to whole frames, they waste less than a sixteenth.
pub(crate) const LARGE: usize = 64 << 10;

/// Allocated large blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LargeView {
    /// How many.
    pub blocks: usize,
    /// Their frames.
    pub frames: u64,
    /// How many of them are over scattered frames.
    pub scattered: usize,
}

static BLOCKS: AtomicUsize = AtomicUsize::new(0);
static FRAMES: AtomicU64 = AtomicU64::new(0);
static SCATTERED: AtomicUsize = AtomicUsize::new(0);

/// The blocks that are allocated.
pub(crate) fn view() -> LargeView {
    let relaxed = Ordering::Relaxed;
    LargeView { blocks: BLOCKS.load(relaxed), frames: FRAMES.load(relaxed), scattered: SCATTERED.load(relaxed) }
}

/// Whether a block of this layout is a large one.
pub(crate) fn is_large(layout: Layout) -> bool {
    layout.size().max(layout.align()) >= LARGE
}

fn frames_of(layout: Layout) -> u64 {
    (layout.size().max(1) as u64).div_ceil(FRAME_SIZE)
}

/// A block, or null.
pub(crate) fn allocate(layout: Layout) -> *mut u8 {
    let count = frames_of(layout);
    if !frames::make_room(count) {
        return null_mut();
    }
    let start = match contiguous(count, layout.align()) {
        Some(run) => run.start().start().as_u64(),
        None => match paging::with(|space| space.gather(count, layout.align())) {
            Some(start) => {
                SCATTERED.fetch_add(1, Ordering::Relaxed);
                start
            }
            None => return null_mut(),
        },
    };
    BLOCKS.fetch_add(1, Ordering::Relaxed);
    FRAMES.fetch_add(count, Ordering::Relaxed);
    start as *mut u8
}

/// Takes a block back.
///
/// # Safety
/// It came from [`allocate`] with this layout, and is no longer used.
pub(crate) unsafe fn free(block: *mut u8, layout: Layout) {
    let (start, count) = (block as u64, frames_of(layout));
    if ELASTIC.contains(&start) {
        // SAFETY: `allocate` had these addresses from `gather` for this many frames; the caller vouches for the rest.
        paging::with(|space| unsafe { space.disperse(start, count) });
        SCATTERED.fetch_sub(1, Ordering::Relaxed);
    } else {
        let start = PhysAddr::new(start).and_then(Pfn::containing);
        let run = start.zip(u32::try_from(count).ok()).and_then(|(start, count)| FrameRun::new(start, count));
        match run.map(frames::free) {
            Some(Ok(())) => {}
            Some(Err(error)) => ::log::error!("heap: {error}"),
            None => ::log::error!("heap: {count} frames at {block:p} are no block"),
        }
    }
    BLOCKS.fetch_sub(1, Ordering::Relaxed);
    FRAMES.fetch_sub(count, Ordering::Relaxed);
}

/// Frames that follow each other.
fn contiguous(count: u64, align: usize) -> Option<FrameRun> {
    let align = u32::try_from((align as u64).div_ceil(FRAME_SIZE)).ok()?;
    frames::allocate(u32::try_from(count).ok()?, align).ok()
}
