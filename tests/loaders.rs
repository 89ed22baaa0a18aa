//! The kernel in rust-vmm's loader, which Firecracker, Cloud Hypervisor and others use: what it loads and where it
//! enters, and how our parsers read its boot information.

// A test program is an ordinary program of the host.
#![allow(clippy::std_instead_of_core)]
// Helpers outside test functions panic like those do.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use ballonet::memory::PhysAddr;
use ballonet_kernel::boot::{BootInfo, MemoryImage, linux, pvh};
use linux_loader::cmdline::Cmdline;
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_start_info};
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use linux_loader::loader::{BzImage, KernelLoader, KernelLoaderResult, load_cmdline};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const MEMORY: usize = 16 << 20;
/// Addresses that Firecracker uses.
const HIGH_MEMORY: GuestAddress = GuestAddress(0x10_0000);
const ZERO_PAGE: GuestAddress = GuestAddress(0x7000);
const START_INFO: GuestAddress = GuestAddress(0x6000);
const MAP: GuestAddress = GuestAddress(0x7000);
const COMMAND_LINE: GuestAddress = GuestAddress(0x2_0000);
/// Usable memory below and above the range that a PC reserves.
const RANGES: [(u64, u64); 2] = [(0, 0x9_FC00), (0x10_0000, MEMORY as u64 - 0x10_0000)];
const LINE: &str = "log=json virtio_mmio.device=4K@0xc0001000:5";

const KERNEL: &str = env!("CARGO_BIN_EXE_ballonet");

/// The kernel as a bzImage, made once.
fn bzimage() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("loaders.bzimage");
        let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/run.sh"));
        let made = script.arg("bzimage").arg("--kernel").arg(KERNEL).arg("--output").arg(&output).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        output
    })
}

/// A guest's memory with the kernel in it.
struct Guest {
    memory: GuestMemoryMmap,
    loaded: KernelLoaderResult,
    file: Vec<u8>,
}

impl Guest {
    fn new() -> Self {
        Self::with(KERNEL.as_ref(), |memory, file| Elf::load(memory, None, file, Some(HIGH_MEMORY)).unwrap())
    }

    /// With a bzImage, at its own address or at another.
    fn with_bzimage(at: Option<GuestAddress>) -> Self {
        Self::with(bzimage(), |memory, file| BzImage::load(memory, at, file, Some(HIGH_MEMORY)).unwrap())
    }

