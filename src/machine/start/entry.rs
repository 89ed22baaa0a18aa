//! From the loader's entry to Rust.
//!
//! *On entry* by PVH (Xen's x86/HVM direct boot ABI) or by multiboot2 (3.3): protected mode, 32-bit flat segments,
//! paging off, interrupts off, `ebx` = physical address of the boot information; by multiboot2 also `eax` = its magic
//! number. Nothing else is assumed, neither control bits nor a stack: GRUB under UEFI leaves PAE and long mode half
//! turned on.
//!
//! By the Linux boot protocol the code comes from [`linux_entry`](crate::machine::start::linux_entry).
//!
//! A PVH loader puts the image at its linked address, 2 MiB. GRUB puts it at a free multiple of 2 MiB, as the header
//! requests; the code finds out from its own address where that is.
//!
//! *We establish*: the CPU has what the kernel needs (see [`refusal`](crate::machine::start::refusal)), long mode, SSE
//! on (the compiler uses it everywhere), write protection of read-only pages, the first 4 GiB mapped one to one and the
//! image at its linked addresses (by 2 MiB pages), a stack that ends in a null frame pointer; then the kernel's `main`.

use core::ops::Range;

use x86_64::instructions::tlb;
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

/// EFER at entry: long mode. NX follows once CPUID has been read.
#[doc(hidden)]
pub const EFER_LONG_MODE: u32 = EferFlags::LONG_MODE_ENABLE.bits() as u32;

/// An entry that points to the next table.
#[doc(hidden)]
pub const TABLE: u32 = (PageTableFlags::PRESENT.bits() | PageTableFlags::WRITABLE.bits()) as u32;

/// An entry that maps 2 MiB.
#[doc(hidden)]
pub const HUGE: u32 = TABLE | PageTableFlags::HUGE_PAGE.bits() as u32;

/// The entry's GDT: null, 64-bit ring-0 code; 32-bit ring-0 code and data, flat. The kernel's own replaces it at once.
#[doc(hidden)]
pub static ENTRY_GDT: [u64; 4] = [0, 0x00AF_9B00_0000_FFFF, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF];

/// Its limit.
#[doc(hidden)]
pub const ENTRY_GDT_LIMIT: u16 = size_of_val(&ENTRY_GDT) as u16 - 1;

/// Room for the entry's page tables: PML4, PDPT and one PD for each of the first 4 GiB; PDPT and PD for the image.
#[doc(hidden)]
#[repr(C, align(4096))]
pub struct EntryTables(core::cell::UnsafeCell<[u8; 8 * 4096]>);

// SAFETY: only the entry code writes it, before there is a second thread of execution; afterwards only the MMU reads
// it.
unsafe impl Sync for EntryTables {}

impl EntryTables {
    /// The address of the top one.
    pub(crate) fn address(&self) -> u64 {
        self.0.get() as u64
    }

    /// Makes the CPU combine writes to a range of physical addresses below 4 GiB, by 2 MiB pages, while these tables
    /// are in use.
    ///
    /// # Safety
    /// The range holds only pixels. No other CPU runs.
    pub(crate) unsafe fn combine_writes(&self, pixels: Range<u64>) {
        /// The PDs behind PML4 and PDPT, and what an entry of theirs maps.
        const PDS: u64 = 0x2000;
        const PAGE: u64 = 2 << 20;
        const LIMIT: u64 = 4 << 30;
        for page in pixels.start / PAGE..pixels.end.min(LIMIT).div_ceil(PAGE) {
            let entry = (self.address() + PDS + page * 8) as *mut u64;
            // SAFETY: one of the 2048 entries of the tables, which only this code changes now; the page stays where it
            // is, and its other type is right for pixels.
            unsafe { entry.write_volatile(entry.read_volatile() | PageTableFlags::WRITE_THROUGH.bits()) };
        }
        tlb::flush_all();
    }
}

