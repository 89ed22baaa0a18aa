//! The checks themselves, by subject. Each is one function named as its check; the table says what they ask.

pub(super) mod balloon;
pub(super) mod configuration_space;
pub(super) mod features;
pub(super) mod interrupts;
pub(super) mod layouts;
pub(super) mod registers;
pub(super) mod resets;
pub(super) mod rings;
pub(super) mod status;
