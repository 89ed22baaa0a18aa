//! The address of a device: on PCI, or at fixed memory addresses.
//!
//! For a PCI function, this includes its encoding for both access mechanisms, and its interrupt pin. Pure arithmetic:
//! the platform performs the accesses.

use core::fmt;

use derive_more::{Display, From};

/// The address of a device on its bus. It names the device in messages and errors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Display, From)]
pub enum DeviceAddress {
    /// A PCI function.
    Pci(Bdf),
    /// Registers at this memory address, on no enumerable bus (virtio 1.4, 4.2).
    #[display("mmio@{_0:#x}")]
    #[from(skip)]
    Mmio(u64),
}

/// A PCI function: segment group, bus, device and function number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bdf {
    segment: u16,
    bus: u8,
    device: u8,
    function: u8,
}

impl Bdf {
    /// The function at this address, or `None` if `device` is above 31 or `function` above 7 (PCI 3.0, 3.2.2.3.2).
    pub const fn new(segment: u16, bus: u8, device: u8, function: u8) -> Option<Self> {
        if device > 31 || function > 7 { None } else { Some(Self { segment, bus, device, function }) }
    }

    /// The segment group; 0 if there is only one.
    pub const fn segment(self) -> u16 {
        self.segment
    }

    /// The bus number.
    pub const fn bus(self) -> u8 {
        self.bus
    }

    /// The device number on its bus, 0 to 31.
    pub const fn device(self) -> u8 {
        self.device
    }

    /// The function number in its device, 0 to 7.
    pub const fn function(self) -> u8 {
        self.function
    }

    /// Device and function as one byte, as in routing tables.
    #[doc(alias = "PCI_DEVFN")]
    pub(crate) const fn devfn(self) -> u8 {
        self.device << 3 | self.function
    }

    /// The value of the `CONFIG_ADDRESS` port, 0xCF8, that selects the dword with `offset` (PCI 3.0, 3.2.2.3.2).
    ///
    /// The byte or word is then at port 0xCFC + `offset % 4`. `None` for what the ports cannot reach: segments other
    /// than 0, and offsets of 256 and above.
    pub const fn cam_address(self, offset: u16) -> Option<u32> {
        if self.segment != 0 || offset >= 0x100 {
            return None;
        }
        let enable = 1 << 31;
        Some(enable | (self.bus as u32) << 16 | (self.devfn() as u32) << 8 | (offset & 0xFC) as u32)
    }

    /// The distance of `offset` of this function from its segment's ECAM base address (PCIe 5.0, 7.2.2).
    ///
    /// The MCFG table always gives the base address of bus 0, even if its bus range starts later (PCI Firmware 3.2,
    /// 4.1.2). `None` for offsets from 4096 on.
    #[cfg(any(feature = "raw", test))]
    pub(crate) const fn ecam_offset(self, offset: u16) -> Option<u64> {
        if offset >= 0x1000 {
            return None;
        }
        Some((self.bus as u64) << 20 | (self.devfn() as u64) << 12 | offset as u64)
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.segment != 0 {
            write!(f, "{:04x}:", self.segment)?;
        }
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// The interrupt pin of a function (PCI 3.0, 2.2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InterruptPin {
    /// INTA#.
    A = 1,
    /// INTB#.
    B = 2,
    /// INTC#.
    C = 3,
    /// INTD#.
    D = 4,
}

impl InterruptPin {
    /// The pin in the Interrupt Pin register; `None` for 0 (no pin) and for reserved values.
    pub(crate) const fn from_register(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::A),
            2 => Some(Self::B),
            3 => Some(Self::C),
            4 => Some(Self::D),
            _ => None,
        }
    }
}

impl fmt::Display for InterruptPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "INTA#",
            Self::B => "INTB#",
            Self::C => "INTC#",
            Self::D => "INTD#",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bdf(segment: u16, bus: u8, device: u8, function: u8) -> Bdf {
        Bdf::new(segment, bus, device, function).unwrap()
    }

    #[test]
    fn devices_above_31_and_functions_above_7_do_not_exist() {
        assert!(Bdf::new(0, 255, 31, 7).is_some());
        assert_eq!(Bdf::new(0, 0, 32, 0), None);
        assert_eq!(Bdf::new(0, 0, 0, 8), None);
    }

    #[test]
    fn cam_address_names_the_dword_and_sets_the_enable_bit() {
        assert_eq!(bdf(0, 0, 0, 0).cam_address(0), Some(0x8000_0000));
        assert_eq!(bdf(0, 0xFF, 31, 7).cam_address(0xFF), Some(0x80FF_FFFC));
        assert_eq!(bdf(0, 1, 2, 3).cam_address(0x3D), Some(0x8001_133C));
    }

    #[test]
    fn cam_reaches_neither_other_segments_nor_extended_space() {
        assert_eq!(bdf(1, 0, 0, 0).cam_address(0), None);
        assert_eq!(bdf(0, 0, 0, 0).cam_address(0x100), None);
    }

    #[test]
    fn ecam_offset_gives_each_function_4_kib() {
        assert_eq!(bdf(3, 0, 0, 1).ecam_offset(0x10), Some(0x1010));
        assert_eq!(bdf(0, 0xFF, 31, 7).ecam_offset(0xFFF), Some(0x0FFF_FFFF));
        assert_eq!(bdf(0, 0, 0, 0).ecam_offset(0x1000), None);
    }

    #[test]
    fn a_device_is_named_by_its_bus() {
        assert_eq!(DeviceAddress::from(bdf(0, 0, 3, 0)).to_string(), "00:03.0");
        assert_eq!(DeviceAddress::Mmio(0xfeb0_0e00).to_string(), "mmio@0xfeb00e00");
    }

    #[test]
    fn segment_is_shown_only_where_there_are_several() {
        assert_eq!(bdf(0, 0x1f, 3, 7).to_string(), "1f:03.7");
        assert_eq!(bdf(2, 0, 3, 0).to_string(), "0002:00:03.0");
    }
}
