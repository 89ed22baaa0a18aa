//! The machine's page frames: one allocator behind a lock and, with several CPUs, a magazine of single frames per CPU
//! in front of it.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spin::Once;
use x86_64::PhysAddr as CpuAddr;
use x86_64::structures::paging::{FrameAllocator, PhysFrame, Size4KiB};

use crate::machine::lock::Lock;
use crate::machine::memory::reclaim;
use crate::machine::smp::cpu::Cpu;
use ballonet::memory::{
    AllocateError, Counts, CpuCache, CpuCaches, Exclusive, FRAME_SIZE, Footprint, FrameError, FrameRun, Frames,
    Magazine, PhysRange, REGION_FRAMES, StorageError, place,
};

static FRAMES: Lock<Option<Frames<'static>>> = Lock::new(None);
/// The magazines, once several CPUs have run.
static CACHES: Once<CpuCaches<'static, Lock<Magazine>>> = Once::new();
/// Whether they are used.
static CACHING: AtomicBool = AtomicBool::new(false);

/// The allocator, for the magazines.
struct Allocator;

impl Exclusive<Frames<'static>> for Allocator {
    fn with<R>(&self, action: impl FnOnce(&mut Frames<'static>) -> R) -> R {
        with(action)
    }
}

impl<T> Exclusive<T> for Lock<T> {
    fn with<R>(&self, action: impl FnOnce(&mut T) -> R) -> R {
        self.with(action)
    }
}

/// The current CPU. Nothing breaks if the caller then continues on another one.
fn cpu() -> usize {
    Cpu::this().number() as usize
}

/// Gives each of `cpus` CPUs a magazine, from now on; none if there is only one CPU. A later call reuses the existing
/// ones.
///
/// # Errors
/// When there is no memory for them: then frames come only from the allocator.
pub(crate) fn enable_caches(cpus: usize) -> Result<(), StorageError> {
    if cpus > 1 {
        CACHES.try_call_once(|| set_caches_up(cpus))?;
        CACHING.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Whether CPUs have magazines.
pub(crate) fn is_caching() -> bool {
    CACHING.load(Ordering::Relaxed)
}

/// From now on frames come only from the allocator, as with one CPU.
pub(crate) fn disable_caches() {
    CACHING.store(false, Ordering::Relaxed);
    drain();
}

fn set_caches_up(cpus: usize) -> Result<CpuCaches<'static, Lock<Magazine>>, StorageError> {
    let words = place_static(with(|all| all.held_words()), || AtomicU64::new(0))?;
    let cpus = place_static(cpus, || CpuCache::from(Lock::new(Magazine::default())))?;
    with(|all| CpuCaches::new(cpus, all, words))
}

/// Allocates values in frames of their own, never freed. Not on the heap, whose size tests watch.
fn place_static<T: Sync>(count: usize, value: impl Fn() -> T) -> Result<&'static [T], StorageError> {
    let bytes = count * size_of::<T>();
    let nowhere = StorageError { needed: bytes, align: align_of::<T>(), given: 0, address: 0 };
    let frames = u32::try_from((bytes as u64).div_ceil(FRAME_SIZE)).map_err(|_| nowhere)?;
    let run = allocate(frames, 1).map_err(|_| nowhere)?;
    let start = run.start().start().as_u64() as *mut T;
    // SAFETY: the frames were just allocated, are mapped one to one and never freed, so no other code has them, on any
    // CPU, until all values are written here and then shared; the values fit, and none is aligned to more than a frame.
    unsafe {
        (0..count).for_each(|at| start.add(at).write(value()));
        Ok(core::slice::from_raw_parts(start, count))
    }
}

/// Returns the frames in magazines to the allocator, and returns their number.
pub(crate) fn drain() -> u64 {
    CACHES.get().map_or(0, |caches| caches.drain(&Allocator))
}

/// The number of frames in each state; those in magazines are free.
pub(crate) fn counts() -> Counts {
    CACHES.get().map_or_else(|| with(|all| all.counts()), |caches| caches.counts(&Allocator))
}

