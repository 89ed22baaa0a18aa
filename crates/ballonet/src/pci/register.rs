//! The registers of configuration headers: offsets and bits.
//!
//! Offsets are in bytes. Section numbers refer to PCI Local Bus 3.0, chapter 6, and PCI-to-PCI Bridge 1.2, chapter 3.

use bitflags::bitflags;

/// Vendor ID, 16 bits; all ones if no function responds.
#[doc(alias = "PCI_VENDOR_ID")]
pub(crate) const VENDOR_ID: u16 = 0x00;
/// [`Command`], 16 bits.
#[doc(alias = "PCI_COMMAND")]
pub(crate) const COMMAND: u16 = 0x04;
/// [`Status`], 16 bits.
#[doc(alias = "PCI_STATUS")]
pub(crate) const STATUS: u16 = 0x06;
/// Revision in the low byte, class code in the three above it; 32 bits.
#[doc(alias = "PCI_CLASS_REVISION")]
pub(crate) const CLASS_REVISION: u16 = 0x08;
/// Header type, 8 bits: the layout, and bit 7 for several functions.
#[doc(alias = "PCI_HEADER_TYPE")]
pub(crate) const HEADER_TYPE: u16 = 0x0E;
/// The first base address register, 32 bits; the others follow.
#[doc(alias = "PCI_BASE_ADDRESS_0")]
pub(super) const BASE_ADDRESS_0: u16 = 0x10;
/// Subsystem vendor ID, 16 bits, and subsystem ID above it; type 0 headers.
#[doc(alias = "PCI_SUBSYSTEM_VENDOR_ID")]
pub(crate) const SUBSYSTEM_VENDOR_ID: u16 = 0x2C;
/// Offset of the first capability, 8 bits; type 0 and 1 headers.
#[doc(alias = "PCI_CAPABILITY_LIST")]
pub(crate) const CAPABILITIES: u16 = 0x34;
/// Offset of the first capability, 8 bits; CardBus bridges.
#[doc(alias = "PCI_CB_CAPABILITY_LIST")]
pub(crate) const CARDBUS_CAPABILITIES: u16 = 0x14;
/// Interrupt line, 8 bits: firmware's note for legacy systems.
#[doc(alias = "PCI_INTERRUPT_LINE")]
pub(crate) const INTERRUPT_LINE: u16 = 0x3C;

/// Primary, secondary and subordinate bus number and the secondary latency timer, a byte each; type 1 headers.
#[doc(alias = "PCI_PRIMARY_BUS")]
pub(crate) const BUS_NUMBERS: u16 = 0x18;
/// I/O base and limit, a byte each. The 16 bits above are the secondary status; writing ones clears its bits.
#[doc(alias = "PCI_IO_BASE")]
pub(crate) const IO_BASE_LIMIT: u16 = 0x1C;
/// Memory base and limit, 16 bits each.
#[doc(alias = "PCI_MEMORY_BASE")]
pub(crate) const MEMORY_BASE_LIMIT: u16 = 0x20;
/// Prefetchable memory base and limit, 16 bits each.
#[doc(alias = "PCI_PREF_MEMORY_BASE")]
pub(crate) const PREFETCHABLE_BASE_LIMIT: u16 = 0x24;
/// Upper 32 bits of the prefetchable base.
#[doc(alias = "PCI_PREF_BASE_UPPER32")]
pub(crate) const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
/// Upper 32 bits of the prefetchable limit.
#[doc(alias = "PCI_PREF_LIMIT_UPPER32")]
pub(crate) const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2C;
/// Upper 16 bits of the I/O base, and of the I/O limit above them.
#[doc(alias = "PCI_IO_BASE_UPPER16")]
pub(crate) const IO_BASE_LIMIT_UPPER: u16 = 0x30;

bitflags! {
    /// The command register (6.2.2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Command: u16 {
        /// I/O BARs and windows are decoded.
        #[doc(alias = "PCI_COMMAND_IO")]
        const IO = 1 << 0;
        /// Memory BARs and windows are decoded.
        #[doc(alias = "PCI_COMMAND_MEMORY")]
        const MEMORY = 1 << 1;
        /// The function may access memory and send message-signalled interrupts; a bridge forwards these.
        #[doc(alias = "PCI_COMMAND_MASTER")]
        const BUS_MASTER = 1 << 2;
        /// Special cycles are watched.
        const SPECIAL_CYCLES = 1 << 3;
        /// Memory Write and Invalidate may be used.
        const MEMORY_WRITE_INVALIDATE = 1 << 4;
        /// Palette writes are snooped.
        const VGA_PALETTE_SNOOP = 1 << 5;
        /// Parity errors are acted on.
        const PARITY_ERROR_RESPONSE = 1 << 6;
        /// SERR# may be driven.
        const SERR = 1 << 8;
        /// Fast back-to-back writes to different devices are allowed.
        const FAST_BACK_TO_BACK = 1 << 9;
        /// INTx is not asserted.
        #[doc(alias = "PCI_COMMAND_INTX_DISABLE")]
        const INTX_DISABLE = 1 << 10;
        // Unnamed bits are preserved.
        const _ = !0;
    }

    /// The status register (6.2.3). Writing 1 clears an error bit; the other bits are read-only.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Status: u16 {
        /// An INTx interrupt is pending.
        #[doc(alias = "PCI_STATUS_INTERRUPT")]
        const INTERRUPT = 1 << 3;
        /// There is a capability list.
        #[doc(alias = "PCI_STATUS_CAP_LIST")]
        const CAPABILITY_LIST = 1 << 4;
        /// Runs at 66 MHz.
        const MHZ_66 = 1 << 5;
        /// Takes fast back-to-back transactions.
        const FAST_BACK_TO_BACK = 1 << 7;
        /// A parity error was detected as master.
        const MASTER_DATA_PARITY_ERROR = 1 << 8;
        /// A target abort was signalled.
        const SIGNALED_TARGET_ABORT = 1 << 11;
        /// A target abort was received.
        const RECEIVED_TARGET_ABORT = 1 << 12;
        /// A master abort was received.
        const RECEIVED_MASTER_ABORT = 1 << 13;
        /// SERR# was driven.
        const SIGNALED_SYSTEM_ERROR = 1 << 14;
        /// A parity error was detected.
        const DETECTED_PARITY_ERROR = 1 << 15;
        // DEVSEL timing and reserved bits.
        const _ = !0;
    }
}

impl Status {
    /// The write-1-to-clear bits. Any 32-bit write at [`COMMAND`] would also write them.
    #[cfg(test)]
    pub(crate) const WRITE_ONE_TO_CLEAR: Self = Self::MASTER_DATA_PARITY_ERROR
        .union(Self::SIGNALED_TARGET_ABORT)
        .union(Self::RECEIVED_TARGET_ABORT)
        .union(Self::RECEIVED_MASTER_ABORT)
        .union(Self::SIGNALED_SYSTEM_ERROR)
        .union(Self::DETECTED_PARITY_ERROR);
}
