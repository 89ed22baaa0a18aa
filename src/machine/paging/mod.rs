//! The kernel's own page tables.
//!
//! | virtual addresses | what | how |
//! |---|---|---|
//! | as physical | usable memory except the image's | 1 GiB and 2 MiB pages where they fit, writable, not executable |
//! | [`HEAP_BASE`] on | the heap's small blocks | mapped as the heap grows |
//! | [`ELASTIC`](crate::machine::memory::scattered::ELASTIC) | large blocks over scattered frames | mapped while they are in use |
//! | [`stack::OTHERS`] | stacks of all CPUs except the first | 4 KiB pages; guard pages unmapped |
//! | [`DEVICE_BASE`] on | device registers, pixels, firmware tables | 4 KiB and 2 MiB pages, uncached for devices, write-combining for pixels |
//! | the last 2 GiB | the kernel image | 4 KiB pages: rodata read-only, text executable, data writable; guard pages unmapped |
//!
//! Page 0 is never mapped, so that a null pointer faults.

pub(crate) mod tlb;

use core::ops::Range;
use core::ptr::NonNull;

use derive_more::{Display, Error};
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::mapper::{MapToError, MappedFrame, TranslateResult};
use x86_64::structures::paging::page::PageSize;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size1GiB, Size2MiB, Size4KiB,
    Translate,
};
use x86_64::{PhysAddr, VirtAddr};

use crate::machine::cpu::cpuid::Features;
use crate::machine::cpu::stack;
use crate::machine::lock::Lock;
use crate::machine::start::image::Image;
use ballonet::memory::PhysRange;

/// Where the heap begins.
pub(crate) const HEAP_BASE: u64 = 0xFFFF_8000_0000_0000;
/// How far the heap may grow: one entry of the top table.
pub(crate) const HEAP_LIMIT: u64 = HEAP_BASE + (512 << 30);
/// Where windows onto devices begin.
pub(crate) const DEVICE_BASE: u64 = 0xFFFF_C000_0000_0000;
/// End of the addresses for windows.
const DEVICE_LIMIT: u64 = DEVICE_BASE + (32 << 40);

/// How many closed windows are kept for reuse.
const FREE_WINDOWS: usize = 64;

/// Tables above the last level restrict nothing: the last entry decides.
const TABLE: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE);

/// The access that a mapping allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read-only data.
    ReadOnly,
    /// Code.
    Execute,
    /// Data.
    ReadWrite,
    /// Device registers: writable and uncached.
    Device,
    /// Pixels: writable, and write-combining if the CPU supports it.
    Framebuffer,
}

impl Access {
    fn flags(self, nx: bool) -> PageTableFlags {
        let flags = match self {
            Self::ReadOnly => PageTableFlags::NO_EXECUTE,
            Self::Execute => PageTableFlags::empty(),
            Self::ReadWrite => PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE,
            // One bit selects entry 1 of the page attribute table, both select entry 3: see `cpu::enable`.
            Self::Framebuffer => PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE | PageTableFlags::WRITE_THROUGH,
            Self::Device => {
                PageTableFlags::WRITABLE
                    | PageTableFlags::NO_EXECUTE
                    | PageTableFlags::NO_CACHE
                    | PageTableFlags::WRITE_THROUGH
            }
        } | PageTableFlags::PRESENT;
        if nx { flags } else { flags.difference(PageTableFlags::NO_EXECUTE) }
    }
}

