//! Which device is tested, and how it is driven.

use alloc::format;
use alloc::string::String;

use crate::device::{Kind, PciFunction, transport_of};
use crate::memory::MemoryEnds;
use crate::platform::AnyPlatform;
use ballonet::balloon::BalloonPlatform;
use ballonet::pci::{Bdf, Function};
use ballonet::virtio::{DeviceHandle, TransportKind};

/// A virtio device to be tested, which no driver uses.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// Where it is. The BARs of a PCI function hold addresses.
    pub handle: DeviceHandle,
    /// Drives a transitional PCI function by its legacy interface.
    pub legacy: bool,
    /// Allows sectors of a block device to be written.
    pub writes: bool,
    /// Where memory ends; without this, hostile checks at its ends are skipped.
    pub memory: Option<MemoryEnds>,
    /// The port above a PCI function, if its slot may be used: a host unplugs the function there. Without this, checks of
    /// hot-plug are skipped.
    pub port: Option<Bdf>,
}

impl From<DeviceHandle> for Subject {
    /// By its modern interface where it has one, and without writing to a block device.
    fn from(handle: DeviceHandle) -> Self {
        Self { handle, legacy: false, writes: false, memory: None, port: None }
    }
}

impl From<Bdf> for Subject {
    fn from(function: Bdf) -> Self {
        DeviceHandle::from(function).into()
    }
}

/// What a device is, by its IDs.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// The name of its type: `balloon`, `rng`, `blk`, `console`, `net`, or `other`.
    pub name: &'static str,
    /// The number of its type.
    pub(crate) number: u16,
    /// How it is driven.
    pub transport: TransportKind,
    /// What a test writes outside the guest: a sentence without a full stop.
    pub warning: &'static str,
}

/// A device that was found and not opened.
pub(crate) struct Found {
    pub(crate) pci: Option<PciFunction>,
    pub(crate) kind: &'static Kind,
    pub(crate) identity: Identity,
}

impl Found {
    pub(crate) fn find(
        platform: &mut dyn AnyPlatform,
        subject: &Subject,
        mmio: Option<(u32, u32)>,
    ) -> Result<Self, String> {
        let address = subject.handle.address();
        let (pci, number, version) = match (subject.handle, mmio) {
            (DeviceHandle::Pci(bdf), _) => {
                let function = Function::probe(&platform.config(), bdf);
                let function = function.ok_or_else(|| format!("no function answers at {bdf}"))?;
                let pci = PciFunction::read(platform, function);
                let number = pci.device_type().ok_or_else(|| format!("{bdf} is no virtio device"))?;
                (Some(pci), u32::from(number), 0)
            }
            (_, Some((version, number))) => (None, number, version),
            _ => return Err(format!("there is no device at {address}")),
        };
        let number = u16::try_from(number).unwrap_or(0);
        let kind = Kind::of(number);
        let identity = Identity {
            name: kind.name,
            number,
            transport: transport_of(pci.as_ref(), subject.legacy, version),
            warning: kind.warning(subject.writes),
        };
        Ok(Self { pci, kind, identity })
    }
}

/// Reads what a device is. BARs of a PCI function are sized for it; of a device on MMIO nothing is written.
///
/// # Errors
/// When no virtio device is there.
pub fn identify<P: BalloonPlatform<Memory: 'static>>(platform: &mut P, subject: &Subject) -> Result<Identity, String> {
    find(platform, subject).map(|found| found.identity)
}

/// The device of a subject.
pub(crate) fn find<P: BalloonPlatform<Memory: 'static>>(platform: &mut P, subject: &Subject) -> Result<Found, String> {
    let mmio = match subject.handle {
        DeviceHandle::Mmio(device) => match device.identify(platform) {
            Ok(Some(identity)) => Some((identity.version, identity.device_type)),
            Ok(None) => return Err(format!("{} is a placeholder without a device", device.address())),
            Err(error) => return Err(format!("{error}")),
        },
        _ => None,
    };
    Found::find(platform, subject, mmio)
}
