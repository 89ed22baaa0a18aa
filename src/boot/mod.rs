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

pub use area::{AreaKind, LoaderArea, LoaderAreas};
pub use command_line::CommandLine;
pub use framebuffer::{Channel, Framebuffer, PixelFormat};
pub use info::{BootInfo, BootProtocol, EfiSystemTable};
pub use memory_map::{MemoryMap, Region, RegionKind};
pub use note::Note;
pub use options::{
    AccessChoice, AffinityChoice, HotplugChoice, KernelOptions, Key, LogFormat, MOST_CPUS, Mode, PoweroffChoice,
    ScreenChoice, SizeError, TapVersion, Terminal, Valid, Warning, WorkChoice, WorkError, WorkKind, parse_size,
};
pub use physical::{MemoryImage, PhysicalMemory, Unreadable};

pub use ballonet::memory::{BadRange, PhysRange};
