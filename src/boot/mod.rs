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
mod options;
mod physical;
pub mod pvh;
mod size;
mod warning;
mod work;

pub(crate) use area::AreaKind;
pub use area::LoaderAreas;
pub use command_line::CommandLine;
pub use framebuffer::{Channel, Framebuffer, PixelFormat};
pub use info::BootInfo;
pub(crate) use info::{EfiSystemTable, Note};
pub(crate) use memory_map::Region;
pub use memory_map::{MemoryMap, RegionKind};
pub(crate) use options::MOST_CPUS;
pub use options::{
    AccessChoice, AffinityChoice, HotplugChoice, IrqChoice, Key, LogFormat, Mode, Options, PoweroffChoice, RingChoice,
    ScreenChoice, TapVersion, Terminal, TransportChoice,
};
pub(crate) use physical::Unreadable;
pub use physical::{MemoryImage, PhysicalMemory};
pub(crate) use size::SizeError;
pub use size::parse_size;
pub use warning::Warning;
pub(crate) use work::{WorkChoice, WorkKind};

pub(crate) use ballonet::memory::{BadRange, PhysRange};
