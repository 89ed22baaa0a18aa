//! A loader of the Linux boot protocol: an ELF image that QEMU starts by PVH, made of the kernel's segments and a
//! stub.
//!
//! This file lays out everything that the protocol requires, at 64 MiB. The stub has some forty instructions: it
//! fills in the address of QEMU's command line, moves the RSDP, enters long mode, and jumps to the kernel.

use std::arch::global_asm;

use crate::support::{MIB, Outcome, ensure};

/// The guest's memory in bytes.
pub(super) const MEMORY: u64 = 256 * MIB;

/// Address of the stub; its parts follow.
const BASE: u32 = 64 << 20;
const ENTRY: u32 = BASE + 0x800;
const MOVES: u32 = BASE + 0x808;
const LONG: u32 = BASE + 0x80C;
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
    "2:",
    "mov edi, -1",
    "mov ebp, -1",
    "xor esp, esp",
    "cmp dword ptr [{long}], 0",
    "jne 3f",
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
    long = const LONG,
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

/// How the kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// In protected mode, at the image's first byte.
    Protected,
    /// In long mode, at the ELF header's entry.
    Long,
}

/// Where the RSDP is. The zero page never gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RootPointer {
    /// Where firmware put it, if there is one.
    InPlace,
    /// At 0xE0000, and nowhere else.
    Moved,
}

/// What the stub prepares.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stub {
    pub(super) mode: Mode,
    pub(super) root_pointer: RootPointer,
}

/// A segment to load: its address, its bytes, and its size in memory.
struct Segment<'a> {
    address: u64,
    bytes: &'a [u8],
    size: u64,
}

impl Stub {
    /// Combines the stub and the kernel into one ELF image.
    pub(super) fn around(self, kernel: &[u8]) -> Outcome<Vec<u8>> {
        let mut segments = segments(kernel)?;
        let first = segments.iter().map(|segment| segment.address).min().ok_or("a kernel without segments")?;
        let entry = number(kernel, 24, 8);
        let within = |segment: &Segment<'_>| (segment.address..segment.address + segment.size).contains(&entry);
        ensure!(segments.iter().any(within), "the entry {entry:#x} is in no segment");
        let data = self.data(if self.mode == Mode::Long { entry } else { first });
        segments.push(Segment { address: BASE.into(), bytes: &data, size: data.len() as u64 });
        Ok(elf(&segments))
    }

    /// The bytes at `BASE`.
    fn data(self, entry: u64) -> Vec<u8> {
        let mut data = vec![0; (END - BASE) as usize];
        let mut put = |address: u32, bytes: &[u8]| {
            data[(address - BASE) as usize..][..bytes.len()].copy_from_slice(bytes);
        };
        put(BASE, code());
        put(ENTRY, &entry.to_le_bytes());
        put(MOVES, &u32::from(self.root_pointer == RootPointer::Moved).to_le_bytes());
        put(LONG, &u32::from(self.mode == Mode::Long).to_le_bytes());
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
        put(ZERO_PAGE + 0x1FE, &0xAA55_u16.to_le_bytes());
        put(ZERO_PAGE + 0x202, b"HdrS");
        let map = [(0_u64, 0x9_FC00_u64, 1_u32), (0xF_0000, 0x1_0000, 2), (0x10_0000, MEMORY - 0x10_0000, 1)];
        put(ZERO_PAGE + 0x1E8, &[map.len() as u8]);
        for (index, (start, length, kind)) in (0..).zip(map) {
            let entry = [&start.to_le_bytes()[..], &length.to_le_bytes(), &kind.to_le_bytes()].concat();
            put(ZERO_PAGE + 0x2D0 + 20 * index, &entry);
        }
        data
    }
}

/// The loadable segments of an ELF image.
fn segments(image: &[u8]) -> Outcome<Vec<Segment<'_>>> {
    let (table, count) = (number(image, 32, 8), number(image, 56, 2));
    let mut segments = Vec::new();
    for header in (0..count).map(|index| usize::try_from(table + 56 * index).unwrap_or(usize::MAX)) {
        if number(image, header, 4) != 1 {
            continue;
        }
        let field = |offset| number(image, header + offset, 8);
        let (start, length) = (usize::try_from(field(8))?, usize::try_from(field(32))?);
        let bytes = image.get(start..start + length).ok_or("a segment beyond the file")?;
        segments.push(Segment { address: field(24), bytes, size: field(40) });
    }
    Ok(segments)
}

/// `length` bytes of the image as a number; bytes past the end are 0.
fn number(image: &[u8], offset: usize, length: usize) -> u64 {
    let bytes = image.get(offset..offset + length).unwrap_or(&[]);
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// An ELF64 image of these segments, with a PVH note that points to the stub.
fn elf(segments: &[Segment<'_>]) -> Vec<u8> {
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
    for segment in segments {
        header(1, begin + contents.len() as u64, segment.address, segment.bytes.len() as u64, segment.size);
        contents.extend(segment.bytes);
    }
    image.extend(contents);
    image
}
