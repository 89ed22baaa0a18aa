//! Blocks over scattered frames: contiguous virtual addresses when free memory is fragmented.
//!
//! The page tables are the only record. A block begins at a multiple of 2 MiB, in the first gap that is large enough,
//! and its first page is mapped as long as it is in use, so the tables show which blocks are in use. A whole free 2 MiB
//! is mapped as a large page. Tables that become empty are freed.

use core::ops::Range;

use x86_64::VirtAddr;
use x86_64::structures::paging::mapper::{CleanUp, MappedFrame, TranslateResult};
use x86_64::structures::paging::{FrameDeallocator, Mapper, Page, PhysFrame, Size2MiB, Size4KiB, Translate};

use crate::machine::memory::frames::{self, ForTables};
use crate::machine::paging::tlb;
use crate::machine::paging::{Access, AddressSpace};
use ballonet::memory::{FRAME_SIZE, FrameRun, Pfn, PhysAddr, REGION_FRAMES};

/// The addresses for such blocks: 32 TiB, twice the largest memory.
pub(crate) const ELASTIC: Range<u64> = 0xFFFF_9000_0000_0000..0xFFFF_B000_0000_0000;

/// Frames in a 2 MiB page.
const REGION: u64 = REGION_FRAMES as u64;
/// Bytes in one.
const REGION_SIZE: u64 = REGION * FRAME_SIZE;

impl AddressSpace {
    /// Maps `count` free frames, wherever they are, and returns the first address. `None`, without any change, when
    /// frames or addresses run out or the alignment is too large.
    pub(crate) fn gather(&mut self, count: u64, align: usize) -> Option<u64> {
        if align as u64 > REGION_SIZE {
            return None;
        }
        let start = self.gap(count.checked_mul(FRAME_SIZE)?)?;
        let mut mapped = 0;
        while mapped < count {
            let Some(frames) = self.map_some(start + mapped * FRAME_SIZE, count - mapped) else {
                // SAFETY: these were mapped right now, and no other code knows them.
                unsafe { self.disperse(start, mapped) };
                return None;
            };
            mapped += frames;
        }
        Some(start)
    }

    /// Unmaps `count` frames that [`AddressSpace::gather`] mapped at `start`, and frees them.
    ///
    /// # Safety
    /// No code uses that memory.
    pub(crate) unsafe fn disperse(&mut self, start: u64, count: u64) {
        let mut retired = Retired::default();
        let mut done = 0;
        while done < count {
            done += self.unmap_one(VirtAddr::new(start + done * FRAME_SIZE), &mut retired);
        }
        let last = start + (count.max(1) - 1) * FRAME_SIZE;
        let pages = Page::<Size4KiB>::range_inclusive(
            Page::containing_address(VirtAddr::new(start)),
            Page::containing_address(VirtAddr::new(last)),
        );
        // SAFETY: the tables of this part of the address space are frames of the allocator, used only here.
        unsafe { self.tables.clean_up_addr_range(pages, &mut retired) };
        retired.free();
    }

    /// The first address of a gap of `bytes` bytes.
    fn gap(&self, bytes: u64) -> Option<u64> {
        let (mut start, mut end) = (ELASTIC.start, ELASTIC.start);
        while end - start < bytes {
            if ELASTIC.end - start < bytes {
                return None;
            }
            match self.gap_at(end) {
                // A table may exist without a page in it.
                Some(size) => end = end / size.max(REGION_SIZE) * size.max(REGION_SIZE) + size.max(REGION_SIZE),
                None => (start, end) = (end + REGION_SIZE, end + REGION_SIZE),
            }
        }
        Some(start)
    }

    /// Maps up to `most` frames at `virt`, as many as one run of free frames has, within 2 MiB. Returns how many.
    fn map_some(&mut self, virt: u64, most: u64) -> Option<u64> {
        if virt.is_multiple_of(REGION_SIZE)
            && most >= REGION
            && let Ok(run) = frames::allocate(REGION as u32, REGION as u32)
        {
            let mapped = self.map::<Size2MiB>(virt, run.start().start().as_u64(), Access::ReadWrite, &mut ForTables);
            if mapped.is_err() {
                give_back(run);
            }
            return mapped.ok().map(|_| REGION);
        }
        let room = REGION - virt / FRAME_SIZE % REGION;
        let run = frames::allocate_up_to(most.min(room))?;
        let mut mapped = 0;
        for pfn in run.pfns() {
            let phys = pfn.start().as_u64();
            let page = virt + u64::from(mapped) * FRAME_SIZE;
            if self.map::<Size4KiB>(page, phys, Access::ReadWrite, &mut ForTables).is_err() {
                break;
            }
            mapped += 1;
        }
        match run.split(mapped) {
            _ if mapped == 0 => give_back(run),
            (_, Some(rest)) => give_back(rest),
            (_, None) => {}
        }
        (mapped > 0).then_some(mapped.into())
    }

    /// Unmaps the page at `address` and retires its frames. Returns its size in frames.
    fn unmap_one(&mut self, address: VirtAddr, retired: &mut Retired) -> u64 {
        let (frame, count) = match self.tables.translate(address) {
            TranslateResult::Mapped { frame: MappedFrame::Size2MiB(frame), .. } => {
                if let Ok((_, flush)) = self.tables.unmap(Page::<Size2MiB>::containing_address(address)) {
                    flush.ignore();
                }
                (frame.start_address(), REGION)
            }
            TranslateResult::Mapped { frame, .. } => {
                if let Ok((_, flush)) = self.tables.unmap(Page::<Size4KiB>::containing_address(address)) {
                    flush.ignore();
                }
                (frame.start_address(), 1)
            }
            TranslateResult::NotMapped | TranslateResult::InvalidFrameAddress(_) => {
                ::log::error!("heap: nothing is mapped at {address:?}");
                return 1;
            }
        };
        retired.add(frame.as_u64(), count as u32);
        count
    }
}

/// Unmapped frames, and former tables: they become free once no CPU's TLB has stale entries for them.
#[derive(Default)]
struct Retired {
    runs: [Option<FrameRun>; MOST_RETIRED],
    count: usize,
}

/// Runs that are collected before one TLB shootdown for all of them.
const MOST_RETIRED: usize = 32;

impl Retired {
    /// Adds `frames` frames at a physical address.
    fn add(&mut self, address: u64, frames: u32) {
        if self.count == MOST_RETIRED {
            self.free();
        }
        let start = PhysAddr::new(address).and_then(Pfn::containing);
        self.runs[self.count] = start.and_then(|start| FrameRun::new(start, frames));
        self.count += 1;
    }

    /// Frees them.
    fn free(&mut self) {
        tlb::flush_everywhere();
        self.runs[..self.count].iter_mut().filter_map(Option::take).for_each(give_back);
        self.count = 0;
    }
}

fn give_back(run: FrameRun) {
    if let Err(error) = frames::free(run) {
        ::log::error!("heap: {error}");
    }
}

impl FrameDeallocator<Size4KiB> for Retired {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
        self.add(frame.start_address().as_u64(), 1);
    }
}
