//! The vendor capabilities of virtio over PCI, which locate a device's structures (virtio 1.4, 4.1.4).
//!
//! The list is device data. A capability with an unknown type, an unimplemented BAR, or a structure that exceeds its
//! BAR or is too small is logged and skipped; the first usable one of each type counts. If a BAR has no address, its
//! structures can be used only through configuration space ([`crate::pci::ConfigWindow`]), and only if no other
//! structure of their type can be mapped.

use core::mem::offset_of;

use alloc::vec::Vec;
use core::fmt;

use derive_more::{Display, Error};

use super::spec::{
    CapabilityType, CommonConfig, NotifyCapability, PciCapability, SharedMemoryCapability, VendorCapability,
};
use crate::bus::{OutOfMemory, RegisterWindow, heap};
use crate::pci::{self, Bar, BarError, Bars, Bdf, Capability, ConfigSpace, Function, capability::id};

/// The most bytes of a structure that are mapped; no version of the specification defines fields beyond.
const STRUCTURE_LIMIT: u32 = 4096;
/// The most bytes of doorbells that are mapped: 1024 queues with a page each, as in QEMU.
const NOTIFY_LIMIT: u32 = 4 << 20;
/// The most capabilities kept of a type that may occur several times. The list itself has room for 48.
const REPEATED_LIMIT: usize = 16;

/// The location of a structure, in an implemented BAR, however it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StructureLocation {
    /// The function.
    pub function: Bdf,
    /// The index of its BAR, 0 to 5.
    pub bar: u8,
    /// Its offset in the BAR, in bytes.
    pub offset: u32,
    /// Its usable length in bytes: not 0, and inside the BAR.
    pub length: u32,
    /// The window to map; `None` if the BAR has no address, or the structure needs no mapping.
    pub window: Option<RegisterWindow>,
}

impl fmt::Display for StructureLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { function, bar, offset, length, .. } = self;
        write!(f, "{function} BAR{bar} {offset:#x}+{length:#x}")
    }
}

/// The doorbells' location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notification {
    /// The location of all doorbells.
    pub place: StructureLocation,
    /// The factor from a queue's `queue_notify_off` to its doorbell's offset in bytes.
    #[doc(alias = "notify_off_multiplier")]
    pub multiplier: u32,
}

/// A shared memory region (4.1.4.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SharedMemory {
    /// Its number, defined by the device type.
    #[doc(alias = "shmid")]
    pub id: u8,
    /// Its location. Offset and length in the BAR have 64 bits.
    pub window: RegisterWindow,
}

/// Vendor-defined data (4.1.4.8). For debugging and reports only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VendorData {
    /// PCI vendor ID of the vendor that defines it; check it before interpreting the data.
    pub vendor: u16,
    /// The data's offset in configuration space.
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
    /// A mandatory structure is missing or unusable.
    #[display("{function} has no usable {kind} structure")]
    Missing {
        /// The function.
        function: Bdf,
        /// Which structure.
        kind: CapabilityType,
    },
    /// The structures must be reached through configuration space, and there is no window to them.
    #[display("{_0} has no usable PCI configuration access capability")]
    NoConfigAccess(#[error(not(source))] Bdf),
    /// There is no memory to record the structures.
    #[display("{_0}")]
    Memory(OutOfMemory),
}

/// The virtio structures of a function, each checked to lie in its BAR and to be large enough for its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// The common configuration, at least [`CommonConfig::SIZE`] bytes.
    pub common: StructureLocation,
    /// The doorbells.
    pub notify: Notification,
    /// The ISR byte.
    pub isr: StructureLocation,
    /// The device type's configuration, if there is one. The driver must check its size.
    pub device: Option<StructureLocation>,
    /// The complete window to BARs in configuration space. Its data register must not be read before the window is set
    /// (4.1.4.9).
    pub pci_access: Option<Capability>,
    /// Shared memory regions.
    pub shared_memory: Vec<SharedMemory>,
    /// Vendor data.
    pub vendor_data: Vec<VendorData>,
}

/// The structures found so far.
#[derive(Default)]
struct Found {
    common: Option<StructureLocation>,
    notify: Option<Notification>,
    isr: Option<StructureLocation>,
    device: Option<StructureLocation>,
    pci_access: Option<Capability>,
    shared_memory: Vec<SharedMemory>,
    vendor_data: Vec<VendorData>,
}