/// Why nothing was mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub(crate) enum PagingError {
    /// No frame for a page table.
    #[display("no frame is left for a page table")]
    NoFrame,
    /// The address is mapped already.
    #[display("{_0:#x} is mapped already")]
    Mapped(#[error(not(source))] u64),
    /// The CPU has no such physical addresses.
    #[display("{length:#x} bytes from physical {address:#x} lie beyond what the CPU can address")]
    Beyond {
        /// The first address.
        address: u64,
        /// How many bytes.
        length: u64,
    },
    /// Device registers cannot overlap memory: the kernel would write into its own memory.
    #[display("{length:#x} bytes from physical {address:#x} are memory, not device registers")]
    Memory {
        /// The first address.
        address: u64,
        /// How many bytes.
        length: u64,
    },
    /// There are no virtual addresses left for windows.
    #[display("no virtual addresses are left for {_0:#x} bytes")]
    NoRoom(#[error(not(source))] u64),
}

/// The page tables and the virtual addresses of windows.
pub(crate) struct AddressSpace {
    pub(crate) tables: OffsetPageTable<'static>,
    nx: bool,
    pat: bool,
    gigabyte_pages: bool,
    /// The end of the physical addresses that the CPU has.
    physical_end: u64,
    /// The end of those that can be mapped one to one.
    physical_limit: u64,
    /// The physical addresses of the kernel image, which are not mapped one to one.
    image: Range<u64>,
    next_window: u64,
    /// Closed windows, by address and size, for reuse with the same size. An array, because growing the heap uses this
    /// address space: nothing here may allocate.
    free_windows: [Option<(u64, u64)>; FREE_WINDOWS],
    windows: usize,
}

pub(crate) static SPACE: Lock<Option<AddressSpace>> = Lock::new(None);

/// The end of the physical addresses that can be mapped one to one: those that the CPU has, as far as four levels of
/// page tables reach in the lower half.
pub(crate) fn physical_limit(features: &Features) -> u64 {
    1 << features.physical_bits.min(46)
}

/// Runs `action` on the address space.
///
/// # Panics
/// Before [`activate`] has run.
pub(crate) fn with<R>(action: impl FnOnce(&mut AddressSpace) -> R) -> R {
    SPACE.with(|space| match space {
        Some(space) => action(space),
        None => panic!("paging is used before it is set up"),
    })
}

/// Builds the kernel's page tables and switches to them.
///
/// # Errors
/// When frames run out or the memory map contradicts itself.
///
/// # Safety
/// `usable` is memory, mapped one to one right now where `frames` takes frames from, which no other code uses; `image`
/// is where the running kernel lies.
pub(crate) unsafe fn activate(
    image: &Image,
    usable: impl Iterator<Item = PhysRange>,
    features: &Features,
    frames: &mut impl FrameAllocator<Size4KiB>,
) -> Result<(), PagingError> {
    let root = frames.allocate_frame().ok_or(PagingError::NoFrame)?;
    // SAFETY: the frame is unused memory, mapped one to one, and stays a page table permanently.
    let table = unsafe {
        let table = root.start_address().as_u64() as *mut PageTable;
        table.write(PageTable::new());
        &mut *table
    };
    // SAFETY: page tables are all in usable memory, which is mapped one to one, now and later.
    let tables = unsafe { OffsetPageTable::new(table, VirtAddr::zero()) };
    let mut space = AddressSpace {
        tables,
        nx: features.nx,
        pat: features.pat,
        gigabyte_pages: features.gigabyte_pages,
        physical_end: 1 << features.physical_bits,
        physical_limit: physical_limit(features),
        image: image.place(),
        next_window: DEVICE_BASE,
        free_windows: [None; FREE_WINDOWS],
        windows: 0,
    };
    space.map_image(image, frames)?;
    for range in usable {
        space.map_memory(range, frames)?;
    }
    // SAFETY: the new tables map everything in use: the image with its stacks, and all memory that the loader filled.
    unsafe { Cr3::write(root, Cr3Flags::empty()) };
    SPACE.with(|slot| *slot = Some(space));
    Ok(())
}

const SMALL: u64 = Size4KiB::SIZE;
const LARGE: u64 = Size2MiB::SIZE;
const GIANT: u64 = Size1GiB::SIZE;

impl AddressSpace {
    fn map_image(&mut self, image: &Image, frames: &mut impl FrameAllocator<Size4KiB>) -> Result<(), PagingError> {
        let guards = stack::guards();
        let parts =
            [(image.rodata(), Access::ReadOnly), (image.text(), Access::Execute), (image.data(), Access::ReadWrite)];
        for (range, access) in parts {
            for address in range.step_by(SMALL as usize) {
                if !guards.contains(&address) {
                    self.map::<Size4KiB>(address, image.physical(address), access, frames)?;
                }
            }
        }
        Ok(())
    }

    /// Maps usable memory one to one, by the largest pages that fit, around the kernel image and without page 0.
    fn map_memory(&mut self, range: PhysRange, frames: &mut impl FrameAllocator<Size4KiB>) -> Result<(), PagingError> {
        let image = self.image.clone();
        let mut address = range.start().as_u64().next_multiple_of(SMALL).max(SMALL);
        let end = range.end() / SMALL * SMALL;
        while address < end {
            if image.contains(&address) {
                address = image.end;
                continue;
            }
            let clear = |size: u64| {
                address.is_multiple_of(size)
                    && end - address >= size
                    && (address + size <= image.start || address >= image.end)
            };
            address += if self.gigabyte_pages && clear(GIANT) {
                self.map::<Size1GiB>(address, address, Access::ReadWrite, frames)?
            } else if clear(LARGE) {
                self.map::<Size2MiB>(address, address, Access::ReadWrite, frames)?
            } else {
                self.map::<Size4KiB>(address, address, Access::ReadWrite, frames)?
            };
        }
        Ok(())
    }

    /// Maps one page and returns its size.
    pub(crate) fn map<S: PageSize>(
        &mut self,
        virt: u64,
        phys: u64,
        access: Access,
        frames: &mut impl FrameAllocator<Size4KiB>,
    ) -> Result<u64, PagingError>
    where
        OffsetPageTable<'static>: Mapper<S>,
    {
        let page = Page::<S>::containing_address(VirtAddr::new(virt));
        let frame = PhysFrame::<S>::containing_address(PhysAddr::new(phys));
        let flags = access.flags(self.nx);
        // SAFETY: identity pages cover memory that Rust reaches only through the frame's owner; windows and the heap
        // get addresses that nothing else has.
        let result = unsafe { self.tables.map_to_with_table_flags(page, frame, flags, TABLE, frames) };
        match result {
            // The page was not present, and such entries are not cached: no flush is needed.
            Ok(flush) => flush.ignore(),
            Err(MapToError::FrameAllocationFailed) => return Err(PagingError::NoFrame),
            Err(MapToError::PageAlreadyMapped(_) | MapToError::ParentEntryHugePage) => {
                return Err(PagingError::Mapped(virt));
            }
        }
        Ok(S::SIZE)
    }

    /// Maps a heap page.
    ///
    /// # Errors
    /// When there is no frame for a page table, or the page is mapped.
    pub(crate) fn map_heap(
        &mut self,
        virt: u64,
        phys: u64,
        frames: &mut impl FrameAllocator<Size4KiB>,
    ) -> Result<(), PagingError> {
        self.map::<Size4KiB>(virt, phys, Access::ReadWrite, frames).map(|_| ())
    }

    /// Maps the stacks of a CPU that is not the boot CPU.
    ///
    /// # Errors
    /// When frames run out; pages mapped so far stay mapped.
    pub(crate) fn map_stacks(
        &mut self,
        number: u32,
        frames: &mut impl FrameAllocator<Size4KiB>,
    ) -> Result<stack::Tops, PagingError> {
        for address in stack::ranges(number).into_iter().flat_map(|range| range.step_by(SMALL as usize)) {
            let frame = frames.allocate_frame().ok_or(PagingError::NoFrame)?.start_address().as_u64();
            self.map::<Size4KiB>(address, frame, Access::ReadWrite, frames)?;
        }
        Ok(stack::tops(number))
    }

    /// Opens a window onto `length` bytes of physical memory from `address`, which need not be aligned and may lie
    /// beyond the one-to-one map.
    ///
    /// # Errors
    /// When the CPU has no such addresses, the claimed device registers overlap usable memory, or virtual addresses or
    /// frames have run out.
    pub(crate) fn open_window(
        &mut self,
        address: u64,
        length: u64,
        access: Access,
        frames: &mut impl FrameAllocator<Size4KiB>,
    ) -> Result<NonNull<u8>, PagingError> {
        let beyond = PagingError::Beyond { address, length };
        let end = address.checked_add(length).filter(|&end| end <= self.physical_end).ok_or(beyond)?;
        let first = address / SMALL * SMALL;
        let size = end.next_multiple_of(SMALL) - first;
        if matches!(access, Access::Device | Access::Framebuffer) && self.is_memory(first, size) {
            return Err(PagingError::Memory { address, length });
        }
        // Without the PAT that bit would mean write-through caching, where reads may be stale.
        let access = if access == Access::Framebuffer && !self.pat { Access::Device } else { access };
        let base = self.window_address(size, first)?;
        let mut done = 0;
        while done < size {
            let (virt, phys) = (base + done, first + done);
            let large = virt.is_multiple_of(LARGE) && phys.is_multiple_of(LARGE) && size - done >= LARGE;
            let mapped = if large {
                self.map::<Size2MiB>(virt, phys, access, frames)
            } else {
                self.map::<Size4KiB>(virt, phys, access, frames)
            };
            match mapped {
                Ok(step) => done += step,
                Err(error) => {
                    self.unmap_pages(base, done);
                    self.keep_free_window(base, size);
                    return Err(error);
                }
            }
        }
        self.windows += 1;
        NonNull::new((base + (address - first)) as *mut u8).ok_or(beyond)
    }

    /// Closes a window of `length` bytes that [`AddressSpace::open_window`] opened at `start`.
    pub(crate) fn close_window(&mut self, start: NonNull<u8>, length: u64) {
        let start = start.as_ptr() as u64;
        let base = start / SMALL * SMALL;
        let size = (start + length).next_multiple_of(SMALL) - base;
        self.unmap_pages(base, size);
        self.keep_free_window(base, size);
        self.windows -= 1;
    }

    /// How many windows are open.
    pub(crate) fn windows(&self) -> usize {
        self.windows
    }

    /// Virtual addresses for a window of `size` bytes that shows physical `first`: aligned alike within 2 MiB when it
    /// is large enough for large pages.
    fn window_address(&mut self, size: u64, first: u64) -> Result<u64, PagingError> {
        let unit = if size >= LARGE { LARGE } else { SMALL };
        let fits = |base: u64| base % unit == first % unit;
        let reusable = |slot: &&mut Option<(u64, u64)>| slot.is_some_and(|(base, free)| free == size && fits(base));
        if let Some((base, _)) = self.free_windows.iter_mut().find(reusable).and_then(Option::take) {
            return Ok(base);
        }
        let base = self.next_window.next_multiple_of(unit) + first % unit;
        let end = base.checked_add(size).filter(|&end| end <= DEVICE_LIMIT).ok_or(PagingError::NoRoom(size))?;
        self.next_window = end;
        Ok(base)
    }

    /// Keeps a window's addresses for another one. If there is no room they are lost, but there are plenty.
    fn keep_free_window(&mut self, base: u64, size: u64) {
        if let Some(slot) = self.free_windows.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some((base, size));
        }
    }

    fn unmap_pages(&mut self, base: u64, size: u64) {
        let mut done = 0;
        while done < size {
            let address = VirtAddr::new(base + done);
            // Window pages were mapped by `open_window`; one that is not there was unmapped before.
            done += match self.tables.translate(address) {
                TranslateResult::Mapped { frame: MappedFrame::Size2MiB(_), .. } => {
                    if let Ok((_, flush)) = self.tables.unmap(Page::<Size2MiB>::containing_address(address)) {
                        flush.ignore();
                    }
                    LARGE
                }
                _ => {
                    if let Ok((_, flush)) = self.tables.unmap(Page::<Size4KiB>::containing_address(address)) {
                        flush.ignore();
                    }
                    SMALL
                }
            };
        }
        tlb::flush_everywhere();
    }

    /// How the page of `address` is mapped: its page size in bytes and its flags. `None` if it is not mapped.
    pub(crate) fn lookup(&self, address: u64) -> Option<(u64, PageTableFlags)> {
        match self.tables.translate(VirtAddr::try_new(address).ok()?) {
            TranslateResult::Mapped { frame, flags, .. } => Some((frame.size(), flags)),
            TranslateResult::NotMapped | TranslateResult::InvalidFrameAddress(_) => None,
        }
    }

    /// Whether any of `length` bytes from physical `address` is mapped one to one, or the image's.
    fn is_memory(&self, address: u64, length: u64) -> bool {
        let (mut page, end) = (address, address + length);
        if page < self.image.end && self.image.start < end {
            return true;
        }
        // Nothing is mapped one to one above this.
        let end = end.min(self.physical_limit);
        while page < end {
            match self.gap_at(page) {
                Some(gap) => page = (page / gap + 1) * gap,
                None => return true,
            }
        }
        false
    }

    /// Size of the largest page around `address` in which nothing is mapped; `None` if it is mapped.
    pub(crate) fn gap_at(&self, address: u64) -> Option<u64> {
        let mut table = self.tables.level_4_table();
        for shift in [39, 30, 21, 12] {
            let entry = &table[(address >> shift & 0x1FF) as usize];
            if !entry.flags().contains(PageTableFlags::PRESENT) {
                return Some(1 << shift);
            }
            if shift == 12 || entry.flags().contains(PageTableFlags::HUGE_PAGE) {
                return None;
            }
            // SAFETY: a present entry above the last level, without the huge bit, points to a table; tables are in
            // memory that is mapped one to one, and change, or are freed, only through `&mut self`.
            table = unsafe { &*(entry.addr().as_u64() as *const PageTable) };
        }
        None
    }

    /// Whether `length` bytes from physical `address` are mapped one to one.
    pub(crate) fn is_identity(&self, address: u64, length: u64) -> bool {
        let Some(end) = address.checked_add(length).filter(|&end| end <= self.physical_limit) else { return false };
        let mut page = address / SMALL * SMALL;
        while page < end {
            match self.lookup(page) {
                Some((size, _)) => page = (page / size + 1) * size,
                None => return false,
            }
        }
        true
    }
}
