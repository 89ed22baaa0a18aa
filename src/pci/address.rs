//! Where a PCI function is, and which interrupt pin it uses.

use core::fmt;

/// A PCI function: segment group, bus, device and function number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bdf {
    segment: u16,
    bus: u8,
    device: u8,
    function: u8,
}

impl Bdf {
    /// The function at this place, or `None` if `device` is above 31 or `function` above 7 (PCI 3.0, 3.2.2.3.2).
    pub const fn new(segment: u16, bus: u8, device: u8, function: u8) -> Option<Self> {
        if device > 31 || function > 7 { None } else { Some(Self { segment, bus, device, function }) }
    }

    /// The segment group; 0 where there is only one.
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
    /// What the Interrupt Pin register says; `None` for 0 (no pin) and for values that name none.
    pub const fn from_register(value: u8) -> Option<Self> {
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
