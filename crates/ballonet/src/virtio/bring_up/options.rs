//! User options for a device of any type.

use crate::bus::DeviceName;
use crate::virtio::interrupt::InterruptMode;
use crate::virtio::spec::Features;
use crate::virtio::transport_kind::TransportKind;

/// User options for a device of any type.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeviceOptions {
    /// The device's name, after which its vectors are named: `virtio0`.
    pub name: DeviceName,
    /// The interface to use; `None`: the modern one if the device has it.
    pub transport: Option<TransportKind>,
    /// Reaches all registers through the window in configuration space (4.1.4.9).
    pub through_config: bool,
    /// The interrupt mode; `None`: the first of [`InterruptMode::LADDER`] that works.
    pub interrupts: Option<InterruptMode>,
    /// Features not to accept.
    pub declined: Features,
}

impl DeviceOptions {
    /// The defaults, for a device of this name.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self {
            name: name.as_ref().into(),
            transport: None,
            through_config: false,
            interrupts: None,
            declined: Features::empty(),
        }
    }
}
