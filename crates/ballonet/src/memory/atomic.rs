//! 64-bit atomic words: the target's own, or a substitute if it has none.

#[cfg(target_has_atomic = "64")]
pub(super) use core::sync::atomic::AtomicU64;

#[cfg(not(target_has_atomic = "64"))]
pub(super) use portable_atomic::AtomicU64;
