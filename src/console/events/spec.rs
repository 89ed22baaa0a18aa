//! What an event is, and how it is declared.

use crate::console::json::Object;

/// An event to be written.
pub(crate) trait Event {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Writes its fields, in the order of the declaration.
    fn write(&self, object: &mut Object<'_>);
}

/// The declaration of an event.
#[derive(Debug, Clone, Copy)]
pub struct EventSpec {
    /// Its name, the value of `event`.
    pub name: &'static str,
    /// When it is written.
    pub about: &'static str,
    /// Its fields, after `event` and `ms`.
    pub fields: &'static [FieldSpec],
}

/// The declaration of a field.
#[derive(Debug, Clone, Copy)]
pub struct FieldSpec {
    /// Its name.
    pub name: &'static str,
    /// Its form in JSON.
    pub kind: Kind,
    /// The unit of a number; empty for counts and for non-numbers.
    pub unit: &'static str,
    /// Whether it can be missing.
    pub optional: bool,
    /// What it says.
    pub about: &'static str,
}

/// The form of a field in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number of up to 64 bits.
    Whole,
    /// A number that may have a fraction.
    Decimal,
    /// `true` or `false`.
    Boolean,
    /// A string.
    Text,
    /// A list of strings.
    Texts,
    /// A string: `0x` and hexadecimal digits, since 64 bits do not fit every reader's numbers.
    Hex,
    /// A list of such strings.
    Hexes,
}