impl Capabilities {
    /// Reads the capabilities of `function`, whose BARs are `bars`; `None` if it has no virtio capabilities, as legacy
    /// devices.
    ///
    /// # Errors
    /// When a structure that every modern device has is missing or unusable.
    pub(crate) fn find<C: ConfigSpace>(
        config: &C,
        function: &Function,
        bars: &Bars,
    ) -> Result<Option<Self>, CapabilityError> {
        let mut found = Found::default();
        let mut broken = None;
        let mut any = false;
        for capability in function.capabilities(config) {
            match capability {
                Ok(capability) if capability.id == id::VENDOR => {
                    any = true;
                    match found.add(config, &capability, bars) {
                        Ok(()) => {}
                        Err(Skipped::Memory(error)) => return Err(CapabilityError::Memory(error)),
                        Err(skipped) => {
                            let (bdf, offset) = (function.bdf, capability.offset);
                            log::info!("{bdf}: capability at {offset:#x} skipped: {skipped}");
                        }
                    }
                }
                Ok(_) => {}
                Err(error) => broken = Some(error),
            }
        }
        if !any && broken.is_none() {
            return Ok(None);
        }
        found.complete(function.bdf, broken).map(Some)
    }

    /// The same structures, all reached through configuration space, none mapped.
    ///
    /// # Errors
    /// When there is no window to them.
    pub(crate) fn through_config(self) -> Result<Self, CapabilityError> {
        if self.pci_access.is_none() {
            return Err(CapabilityError::NoConfigAccess(self.common.function));
        }
        let unmapped = |place| StructureLocation { window: None, ..place };
        Ok(Self {
            common: unmapped(self.common),
            notify: Notification { place: unmapped(self.notify.place), ..self.notify },
            isr: unmapped(self.isr),
            device: self.device.map(unmapped),
            ..self
        })
    }

    /// The locations of the structures that a transport needs.
    pub(crate) fn places(&self) -> impl Iterator<Item = StructureLocation> {
        [self.common, self.notify.place, self.isr].into_iter().chain(self.device)
    }
}

/// Why a capability is skipped.
#[derive(Debug, Display)]
enum Skipped {
    /// It exceeds configuration space.
    #[display("{_0}")]
    Broken(pci::CapabilityError),
    /// Its type is unknown to this driver.
    #[display("unknown type {_0}")]
    UnknownType(u8),
    /// It is too short for the fields of its type.
    #[display("{length} bytes for {kind}, {needed} needed")]
    Short { kind: CapabilityType, length: u8, needed: u8 },
    /// Its BAR is reserved or not implemented.
    #[display("{kind}: {error}")]
    Bar { kind: CapabilityType, error: BarError },
    /// Its structure is outside the BAR, misaligned or too small.
    #[display("{kind} in {offset:#x}+{length:#x} of {bar}, {minimum} bytes aligned to {align} needed")]
    Outside { kind: CapabilityType, bar: Bar, offset: u64, length: u64, minimum: u64, align: u64 },
    /// There is no memory for it, which fails the whole search.
    #[display("{_0}")]
    Memory(OutOfMemory),
    /// There are many of its type already.
    #[display("more than {REPEATED_LIMIT} of type {_0}")]
    TooMany(CapabilityType),
}

impl Found {
    /// Records a capability, if it is usable.
    fn add<C: ConfigSpace>(&mut self, config: &C, capability: &Capability, bars: &Bars) -> Result<(), Skipped> {
        let (length, number) = capability.vendor_header(config).map_err(Skipped::Broken)?;
        let kind = CapabilityType::from_register(number).ok_or(Skipped::UnknownType(number))?;
        let needed = kind.capability_size();
        if length < needed {
            return Err(Skipped::Short { kind, length, needed });
        }
        let entry = Entry { kind, capability, bars };
        match kind {
            CapabilityType::Common => {
                prefer(&mut self.common, entry.place(config, CommonConfig::SIZE as u64, 4)?, |it| *it);
            }
            CapabilityType::Notify => prefer(&mut self.notify, entry.notification(config)?, |it| it.place),
            CapabilityType::Isr => prefer(&mut self.isr, entry.place(config, 1, 1)?, |it| *it),
            CapabilityType::Device => prefer(&mut self.device, entry.place(config, 1, 4)?, |it| *it),
            CapabilityType::PciAccess => self.pci_access = self.pci_access.or(Some(*capability)),
            CapabilityType::SharedMemory if self.shared_memory.len() < REPEATED_LIMIT => {
                heap::push(&mut self.shared_memory, entry.shared_memory(config)?).map_err(Skipped::Memory)?;
            }
            CapabilityType::Vendor if self.vendor_data.len() < REPEATED_LIMIT => {
                let vendor =
                    capability.read16(config, offset_of!(VendorCapability, vendor_id)).map_err(Skipped::Broken)?;
                let offset = capability.offset + u16::from(needed);
                let data = VendorData { vendor, offset, length: length - needed };
                heap::push(&mut self.vendor_data, data).map_err(Skipped::Memory)?;
            }
            CapabilityType::SharedMemory | CapabilityType::Vendor => return Err(Skipped::TooMany(kind)),
        }
        Ok(())
    }

