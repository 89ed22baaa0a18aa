//! The whole driver, from PCI configuration space up, against device models.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(clippy::std_instead_of_core, clippy::alloc_instead_of_core, reason = "this program has a standard library")]

mod bring_up;
mod clauses;
mod following;
mod found;
mod guest;
mod hinting;
mod hinting_manual;
mod hostile;
mod in_order;
mod ladder;
mod legacy;
mod legacy_manual;
mod lies;
mod manual;
mod mmio;
mod mmio_manual;
mod packed_manual;
mod poison;
mod queue_reset;
mod reach;
mod reclaim;
mod recovery;
mod refusals;
mod reporting;
mod rings;
mod schedules;
mod shapes;
mod silence;
mod split_manual;
mod statistics;
mod tuning;
mod vmms;
