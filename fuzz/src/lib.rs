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
