//! Virtio-mmio devices, announced by ACPI and the command line, and what is really there.

use core::fmt;

use alloc::vec::Vec;

use crate::acpi::{InterruptRoute, Signalling};
use crate::boot::MmioArgument;
use crate::machine::Machine;
use ballonet::platform::WiredInterrupt;
use ballonet::virtio::spec::{DeviceType, mmio};
use ballonet::virtio::{DeviceHandle, MmioDevice, MmioIdentity};
use log::{info, warn};

/// Number of ISA interrupts: firmware's tables give their inputs.
const ISA_INTERRUPTS: u32 = 16;

/// A virtio-mmio device found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MmioFound {
    device: MmioDevice,
    identity: MmioIdentity,
}

impl MmioFound {
    /// Whether it is a device of this type.
    pub(crate) fn is(&self, device_type: DeviceType) -> bool {
        self.identity.device_type == u32::from(device_type.number)
    }

    /// The handle that opens it.
    pub(crate) fn handle(&self) -> DeviceHandle {
        self.device.into()
    }
}

/// A line of a listing.
impl fmt::Display for MmioFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, identity: MmioIdentity { version, device_type } } = self;
        write!(f, "{} virtio device type {device_type}", device.address())?;
        if let Some((name, _)) = NAMES.iter().find(|(_, known)| self.is(*known)) {
            write!(f, " ({name})")?;
        }
        let legacy = if *version == mmio::VERSION_LEGACY { ", legacy" } else { "" };
        write!(f, ", version {version}{legacy}, {device}")
    }
}

const NAMES: [(&str, DeviceType); 2] = [("balloon", DeviceType::BALLOON), ("entropy", DeviceType::ENTROPY)];

/// Checks every device that ACPI or the command line announces, once each, and lists those found. Placeholders, of
/// which QEMU's microvm has two dozen, are not listed.
pub(crate) fn discover(machine: &mut Machine) -> Vec<MmioFound> {
    let mut found = Vec::new();
    for device in announced(machine) {
        match device.identify(machine) {
            Ok(Some(identity)) => {
                let new = MmioFound { device, identity };
                info!("{new}");
                found.push(new);
            }
            Ok(None) => {}
            Err(error) => warn!("virtio-mmio: {error}"),
        }
    }
    found
}

/// The announced devices. ACPI's come first, since ACPI describes the interrupt signalling.
fn announced(machine: &Machine) -> Vec<MmioDevice> {
    let by_acpi = machine.acpi.iter().flat_map(|acpi| acpi.mmio_devices.iter().copied());
    let by_option = machine.options().mmio_devices.iter().map(|argument| device(machine, argument));
    let mut devices: Vec<MmioDevice> = Vec::new();
    for new in by_acpi.chain(by_option) {
        if devices.iter().all(|known| known.address() != new.address()) {
            devices.push(new);
        }
    }
    devices
}

/// A device from the command line. As in Linux, an interrupt below 16 is an ISA interrupt, which firmware's tables
/// may route to another input or make level-triggered; any other is an input, edge-triggered and active high.
fn device(machine: &Machine, argument: &MmioArgument) -> MmioDevice {
    let as_isa = |gsi| InterruptRoute { gsi, signalling: Signalling::ISA };
    let isa = u8::try_from(argument.irq).ok().filter(|irq| u32::from(*irq) < ISA_INTERRUPTS);
    let by_table = isa.and_then(|irq| machine.madt().map(|madt| madt.isa_irq(irq)));
    let interrupt: WiredInterrupt = by_table.unwrap_or_else(|| as_isa(argument.irq)).into();
    MmioDevice::new(argument.base, argument.size, Some(interrupt))
}
