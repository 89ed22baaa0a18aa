//! A loader: an ELF image that QEMU starts by PVH, made of the kernel as a VMM lays it out and a stub.
//!
//! This file lays out everything that the Linux boot protocol requires, at 64 MiB. The stub has some forty
//! instructions: it fills in the address of QEMU's command line, moves the RSDP, enters long mode, and jumps to the
//! kernel.

use std::arch::global_asm;

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::ByteValued;

use super::loading::Loaded;
use crate::support::{MIB, Outcome};

/// The guest's memory in bytes.
pub(super) const MEMORY: u64 = 256 * MIB;

/// Address of the stub; its parts follow.
const BASE: u32 = 64 << 20;
const ENTRY: u32 = BASE + 0x800;
const MOVES: u32 = BASE + 0x808;
const KIND: u32 = BASE + 0x80C;
const TABLE_REGISTER: u32 = BASE + 0x810;
const GDT: u32 = BASE + 0x820;
const ZERO_PAGE: u32 = BASE + 0x1000;
const PML4: u32 = BASE + 0x2000;
const PDPT: u32 = BASE + 0x3000;
const PD: u32 = BASE + 0x4000;
const END: u32 = BASE + 0x8000;

/// New address of the RSDP: the one that Firecracker uses.
const BIOS_AREA: u32 = 0xE_0000;

global_asm!(
    ".pushsection .rodata.stub, \"a\", @progbits",
    ".globl ballonet_stub_begin",
    ".globl ballonet_stub_end",
    "ballonet_stub_begin:",
    ".code32",
    // The start info has the RSDP's address at offset 32, the command line's at 24.
    "mov eax, dword ptr [ebx + 24]",
    "mov dword ptr [{zero_page} + 0x228], eax",
    "cmp dword ptr [{moves}], 0",
    "je 2f",
    // Copy the RSDP's 36 bytes and destroy the original's signature.
    "mov esi, dword ptr [ebx + 32]",
    "mov edx, esi",
    "mov edi, {bios_area}",
    "mov ecx, 9",
    "cld",
    "rep movsd",
    "mov dword ptr [edx], 0",
    "mov dword ptr [ebx + 32], 0",
    "mov dword ptr [ebx + 36], 0",
    // Swaps two letters of the name `_S5_` in the DSDT: the checksum stays right. Firmware put it below 1 MiB (QEMU 7.2) or
    // into the last MiB of 256 (10.0). There may be copies, and there must be one.
    "xor esi, esi",
    "mov edi, 0x80000",
    "5:",
    "cmp dword ptr [edi], {soft_off}",
    "jne 6f",
    "mov dword ptr [edi], {no_soft_off}",
    "inc esi",
    "6:",
    "inc edi",
    "cmp edi, 0xffffc",
    "jne 7f",
    "mov edi, 0xff00000",
    "7:",
    "cmp edi, 0xffffffc",
    "jne 5b",
    "test esi, esi",
    "jnz 2f",
    "ud2",
    "2:",
    "mov edi, -1",
    "mov ebp, -1",
    "xor esp, esp",
    "cmp dword ptr [{kind}], {linux_32}",
    "ja 3f",
    "je 4f",
    // Into the PVH entry, in the state of QEMU's start: `ebx` is the start info.
    "jmp dword ptr [{entry}]",
    "4:",
    // Into the 32-bit entry: flat segments, as PVH has them.
    "mov esi, {zero_page}",
    "xor ebx, ebx",
    "jmp dword ptr [{entry}]",
    "3:",
    // Long mode: PAE, the page tables, LME, paging.
    "mov eax, 1 << 5",
    "mov cr4, eax",
    "mov eax, {pml4}",
    "mov cr3, eax",
    "mov ecx, 0xC0000080",
    "rdmsr",
    "or eax, 1 << 8",
    "wrmsr",
    "mov eax, cr0",
    "or eax, 1 << 31",
    "mov cr0, eax",
    "lgdt [{table_register}]",
    "mov esp, {stack}",
    "push 0x10",
    "push {long_mode}",
    "retf",
    ".org ballonet_stub_begin + 0x200",
    ".code64",
    "mov eax, 0x18",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    // Set PCID if the CPU has it: paging cannot be turned off while it is set.
    "mov eax, 1",
    "cpuid",
    "and ecx, 1 << 17",
    "mov rax, cr4",
    "or rax, rcx",
    "mov cr4, rax",
    "mov esi, {zero_page}",
    "mov rbx, -1",
    "mov rbp, -1",
    "xor esp, esp",
    "mov eax, {entry}",
    "jmp qword ptr [rax]",
    "ballonet_stub_end:",
    ".popsection",
    zero_page = const ZERO_PAGE,
    moves = const MOVES,
    bios_area = const BIOS_AREA,
    soft_off = const u32::from_le_bytes(*b"_S5_"),
    no_soft_off = const u32::from_le_bytes(*b"_5S_"),
    kind = const KIND,
    linux_32 = const Entry::Linux32 as u32,
    entry = const ENTRY,
    pml4 = const PML4,
    table_register = const TABLE_REGISTER,
    stack = const ENTRY,
    long_mode = const BASE + 0x200,
);

