//! What the fuzz targets do. Each module takes one input, hands it to the library the way a hostile device, firmware, loader or
//! terminal would, and asserts what must hold whatever that was: not only that nothing panics.

#![forbid(unsafe_code)]

pub mod acpi;
pub mod balloon;
pub mod boot_info;
pub mod command_line;
pub mod config_space;
pub mod console;
pub mod linux;
pub mod multiboot2;
pub mod queue;

mod guest;
mod pci;

/// Panics unless an error can be shown to people: no control characters, which could command a terminal.
fn expect_printable(error: &impl std::fmt::Display) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains(|c: char| c.is_ascii_control()), "{text:?}");
}
