//! The driver's fences under the checker. A test can remove or weaken one, to show that it is needed.
//!
//! Each of the three barriers has its own ordering, which identifies it here.

use std::cell::Cell;
use std::sync::atomic::Ordering;

/// A fence, and its replacement.
type Exchange = (Ordering, Option<Ordering>);

std::thread_local! {
    // loom runs all threads of a model on one thread of the host.
    static EXCHANGED: Cell<Option<Exchange>> = const { Cell::new(None) };
}

/// The driver's fence of this order, or what replaces it.
pub fn fence(order: Ordering) {
    let order = match EXCHANGED.get() {
        Some((from, to)) if from == order => to,
        _ => Some(order),
    };
    if let Some(order) = order {
        loom::sync::atomic::fence(order);
    }
}

/// Runs `model` without the fence `from`, or with `to` in its place.
pub fn exchanged(from: Ordering, to: Option<Ordering>, model: impl FnOnce()) {
    /// Restores the fence, even if the model fails.
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            EXCHANGED.set(None);
        }
    }

    EXCHANGED.set(Some((from, to)));
    let _restore = Restore;
    model();
}
