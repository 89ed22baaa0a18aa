//! Where a device keeps its virtio structures: the vendor capabilities of virtio over PCI (virtio 1.4, 4.1.4).
//!
//! The list is device data. A capability of an unknown type, of a BAR that is not there, or with a window that leaves
//! its BAR or is too small, is as if it were not there; of several of one type the first that can be used counts.

use alloc::vec::Vec;

use derive_more::{Display, Error};

use super::spec::{CapabilityType, cap, common};
use crate::pci::{self, BarWindow, Bars, Bdf, Capability, ConfigSpace, Function, capability::id};

/// The most of a structure that is mapped; the rest of longer ones means nothing to any version of the specification.
const STRUCTURE_LIMIT: u64 = 4096;
/// The most of the doorbells: 1024 queues with a page each, as QEMU has them.
const NOTIFY_LIMIT: u64 = 4 << 20;
/// How many capabilities of a type that may come several times are kept. The list itself has room for 48.
const REPEATED_LIMIT: usize = 16;

/// Where the doorbells are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    /// All of them.
    pub window: BarWindow,
    /// What a queue's `queue_notify_off` is multiplied by to give its doorbell's offset in bytes.
    #[doc(alias = "notify_off_multiplier")]
    pub multiplier: u32,
}

/// A shared memory region (4.1.4.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedMemory {
    /// Which one, by the device type's count.
    #[doc(alias = "shmid")]
    pub id: u8,
    /// Where it is. Its offset and length in the BAR have 64 bits.
    pub window: BarWindow,
}

/// Data that means something to the device's vendor (4.1.4.8). For debugging and reports only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VendorData {
    /// PCI vendor ID of who gives it its meaning, to be checked before anything is made of it.
    pub vendor: u16,
    /// Where the data is in configuration space.
    pub offset: u16,
    /// Its length in bytes.
    pub length: u8,
}

/// Why a function has no modern virtio interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum CapabilityError {
    /// The list breaks off before all the structures that a driver needs were found.
    #[display("{_0}")]
    List(pci::CapabilityError),
    /// There is no usable structure of a kind that has to be there.
    #[display("{function} has no usable {kind} structure")]
    Missing {
        /// The function.
        function: Bdf,
        /// Which structure.
        kind: CapabilityType,
    },
}

/// The virtio structures of a function, each checked to lie in its BAR and to be large enough for its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The common configuration, at least [`common::SIZE`] bytes.
    pub common: BarWindow,
    /// The doorbells.
    pub notify: Notification,
    /// The ISR byte.
    pub isr: BarWindow,
    /// The device type's configuration, if there is one. Its size is for the driver to check.
    pub device: Option<BarWindow>,
    /// The window to BARs in configuration space. It must not be read before it points somewhere (4.1.4.9).
    pub pci_access: Option<Capability>,
    /// Shared memory regions.
    pub shared_memory: Vec<SharedMemory>,
    /// Vendor data.
    pub vendor_data: Vec<VendorData>,
}

/// What has been found so far.
#[derive(Default)]
struct Found {
    common: Option<BarWindow>,
    notify: Option<Notification>,
    isr: Option<BarWindow>,
    device: Option<BarWindow>,
    pci_access: Option<Capability>,
    shared_memory: Vec<SharedMemory>,
    vendor_data: Vec<VendorData>,
}

impl Capabilities {
    /// Reads the capabilities of `function`, whose BARs are `bars`; `None` if it has none that are virtio's, as legacy
    /// devices do.
    ///
    /// # Errors
    /// When one of the structures that every modern device has is missing or cannot be used.
    pub fn find<C: ConfigSpace>(config: &C, function: &Function, bars: &Bars) -> Result<Option<Self>, CapabilityError> {
        let mut found = Found::default();
        let mut broken = None;
        let mut any = false;
        for capability in function.capabilities(config) {
            match capability {
                Ok(capability) if capability.id() == id::VENDOR => {
                    any = true;
                    // One that leaves configuration space is skipped like any other that cannot be used.
                    let _ = found.add(config, &capability, bars);
                }
                Ok(_) => {}
                Err(error) => broken = Some(error),
            }
        }
        if !any && broken.is_none() {
            return Ok(None);
        }
        found.complete(function.bdf(), broken).map(Some)
    }
}

impl Found {
    /// Takes note of a capability, if it can be used and is the first of its type.
    fn add<C: ConfigSpace>(
        &mut self,
        config: &C,
        capability: &Capability,
        bars: &Bars,
    ) -> Result<(), pci::CapabilityError> {
        let length = capability.vendor_length(config)?;
        let Some(kind) = CapabilityType::from_register(capability.read8(config, cap::TYPE as u8)?) else {
            return Ok(());
        };
        if length < needed(kind) {
            return Ok(());
        }
        match kind {
            CapabilityType::Common => {
                let window = || structure(config, capability, bars, common::SIZE as u64, 4);
                first(&mut self.common, window)?;
            }
            CapabilityType::Notify => first(&mut self.notify, || notification(config, capability, bars))?,
            CapabilityType::Isr => first(&mut self.isr, || structure(config, capability, bars, 1, 1))?,
            CapabilityType::Device => first(&mut self.device, || structure(config, capability, bars, 1, 4))?,
            CapabilityType::PciAccess => first(&mut self.pci_access, || Ok(Some(*capability)))?,
            CapabilityType::SharedMemory if self.shared_memory.len() < REPEATED_LIMIT => {
                self.shared_memory.extend(shared_memory(config, capability, bars)?);
            }
            CapabilityType::Vendor if self.vendor_data.len() < REPEATED_LIMIT => {
                let vendor = capability.read16(config, cap::VENDOR_ID as u8)?;
                let offset = capability.offset() + u16::from(cap::VENDOR_SIZE);
                self.vendor_data.push(VendorData { vendor, offset, length: length - cap::VENDOR_SIZE });
            }
            CapabilityType::SharedMemory | CapabilityType::Vendor => {}
        }
        Ok(())
    }

