//! A device's weakness against hostile drivers: a violation that it does not survive, and the resulting harm.

/// A violation that a device does not survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weakness {
    /// The clause, as in a [`Misstep`](crate::Misstep).
    pub clause: &'static str,
    /// Words of that misstep.
    pub words: &'static str,
    pub harm: Harm,
}

/// The effect on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// It loops forever, and ignores resets.
    Spins,
    /// Its VMM exits: all registers read as ones.
    Dies,
    /// It uses no buffer any more, even after a reset.
    StaysDead,
    /// It uses no buffer until it is reset, but does not request a reset.
    Stalls,
    /// It writes to wrong memory, and continues.
    Overwrites,
}