    fn with(path: &Path, load: impl FnOnce(&GuestMemoryMmap, &mut File) -> KernelLoaderResult) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let loaded = load(&memory, &mut File::open(path).unwrap());
        let mut line = Cmdline::new(2048).unwrap();
        line.insert_str(LINE).unwrap();
        load_cmdline(&memory, COMMAND_LINE, &line).unwrap();
        Self { memory, loaded, file: std::fs::read(path).unwrap() }
    }

    /// The executable segments: physical address, offset in the file, and length there.
    fn code(&self) -> impl Iterator<Item = (u64, usize, usize)> {
        const LOAD: u64 = 1;
        const EXECUTE: u64 = 1;
        let number = |at: usize, length: usize| {
            self.file[at..at + length].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
        };
        let table = number(32, 8) as usize;
        let headers = (0..number(56, 2) as usize).map(move |index| table + 56 * index);
        let headers = headers.filter(move |&at| number(at, 4) == LOAD && number(at + 4, 4) & EXECUTE != 0);
        headers.map(move |at| (number(at + 24, 8), number(at + 8, 8) as usize, number(at + 32, 8) as usize))
    }

    /// Whether this physical address is code that the loader has copied from the file.
    fn is_code(&self, address: u64) -> bool {
        self.code().any(|(start, offset, length)| {
            let Some(within) = address.checked_sub(start).filter(|&within| within < length as u64) else {
                return false;
            };
            let at = offset + within as usize;
            let mut loaded = [0; 8];
            self.memory.read_slice(&mut loaded, GuestAddress(address)).unwrap();
            loaded == self.file[at..at + 8] && loaded != [0; 8]
        })
    }

    fn bytes(&self, from: GuestAddress, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, from).unwrap();
        bytes
    }

    fn parse<E>(&self, parse: impl FnOnce(&MemoryImage<'_>) -> Result<BootInfo, E>) -> BootInfo
    where
        E: std::fmt::Debug,
    {
        let bytes = self.bytes(GuestAddress(0), MEMORY);
        parse(&MemoryImage::new(PhysAddr::new(0).unwrap(), &bytes)).unwrap()
    }
}

fn assert_read(info: &BootInfo) {
    assert_eq!(info.command_line.as_bytes(), LINE.as_bytes());
    let usable: Vec<_> = info.memory_map.usable().map(|range| (range.start().as_u64(), range.bytes())).collect();
    assert_eq!(usable, RANGES);
    assert!(info.rsdp.is_none());
}

#[test]
fn an_elf_is_entered_by_linux_where_its_code_lies() {
    let guest = Guest::new();
    let entry = guest.loaded.kernel_load.0;
    assert_eq!(entry, 0x20_0200);
    assert!(guest.is_code(entry), "{entry:#x} is no code");
    assert!(guest.loaded.kernel_end <= 8 << 20);
}

#[test]
fn an_elf_is_entered_by_pvh_where_its_code_lies() {
    let guest = Guest::new();
    let PvhBootCapability::PvhEntryPresent(entry) = guest.loaded.pvh_boot_cap else { panic!("no PVH note") };
    assert!(guest.is_code(entry.0), "{entry:?} is no code");
    assert_ne!(entry, guest.loaded.kernel_load);
}

/// What an ELF loader has in memory from 2 MiB on, a bzImage's loader has where it put that, zeros and all.
#[test]
fn a_bzimage_is_the_same_memory_as_the_elf() {
    let elf = Guest::new();
    let start = 0x20_0000;
    for at in [None, Some(GuestAddress(start))] {
        let guest = Guest::with_bzimage(at);
        let from = guest.loaded.kernel_load;
        assert_eq!(from, at.unwrap_or(HIGH_MEMORY));
        let length = (guest.loaded.kernel_end - from.0) as usize;
        assert_eq!(length, (elf.loaded.kernel_end - start).next_multiple_of(4096) as usize);
        let (ours, theirs) = (guest.bytes(from, length), elf.bytes(GuestAddress(start), length));
        // The linker fills room between sections with breakpoints, objcopy with zeros.
        let differs = |at: &usize| ours[*at] != theirs[*at] && (ours[*at], theirs[*at]) != (0, 0xCC);
        assert_eq!((0..length).find(differs), None, "loaded at {from:?}");
    }
}

/// Fields by their offsets in the file (Linux, boot.rst, "Details of Header Fields").
#[test]
fn a_bzimage_says_what_it_needs() {
    let guest = Guest::with_bzimage(None);
    let header = guest.loaded.setup_header.unwrap();
    let image = guest.file.len() as u64 - 1024;
    let is_64_bit_and_low = 1;
    assert_eq!((header.version, header.loadflags, header.xloadflags), (0x20C, 1, is_64_bit_and_low));
    assert_eq!((header.setup_sects, u64::from(header.syssize) * 16), (1, image));
    assert_eq!((header.relocatable_kernel, header.min_alignment, header.kernel_alignment), (1, 21, 0x20_0000));
    assert_eq!((header.pref_address, u64::from(header.init_size)), (0x20_0000, image));
    assert_eq!((header.cmdline_size, header.handover_offset), (2048, 0));
    let name = 0x200 + usize::from(header.kernel_version);
    assert!(guest.file[name..].starts_with(concat!("ballonet ", env!("CARGO_PKG_VERSION"), "\0").as_bytes()));
    // The jump in real mode leads behind the header.
    assert_eq!(guest.file[0x200..0x202], [0xEB, 0x66]);
}

#[test]
fn a_zero_page_of_the_loader_is_read() {
    let mut made = boot_params::default();
    made.hdr.boot_flag = 0xAA55;
    made.hdr.header = linux::MAGIC;
    reads_a_zero_page(&Guest::new(), made);
    let guest = Guest::with_bzimage(None);
    reads_a_zero_page(&guest, boot_params { hdr: guest.loaded.setup_header.unwrap(), ..Default::default() });
}

fn reads_a_zero_page(guest: &Guest, mut page: boot_params) {
    page.hdr.type_of_loader = 0xFF;
    page.hdr.cmd_line_ptr = COMMAND_LINE.0 as u32;
    page.hdr.cmdline_size = LINE.len() as u32;
    for (slot, (addr, size)) in page.e820_table.iter_mut().zip(RANGES) {
        *slot = boot_e820_entry { addr, size, r#type: 1 };
    }
    page.e820_entries = RANGES.len() as u8;
    LinuxBootConfigurator::write_bootparams(&BootParams::new(&page, ZERO_PAGE), &guest.memory).unwrap();
    assert_read(
        &guest.parse(|memory| linux::parse(memory, PhysAddr::new(ZERO_PAGE.0).unwrap(), &mut |note| panic!("{note}"))),
    );
}

#[test]
fn start_info_of_the_loader_is_read() {
    let guest = Guest::new();
    let start = hvm_start_info {
        magic: pvh::START_MAGIC,
        version: 1,
        cmdline_paddr: COMMAND_LINE.0,
        memmap_paddr: MAP.0,
        memmap_entries: RANGES.len() as u32,
        ..Default::default()
    };
    let map = RANGES.map(|(addr, size)| hvm_memmap_table_entry { addr, size, type_: 1, reserved: 0 });
    let mut params = BootParams::new(&start, START_INFO);
    params.set_sections(&map, MAP);
    PvhBootConfigurator::write_bootparams(&params, &guest.memory).unwrap();
    assert_read(
        &guest.parse(|memory| pvh::parse(memory, PhysAddr::new(START_INFO.0).unwrap(), &mut |note| panic!("{note}"))),
    );
}
