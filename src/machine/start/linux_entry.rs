//! The entries of the Linux boot protocol, 32-bit and 64-bit, to the common entry code.
//!
//! *On entry* (Linux, Documentation/arch/x86/boot.rst, 1.14 and 1.15): `esi` or `rsi` = physical address of the zero
//! page (`boot_params`), interrupts off. At the 32-bit entry, the image's first byte: protected mode, flat segments,
//! paging off. At the 64-bit entry, 0x200 bytes further, which is the ELF header's: long mode, image and zero page
//! mapped one to one. The entry at the first byte also accepts long mode, for loaders of flat images. Nothing else is
//! assumed, neither a stack nor the loader's segments.
//!
//! *We establish* the state that [`entry`](crate::machine::start::entry) begins with: 32-bit flat segments, `ebx` = the
//! zero page, `esi` = [`MAGIC`](crate::boot::linux::MAGIC), `ebp` = the image's distance from its linked address, a
//! multiple of 2 MiB: if the loader put it elsewhere, it moves itself up to the next multiple, for which the protocol
//! reserves room (`init_size`).

/// Defines the entries, in a section that is linked at physical addresses.
#[doc(hidden)]
#[macro_export]
macro_rules! linux_entry {
    () => {
        core::arch::global_asm!(
            ".pushsection .linux, \"ax\", @progbits",
            ".code32",
            ".globl linux_entry_32",
            "linux_entry_32:",
            "cli",
            "cld",
            // StratoVirt enters a flat image here in long mode, where the byte 0x40 is no `inc eax` but a prefix of the
            // `nop`.
            "xor eax, eax",
            ".byte 0x40, 0x90",
            "test eax, eax",
            "jz linux_entry_64",
            // Where are we? The zero page has a word for this (`scratch`), briefly used as the stack.
            "lea esp, [esi + 0x1e8]",
            "call linux_here",
            "linux_here:",
            "pop ebp",
            "sub ebp, offset linux_here",
            "mov ebx, esi",
            "jmp linux_common",

            ".org 0x200",
            ".code64",
            ".globl linux_entry_64",
            "linux_entry_64:",
            "cli",
            "cld",
            "lea rbp, [rip + linux_entry_64]",
            "sub rbp, offset linux_entry_64",
            // A zero page at or above 4 GiB cannot be read: pass 0, which is refused.
            "xor ebx, ebx",
            "mov rax, rsi",
            "shr rax, 32",
            "jnz 2f",
            "mov ebx, esi",
            "2:",
            // PCID must be off before paging is.
            "mov rax, cr4",
            "and eax, {without_pcid}",
            "mov cr4, rax",
            // To 32-bit code, by our own segments.
            "lea esp, [ebp + {stack} + {stack_top} + {down}]",
            "lea eax, [ebp + {gdt} + {down}]",
            "push rax",
            "sub rsp, 8",
            "mov word ptr [rsp + 6], {gdt_limit}",
            "lgdt [rsp + 6]",
            "push 0x10",
            "lea rax, [rip + linux_compatibility_mode]",
            "push rax",
            "retfq",

            ".code32",
            "linux_compatibility_mode:",
            "mov eax, 0x18",
            "mov ds, eax",
            "mov es, eax",
            "mov ss, eax",
            // Paging off: the loader's tables need not map what the image moves to.
            "mov eax, cr0",
            "and eax, 0x7fffffff",
            "mov cr0, eax",
            "linux_common:",
            // A bzImage may be loaded at 1 MiB. Then the image moves up to a multiple of 2 MiB, copied from its end
            // since source and target overlap. This code lies too low to be overwritten.
            "mov edx, ebp",
            "and edx, 0x1fffff",
            "jz 3f",
            "sub edx, 0x200000",
            "neg edx",
            "lea esi, [ebp + __image_end + {down} - 4]",
            "lea edi, [esi + edx]",
            "mov ecx, offset __image_size",
            "shr ecx, 2",
            "std",
            "rep movsd",
            "cld",
            "add ebp, edx",
            "3:",
            "mov esi, {magic}",
            "lea eax, [ebp + common_entry + {down}]",
            "jmp eax",
            ".code64",
            ".popsection",
            down = const $crate::image::OFFSET.wrapping_neg(),
            stack = sym $crate::image::MAIN,
            stack_top = const $crate::image::MAIN_TOP,
            gdt = sym $crate::image::ENTRY_GDT,
            gdt_limit = const $crate::image::ENTRY_GDT_LIMIT,
            without_pcid = const $crate::image::WITHOUT_PCID,
            magic = const $crate::image::LINUX_MAGIC,
        );
    };
}

/// CR4 without process-context identifiers.
#[doc(hidden)]
pub const WITHOUT_PCID: u32 = !(x86_64::registers::control::Cr4Flags::PCID.bits() as u32);
