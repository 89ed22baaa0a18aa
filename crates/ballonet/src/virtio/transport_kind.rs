//! The kinds of transports.

use core::fmt;

/// The transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportKind {
    /// Over PCI, version 1 of the specification and later: structures found by capabilities, `FEATURES_OK`, 64 feature
    /// bits.
    Modern,
    /// Over PCI, before version 1: I/O ports in the first BAR, 32 feature bits, rings of one size and layout.
    Legacy,
    /// Over MMIO, version 2 of its registers: version 1 of the specification and later (4.2).
    Mmio,
    /// Over MMIO, version 1 of its registers: before version 1 of the specification (4.2.4).
    MmioLegacy,
}

impl TransportKind {
    /// Whether it predates version 1 of the specification: 32 feature bits, no `FEATURES_OK`, rings in one block and in
    /// the CPU's byte order.
    pub const fn is_legacy(self) -> bool {
        matches!(self, Self::Legacy | Self::MmioLegacy)
    }
}

impl From<TransportKind> for &'static str {
    /// Its name on a command line.
    fn from(value: TransportKind) -> Self {
        match value {
            TransportKind::Modern => "modern",
            TransportKind::Legacy => "legacy",
            TransportKind::Mmio => "mmio",
            TransportKind::MmioLegacy => "mmio-legacy",
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad((*self).into())
    }
}
