//! Checks the index and notification protocol of virtqueues with the model checker loom: the real driver's queue runs
//! on one thread, a device that follows the specification on another. All loads and stores of their shared memory are
//! relaxed, so that only fences order them. Without `--cfg loom` this program is empty.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --release --no-default-features --test loom
//! ```
//!
//! Proved for split and packed rings, with and without `EVENT_IDX`, and with `IN_ORDER` for entries that complete
//! several requests: no side sees a part of a request or completion, and no side sleeps while it has work. Each of
//! the three barriers is necessary: without it these models fail, and anything weaker than *full* fails too.
//!
//! What the checker does not show:
//! - Loom runs a thread's accesses in program order, so a load never sees a later store. It cannot model a store that
//!   overtakes an earlier load.
//! - Its sequentially consistent fences order slightly more than the language's: everything before one is seen after
//!   the next. So *publish* and *observe* have models without such a fence, which could hide that they are missing.
//! - A kick and an interrupt order memory here, as on PCI: the receiver sees everything stored before.
//! - It skips orders that it considers equivalent, and remembers only the last access to each field. `models` describes
//!   the remedy.
#![cfg(loom)]
#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "the parts are written as a library of this test program")]
#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(clippy::std_instead_of_core, clippy::alloc_instead_of_core, reason = "this program has a standard library")]

mod device;
mod fences;
mod memory;
mod models;
mod packed;
mod platform;
mod requests;
mod split;

use std::sync::atomic::Ordering;

use fences::exchanged;

/// The same proofs for each kind of ring.
macro_rules! proofs {
    ($kind:ident, $layout:ty, event_idx: $event_idx:literal) => {
        mod $kind {
            use super::*;

            #[test]
            fn a_request_is_seen_whole() {
                models::requests::<$layout>($event_idx);
            }

            #[test]
            fn no_kick_is_lost() {
                models::kicks::<$layout>($event_idx);
            }

            #[test]
            fn no_interrupt_is_lost() {
                models::interrupts::<$layout>($event_idx, 1);
            }

            #[test]
            fn no_interrupt_for_a_batch_is_lost() {
                models::interrupts::<$layout>($event_idx, 2);
            }

            #[test]
            fn a_completion_is_seen_whole() {
                models::completions::<$layout>($event_idx);
            }

            #[test]
            fn requests_circulate() {
                models::round_trips::<$layout>($event_idx);
            }

            #[test]
            #[should_panic(expected = "torn")]
            fn without_publish_a_request_is_torn() {
                exchanged(Ordering::Release, None, || models::requests::<$layout>($event_idx));
            }

            #[test]
            #[should_panic(expected = "deadlock")]
            fn without_full_a_kick_is_lost() {
                exchanged(Ordering::SeqCst, None, || models::kicks::<$layout>($event_idx));
            }

            #[test]
            #[should_panic(expected = "deadlock")]
            fn without_full_an_interrupt_is_lost() {
                exchanged(Ordering::SeqCst, None, || models::interrupts::<$layout>($event_idx, 1));
            }

            #[test]
            #[should_panic(expected = "deadlock")]
            fn less_than_full_loses_a_kick() {
                let less = Some(Ordering::AcqRel);
                exchanged(Ordering::SeqCst, less, || models::kicks::<$layout>($event_idx));
            }

            #[test]
            #[should_panic(expected = "deadlock")]
            fn less_than_full_loses_an_interrupt() {
                let less = Some(Ordering::AcqRel);
                exchanged(Ordering::SeqCst, less, || models::interrupts::<$layout>($event_idx, 1));
            }

            #[test]
            #[should_panic(expected = "torn")]
            fn without_observe_a_completion_is_torn() {
                exchanged(Ordering::Acquire, None, || models::completions::<$layout>($event_idx));
            }
        }
    };
}

/// What `IN_ORDER` adds: one entry that completes several requests.
macro_rules! proofs_in_order {
    ($kind:ident, $layout:ty, event_idx: $event_idx:literal) => {
        mod $kind {
            use super::*;

            #[test]
            fn a_batch_is_seen_whole() {
                models::batches::<$layout>($event_idx);
            }

            #[test]
            fn no_interrupt_for_the_first_of_a_batch_is_lost() {
                models::interrupts_for_batches::<$layout>($event_idx, 1);
            }

            #[test]
            fn no_interrupt_for_the_last_of_a_batch_is_lost() {
                models::interrupts_for_batches::<$layout>($event_idx, 2);
            }

            #[test]
            fn requests_circulate_in_order() {
                models::round_trips::<$layout>($event_idx);
            }

            #[test]
            #[should_panic(expected = "torn")]
            fn without_publish_a_request_is_torn() {
                exchanged(Ordering::Release, None, || models::requests::<$layout>($event_idx));
            }

            #[test]
            #[should_panic(expected = "deadlock")]
            fn without_full_an_interrupt_for_a_batch_is_lost() {
                exchanged(Ordering::SeqCst, None, || models::interrupts_for_batches::<$layout>($event_idx, 2));
            }

            #[test]
            #[should_panic(expected = "torn")]
            fn without_observe_a_batch_is_torn() {
                exchanged(Ordering::Acquire, None, || models::batches::<$layout>($event_idx));
            }
        }
    };
}

proofs!(split_flags, split::Split<false>, event_idx: false);
proofs!(split_event_idx, split::Split<false>, event_idx: true);
proofs!(packed_flags, packed::Packed<false>, event_idx: false);
proofs!(packed_event_idx, packed::Packed<false>, event_idx: true);
proofs_in_order!(split_in_order_flags, split::Split<true>, event_idx: false);
proofs_in_order!(split_in_order_event_idx, split::Split<true>, event_idx: true);
proofs_in_order!(packed_in_order_flags, packed::Packed<true>, event_idx: false);
proofs_in_order!(packed_in_order_event_idx, packed::Packed<true>, event_idx: true);
