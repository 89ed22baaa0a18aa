//! The fences under the model checker loom, which can do without one of them, to show that it is needed.
//!
//! Each of the three barriers has an order of its own, and goes by it here.

extern crate std;

use core::cell::Cell;
use core::sync::atomic::Ordering;

/// A fence, and what is to stand in its place.
type Exchange = (Ordering, Option<Ordering>);

std::thread_local! {
    // loom runs all threads of a model on one thread of the host.
    static EXCHANGED: Cell<Option<Exchange>> = const { Cell::new(None) };
}

pub(super) fn fence(order: Ordering) {
    let order = match EXCHANGED.get() {
        Some((from, to)) if from == order => to,
        _ => Some(order),
    };
    if let Some(order) = order {
        loom::sync::atomic::fence(order);
    }
}

/// Runs `model` with the fence `from` taken away, or with `to` in its place.
pub fn exchanged(from: Ordering, to: Option<Ordering>, model: impl FnOnce()) {
    /// Puts the fence back, also when the model fails.
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
