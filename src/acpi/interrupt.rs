//! How an interrupt line is routed: its input, polarity and trigger mode.

use ballonet::platform::WiredInterrupt;
pub(crate) use ballonet::platform::{Polarity, Trigger};
use derive_more::Display;

/// How a line signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[display("{polarity} {trigger}")]
pub(crate) struct Signalling {
    /// The active level.
    pub polarity: Polarity,
    /// Edge or level triggered.
    pub trigger: Trigger,
}

impl Signalling {
    /// The default of ISA lines and NMI inputs.
    pub(crate) const ISA: Self = Self { polarity: Polarity::ActiveHigh, trigger: Trigger::Edge };
    /// The default of PCI lines and the ACPI interrupt.
    pub(crate) const PCI: Self = Self { polarity: Polarity::ActiveLow, trigger: Trigger::Level };
}

/// Where an interrupt line arrives, and how it signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[display("GSI {gsi} {signalling}")]
pub(crate) struct InterruptRoute {
    /// Global system interrupt: the IOAPIC's base plus the number of the input.
    pub gsi: u32,
    /// How the line signals.
    pub signalling: Signalling,
}

impl From<WiredInterrupt> for InterruptRoute {
    fn from(WiredInterrupt { gsi, polarity, trigger }: WiredInterrupt) -> Self {
        Self { gsi, signalling: Signalling { polarity, trigger } }
    }
}

impl From<InterruptRoute> for WiredInterrupt {
    fn from(InterruptRoute { gsi, signalling: Signalling { polarity, trigger } }: InterruptRoute) -> Self {
        Self { gsi, polarity, trigger }
    }
}

/// The MPS INTI flags of an entry: differences from the bus's default (ACPI 6.5, table 5.26).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IntiFlags(pub(super) u16);

impl IntiFlags {
    /// How the line signals. `habit`, the bus's default, applies if the flags say "conforms", and for reserved values.
    pub(super) const fn signalling(self, habit: Signalling) -> Signalling {
        let polarity = match self.0 & 3 {
            1 => Polarity::ActiveHigh,
            3 => Polarity::ActiveLow,
            _ => habit.polarity,
        };
        let trigger = match self.0 >> 2 & 3 {
            1 => Trigger::Edge,
            3 => Trigger::Level,
            _ => habit.trigger,
        };
        Signalling { polarity, trigger }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_say_what_differs_from_the_habit_of_the_bus() {
        let level_low = Signalling { polarity: Polarity::ActiveLow, trigger: Trigger::Level };
        let edge_high = Signalling { polarity: Polarity::ActiveHigh, trigger: Trigger::Edge };
        for habit in [Signalling::ISA, Signalling::PCI] {
            assert_eq!(IntiFlags(0b0000).signalling(habit), habit);
            assert_eq!(IntiFlags(0b1010).signalling(habit), habit);
            assert_eq!(IntiFlags(0b0101).signalling(habit), edge_high);
            assert_eq!(IntiFlags(0b1111).signalling(habit), level_low);
            assert_eq!(IntiFlags(0xfff0).signalling(habit), habit);
        }
        assert_eq!(
            IntiFlags(0b1101).signalling(Signalling::ISA),
            Signalling { polarity: Polarity::ActiveHigh, trigger: Trigger::Level }
        );
    }
}