    fn complete(self, function: Bdf, broken: Option<pci::CapabilityError>) -> Result<Capabilities, CapabilityError> {
        // A missing structure may have been behind the break.
        let missing = |kind| broken.map_or(CapabilityError::Missing { function, kind }, CapabilityError::List);
        let reached = |place: &StructureLocation| place.window.is_some() || self.pci_access.is_some();
        Ok(Capabilities {
            common: self.common.filter(reached).ok_or_else(|| missing(CapabilityType::Common))?,
            notify: self.notify.filter(|it| reached(&it.place)).ok_or_else(|| missing(CapabilityType::Notify))?,
            isr: self.isr.filter(reached).ok_or_else(|| missing(CapabilityType::Isr))?,
            device: self.device.filter(reached),
            pci_access: self.pci_access,
            shared_memory: self.shared_memory,
            vendor_data: self.vendor_data,
        })
    }
}

/// Fills `slot`, unless an earlier capability did; a mappable structure replaces one that is not.
fn prefer<T>(slot: &mut Option<T>, new: T, place: impl Fn(&T) -> StructureLocation) {
    let mapped = |it: &T| place(it).window.is_some();
    if slot.as_ref().is_none_or(|old| mapped(&new) && !mapped(old)) {
        *slot = Some(new);
    }
}

/// A capability with all the fields of its type.
struct Entry<'a> {
    kind: CapabilityType,
    capability: &'a Capability,
    bars: &'a Bars,
}

impl Entry<'_> {
    fn read8<C: ConfigSpace>(&self, config: &C, at: usize) -> Result<u8, Skipped> {
        self.capability.read8(config, at).map_err(Skipped::Broken)
    }

    fn read32<C: ConfigSpace>(&self, config: &C, at: usize) -> Result<u32, Skipped> {
        self.capability.read32(config, at).map_err(Skipped::Broken)
    }

    /// The BAR. Indices above 5 are reserved and fail.
    fn bar<C: ConfigSpace>(&self, config: &C) -> Result<&Bar, Skipped> {
        let bar = self.read8(config, offset_of!(PciCapability, bar))?;
        self.bars.get(bar).map_err(|error| Skipped::Bar { kind: self.kind, error })
    }

    /// The location of an ordinary structure.
    fn place<C: ConfigSpace>(&self, config: &C, minimum: u64, align: u64) -> Result<StructureLocation, Skipped> {
        self.place_within(config, minimum, align, STRUCTURE_LIMIT)
    }

    /// The location of a structure: at most `limit` bytes, cut at the BAR's end.
    ///
    /// A structure may be longer than any driver needs (4.1.4), so only the needed part must be in the BAR.
    fn place_within<C: ConfigSpace>(
        &self,
        config: &C,
        minimum: u64,
        align: u64,
        limit: u32,
    ) -> Result<StructureLocation, Skipped> {
        let offset = self.read32(config, offset_of!(PciCapability, offset))?;
        let length = self.read32(config, offset_of!(PciCapability, length))?;
        let bar = self.bar(config)?;
        let room = bar.size.saturating_sub(offset.into());
        let usable = u64::from(length.min(limit)).min(room);
        if usable < minimum || u64::from(offset) % align != 0 {
            let (kind, offset, length) = (self.kind, offset.into(), length.into());
            return Err(Skipped::Outside { kind, bar: *bar, offset, length, minimum, align });
        }
        let window = bar.window(offset.into(), usable).ok();
        // At most the length that was read, which has 32 bits.
        Ok(StructureLocation { function: bar.function, bar: bar.index, offset, length: usable as u32, window })
    }

    fn notification<C: ConfigSpace>(&self, config: &C) -> Result<Notification, Skipped> {
        let multiplier = self.read32(config, offset_of!(NotifyCapability, notify_off_multiplier))?;
        Ok(Notification { place: self.place_within(config, 2, 2, NOTIFY_LIMIT)?, multiplier })
    }

    fn shared_memory<C: ConfigSpace>(&self, config: &C) -> Result<SharedMemory, Skipped> {
        let read64 = |low: usize, high: usize| -> Result<u64, Skipped> {
            Ok(u64::from(self.read32(config, high)?) << 32 | u64::from(self.read32(config, low)?))
        };
        let offset = read64(offset_of!(PciCapability, offset), offset_of!(SharedMemoryCapability, offset_hi))?;
        let length = read64(offset_of!(PciCapability, length), offset_of!(SharedMemoryCapability, length_hi))?;
        let id = self.read8(config, offset_of!(PciCapability, id))?;
        let bar = self.bar(config)?;
        // The whole region must be inside the BAR and mapped: unlike a structure, it has no optional end.
        let window = bar.window(offset, length);
        let outside = Skipped::Outside { kind: self.kind, bar: *bar, offset, length, minimum: length, align: 1 };
        window.map(|window| SharedMemory { id, window }).map_err(|_| outside)
    }
}

#[cfg(test)]
mod tests;