    fn complete(self, function: Bdf, broken: Option<pci::CapabilityError>) -> Result<Capabilities, CapabilityError> {
        // What is missing may have been behind the break.
        let missing = |kind| broken.map_or(CapabilityError::Missing { function, kind }, CapabilityError::List);
        Ok(Capabilities {
            common: self.common.ok_or_else(|| missing(CapabilityType::Common))?,
            notify: self.notify.ok_or_else(|| missing(CapabilityType::Notify))?,
            isr: self.isr.ok_or_else(|| missing(CapabilityType::Isr))?,
            device: self.device,
            pci_access: self.pci_access,
            shared_memory: self.shared_memory,
            vendor_data: self.vendor_data,
        })
    }
}

/// Fills `slot` by `read`, unless an earlier capability has.
fn first<T>(
    slot: &mut Option<T>,
    read: impl FnOnce() -> Result<Option<T>, pci::CapabilityError>,
) -> Result<(), pci::CapabilityError> {
    if slot.is_none() {
        *slot = read()?;
    }
    Ok(())
}

/// How long a capability of a type has to be at least. Longer ones come from later specifications and are fine.
const fn needed(kind: CapabilityType) -> u8 {
    match kind {
        CapabilityType::Common | CapabilityType::Isr | CapabilityType::Device => cap::SIZE,
        CapabilityType::Notify | CapabilityType::PciAccess => cap::SIZE + 4,
        CapabilityType::SharedMemory => cap::SIZE + 8,
        CapabilityType::Vendor => cap::VENDOR_SIZE,
    }
}

/// The window of an ordinary structure: `None` unless at least `minimum` bytes of it lie in its BAR, aligned.
fn structure<C: ConfigSpace>(
    config: &C,
    capability: &Capability,
    bars: &Bars,
    minimum: u64,
    align: u64,
) -> Result<Option<BarWindow>, pci::CapabilityError> {
    let offset = capability.read32(config, cap::BAR_OFFSET as u8)?;
    let length = capability.read32(config, cap::BAR_LENGTH as u8)?;
    let bar = capability.read8(config, cap::BAR as u8)?;
    Ok(window(bars, bar, offset.into(), length.into(), minimum, align, STRUCTURE_LIMIT))
}

fn notification<C: ConfigSpace>(
    config: &C,
    capability: &Capability,
    bars: &Bars,
) -> Result<Option<Notification>, pci::CapabilityError> {
    let offset = capability.read32(config, cap::BAR_OFFSET as u8)?;
    let length = capability.read32(config, cap::BAR_LENGTH as u8)?;
    let bar = capability.read8(config, cap::BAR as u8)?;
    let multiplier = capability.read32(config, cap::NOTIFY_MULTIPLIER as u8)?;
    let window = window(bars, bar, offset.into(), length.into(), 2, 2, NOTIFY_LIMIT);
    Ok(window.map(|window| Notification { window, multiplier }))
}

fn shared_memory<C: ConfigSpace>(
    config: &C,
    capability: &Capability,
    bars: &Bars,
) -> Result<Option<SharedMemory>, pci::CapabilityError> {
    let read64 = |low: u16, high: u16| -> Result<u64, pci::CapabilityError> {
        let low = capability.read32(config, low as u8)?;
        let high = capability.read32(config, high as u8)?;
        Ok(u64::from(high) << 32 | u64::from(low))
    };
    let offset = read64(cap::BAR_OFFSET, cap::BAR_OFFSET_HIGH)?;
    let length = read64(cap::BAR_LENGTH, cap::BAR_LENGTH_HIGH)?;
    let bar = capability.read8(config, cap::BAR as u8)?;
    let id = capability.read8(config, cap::ID as u8)?;
    // All of the region has to be there: unlike a structure it has no parts that nobody needs.
    let window = bars.get(bar).ok().and_then(|bar| bar.window(offset, length).ok());
    Ok(window.map(|window| SharedMemory { id, window }))
}

/// The part of a BAR that a structure is in: at most `limit` bytes and no further than the BAR goes.
///
/// A structure may be longer than any driver needs (4.1.4), so that only the needed part has to be in the BAR.
fn window(bars: &Bars, bar: u8, offset: u64, length: u64, minimum: u64, align: u64, limit: u64) -> Option<BarWindow> {
    // Indices above 5 are reserved; `get` knows none.
    let bar = bars.get(bar).ok()?;
    let room = bar.size().checked_sub(offset)?;
    let length = length.min(room).min(limit);
    if length < minimum || !offset.is_multiple_of(align) {
        return None;
    }
    bar.window(offset, length).ok()
}

#[cfg(test)]
mod tests;
