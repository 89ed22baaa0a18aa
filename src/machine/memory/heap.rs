//! The heap. Large blocks are whole frames and return to the frame allocator when they are freed ([`large`]), so a
//! program's memory returns to the host. Small blocks are in an area of their own, contiguous in virtual memory, backed
//! by any frames, and grown when it is full. That area keeps its frames, since only a walk over all of it would show
//! which are empty; it is never larger than the peak of the small blocks.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};

use linked_list_allocator::Heap as FreeList;

use crate::machine::lock::Lock;
use crate::machine::memory::{frames, large};
use crate::machine::paging::{self, HEAP_BASE, HEAP_LIMIT};
use ballonet::memory::{FRAME_SIZE, FrameRun};

/// Least growth in frames: 64 KiB.
const STEP: u64 = 16;
/// Room for the list's own header and for alignment, in bytes.
const SLACK: usize = 64;

/// The kernel's global allocator, which an image declares.
#[doc(hidden)]
#[derive(Debug)]
pub struct KernelHeap;

/// The small blocks.
static LIST: Lock<FreeList> = Lock::new(FreeList::empty());

/// How much of the heap is used, by small blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeapView {
    /// Bytes mapped for them.
    pub size: usize,
    /// Bytes of them in use.
    pub used: usize,
}

/// The use of the heap by small blocks; [`large::view`] has the large ones.
pub(crate) fn view() -> HeapView {
    LIST.with(|list| HeapView { size: list.size(), used: list.used() })
}

/// Opens the heap's lock.
///
/// # Safety
/// As [`Lock::force_unlock`].
#[cfg(feature = "test-image")]
pub(crate) unsafe fn force_unlock() {
    // SAFETY: the caller's promise.
    unsafe { LIST.force_unlock() }
}

// SAFETY: `linked_list_allocator` keeps the contract of an allocator, and the lock serializes its use; large blocks are
// frames with no other owner. A block's layout decides which of the two it is.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if large::is_large(layout) {
            return large::allocate(layout);
        }
        if let Ok(block) = LIST.with(|list| list.allocate_first_fit(layout)) {
            return block.as_ptr();
        }
        let bytes = layout.size() + layout.align() + SLACK;
        // Small blocks may use the kernel's reserve: it exists for them.
        frames::make_room((bytes as u64).div_ceil(FRAME_SIZE).max(STEP));
        LIST.with(|list| {
            if grow(list, bytes).is_none() {
                return null_mut();
            }
            list.allocate_first_fit(layout).map_or(null_mut(), NonNull::as_ptr)
        })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if large::is_large(layout) {
            // SAFETY: the caller got it from `alloc` with this layout, and no longer uses it.
            unsafe { large::free(block, layout) };
        } else if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller got `block` from `alloc` with this layout.
            LIST.with(|list| unsafe { list.deallocate(block, layout) });
        }
    }
}

/// Maps at least `bytes` more at the end of the heap. On failure the part mapped so far stays, as heap.
fn grow(list: &mut FreeList, bytes: usize) -> Option<()> {
    let size = list.size() as u64;
    let mut wanted = (bytes as u64).div_ceil(FRAME_SIZE).max(STEP);
    if HEAP_BASE.checked_add(size)?.checked_add(wanted.checked_mul(FRAME_SIZE)?)? > HEAP_LIMIT {
        return None;
    }
    // A request that cannot be met in full would take all frames without any use.
    if wanted > frames::counts().free {
        return None;
    }
    let mut end = HEAP_BASE + size;
    while wanted > 0 {
        let run = frames::allocate_up_to(wanted)?;
        let mapped = map(run, end);
        if mapped > 0 {
            adopt(list, end, mapped);
        }
        if mapped < u64::from(run.count()) {
            return None;
        }
        end += run.bytes();
        wanted -= mapped;
    }
    Some(())
}

/// Maps a run at `virt` and returns how many of its frames were; the others are freed.
fn map(run: FrameRun, virt: u64) -> u64 {
    let mut mapped = 0;
    paging::with(|space| {
        for pfn in run.pfns() {
            let phys = pfn.start().as_u64();
            if space.map_heap(virt + mapped * FRAME_SIZE, phys, &mut frames::ForTables).is_err() {
                break;
            }
            mapped += 1;
        }
    });
    if let (_, Some(rest)) = run.split(mapped as u32)
        && mapped > 0
    {
        let _ = frames::free(rest);
    } else if mapped == 0 {
        let _ = frames::free(run);
    }
    mapped
}

/// Adds `frames` frames mapped at `start`, the end of the heap, to the list.
fn adopt(list: &mut FreeList, start: u64, frames: u64) {
    let bytes = (frames * FRAME_SIZE) as usize;
    if list.size() == 0 {
        // SAFETY: the pages were just mapped, writable permanently, and nothing else has their addresses.
        unsafe { list.init(start as *mut u8, bytes) };
    } else {
        // SAFETY: as above, and they follow the heap's last byte.
        unsafe { list.extend(bytes) };
    }
}