/// Takes frames from the allocator. If it has none, drains all magazines and tries again.
pub(crate) fn take<R>(mut action: impl FnMut(&mut Frames<'static>) -> Option<R>) -> Option<R> {
    attempt(|all| action(all).ok_or(())).ok()
}

fn attempt<R, E>(action: impl FnMut(&mut Frames<'static>) -> Result<R, E>) -> Result<R, E> {
    match CACHES.get() {
        Some(caches) => caches.attempt(&Allocator, action),
        None => with(action),
    }
}

/// The magazines, while they are in use.
fn caches() -> Option<&'static CpuCaches<'static, Lock<Magazine>>> {
    CACHES.get().filter(|_| is_caching())
}

/// Opens the locks, whatever their holders.
///
/// # Safety
/// As for [`Lock::force_unlock`].
#[cfg(feature = "test-image")]
pub(crate) unsafe fn force_unlock() {
    // SAFETY: the caller's promise.
    unsafe { FRAMES.force_unlock() };
    for cpu in CACHES.get().into_iter().flat_map(|caches| caches.cpus) {
        // SAFETY: the caller's promise.
        unsafe { cpu.magazine.force_unlock() };
    }
}

/// Runs `action` on the frame allocator, which sees frames in magazines as used. Where that matters, use [`counts`] and
/// [`take`].
///
/// # Panics
/// Before [`initialise`] has run.
pub(crate) fn with<R>(action: impl FnOnce(&mut Frames<'static>) -> R) -> R {
    FRAMES.with(|frames| match frames {
        Some(frames) => action(frames),
        None => panic!("frames are used before they are set up"),
    })
}

/// Sets the allocator up over `usable` memory without the `reserved` ranges.
///
/// # Errors
/// When its records do not fit anywhere.
///
/// # Safety
/// Usable memory is mapped one to one, and unused outside the reserved ranges.
pub(crate) unsafe fn initialise<U, R>(usable: U, reserved: R) -> Result<Counts, StorageError>
where
    U: Iterator<Item = PhysRange> + Clone,
    R: Iterator<Item = PhysRange> + Clone,
{
    let footprint = Footprint::of(usable.clone());
    let bytes = footprint.bytes();
    let nowhere = StorageError { needed: bytes, align: Footprint::ALIGN, given: 0, address: 0 };
    let records = place(bytes as u64, u64::MAX, usable.clone(), reserved.clone()).ok_or(nowhere)?;
    let start = records.start().as_u64() as *mut u8;
    // SAFETY: `place` found this range in unused usable memory, which is mapped and is permanently reserved for the
    // records below. Any byte is a valid `u8`.
    let storage = unsafe {
        start.write_bytes(0, bytes);
        core::slice::from_raw_parts_mut(start, bytes)
    };
    let mut frames = Frames::new(storage, usable, reserved.chain([records]))?;
    // The floor that the balloon leaves: 1/64 of memory, within bounds for small and very large machines.
    let total = frames.counts().total;
    frames.set_floor((total / 64).clamp(LEAST_FLOOR, MOST_FLOOR));
    let counts = frames.counts();
    FRAMES.with(|slot| *slot = Some(frames));
    Ok(counts)
}

/// The balloon leaves at least 1 MiB: enough for the heap to grow and the console to work.
const LEAST_FLOOR: u64 = 256;
/// The balloon leaves at most 64 MiB.
const MOST_FLOOR: u64 = 16384;

/// Allocates `frames` contiguous frames, aligned to `align` frames.
///
/// # Errors
/// When there is no such run.
pub(crate) fn allocate(frames: u32, align: u32) -> Result<FrameRun, AllocateError> {
    match caches() {
        Some(caches) if (frames, align) == (1, 1) => caches.allocate(cpu(), &Allocator),
        _ => attempt(|all| all.allocate(frames, align)),
    }
}

/// The longest available run, of at most `most` frames and at most a region.
pub(crate) fn allocate_up_to(most: u64) -> Option<FrameRun> {
    let mut frames = most.clamp(1, REGION_FRAMES.into()) as u32;
    loop {
        if let Ok(run) = allocate(frames, 1) {
            return Some(run);
        }
        if frames == 1 {
            return None;
        }
        frames /= 2;
    }
}

/// Whether `frames` frames are free besides the kernel's reserve (half of the balloon's floor). If not, memory is
/// reclaimed first ([`reclaim`]), which may take a while.
pub(crate) fn make_room(frames: u64) -> bool {
    match lacking(frames) {
        0 => true,
        lacking_now => {
            reclaim::ask(lacking_now);
            lacking(frames) == 0
        }
    }
}

/// How many more frames must become free for an allocation of `frames`, besides the kernel's reserve.
fn lacking(frames: u64) -> u64 {
    frames.saturating_add(with(|all| all.floor()) / 2).saturating_sub(counts().free)
}

/// Gives frames back.
///
/// # Errors
/// When one of them was not allocated; nothing is freed then.
pub(crate) fn free(run: FrameRun) -> Result<(), FrameError> {
    match caches() {
        Some(caches) => caches.free(cpu(), run, &Allocator),
        None => with(|all| all.free(run)),
    }
}

/// Writes `byte` to every byte of `run`.
///
/// # Safety
/// The frames are used, by the caller alone.
pub(crate) unsafe fn fill(run: FrameRun, byte: u8) {
    let start = run.start().start().as_u64() as *mut u8;
    // SAFETY: usable memory is mapped one to one, and by the contract no other code uses these frames.
    unsafe { start.write_bytes(byte, run.bytes() as usize) };
}

/// Takes frames for page tables from the allocator.
pub(crate) struct ForTables;

// SAFETY: an allocated frame has one owner.
unsafe impl FrameAllocator<Size4KiB> for ForTables {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let run = allocate(1, 1).ok()?;
        Some(PhysFrame::containing_address(CpuAddr::new(run.start().start().as_u64())))
    }
}
