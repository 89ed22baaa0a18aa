//! PCI configuration space over 32-bit accesses.

use ballonet::pci::{Bdf, ConfigSpace};
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

/// Command and status; writing 1 clears some status bits (PCI 3.0, 6.2.3).
const COMMAND_STATUS: u16 = 4;

/// [`ConfigSpace`] over a [`ConfigurationAccess`]: segment 0, 256 bytes per function.
///
/// A write of 8 or 16 bits reads and writes the 32 bits around it.
#[derive(Debug)]
pub struct HalConfig<C>(
    /// The access.
    pub C,
);

impl<C: ConfigurationAccess> HalConfig<C> {
    fn read(&self, function: Bdf, offset: u16, width: u16) -> u32 {
        assert!(offset.is_multiple_of(width) && offset + width <= 256, "config access at {offset:#x}");
        match place(function) {
            Some(place) => self.0.read_word(place, offset as u8 & !3) >> (8 * (offset & 3)),
            None => u32::MAX,
        }
    }

    fn write(&mut self, function: Bdf, offset: u16, width: u16, value: u32) {
        assert!(offset.is_multiple_of(width) && offset + width <= 256, "config access at {offset:#x}");
        let Some(place) = place(function) else { return };
        let (word, shift) = (offset & !3, 8 * (offset & 3));
        let mask = (u32::MAX >> (32 - 8 * width)) << shift;
        let around = match word {
            _ if mask == u32::MAX => 0,
            // Zeros leave the status bits beside the command unchanged; writing back what was read would clear them.
            COMMAND_STATUS => self.0.read_word(place, word as u8) & 0xFFFF,
            _ => self.0.read_word(place, word as u8),
        };
        self.0.write_word(place, word as u8, around & !mask | value << shift & mask);
    }
}

/// The function in `virtio-drivers`' terms, which have only one segment.
fn place(function: Bdf) -> Option<DeviceFunction> {
    let place = DeviceFunction { bus: function.bus(), device: function.device(), function: function.function() };
    (function.segment() == 0).then_some(place)
}

impl<C: ConfigurationAccess> ConfigSpace for HalConfig<C> {
    fn size(&self, segment: u16, _bus: u8) -> u16 {
        if segment == 0 { 256 } else { 0 }
    }

    fn read8(&self, function: Bdf, offset: u16) -> u8 {
        self.read(function, offset, 1) as u8
    }

    fn read16(&self, function: Bdf, offset: u16) -> u16 {
        self.read(function, offset, 2) as u16
    }

    fn read32(&self, function: Bdf, offset: u16) -> u32 {
        self.read(function, offset, 4)
    }

    fn write8(&mut self, function: Bdf, offset: u16, value: u8) {
        self.write(function, offset, 1, value.into());
    }

    fn write16(&mut self, function: Bdf, offset: u16, value: u16) {
        self.write(function, offset, 2, value.into());
    }

    fn write32(&mut self, function: Bdf, offset: u16, value: u32) {
        self.write(function, offset, 4, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One function at 00:01.0, whose status bits are cleared by writing 1.
    struct Fake([u32; 64]);

    impl ConfigurationAccess for Fake {
        fn read_word(&self, function: DeviceFunction, offset: u8) -> u32 {
            assert!(offset.is_multiple_of(4));
            if function.device == 1 { self.0[usize::from(offset) / 4] } else { u32::MAX }
        }
        fn write_word(&mut self, _function: DeviceFunction, offset: u8, value: u32) {
            let register = &mut self.0[usize::from(offset) / 4];
            let status = if offset == 4 { *register & !value & 0xFFFF_0000 } else { value & 0xFFFF_0000 };
            *register = value & 0xFFFF | status;
        }
        unsafe fn unsafe_clone(&self) -> Self {
            Self(self.0)
        }
    }

    fn function(segment: u16, device: u8) -> Bdf {
        Bdf::new(segment, 0, device, 0).unwrap()
    }

    #[test]
    fn narrow_accesses_change_their_bytes_and_no_others() {
        let mut config = HalConfig(Fake([0x0403_0201; 64]));
        let it = function(0, 1);
        assert_eq!(
            (config.read8(it, 0x13), config.read16(it, 0x12), config.read32(it, 0x10)),
            (4, 0x0403, 0x0403_0201)
        );
        config.write8(it, 0x11, 0xAA);
        config.write16(it, 0x16, 0xBBCC);
        config.write32(it, 0xFC, 0x1234_5678);
        assert_eq!((config.0.0[4], config.0.0[5], config.0.0[63]), (0x0403_AA01, 0xBBCC_0201, 0x1234_5678));
    }

    #[test]
    fn a_command_clears_no_status_bit() {
        let mut config = HalConfig(Fake([0xFFFF_0001; 64]));
        config.write16(function(0, 1), 4, 6);
        assert_eq!(config.0.0[1], 0xFFFF_0006);
        config.write8(function(0, 1), 5, 4);
        assert_eq!(config.0.0[1], 0xFFFF_0406);
    }

    #[test]
    fn other_segments_are_not_there() {
        let mut config = HalConfig(Fake([0; 64]));
        config.write32(function(1, 1), 0, 1);
        assert_eq!((config.size(1, 0), config.read16(function(1, 1), 0), config.0.0[0]), (0, 0xFFFF, 0));
    }
}
