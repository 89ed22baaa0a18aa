//! What interrupt handlers record for a driver: atomic bits, and counts.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// The cause of an interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A configuration change.
    Config,
    /// Used buffers.
    Vring,
    /// Not the device: another one on a shared line, or spurious.
    Stray,
}

/// Shared by a driver and its interrupt handlers.
#[derive(Debug)]
pub struct Events {
    pending: AtomicU32,
    /// By [`Cause`].
    counts: [AtomicUsize; 3],
}

impl Events {
    /// No bits set, all counts 0.
    pub(crate) const fn new() -> Self {
        Self { pending: AtomicU32::new(0), counts: [const { AtomicUsize::new(0) }; 3] }
    }

    /// Takes and clears the bits. Bits raised from now on stay for the next call.
    pub(crate) fn take(&self) -> u32 {
        self.pending.swap(0, Ordering::Acquire)
    }

    /// Whether bits are set. If called with interrupts off right before `sti; hlt`, `false` cannot be stale.
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire) != 0
    }

    /// Number of interrupts with this cause.
    pub(crate) fn count(&self, cause: Cause) -> usize {
        self.counts[cause as usize].load(Ordering::Relaxed)
    }

    /// Raises bits.
    pub(crate) fn raise(&self, bits: u32) {
        self.pending.fetch_or(bits, Ordering::Release);
    }

    /// Counts an interrupt.
    pub(crate) fn note(&self, cause: Cause) {
        self.counts[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Resets bits and counts.
    pub(crate) fn clear(&self) {
        self.pending.store(0, Ordering::Relaxed);
        self.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_leaves_nothing() {
        let events = Events::new();
        assert!(!events.is_pending());
        events.raise(4);
        assert!(events.is_pending());
        assert_eq!((events.take(), events.take(), events.is_pending()), (4, 0, false));
    }
}
