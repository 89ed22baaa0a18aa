//! Base address registers.

use core::fmt;

use super::Bdf;

/// Part of a BAR that a driver wants to reach: where it lies on the bus, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarWindow {
    /// The function that owns the BAR.
    pub function: Bdf,
    /// The BAR's index, 0 to 5.
    pub bar: u8,
    /// Whether the addresses are I/O ports.
    pub io: bool,
    /// The first address (bus address, or port number).
    pub address: u64,
    /// Length in bytes, not 0.
    pub length: u64,
}

impl fmt::Display for BarWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if self.io { "ports" } else { "memory" };
        write!(f, "{} BAR{} {space} {:#x}+{:#x}", self.function, self.bar, self.address, self.length)
    }
}