/// The entry's page tables. The other CPUs start on them, too.
#[doc(hidden)]
pub static ENTRY_TABLES: EntryTables = EntryTables(core::cell::UnsafeCell::new([0; 8 * 4096]));

/// Defines the kernel's entry points. `$main` is a `fn(Entry) -> !`.
#[doc(hidden)]
#[macro_export]
macro_rules! entry_point {
    ($main:path) => {
        $crate::cpu_check!();
        $crate::linux_entry!();
        $crate::bzimage_header!();
        core::arch::global_asm!(
            // XEN_ELFNOTE_PHYS32_ENTRY: the address at which to start the kernel.
            ".pushsection .note.Xen, \"a\", @note",
            ".p2align 2",
            ".long 4",                    // size of the name
            ".long 8",                    // size of the descriptor
            ".long {note_type}",
            ".asciz \"Xen\"",
            ".quad pvh_entry + {down}",
            ".popsection",

            // The multiboot2 header (3.1).
            ".pushsection .multiboot2, \"a\", @progbits",
            ".p2align 3",
            "multiboot2_header:",
            ".long {header_magic}",
            ".long 0",                    // i386 in protected mode
            ".long multiboot2_header_end - multiboot2_header",
            ".long -({header_magic} + (multiboot2_header_end - multiboot2_header))",
            // Entry address (3.1.7): the ELF header's is that of Linux.
            ".p2align 3",
            ".short 3, 0",
            ".long 12, multiboot2_entry + {down}",
            // Framebuffer (3.1.10), optional: of any size and depth.
            ".p2align 3",
            ".short 5, 1",
            ".long 20, 0, 0, 0",
            // Modules on page boundaries (3.1.11).
            ".p2align 3",
            ".short 6, 0",
            ".long 8",
            // Relocatable (3.1.14): from 2 MiB to 4 GiB, aligned to 2 MiB, as low as possible.
            ".p2align 3",
            ".short 10, 0",
            ".long 24, 0x200000, 0xffffffff, 0x200000, 1",
            // The end.
            ".p2align 3",
            ".short 0, 0",
            ".long 8",
            "multiboot2_header_end:",
            ".popsection",

            ".pushsection .text.entry, \"ax\", @progbits",
            ".code32",
            ".globl multiboot2_entry",
            "multiboot2_entry:",
            "cli",
            "cld",
            "mov esi, eax",
            // Where are we? The boot information begins with its size and a word that is reserved (3.6.2): the only
            // memory known to be there, and for a moment the stack.
            "lea esp, [ebx + 8]",
            "call multiboot2_here",
            "multiboot2_here:",
            "pop ebp",
            "sub ebp, offset multiboot2_here + {down}",
            "jmp common_entry",

            ".globl pvh_entry",
            "pvh_entry:",
            "cli",
            "cld",
            "xor esi, esi",
            "xor ebp, ebp",

            // `{down}` added to a linked address makes the physical one. From here on `ebp` is the distance from where
            // the image is linked to lie to where it lies, `ebx` the boot information, `esi` the magic number.
            "common_entry:",
            "lea esp, [ebp + {stack} + {stack_top} + {down}]",
            "call check_cpu",
            // Paging may be half on: turn long mode's bits off before the tables change.
            "mov eax, cr0",
            "and eax, 0x7fffffff",
            "mov cr0, eax",

            // PML4[0] -> PDPT, PDPT[0..4] -> the four PDs.
            "lea edi, [ebp + {tables} + {down}]",
            "lea eax, [edi + 0x1000 + {table}]",
            "mov dword ptr [edi], eax",
            "lea eax, [edi + 0x2000 + {table}]",
            "mov dword ptr [edi + 0x1000], eax",
            "add eax, 0x1000",
            "mov dword ptr [edi + 0x1008], eax",
            "add eax, 0x1000",
            "mov dword ptr [edi + 0x1010], eax",
            "add eax, 0x1000",
            "mov dword ptr [edi + 0x1018], eax",
            // PML4[511] -> PDPT, PDPT[510] -> PD: the last 2 GiB but one.
            "add eax, 0x1000",
            "mov dword ptr [edi + 511 * 8], eax",
            "add eax, 0x1000",
            "mov dword ptr [edi + 0x6000 + 510 * 8], eax",
            // PD[1..4]: the image, from 2 MiB to 8 MiB.
            "lea eax, [ebp + 0x200000 + {huge}]",
            "mov dword ptr [edi + 0x7000 + 8], eax",
            "add eax, 0x200000",
            "mov dword ptr [edi + 0x7000 + 16], eax",
            "add eax, 0x200000",
            "mov dword ptr [edi + 0x7000 + 24], eax",
            // The PDs: 2048 pages of 2 MiB.
            "lea edx, [edi + 0x2000]",
            "mov eax, {huge}",
            "mov ecx, 2048",
            "2:",
            "mov dword ptr [edx], eax",
            "add eax, 0x200000",
            "add edx, 8",
            "dec ecx",
            "jnz 2b",

            "mov eax, {cr4}",
            "mov cr4, eax",
            "mov cr3, edi",
            "mov ecx, {efer}",
            "rdmsr",
            "or eax, {long_mode}",
            "wrmsr",
            "mov eax, {cr0}",
            "mov cr0, eax",

            // Into 64-bit code by a far return.
            "sub esp, 8",
            "mov word ptr [esp], {gdt_limit}",
            "lea eax, [ebp + {gdt} + {down}]",
            "mov dword ptr [esp + 2], eax",
            "lgdt [esp]",
            "push 8",
            "lea eax, [ebp + long_mode_entry + {down}]",
            "push eax",
            "retf",
            ".code64",
            "long_mode_entry:",
            "xor eax, eax",
            "mov ds, ax",
            "mov es, ax",
            "mov ss, ax",
            "mov fs, ax",
            "mov gs, ax",
            // To where the image is linked to run.
            "movabs rax, offset linked_entry",
            "jmp rax",
            "linked_entry:",
            "lea rsp, [rip + {stack} + {stack_top}]",
            "mov edi, esi",
            "mov esi, ebx",
            "mov edx, ebp",
            "xor ebp, ebp",
            "call {start}",
            "ud2",
            ".popsection",
            note_type = const $crate::image::NOTE_TYPE_PHYS32_ENTRY,
            header_magic = const $crate::image::HEADER_MAGIC,
            down = const $crate::image::OFFSET.wrapping_neg(),
            stack = sym $crate::image::MAIN,
            stack_top = const $crate::image::MAIN_TOP,
            tables = sym $crate::image::ENTRY_TABLES,
            table = const $crate::image::TABLE,
            huge = const $crate::image::HUGE,
            cr0 = const $crate::image::CR0,
            cr4 = const $crate::image::CR4,
            efer = const $crate::image::EFER,
            long_mode = const $crate::image::EFER_LONG_MODE,
            gdt = sym $crate::image::ENTRY_GDT,
            gdt_limit = const $crate::image::ENTRY_GDT_LIMIT,
            start = sym start_from_entry,
        );

        /// The first Rust code to run.
        extern "C" fn start_from_entry(magic: u32, boot_information: u32, displacement: u32) -> ! {
            unsafe extern "C" {
                static __image_start: u8;
                static __text_start: u8;
                static __text_end: u8;
                static __image_end: u8;
            }
            let image = $crate::image::Image {
                start: &raw const __image_start as u64,
                text_start: &raw const __text_start as u64,
                text_end: &raw const __text_end as u64,
                end: &raw const __image_end as u64,
                offset: $crate::image::OFFSET.wrapping_sub(displacement as u64),
            };
            let main: fn($crate::image::Entry) -> ! = $main;
            main($crate::image::Entry::new(image, magic, boot_information))
        }
    };
}
