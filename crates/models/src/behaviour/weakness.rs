//! What a hostile driver can do to a device: the violation that it does not stand, and the harm that comes of it.

/// A violation that a device does not survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weakness {
    /// The clause, as in a [`Misstep`](crate::Misstep).
    pub clause: &'static str,
    /// Words of that misstep.
    pub words: &'static str,
    pub harm: Harm,
}

/// What becomes of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// It loops: it does nothing any more, and takes no reset.
    Spins,
    /// Its VMM ends: all registers read as ones.
    Dies,
    /// It uses no buffer any more, a reset or not.
    StaysDead,
    /// It uses no buffer until it is reset, and does not ask for that.
    Stalls,
    /// It writes where it must not, and goes on.
    Overwrites,
}
