//! Boot information from the loader: the memory map, the command line, the ACPI root pointer.
//!
//! Bytes in, values out. Nothing here allocates, because the allocator is built from the memory map, and nothing here
//! trusts the loader: unusable parts are skipped with a `Note`; a missing part that the kernel needs is an error. Each
//! boot protocol is a parser that fills a [`BootInfo`], so that the kernel need not know which one it was.

#![forbid(unsafe_code)]

mod area;
mod command_line;
mod framebuffer;
mod info;
pub mod linux;
mod memory_map;
pub mod multiboot2;
mod note;
mod options;
mod physical;
pub mod pvh;
mod region;

pub(crate) use area::AreaKind;
pub(crate) use area::LoaderAreas;
pub use command_line::CommandLine;
pub use framebuffer::{Channel, Framebuffer, PixelFormat};
pub use info::BootInfo;
pub(crate) use info::EfiSystemTable;
pub use memory_map::MemoryMap;
pub(crate) use note::Note;
pub(crate) use options::{
    AccessChoice, AffinityChoice, HostActions, HotplugChoice, LogFormat, MOST_CPUS, MmioArgument, Mode, PoweroffChoice,
    ScreenChoice, TapVersion, Terminal, WorkChoice, WorkKind, feature_names,
};
pub use options::{KernelOptions, Key, Valid, Warning, parse_size};
pub(crate) use physical::Unreadable;
pub use physical::{MemoryImage, PhysicalMemory};
pub(crate) use region::Region;
pub use region::RegionKind;

pub(crate) use ballonet::memory::{BadRange, PhysRange};
