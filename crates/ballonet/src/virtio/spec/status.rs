//! The device status byte (2.1).

use core::fmt;

use bitflags::bitflags;

bitflags! {
    /// The device status field: the driver's progress, and the device's response (2.1).
    ///
    /// Bits are only ever added; writing 0 resets the device.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Status: u8 {
        /// The guest has found the device and recognised it as a virtio device.
        #[doc(alias = "VIRTIO_CONFIG_S_ACKNOWLEDGE")]
        const ACKNOWLEDGE = 1;
        /// The guest has a driver for it.
        #[doc(alias = "VIRTIO_CONFIG_S_DRIVER")]
        const DRIVER = 2;
        /// The driver is set up and drives the device.
        #[doc(alias = "VIRTIO_CONFIG_S_DRIVER_OK")]
        const DRIVER_OK = 4;
        /// The driver has chosen its features.
        #[doc(alias = "VIRTIO_CONFIG_S_FEATURES_OK")]
        const FEATURES_OK = 8;
        /// The device is suspended.
        #[doc(alias = "VIRTIO_CONFIG_S_SUSPEND")]
        const SUSPEND = 16;
        /// The device has met an error that only a reset repairs.
        #[doc(alias = "VIRTIO_CONFIG_S_NEEDS_RESET")]
        const DEVICE_NEEDS_RESET = 64;
        /// The guest has given up on the device.
        #[doc(alias = "VIRTIO_CONFIG_S_FAILED")]
        const FAILED = 128;
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.bits())?;
        let mut separator = " (";
        for (name, _) in self.iter_names() {
            write!(f, "{separator}{name}")?;
            separator = " ";
        }
        if separator == " " { f.write_str(")") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use virtio_bindings::virtio_config as c;

    use super::*;

    #[test]
    fn status_bits_are_those_of_the_c_header() {
        for (ours, theirs) in [
            (Status::ACKNOWLEDGE, c::VIRTIO_CONFIG_S_ACKNOWLEDGE),
            (Status::DRIVER, c::VIRTIO_CONFIG_S_DRIVER),
            (Status::DRIVER_OK, c::VIRTIO_CONFIG_S_DRIVER_OK),
            (Status::FEATURES_OK, c::VIRTIO_CONFIG_S_FEATURES_OK),
            (Status::DEVICE_NEEDS_RESET, c::VIRTIO_CONFIG_S_NEEDS_RESET),
            (Status::FAILED, c::VIRTIO_CONFIG_S_FAILED),
        ] {
            assert_eq!(u32::from(ours.bits()), theirs, "{ours}");
        }
        assert_eq!(Status::SUSPEND.bits(), virtio_spec::DeviceStatus::SUSPEND.bits());
    }

    #[test]
    fn status_is_shown_with_its_names() {
        assert_eq!(Status::empty().to_string(), "0x00");
        assert_eq!((Status::ACKNOWLEDGE | Status::DRIVER).to_string(), "0x03 (ACKNOWLEDGE DRIVER)");
    }
}
