//! The kernel in guest memory, as VMMs' loaders place it.

use std::fs::{self, File};
use std::path::Path;

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{BzImage, Elf, KernelLoader, KernelLoaderResult};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::support::{MIB, Outcome, ensure, image};

/// Enough for everything loaded, and below the stub.
const MEMORY: u64 = 48 * MIB;
const HIGH_MEMORY: u64 = MIB;
/// Where Linux starts in an ELF file.
const ELF_START: u64 = 2 * MIB;
/// Where StratoVirt places a flat image.
const FLAT_START: u64 = 16 * MIB;
/// Offset of the 64-bit entry in the image.
const ENTRY_64: u64 = 0x200;

/// A kernel in memory.
pub(super) struct Loaded {
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) linux_32: u64,
    pub(super) linux_64: u64,
    pub(super) pvh: Option<u64>,
    /// The header of a bzImage.
    pub(super) header: Option<setup_header>,
}

impl Loaded {
    /// An ELF file: Firecracker, Cloud Hypervisor, Dragonball.
    pub(super) fn elf(kernel: &Path) -> Outcome<Option<Self>> {
        let memory = memory()?;
        let high_memory = Some(GuestAddress(HIGH_MEMORY));
        let loaded = Elf::load(&memory, None, &mut File::open(kernel)?, high_memory)?;
        let PvhBootCapability::PvhEntryPresent(pvh) = loaded.pvh_boot_cap else { return Err("no PVH note".into()) };
        let entry = loaded.kernel_load.0;
        let mut found = Self::read(&memory, ELF_START, &loaded)?;
        ensure!(found.contains(entry), "the entry {entry:#x} is not in the image");
        (found.linux_64, found.pvh) = (entry, Some(pvh.0));
        Ok(Some(found))
    }

    /// A bzImage at its preferred address, 1 MiB: Cloud Hypervisor, StratoVirt.
    pub(super) fn bzimage(_: &Path) -> Outcome<Option<Self>> {
        Self::bzimage_at(HIGH_MEMORY)
    }

    /// A bzImage where crosvm places every kernel.
    pub(super) fn bzimage_at_2_mib(_: &Path) -> Outcome<Option<Self>> {
        Self::bzimage_at(2 * MIB)
    }

    fn bzimage_at(start: u64) -> Outcome<Option<Self>> {
        let Some(file) = image::bzimage()? else { return Ok(None) };
        let memory = memory()?;
        let offset = (start != HIGH_MEMORY).then_some(GuestAddress(start));
        let loaded = BzImage::load(&memory, offset, &mut File::open(file)?, Some(GuestAddress(HIGH_MEMORY)))?;
        let found = Self::read(&memory, loaded.kernel_load.0, &loaded)?;
        ensure!(found.start == start, "the kernel lies at {:#x}", found.start);
        Ok(Some(found))
    }

    /// The image alone; it is entered in long mode at its first byte.
    pub(super) fn flat(kernel: &Path) -> Outcome<Option<Self>> {
        let Some(mut found) = Self::bzimage(kernel)? else { return Ok(None) };
        let file = fs::read(image::bzimage()?.ok_or("no bzImage")?)?;
        ensure!(file.ends_with(&found.bytes), "a bzImage ends with the image");
        (found.start, found.linux_32, found.linux_64, found.header) = (FLAT_START, FLAT_START, FLAT_START, None);
        Ok(Some(found))
    }

    fn read(memory: &GuestMemoryMmap, start: u64, loaded: &KernelLoaderResult) -> Outcome<Self> {
        let mut bytes = vec![0; usize::try_from(loaded.kernel_end - start)?];
        memory.read_slice(&mut bytes, GuestAddress(start))?;
        let header = loaded.setup_header;
        Ok(Self { start, bytes, linux_32: start, linux_64: start + ENTRY_64, pvh: None, header })
    }

    fn contains(&self, address: u64) -> bool {
        (self.start..self.start + self.bytes.len() as u64).contains(&address)
    }
}

fn memory() -> Outcome<GuestMemoryMmap> {
    Ok(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), usize::try_from(MEMORY)?)])?)
}
