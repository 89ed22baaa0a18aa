//! Reads of data that firmware and the loader left in physical memory.

use crate::boot::{PhysicalMemory, Unreadable};
use crate::machine::memory::frames;
use crate::machine::paging::{self, Access};
use ballonet::memory::PhysAddr;

/// Physical memory under the entry code's page tables: the first 4 GiB, one to one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EarlyMemory(());

impl EarlyMemory {
    /// The view.
    ///
    /// # Safety
    /// The entry code's page tables are in use.
    pub(crate) unsafe fn new() -> Self {
        Self(())
    }
}

/// What the entry code maps.
const EARLY: u64 = 4 << 30;

impl PhysicalMemory for EarlyMemory {
    fn read(&self, address: PhysAddr, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let start = address.as_u64();
        let mapped = start > 0 && start.checked_add(bytes.len() as u64).is_some_and(|end| end <= EARLY);
        if !mapped {
            return Err(Unreadable { address: start, length: bytes.len() });
        }
        // SAFETY: mapped, as promised to `new`. Absent memory reads as an arbitrary value.
        unsafe { copy(start as *const u8, bytes) };
        Ok(())
    }
}

/// Physical memory under the kernel's page tables: usable memory directly, all else through a short-lived window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FirmwareMemory;

impl PhysicalMemory for FirmwareMemory {
    fn read(&self, address: PhysAddr, bytes: &mut [u8]) -> Result<(), Unreadable> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (start, length) = (address.as_u64(), bytes.len() as u64);
        if paging::with(|space| space.is_identity(start, length)) {
            // SAFETY: mapped one to one.
            unsafe { copy(start as *const u8, bytes) };
            return Ok(());
        }
        let unreadable = Unreadable { address: start, length: bytes.len() };
        let window = paging::with(|space| space.open_window(start, length, Access::ReadOnly, &mut frames::ForTables))
            .map_err(|_| unreadable)?;
        // SAFETY: the window is `length` bytes long and stays until it is closed below.
        unsafe { copy(window.as_ptr(), bytes) };
        paging::with(|space| space.close_window(window, length));
        Ok(())
    }
}

/// Copies from memory that firmware names; if a table is wrong that may be the kernel's, even `bytes` themselves.
///
/// # Safety
/// `bytes.len()` bytes from `start` are mapped.
unsafe fn copy(start: *const u8, bytes: &mut [u8]) {
    // SAFETY: the caller's promise; both may overlap.
    unsafe { core::ptr::copy(start, bytes.as_mut_ptr(), bytes.len()) };
}
