//! The fences between driver and device, the only ones there are.
//!
//! All accesses to shared memory are relaxed ([`crate::platform::DmaMemory`]); order comes from these three alone. They
//! order memory between CPUs. On x86-64 that is also the order that a device sees: memory is coherent with devices,
//! stores to it are seen in program order, and a store to a register follows them all.
//!
//! A model checker replaces the one import below (`tests/loom`).

use core::sync::atomic::Ordering;
#[cfg(not(loom))]
use core::sync::atomic::fence;

#[cfg(loom)]
use modelled::fence;

#[cfg(loom)]
pub mod modelled;

/// Before an index store that hands entries over: what was stored earlier is visible to a reader that sees the index
/// (virtio 1.4, 2.7.13.3.1).
#[doc(alias = "virtio_wmb")]
#[inline]
pub fn publish() {
    fence(Ordering::Release);
}

/// Between an index store and the load of what the other side may have stored meanwhile: one of the two sides sees the
/// other's store (virtio 1.4, 2.7.13.4.1). Without it a kick or an interrupt is lost.
#[doc(alias = "virtio_mb")]
#[inline]
pub fn full() {
    fence(Ordering::SeqCst);
}

/// After the load of an index that the device stores: what it stored before is seen from here on.
#[doc(alias = "virtio_rmb")]
#[inline]
pub fn observe() {
    fence(Ordering::Acquire);
}
