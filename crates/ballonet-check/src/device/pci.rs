//! The device as its configuration space describes it: IDs, BARs, capabilities. Nothing is mapped or driven yet.

use core::mem::offset_of;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::platform::AnyPlatform;
use crate::verdict::{Verdict, fail};
use ballonet::pci::capability::id;
use ballonet::pci::{Bars, Capability, CapabilityError, ConfigSpace, Function, Msix};
use ballonet::platform::RegisterWindow;
use ballonet::virtio::spec::{CapabilityType, NotifyCapability, PciCapability, SharedMemoryCapability};

use super::kind::{KINDS, Kind};

/// The vendor of every virtio function (4.1.2).
const VENDOR: u16 = 0x1af4;

/// MSI-X message control, from the capability's start, and the bit that turns MSI-X on (PCI 3.0, 6.8.2.3).
pub(crate) const MSIX_CONTROL: u16 = 2;
pub(crate) const MSIX_ENABLE: u16 = 1 << 15;

/// The most of a structure that is mapped.
const STRUCTURE_LIMIT: u64 = 4096;
/// The most of the doorbells.
const NOTIFY_LIMIT: u64 = 4 << 20;

/// A virtio capability as it is in configuration space, right or wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Structure {
    pub(crate) capability: Capability,
    pub(crate) kind: CapabilityType,
    /// Its length byte.
    pub(crate) capability_length: u8,
    pub(crate) bar: u8,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// The word after the structure's own fields: the notify multiplier.
    pub(crate) extra: u32,
}

impl Structure {
    /// The required alignment of its offset (4.1.4.3 to 4.1.4.6).
    pub(crate) const fn align(&self) -> u64 {
        match self.kind {
            CapabilityType::Common | CapabilityType::Device => 4,
            CapabilityType::Notify => 2,
            _ => 1,
        }
    }

    /// Whether it names a place in a BAR.
    pub(crate) const fn has_place(&self) -> bool {
        !matches!(self.kind, CapabilityType::PciAccess | CapabilityType::Vendor)
    }
}

/// The function.
pub(crate) struct PciFunction {
    pub(crate) function: Function,
    pub(crate) bars: Bars,
    /// Its virtio capabilities, in the order of the list.
    pub(crate) structures: Vec<Structure>,
    /// What is wrong with the list.
    pub(crate) broken: Option<CapabilityError>,
    pub(crate) msix: Option<Msix>,
    /// Whether it has an MSI-X capability, and what is wrong with it.
    pub(crate) has_msix: bool,
    pub(crate) msix_error: Option<String>,
}

impl PciFunction {
    pub(crate) fn read(platform: &mut dyn AnyPlatform, function: Function) -> Self {
        let bars = Bars::size(&mut platform.config(), &function);
        let mut structures = Vec::new();
        let mut broken = None;
        let config = &platform.config();
        for capability in function.capabilities(config) {
            match capability {
                Ok(capability) if capability.id == id::VENDOR => match structure(config, capability) {
                    Ok(structure) => structures.extend(structure),
                    Err(error) => broken = broken.or(Some(error)),
                },
                Ok(_) => {}
                Err(error) => broken = broken.or(Some(error)),
            }
        }
        let has_msix = matches!(function.capability(config, id::MSI_X), Ok(Some(_)));
        let (msix, msix_error) = match Msix::find(config, &function, &bars) {
            Ok(msix) => (msix, None),
            Err(error) => (None, Some(format!("{error}"))),
        };
        Self { function, bars, structures, broken, msix, has_msix, msix_error }
    }

    /// The number of the virtio device type that its IDs stand for, if they do (4.1.2).
    pub(crate) fn device_type(&self) -> Option<u16> {
        match (self.function.vendor, self.function.device) {
            (VENDOR, device @ 0x1040..=0x107f) => Some(device - 0x1040),
            (VENDOR, 0x1000..=0x103f) => {
                let by_device = |kind: &&Kind| kind.transitional == self.function.device;
                let subsystem = self.function.subsystem.map(|subsystem| subsystem.device);
                KINDS.iter().find(by_device).map(|kind| kind.number).or(subsystem)
            }
            _ => None,
        }
    }

