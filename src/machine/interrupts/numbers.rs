//! Which interrupt vector is for what.

/// The first vector that is not an exception (SDM vol. 3, 7.2).
pub(crate) const FIRST_EXTERNAL: u8 = 32;
/// The vectors of the two PICs: masked, they still raise spurious interrupts 7 and 15.
pub(crate) const PIC: u8 = 0x20;
/// The first vector for devices.
pub(super) const FIRST_DEVICE: u8 = 0x30;
/// The last vector for devices.
pub(super) const LAST_DEVICE: u8 = 0xEF;
/// How many vectors devices share.
pub(crate) const DEVICE_VECTORS: u32 = (LAST_DEVICE - FIRST_DEVICE) as u32 + 1;
/// The local APIC's timer.
pub(crate) const TIMER: u8 = 0xF0;
/// Another CPU wakes this one.
pub(crate) const WAKE: u8 = 0xF1;
/// Another CPU makes this one flush its TLB.
pub(crate) const FLUSH: u8 = 0xF2;
/// The local APIC's errors.
pub(crate) const APIC_ERROR: u8 = 0xFE;
/// The local APIC's spurious interrupt: low four bits set, as old APICs require; never acknowledged.
pub(crate) const SPURIOUS: u8 = 0xFF;
