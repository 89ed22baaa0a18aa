//! Opens a device's registers, by its bus.

use super::error::BringUpError;
use super::interface::Interface;
use super::options::DeviceOptions;
use crate::bus::Bdf;
use crate::pci::{Bars, Function};
use crate::platform::Platform;
use crate::virtio::attachment::{Attachment, PciAttachment};
use crate::virtio::handle::DeviceHandle;
use crate::virtio::spec::DeviceType;
use crate::virtio::transport::{Mmio, MmioDevice, Transport};

/// Opens the registers of a device, if it is of this type. Writes only its PCI command register.
pub(super) fn open<P: Platform>(
    platform: &mut P,
    device: DeviceHandle,
    options: &DeviceOptions,
    device_type: DeviceType,
) -> Result<(Transport<P::Registers>, Attachment), BringUpError> {
    match device {
        DeviceHandle::Pci(function) => open_function(platform, function, options, device_type),
        DeviceHandle::Mmio(device) => open_mmio(platform, device, device_type),
    }
}

/// The device determines the version, and its registers can only be mapped, so no options apply.
fn open_mmio<P: Platform>(
    platform: &mut P,
    device: MmioDevice,
    device_type: DeviceType,
) -> Result<(Transport<P::Registers>, Attachment), BringUpError> {
    let (transport, identity) = Mmio::open(platform, &device)?;
    if identity.device_type != u32::from(device_type.number) {
        Transport::from(transport).release(platform);
        return Err(BringUpError::WrongType { device: device.address(), number: identity.device_type });
    }
    Ok((transport.into(), Attachment::Mmio(device)))
}

fn open_function<P: Platform>(
    platform: &mut P,
    function: Bdf,
    options: &DeviceOptions,
    device_type: DeviceType,
) -> Result<(Transport<P::Registers>, Attachment), BringUpError> {
    let function = Function::probe(platform.config(), function).ok_or(BringUpError::NoFunction(function))?;
    let (vendor, device) = (function.vendor, function.device);
    if !device_type.is_function(vendor, device) {
        return Err(BringUpError::WrongDevice { function: function.bdf, vendor, device });
    }
    let bars = Bars::size(platform.config(), &function);
    let interface = Interface::find(platform.config(), &function, &bars, options.transport)?;
    let interface = if options.through_config { interface.through_config()? } else { interface };
    let command = function.enable(platform.config(), interface.decoding(&bars));
    let attachment = PciAttachment { function, bars, command };
    match interface.open(platform) {
        Ok(transport) => Ok((transport, Attachment::Pci(attachment))),
        Err(error) => {
            attachment.restore(platform, true);
            Err(error.into())
        }
    }
}
