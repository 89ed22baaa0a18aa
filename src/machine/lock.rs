//! A lock that is safe against interrupts.

use spin::{Mutex, MutexGuard};
use x86_64::instructions::interrupts;

use crate::machine::paging::tlb;

/// A spin lock held only with interrupts off, so that a handler can never wait for the code it interrupted.
pub(crate) struct Lock<T> {
    inner: Mutex<T>,
}

impl<T> Lock<T> {
    /// Wraps `value`.
    pub(crate) const fn new(value: T) -> Self {
        Self { inner: Mutex::new(value) }
    }

    /// Runs `action` with the value locked and interrupts off.
    pub(crate) fn with<R>(&self, action: impl FnOnce(&mut T) -> R) -> R {
        interrupts::without_interrupts(|| action(&mut self.acquire()))
    }

    /// Waits for the lock, with interrupts off, and keeps flushing the TLB, for which the holder may be waiting.
    fn acquire(&self) -> MutexGuard<'_, T> {
        loop {
            if let Some(guard) = self.inner.try_lock() {
                return guard;
            }
            while self.inner.is_locked() {
                tlb::catch_up();
                core::hint::spin_loop();
            }
        }
    }

    /// Runs `action` unless the lock is held. For fault reports.
    pub(crate) fn try_with<R>(&self, action: impl FnOnce(&mut T) -> R) -> Option<R> {
        interrupts::without_interrupts(|| {
            let mut guard: MutexGuard<'_, T> = self.inner.try_lock()?;
            Some(action(&mut guard))
        })
    }

    /// Opens the lock, whatever its holder.
    ///
    /// # Safety
    /// The holder never runs again, or no longer uses the value.
    pub(crate) unsafe fn force_unlock(&self) {
        // SAFETY: the caller vouches that the holder is gone.
        unsafe { self.inner.force_unlock() }
    }
}
