//! From the loader's 32-bit entry to Rust.
//!
//! *On entry* by PVH (Xen's x86/HVM direct boot ABI): protected mode, 32-bit flat segments, paging off, interrupts off,
//! `ebx` = physical address of `hvm_start_info`. Nothing else is taken for granted, neither control bits nor a stack.
//!
//! *We establish*: long mode, SSE on (the compiler uses it everywhere), write protection of read-only pages, the first
//! 4 GiB mapped one to one by 2 MiB pages, a stack that ends in a null frame pointer; then the kernel's `main`.

use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};
use x86_64::structures::paging::PageTableFlags;

/// CR0 in the kernel: protection and paging on; FPU present, its errors by exception 16; read-only pages bind ring 0
/// too. Not set: emulation and task-switched, which would make SSE fault; cache disable.
#[doc(hidden)]
pub const CR0: u32 = (Cr0Flags::PROTECTED_MODE_ENABLE.bits()
    | Cr0Flags::MONITOR_COPROCESSOR.bits()
    | Cr0Flags::EXTENSION_TYPE.bits()
    | Cr0Flags::NUMERIC_ERROR.bits()
    | Cr0Flags::WRITE_PROTECT.bits()
    | Cr0Flags::PAGING.bits()) as u32;

/// CR4 at entry: 64-bit page tables; FXSAVE, SSE and its exceptions. Not set: OSXSAVE, so AVX stays off.
#[doc(hidden)]
pub const CR4: u32 =
    (Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits() | Cr4Flags::OSFXSR.bits() | Cr4Flags::OSXMMEXCPT_ENABLE.bits()) as u32;

/// The EFER register's number (SDM vol. 4, table 2-2).
#[doc(hidden)]
pub const EFER: u32 = 0xC000_0080;

/// EFER at entry: long mode. NX follows once CPUID has been asked.
#[doc(hidden)]
pub const EFER_LONG_MODE: u32 = EferFlags::LONG_MODE_ENABLE.bits() as u32;

/// An entry that points to the next table.
#[doc(hidden)]
pub const TABLE: u32 = (PageTableFlags::PRESENT.bits() | PageTableFlags::WRITABLE.bits()) as u32;

/// An entry that maps 2 MiB.
#[doc(hidden)]
pub const HUGE: u32 = TABLE | PageTableFlags::HUGE_PAGE.bits() as u32;

/// The entry's GDT: null, 64-bit ring-0 code. The kernel's own replaces it at once.
#[doc(hidden)]
pub static ENTRY_GDT: [u64; 2] = [0, 0x00AF_9B00_0000_FFFF];

/// Room for the entry's page tables: PML4, PDPT and one PD for each of the first 4 GiB.
#[doc(hidden)]
#[repr(C, align(4096))]
pub struct EntryTables(core::cell::UnsafeCell<[u8; 6 * 4096]>);

// SAFETY: only the entry code writes it, before there is a second thread of execution; then the MMU alone reads it.
unsafe impl Sync for EntryTables {}

/// The entry's page tables.
#[doc(hidden)]
pub static ENTRY_TABLES: EntryTables = EntryTables(core::cell::UnsafeCell::new([0; 6 * 4096]));

/// Defines the kernel's entry points; `$main` is a `fn(ballonet::machine::Entry) -> !`.
///
/// A macro, because a library with an entry point in it could not be linked into host tests.
#[macro_export]
macro_rules! entry_point {
    ($main:path) => {
        core::arch::global_asm!(
            // XEN_ELFNOTE_PHYS32_ENTRY: the address at which to start the kernel.
            ".pushsection .note.Xen, \"a\", @note",
            ".p2align 2",
            ".long 4",                    // size of the name
            ".long 8",                    // size of the descriptor
            ".long {note_type}",
            ".asciz \"Xen\"",
            ".quad pvh_entry",
            ".popsection",

            ".pushsection .text.entry, \"ax\", @progbits",
            ".code32",
            ".globl pvh_entry",
            "pvh_entry:",
            "cli",
            "cld",
            "mov esp, offset {stack} + {stack_top}",

            // PML4[0] -> PDPT, PDPT[0..4] -> the four PDs.
            "mov dword ptr [{tables}], offset {tables} + 0x1000 + {table}",
            "mov dword ptr [{tables} + 0x1000], offset {tables} + 0x2000 + {table}",
            "mov dword ptr [{tables} + 0x1008], offset {tables} + 0x3000 + {table}",
            "mov dword ptr [{tables} + 0x1010], offset {tables} + 0x4000 + {table}",
            "mov dword ptr [{tables} + 0x1018], offset {tables} + 0x5000 + {table}",
            // The PDs: 2048 pages of 2 MiB.
            "mov edi, offset {tables} + 0x2000",
            "mov eax, {huge}",
            "mov ecx, 2048",
            "2:",
            "mov dword ptr [edi], eax",
            "add eax, 0x200000",
            "add edi, 8",
            "dec ecx",
            "jnz 2b",

            "mov eax, {cr4}",
            "mov cr4, eax",
            "mov eax, offset {tables}",
            "mov cr3, eax",
            "mov ecx, {efer}",
            "rdmsr",
            "or eax, {long_mode}",
            "wrmsr",
            "mov eax, {cr0}",
            "mov cr0, eax",

            // Into 64-bit code by a far return.
            "sub esp, 8",
            "mov word ptr [esp], {gdt_limit}",
            "mov dword ptr [esp + 2], offset {gdt}",
            "lgdt [esp]",
            "push 8",
            "mov eax, offset pvh_long_mode",
            "push eax",
            "retf",
            ".code64",
            "pvh_long_mode:",
            "xor eax, eax",
            "mov ds, ax",
            "mov es, ax",
            "mov ss, ax",
            "mov fs, ax",
            "mov gs, ax",
            "lea rsp, [rip + {stack} + {stack_top}]",
            "xor ebp, ebp",
            "mov edi, ebx",
            "call {start}",
            "ud2",
            ".popsection",
            note_type = const $crate::boot::pvh::NOTE_TYPE_PHYS32_ENTRY,
            stack = sym $crate::machine::stack::MAIN,
            stack_top = const $crate::machine::stack::MAIN_TOP,
            tables = sym $crate::machine::entry::ENTRY_TABLES,
            table = const $crate::machine::entry::TABLE,
            huge = const $crate::machine::entry::HUGE,
            cr0 = const $crate::machine::entry::CR0,
            cr4 = const $crate::machine::entry::CR4,
            efer = const $crate::machine::entry::EFER,
            long_mode = const $crate::machine::entry::EFER_LONG_MODE,
            gdt = sym $crate::machine::entry::ENTRY_GDT,
            gdt_limit = const 15,
            start = sym start_from_entry,
        );

        /// The first Rust code to run.
        extern "C" fn start_from_entry(start_info: u32) -> ! {
            unsafe extern "C" {
                static __image_start: u8;
                static __text_start: u8;
                static __text_end: u8;
                static __image_end: u8;
            }
            let image = $crate::machine::Image {
                start: &raw const __image_start as u64,
                text_start: &raw const __text_start as u64,
                text_end: &raw const __text_end as u64,
                end: &raw const __image_end as u64,
            };
            let main: fn($crate::machine::Entry) -> ! = $main;
            main($crate::machine::Entry::pvh(image, start_info))
        }
    };
}
