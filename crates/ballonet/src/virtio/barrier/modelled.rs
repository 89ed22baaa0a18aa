//! The fences are a test's (`tests/loom`), so that the library itself depends on no model checker.

extern crate std;

use core::sync::atomic::Ordering;
use std::sync::OnceLock;

static FENCE: OnceLock<fn(Ordering)> = OnceLock::new();

/// Sets what the barriers call. The first call counts.
pub fn set_fence(fence: fn(Ordering)) {
    FENCE.get_or_init(|| fence);
}

pub(super) fn fence(order: Ordering) {
    FENCE.get().expect("the test has set a fence")(order);
}