unsafe extern "C" {
    static ballonet_stub_begin: u8;
    static ballonet_stub_end: u8;
}

fn code() -> &'static [u8] {
    // SAFETY: both symbols are in the section above, which nothing writes.
    unsafe {
        let begin = &raw const ballonet_stub_begin;
        let length = (&raw const ballonet_stub_end).offset_from_unsigned(begin);
        std::slice::from_raw_parts(begin, length)
    }
}

/// How the kernel is entered. The stub uses the order of the variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// By PVH.
    Pvh,
    /// By the Linux boot protocol, in protected mode.
    Linux32,
    /// The same in long mode.
    Linux64,
}

/// What happens to the ACPI tables. The zero page never gives their address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tables {
    /// Unchanged, if firmware made any.
    InPlace,
    /// The RSDP is only at 0xE0000, and the start info does not give it. There is no `_S5`.
    AsFirecracker,
}

/// What the stub prepares.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stub {
    pub(super) entry: Entry,
    pub(super) tables: Tables,
}

impl Stub {
    /// The stub and the kernel in one ELF image.
    pub(super) fn around(self, kernel: &Loaded) -> Outcome<Vec<u8>> {
        let entry = match self.entry {
            Entry::Pvh => kernel.pvh.ok_or("this kernel has no entry of PVH")?,
            Entry::Linux32 => kernel.linux_32,
            Entry::Linux64 => kernel.linux_64,
        };
        Ok(elf(&[(kernel.start, &kernel.bytes), (BASE.into(), &self.data(entry, kernel.header))]))
    }

    /// The bytes at `BASE`.
    fn data(self, entry: u64, header: Option<setup_header>) -> Vec<u8> {
        let mut data = vec![0; (END - BASE) as usize];
        let mut put = |address: u32, bytes: &[u8]| {
            data[(address - BASE) as usize..][..bytes.len()].copy_from_slice(bytes);
        };
        put(BASE, code());
        put(ENTRY, &entry.to_le_bytes());
        put(MOVES, &u32::from(self.tables == Tables::AsFirecracker).to_le_bytes());
        put(KIND, &(self.entry as u32).to_le_bytes());
        put(TABLE_REGISTER, &31_u16.to_le_bytes());
        put(TABLE_REGISTER + 2, &GDT.to_le_bytes());
        // As the protocol requires: code at 0x10, data at 0x18.
        put(GDT + 0x10, &0x00AF_9B00_0000_FFFF_u64.to_le_bytes());
        put(GDT + 0x18, &0x00CF_9300_0000_FFFF_u64.to_le_bytes());
        put(PML4, &(PDPT | 3).to_le_bytes());
        for index in 0..4 {
            put(PDPT + 8 * index, &((PD + 0x1000 * index) | 3).to_le_bytes());
        }
        for index in 0..2048_u32 {
            put(PD + 8 * index, &(index << 21 | 0x83).to_le_bytes());
        }
        put(ZERO_PAGE, zero_page(header).as_slice());
        data
    }
}

/// The zero page without the command line: with the header of a bzImage, or as Firecracker makes it for an ELF file.
fn zero_page(header: Option<setup_header>) -> boot_params {
    let made = setup_header { boot_flag: 0xAA55, header: 0x5372_6448, kernel_alignment: 1 << 24, ..Default::default() };
    let hdr = setup_header { type_of_loader: 0xFF, ..header.unwrap_or(made) };
    let mut page = boot_params { hdr, e820_entries: 3, ..Default::default() };
    let map = [(0, 0x9_FC00, 1), (0xF_0000, 0x1_0000, 2), (0x10_0000, MEMORY - 0x10_0000, 1)];
    for (slot, (addr, size, r#type)) in page.e820_table.iter_mut().zip(map) {
        *slot = boot_e820_entry { addr, size, r#type };
    }
    page
}

/// An ELF64 image of these segments, with a PVH note that points to the stub.
fn elf(segments: &[(u64, &[u8])]) -> Vec<u8> {
    let count = segments.len() + 1;
    let note = [
        &4_u32.to_le_bytes()[..],
        &8_u32.to_le_bytes(),
        &18_u32.to_le_bytes(),
        b"Xen\0",
        &u64::from(BASE).to_le_bytes(),
    ];
    let note = note.concat();
    let mut image = b"\x7FELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3E\0\x01\0\0\0".to_vec();
    for word in [u64::from(BASE), 64, 0] {
        image.extend(word.to_le_bytes());
    }
    for half in [0, 0, 64, 56, count as u16, 64, 0, 0] {
        image.extend(half.to_le_bytes());
    }
    let mut contents = note.clone();
    let begin = (64 + 56 * count) as u64;
    let mut header = |kind: u32, offset: u64, address: u64, length: u64, size: u64| {
        image.extend([kind.to_le_bytes(), 7_u32.to_le_bytes()].concat());
        for field in [offset, address, address, length, size, 4] {
            image.extend(field.to_le_bytes());
        }
    };
    header(4, begin, 0, note.len() as u64, note.len() as u64);
    for &(address, bytes) in segments {
        header(1, begin + contents.len() as u64, address, bytes.len() as u64, bytes.len() as u64);
        contents.extend(bytes);
    }
    image.extend(contents);
    image
}
