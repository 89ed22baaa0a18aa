//! The bodies of the fuzz targets. Each module feeds one input to the library, as a hostile device, firmware, loader
//! or terminal would. It asserts what must hold for any input, not only that nothing panics.

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
mod mapper;
mod pci;

/// Panics if an error holds control characters, which could command a terminal.
fn expect_printable(error: &impl std::fmt::Display) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains(|c: char| c.is_ascii_control()), "{text:?}");
}
