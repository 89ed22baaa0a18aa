//! ACPI tables: found, verified, and parsed into values (ACPI specification 6.5).
//!
//! The tables are read through [`PhysicalMemory`] and copied, so nothing here keeps a pointer into firmware's memory.
//! Firmware is often wrong: a damaged table is reported as a `Problem` and skipped, and the rest are used. Work and
//! memory are bounded whatever the tables say. There is no AML interpreter.

#![forbid(unsafe_code)]

mod address;
mod dimms;
mod events;
mod fadt;
#[cfg(test)]
mod fake;
mod host_bridge;
mod hpet;
mod interrupt;
mod madt;
mod mcfg;
mod mmio_devices;
mod problem;
mod rsdp;
mod serial_port;
mod sleep;
mod srat;
mod table;
mod tables;

use alloc::vec::Vec;

pub(crate) use address::{AddressSpace, GenericAddress};
pub(crate) use dimms::Dimm;
pub use dimms::DimmSlots;
pub(crate) use events::{EventBlock, Events, Happened};
pub(crate) use fadt::{BootFlags, Fadt, FadtFlags, Pm1Event, PmTimer, ResetRegister};
pub use host_bridge::HostBridge;
pub(crate) use hpet::Hpet;
pub(crate) use interrupt::{InterruptRoute, Polarity, Signalling, Trigger};
pub(crate) use madt::{Interrupts, IoApic, LocalNmi, Madt, NmiTarget, Processor, ProcessorState, SourceOverride};
pub(crate) use mcfg::{EcamRegion, Mcfg};
pub(crate) use problem::{EntryFlaw, Flaw, Problem};
pub use rsdp::Rsdp;
pub(crate) use rsdp::RsdpError;
pub(crate) use serial_port::PortInterrupt;
pub use serial_port::SerialPort;
pub(crate) use sleep::SleepType;
pub(crate) use srat::Srat;
pub(crate) use table::{Header, Signature, TableError, Text};
pub(crate) use tables::TableInfo;
pub use tables::{TableState, Tables};

use crate::boot::PhysicalMemory;
use ballonet::memory::PhysAddr;
use ballonet::virtio::MmioDevice;

/// What the ACPI tables say about the machine. A missing or unusable table is `None`.
#[derive(Debug, Clone)]
pub struct Acpi {
    /// The root pointer.
    pub rsdp: Rsdp,
    /// Every table that was found, usable or not.
    pub tables: Tables,
    /// Interrupt controllers and processors.
    pub(crate) madt: Option<Madt>,
    /// The address of PCI configuration space.
    pub(crate) mcfg: Option<Mcfg>,
    /// Fixed hardware: power management, reset, and which legacy devices exist.
    pub(crate) fadt: Option<Fadt>,
    /// The address ranges for memory.
    pub(crate) srat: Option<Srat>,
    /// The event timer.
    pub(crate) hpet: Option<Hpet>,
    /// The value that powers the machine off (`\_S5`).
    pub(crate) soft_off: Option<SleepType>,
    /// What the PCI host bridge forwards, if AML gives that as constants.
    pub host_bridge: Option<HostBridge>,
    /// The virtio-mmio devices of the DSDT and the SSDTs.
    pub(crate) mmio_devices: Vec<MmioDevice>,
    /// Problems, in the order in which they were found.
    pub problems: Vec<Problem>,
}

impl Acpi {
    /// Reads all tables below the root pointer at `rsdp`.
    ///
    /// # Errors
    /// When there is no valid root pointer. All other problems are in [`Acpi::problems`].
    pub fn read(memory: &impl PhysicalMemory, rsdp: PhysAddr) -> Result<Self, RsdpError> {
        Rsdp::read(memory, rsdp).map(|rsdp| Self::follow(memory, rsdp))
    }

    /// Reads all tables below a root pointer. Problems are in [`Acpi::problems`].
    pub(crate) fn follow(memory: &impl PhysicalMemory, rsdp: Rsdp) -> Self {
        let mut problems = Vec::new();
        let mut tables = Tables::read(memory, &rsdp, &mut problems);
        let fadt = tables.parse(memory, Signature::FADT, Fadt::parse, &mut problems);
        if let Some(dsdt) = fadt.as_ref().and_then(|fadt| fadt.dsdt) {
            tables.add(memory, dsdt.as_u64(), Some(Signature::DSDT), &mut problems);
        }
        let madt = tables.parse(memory, Signature::MADT, Madt::parse, &mut problems);
        let mcfg = tables.parse(memory, Signature::MCFG, Mcfg::parse, &mut problems);
        let hpet = tables.parse(memory, Signature::HPET, Hpet::parse, &mut problems);
        let srat = tables.parse(memory, Signature::SRAT, Srat::parse, &mut problems);
        let flaws = madt.iter().flat_map(|madt| &madt.flaws).chain(mcfg.iter().flat_map(|mcfg| &mcfg.flaws));
        let flaws = flaws.chain(srat.iter().flat_map(|srat| &srat.flaws));
        problems.extend(flaws.copied().map(Problem::Entry));
        let soft_off = sleep::find_soft_off(memory, &tables);
        let host_bridge = host_bridge::find(memory, &tables);
        let mmio_devices = mmio_devices::find(memory, &tables);
        Self { rsdp, tables, madt, mcfg, fadt, srat, hpet, soft_off, host_bridge, mmio_devices, problems }
    }
}

#[cfg(test)]
mod tests;
