//! The fences between driver and device. There are no others.
//!
//! All accesses to shared memory are relaxed ([`crate::platform::DmaMemory`]); order comes from these three alone. They
//! order memory between CPUs. On x86-64 a device sees the same order: DMA is coherent, stores to memory are seen in
//! program order, and before any later store to a register.
//!
//! A model checker replaces the one import below (`tests/loom`).

use core::sync::atomic::Ordering;
#[cfg(not(loom))]
use core::sync::atomic::fence;

#[cfg(loom)]
use modelled::fence;

#[cfg(loom)]
pub mod modelled;

/// Before an index store that publishes entries: a reader that sees the index also sees all earlier stores (virtio 1.4,
/// 2.7.13.3.1).
#[doc(alias = "virtio_wmb")]
#[inline]
pub fn publish() {
    fence(Ordering::Release);
}

/// Between an index store and the load of the other side's suppression field: at least one of the two sides sees the
/// other's store (virtio 1.4, 2.7.13.4.1). Without it a kick or an interrupt can be lost.
#[doc(alias = "virtio_mb")]
#[inline]
pub fn full() {
    fence(Ordering::SeqCst);
}

/// After the load of the device's index: later loads see everything that the device stored before the index.
#[doc(alias = "virtio_rmb")]
#[inline]
pub fn observe() {
    fence(Ordering::Acquire);
}
