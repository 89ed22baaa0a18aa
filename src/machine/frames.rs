//! The machine's page frames: one allocator, behind a lock.

use x86_64::PhysAddr as CpuAddr;
use x86_64::structures::paging::{FrameAllocator, PhysFrame, Size4KiB};

use super::lock::Lock;
use super::relief;
use crate::memory::{AllocateError, Counts, Footprint, FrameError, FrameRun, Frames, PhysRange, StorageError, place};

pub(super) static FRAMES: Lock<Option<Frames<'static>>> = Lock::new(None);

/// Runs `action` on the frame allocator.
///
/// # Panics
/// Before [`initialise`] has run.
pub fn with<R>(action: impl FnOnce(&mut Frames<'static>) -> R) -> R {
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
/// Usable memory is mapped one to one, and outside the reserved ranges nobody uses it.
pub unsafe fn initialise<U, R>(usable: U, reserved: R) -> Result<Counts, StorageError>
where
    U: Iterator<Item = PhysRange> + Clone,
    R: Iterator<Item = PhysRange> + Clone,
{
    let footprint = Footprint::of(usable.clone());
    let bytes = footprint.bytes();
    let nowhere = StorageError { needed: bytes, align: Footprint::ALIGN, given: 0, address: 0 };
    let records = place(bytes as u64, u64::MAX, usable.clone(), reserved.clone()).ok_or(nowhere)?;
    let start = records.start().as_u64() as *mut u8;
    // SAFETY: `place` found this range in usable memory that nobody uses, which is mapped, and which is reserved for the
    // records below, for ever. Any byte is a valid `u8`.
    let storage = unsafe {
        start.write_bytes(0, bytes);
        core::slice::from_raw_parts_mut(start, bytes)
    };
    let mut frames = Frames::new(storage, usable, reserved.chain([records]))?;
    // What the balloon leaves: 1/64 of memory, within bounds that keep 16 MiB useful and 16 TiB generous.
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
pub fn allocate(frames: u32, align: u32) -> Result<FrameRun, AllocateError> {
    with(|all| all.allocate(frames, align))
}

/// As long a run as can be had, of up to `most` frames and a region.
pub fn allocate_up_to(most: u64) -> Option<FrameRun> {
    let mut frames = most.clamp(1, 512) as u32;
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

/// Whether `frames` frames are free besides those that the kernel keeps for itself: half of what a balloon leaves. If they
/// are not, memory is had back for them first ([`relief`]), which may take a while.
pub fn make_room(frames: u64) -> bool {
    match lacking(frames) {
        0 => true,
        lacking_now => {
            relief::ask(lacking_now);
            lacking(frames) == 0
        }
    }
}

/// How many frames lack for so many to be free besides those that the kernel keeps.
fn lacking(frames: u64) -> u64 {
    with(|all| frames.saturating_add(all.floor() / 2).saturating_sub(all.counts().free))
}

/// Gives frames back.
///
/// # Errors
/// When one of them was not allocated; nothing is freed then.
pub fn free(run: FrameRun) -> Result<(), FrameError> {
    with(|all| all.free(run))
}

/// Writes `byte` to every byte of `run`.
///
/// # Safety
/// The frames are used, by the caller alone.
pub unsafe fn fill(run: FrameRun, byte: u8) {
    let start = run.start().start().as_u64() as *mut u8;
    // SAFETY: usable memory is mapped one to one, and by the contract nobody else looks at these frames.
    unsafe { start.write_bytes(byte, run.bytes() as usize) };
}

/// Takes frames for page tables from the allocator.
pub struct ForTables;

// SAFETY: an allocated frame is nobody else's.
unsafe impl FrameAllocator<Size4KiB> for ForTables {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let run = allocate(1, 1).ok()?;
        Some(PhysFrame::containing_address(CpuAddr::new(run.start().start().as_u64())))
    }
}
