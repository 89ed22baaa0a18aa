//! From the PVH entry to Rust.
//!
//! *On entry*: 32-bit protected mode, paging off, interrupts off, `ebx` = address of the start info (Xen,
//! public/arch-x86/hvm/start_info.h). *We establish*: long mode, SSE, the first 4 GiB mapped one to one by 2 MiB pages,
//! a stack; then the kernel's `kernel_main`.

use core::arch::global_asm;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};

/// Address of the PVH start info.
static START_INFO: AtomicU32 = AtomicU32::new(0);

global_asm!(
    // XEN_ELFNOTE_PHYS32_ENTRY.
    ".pushsection .note.Xen, \"a\", @note",
    ".p2align 2",
    ".long 4, 8, 18",
    ".asciz \"Xen\"",
    ".quad pvh_entry",
    ".popsection",
    ".pushsection .bss",
    ".p2align 12",
    "tables: .skip 6 * 4096",
    "stack: .skip 65536",
    "stack_top:",
    ".popsection",
    ".pushsection .text",
    ".p2align 3",
    "entry_gdt: .quad 0, 0x00AF9B000000FFFF",
    "entry_gdt_pointer: .short 15",
    ".long entry_gdt",
    ".code32",
    ".globl pvh_entry",
    "pvh_entry:",
    "cld",
    "mov esp, offset stack_top",
    // PML4[0] -> PDPT; PDPT[0..4] -> four PDs of 512 pages of 2 MiB.
    "mov edi, offset tables",
    "lea eax, [edi + 0x1003]",
    "mov [edi], eax",
    "lea eax, [edi + 0x2003]",
    "xor ecx, ecx",
    "2: mov [edi + 0x1000 + ecx * 8], eax",
    "add eax, 0x1000",
    "inc ecx",
    "cmp ecx, 4",
    "jne 2b",
    "mov eax, 0x83",
    "xor ecx, ecx",
    "3: mov [edi + 0x2000 + ecx * 8], eax",
    "add eax, 0x200000",
    "inc ecx",
    "cmp ecx, 2048",
    "jne 3b",
    "mov cr3, edi",
    // CR4: PAE, OSFXSR, OSXMMEXCPT; EFER: LME; CR0: PG, WP, NE, ET, MP, PE.
    "mov eax, 0x620",
    "mov cr4, eax",
    "mov ecx, 0xC0000080",
    "rdmsr",
    "or eax, 0x100",
    "wrmsr",
    "mov eax, 0x80010033",
    "mov cr0, eax",
    "lgdt [entry_gdt_pointer]",
    "push 8",
    "mov eax, offset long_mode",
    "push eax",
    "retf",
    ".code64",
    "long_mode:",
    "xor eax, eax",
    "mov ds, ax",
    "mov es, ax",
    "mov ss, ax",
    "mov edi, ebx",
    "xor ebp, ebp",
    "call {start}",
    ".popsection",
    start = sym start,
);

unsafe extern "Rust" {
    /// The kernel's main function.
    fn kernel_main() -> !;
}

unsafe extern "C" {
    static image_end: u8;
}

extern "C" fn start(start_info: u32) -> ! {
    START_INFO.store(start_info, Ordering::Relaxed);
    crate::serial::log();
    // SAFETY: each kernel defines it with this signature.
    unsafe { kernel_main() }
}

/// The kernel's command line.
pub fn command_line() -> &'static str {
    let info = START_INFO.load(Ordering::Relaxed) as usize;
    // SAFETY: offset 24 of the start info holds the address of a zero-terminated text, or 0.
    let text = unsafe { ((info + 24) as *const u64).read_unaligned() as *const i8 };
    if text.is_null() {
        return "";
    }
    // SAFETY: as above; nothing changes the text.
    unsafe { core::ffi::CStr::from_ptr(text) }.to_str().unwrap_or("")
}

/// The largest range of memory behind the kernel, by the loader's memory map.
pub fn ram() -> Range<u64> {
    let info = u64::from(START_INFO.load(Ordering::Relaxed));
    // SAFETY: the loader left the start info there: the map's address at 40, its count at 48; entries of 24 bytes, with
    // start, length and kind, 1 for memory.
    let word = |address: u64| unsafe { (address as *const u64).read_unaligned() };
    let (map, count) = (word(info + 40), word(info + 48) as u32);
    let entries = (0..u64::from(count)).map(|index| map + index * 24);
    let memory =
        entries.filter(|entry| word(entry + 16) as u32 == 1).map(|entry| word(entry)..word(entry) + word(entry + 8));
    let below = memory.filter(|range| range.end <= 1 << 32);
    let largest = below.max_by_key(|range| range.end - range.start).unwrap_or(0..0);
    largest.start.max(&raw const image_end as u64)..largest.end
}