    /// Whether by its IDs it may have a legacy interface (4.1.2.3).
    pub(crate) fn may_be_legacy(&self) -> bool {
        self.function.vendor == VENDOR && (0x1000..=0x103f).contains(&self.function.device)
    }

    /// Whether it has a structure of this kind.
    pub(crate) fn has(&self, kind: CapabilityType) -> bool {
        self.structures.iter().any(|structure| structure.kind == kind)
    }

    /// Where the first usable structure of a kind is: at least `minimum` bytes of it in its BAR.
    pub(crate) fn window(&self, kind: CapabilityType, minimum: u64) -> Verdict<RegisterWindow> {
        let mut reason = String::from("there is none");
        for structure in self.structures.iter().filter(|structure| structure.kind == kind) {
            match self.window_of(structure, minimum) {
                Ok(window) => return Ok(window),
                Err(error) => reason = error,
            }
        }
        fail!("no usable {kind} structure: {reason}");
    }

    fn window_of(&self, structure: &Structure, minimum: u64) -> Result<RegisterWindow, String> {
        let bar = self.bars.get(structure.bar).map_err(|error| format!("{error}"))?;
        let limit = if structure.kind == CapabilityType::Notify { NOTIFY_LIMIT } else { STRUCTURE_LIMIT };
        let room = bar.size.saturating_sub(structure.offset);
        let length = structure.length.min(room).min(limit);
        if length < minimum {
            return Err(format!("{length} bytes of it lie in BAR{}, {minimum} are needed", structure.bar));
        }
        if !structure.offset.is_multiple_of(structure.align()) {
            return Err(format!("its offset {:#x} is not aligned to {}", structure.offset, structure.align()));
        }
        bar.window(structure.offset, length).map_err(|error| format!("{error}"))
    }

    /// The multiplier of the notify capability.
    pub(crate) fn multiplier(&self) -> u32 {
        let notify = self.structures.iter().find(|structure| structure.kind == CapabilityType::Notify);
        notify.map_or(0, |structure| structure.extra)
    }

    /// The window to BARs in configuration space.
    pub(crate) fn access(&self) -> Option<Capability> {
        let access = self.structures.iter().find(|structure| structure.kind == CapabilityType::PciAccess);
        access.map(|structure| structure.capability)
    }
}

/// What a vendor capability says; `None` for unknown types.
fn structure<C: ConfigSpace>(config: &C, capability: Capability) -> Result<Option<Structure>, CapabilityError> {
    let Some(kind) = CapabilityType::from_register(capability.read8(config, offset_of!(PciCapability, cfg_type))?)
    else {
        return Ok(None);
    };
    let capability_length = capability.read8(config, offset_of!(PciCapability, cap_len))?;
    if kind == CapabilityType::Vendor {
        let none = Structure { capability, kind, capability_length, bar: 0, offset: 0, length: 0, extra: 0 };
        return Ok(Some(none));
    }
    let mut structure = Structure {
        capability,
        kind,
        capability_length,
        bar: capability.read8(config, offset_of!(PciCapability, bar))?,
        offset: capability.read32(config, offset_of!(PciCapability, offset))?.into(),
        length: capability.read32(config, offset_of!(PciCapability, length))?.into(),
        extra: 0,
    };
    match kind {
        CapabilityType::Notify => {
            structure.extra = capability.read32(config, offset_of!(NotifyCapability, notify_off_multiplier))?;
        }
        CapabilityType::SharedMemory => {
            let read32 = |at| capability.read32(config, at).map(u64::from);
            structure.offset |= read32(offset_of!(SharedMemoryCapability, offset_hi))? << 32;
            structure.length |= read32(offset_of!(SharedMemoryCapability, length_hi))? << 32;
        }
        _ => {}
    }
    Ok(Some(structure))
}
