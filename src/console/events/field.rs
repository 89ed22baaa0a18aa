//! The types of fields. Each can write itself, and declares its JSON form and its unit.

use core::fmt;

use ballonet::memory::FRAME_SIZE;

use super::spec::{FieldSpec, Kind};
use crate::console::json::{Numbers, Object};

/// The type of a field.
pub(super) trait Field {
    /// Its form.
    const KIND: Kind;
    /// Its unit.
    const UNIT: &'static str = "";
    /// Whether it can be missing.
    const OPTIONAL: bool = false;

    /// Writes it.
    fn write(&self, name: &str, object: &mut Object<'_>);
}

/// The declaration of a field of this type.
pub(super) const fn declare<T: Field>(name: &'static str, about: &'static str) -> FieldSpec {
    FieldSpec { name, kind: T::KIND, unit: T::UNIT, optional: T::OPTIONAL, about }
}

/// Types of whole numbers in a unit.
macro_rules! quantities {
    ($($(#[$about:meta])* $name:ident = $unit:literal,)+) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct $name(pub(crate) u64);

        impl Field for $name {
            const KIND: Kind = Kind::Whole;
            const UNIT: &'static str = $unit;

            fn write(&self, name: &str, object: &mut Object<'_>) {
                object.number(name, self.0);
            }
        }
    )+};
}

quantities! {
    /// Bytes.
    Bytes = "bytes",
    /// Page frames of 4 KiB.
    Frames = "frames",
    /// Nanoseconds.
    Nanoseconds = "ns",
    /// MiB per second.
    MibPerSecond = "MiB/s",
    /// Milliseconds.
    Milliseconds = "ms",
    /// Microseconds.
    Microseconds = "µs",
}

impl Bytes {
    /// The bytes of page frames.
    pub(crate) const fn of_frames(frames: u64) -> Self {
        Self(frames * FRAME_SIZE)
    }
}

/// A number that is shown in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hex(pub(crate) u64);

impl Field for Hex {
    const KIND: Kind = Kind::Hex;

    fn write(&self, name: &str, object: &mut Object<'_>) {
        object.hex(name, self.0);
    }
}

/// Addresses.
pub(crate) type Addresses<'e> = Numbers<'e>;

impl Field for Addresses<'_> {
    const KIND: Kind = Kind::Hexes;

    fn write(&self, name: &str, object: &mut Object<'_>) {
        object.hex_list(name, self);
    }
}

/// A number with or without a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decimal {
    /// Without.
    Whole(u64),
    /// Thousandths of the number.
    Thousandths(u64),
}

impl Field for Decimal {
    const KIND: Kind = Kind::Decimal;

    fn write(&self, name: &str, object: &mut Object<'_>) {
        match *self {
            Self::Whole(value) => object.number(name, value),
            Self::Thousandths(value) => object.thousandths(name, value),
        };
    }
}

impl Field for u64 {
    const KIND: Kind = Kind::Whole;

    fn write(&self, name: &str, object: &mut Object<'_>) {
        object.number(name, *self);
    }
}

impl Field for u32 {
    const KIND: Kind = Kind::Whole;

    fn write(&self, name: &str, object: &mut Object<'_>) {
        object.number(name, u64::from(*self));
    }
}

impl Field for bool {
    const KIND: Kind = Kind::Boolean;

    fn write(&self, name: &str, object: &mut Object<'_>) {
        object.boolean(name, *self);
    }
}

impl Field for &str {
    const KIND: Kind = Kind::Text;

    fn write(&self, name: &str, object: &mut Object<'_>) {
        object.text(name, self);
    }
}

impl Field for &dyn fmt::Display {
    const KIND: Kind = Kind::Text;

    fn write(&self, name: &str, object: &mut Object<'_>) {
        object.display(name, self);
    }
}

impl Field for &[&str] {
    const KIND: Kind = Kind::Texts;

    fn write(&self, name: &str, object: &mut Object<'_>) {
        object.text_list(name, self.iter().copied());
    }
}

impl<T: Field> Field for Option<T> {
    const KIND: Kind = T::KIND;
    const UNIT: &'static str = T::UNIT;
    const OPTIONAL: bool = true;

    fn write(&self, name: &str, object: &mut Object<'_>) {
        if let Some(value) = self {
            value.write(name, object);
        }
    }
}
