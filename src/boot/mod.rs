//! What the loader tells the kernel: where memory is, the command line, where ACPI starts.
//!
//! Bytes in, values out. Nothing here allocates, because the memory map is what an allocator is made from, and nothing
//! here trusts the loader: what cannot be used is skipped and named in a [`Note`], what cannot be done without is an
//! error. Each boot protocol is a parser that fills one [`BootInfo`], so that the kernel does not know which it was.

#![forbid(unsafe_code)]

mod area;
mod command_line;
mod framebuffer;
mod info;
mod memory_map;
pub mod multiboot2;
mod note;
mod options;
mod physical;
pub mod pvh;

pub(crate) use area::AreaKind;
pub use area::LoaderAreas;
pub use command_line::CommandLine;
pub use framebuffer::{Channel, Framebuffer, PixelFormat};
pub use info::BootInfo;
pub(crate) use info::EfiSystemTable;
pub(crate) use memory_map::Region;
pub use memory_map::{MemoryMap, RegionKind};
pub(crate) use note::Note;
pub(crate) use options::{
    AccessChoice, AffinityChoice, HotplugChoice, LogFormat, MOST_CPUS, MmioArgument, Mode, PoweroffChoice,
    ScreenChoice, TapVersion, Terminal, WorkChoice, WorkKind,
};
pub use options::{KernelOptions, Key, Valid, Warning, parse_size};
pub(crate) use physical::Unreadable;
pub use physical::{MemoryImage, PhysicalMemory};

pub(crate) use ballonet::memory::{BadRange, PhysRange};
