//! Hostile checks: each breaks a rule for drivers, and the device and its VMM must survive that.
//!
//! A device may serve or ignore the faulty request, refuse the write, return the buffer unused, or set
//! `DEVICE_NEEDS_RESET`. It must work again after a reset, and must write only where it was told to. No attack gives
//! the device the kernel's memory to write to.

pub(super) mod addresses;
pub(super) mod blocks;
pub(super) mod common;
pub(super) mod fields;
pub(super) mod frames;
pub(super) mod header;
pub(super) mod hints;
pub(super) mod indirect;
pub(super) mod mmio;
pub(super) mod notifications;
pub(super) mod packed;
pub(super) mod ports;
pub(super) mod reports;
pub(super) mod ring_reset;
pub(super) mod setup;
pub(super) mod split;
pub(super) mod statistics;
pub(super) mod status;
mod steps;
pub(super) mod vectors;
pub(super) mod window;

use crate::check::{Attack, Check, Clause, Reaction, Severity, Verdict, hostile};
use crate::device::{Attacker, TestDevice};
use ballonet::virtio::spec::{DescriptorFlags, Features};

/// Flags of descriptors, to be combined with any others.
const NEXT: u16 = DescriptorFlags::NEXT.bits();
const WRITE: u16 = DescriptorFlags::WRITE.bits();
const INDIRECT: u16 = DescriptorFlags::INDIRECT.bits();
const AVAIL: u16 = DescriptorFlags::AVAIL.bits();
const USED: u16 = DescriptorFlags::USED.bits();

/// An attack on a split ring.
const fn split(name: &'static str, clause: Clause, asks: &'static str, act: RingAttack) -> Check {
    hostile(name, clause, asks, Attack::Ring(Features::empty(), act))
}

/// An attack on a packed ring.
const fn packed(name: &'static str, clause: Clause, asks: &'static str, act: RingAttack) -> Check {
    hostile(name, clause, asks, Attack::Ring(Features::RING_PACKED, act))
}

/// An attack on a split or a packed ring, with more features.
const fn with(features: Features, name: &'static str, clause: Clause, asks: &'static str, act: RingAttack) -> Check {
    hostile(name, clause, asks, Attack::Ring(features, act))
}

/// An attack on registers.
const fn registers(
    name: &'static str,
    clause: Clause,
    asks: &'static str,
    act: fn(&mut TestDevice<'_>) -> Verdict<Reaction>,
) -> Check {
    hostile(name, clause, asks, Attack::Registers(act))
}

/// The same check as `custom`: the specification does not require the device to keep the first setting.
const fn custom(check: Check) -> Check {
    Check { severity: Severity::Custom, ..check }
}

/// What an attack on a queue does.
type RingAttack = fn(&mut Attacker<'_, '_>) -> Verdict;

/// A rule for drivers.
const fn clause(section: &'static str, text: &'static str) -> Clause {
    Clause { section, text }
}
