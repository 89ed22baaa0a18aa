//! Checks the CPU before the entry code leaves 32-bit mode, and reports one that cannot run the kernel.
//!
//! *On entry*: the state of [`entry`](crate::machine::start::entry), with a stack; only 80386 instructions are certain
//! to exist.
//!
//! *We establish*: CPUID, 64-bit mode, and the features that the entry code and compiled code use unconditionally. If
//! one is missing, the reason goes to COM1, to a screen in VGA text mode, and to a framebuffer from GRUB; then a
//! virtual machine exits as after any other failure, and a PC halts.

use crate::machine::power::ExitStatus;
use crate::screen::{GLYPH_HEIGHT, GLYPH_WIDTH, bitmap};

/// Glyphs of the characters from blank to `~`: one byte per line, the leftmost pixel in its highest bit.
#[doc(hidden)]
pub static GLYPHS: [[u8; GLYPH_HEIGHT]; 95] = {
    assert!(GLYPH_WIDTH == 8 && GLYPH_HEIGHT == 16);
    let (mut all, mut index) = ([[0; GLYPH_HEIGHT]; 95], 0);
    while index < all.len() {
        all[index] = bitmap(b' ' + index as u8);
        index += 1;
    }
    all
};

/// The value for QEMU's exit device on failure.
#[doc(hidden)]
pub const DEBUG_EXIT_FAILURE: u32 = ExitStatus::Failure.debug_exit_value();

/// Defines `check_cpu`, which the entry code calls. It returns only if the kernel can run, and preserves `ebx`, `esi`
/// and `ebp`, which the entry code uses; all other registers change.
#[doc(hidden)]
#[macro_export]
macro_rules! cpu_check {
    () => {
        core::arch::global_asm!(
            // Address, pitch, width, height and bytes a pixel of the framebuffer, if the address is not 0; whether
            // CPUID exists.
            ".pushsection .bss.refusal, \"aw\", @nobits",
            ".p2align 2",
            "refusal_frame: .zero 20",
            "refusal_cpuid: .zero 4",
            ".popsection",

            ".pushsection .rodata.refusal, \"a\", @progbits",
            "refusal_begin: .asciz \"\\nballonet cannot run on this CPU: it \"",
            "refusal_lacks: .asciz \"lacks \"",
            "refusal_no_cpuid: .asciz \"has no CPUID instruction, hence no 64-bit mode\"",
            "refusal_no_long_mode: .asciz \"has no 64-bit mode (x86-64)\"",
            "refusal_end: .asciz \".\\nNothing else happens; the machine can be turned off.\\n\"",
            // Bits of CPUID 1, EDX, and their names, in 8 bytes. A CPU with 64-bit mode has them all, but a hypervisor
            // can hide some.
            "refusal_needed:",
            ".long 1 << 0; .ascii \"an FPU\\0\\0\"",
            ".long 1 << 4; .ascii \"RDTSC\\0\\0\\0\"",
            ".long 1 << 5; .ascii \"MSRs\\0\\0\\0\\0\"",
            ".long 1 << 6; .ascii \"PAE\\0\\0\\0\\0\\0\"",
            ".long 1 << 8; .ascii \"CX8\\0\\0\\0\\0\\0\"",
            ".long 1 << 15; .ascii \"CMOV\\0\\0\\0\\0\"",
            ".long 1 << 24; .ascii \"FXSAVE\\0\\0\"",
            ".long 1 << 25; .ascii \"SSE\\0\\0\\0\\0\\0\"",
            ".long 1 << 26; .ascii \"SSE2\\0\\0\\0\\0\"",
            ".long 0",
            ".popsection",

            ".pushsection .text.entry, \"ax\", @progbits",
            ".code32",
            "check_cpu:",
            // CPUID exists if its flag in EFLAGS can be changed.
            "pushfd",
            "pop eax",
            "mov ecx, eax",
            "xor eax, 1 << 21",
            "push eax",
            "popfd",
            "pushfd",
            "pop eax",
            "xor eax, ecx",
            "and eax, 1 << 21",
            "mov dword ptr [ebp + refusal_cpuid + {down}], eax",
            "lea edi, [ebp + refusal_no_cpuid + {down}]",
            "jz refuse",
            // 64-bit mode.
            "push ebx",
            "mov eax, 0x80000000",
            "cpuid",
            "xor edx, edx",
            "cmp eax, 0x80000001",
            "jb 2f",
            "mov eax, 0x80000001",
            "cpuid",
            "2:",
            "pop ebx",
            "lea edi, [ebp + refusal_no_long_mode + {down}]",
            "test edx, 1 << 29",
            "jz refuse",
            // The rest.
            "push ebx",
            "mov eax, 1",
            "cpuid",
            "pop ebx",
            "lea edi, [ebp + refusal_needed + {down}]",
            "3:",
            "mov eax, dword ptr [edi]",
            "add edi, 4",
            "test eax, eax",
            "jz 4f",
            "test edx, eax",
            "jz refuse",
            "add edi, 8",
            "jmp 3b",
            "4:",
            "ret",

            // Prints the reason that `edi` points to, and exits.
            "refuse:",
            "push edi",
            "call refusal_find_frame",
            "call refusal_open",
            // From here on `esi` is the position of the next character: 80 per line.
            "xor esi, esi",
            "lea edi, [ebp + refusal_begin + {down}]",
            "call refusal_say",
            // The names of missing features are in the table.
            "lea eax, [ebp + refusal_needed + {down}]",
            "cmp dword ptr [esp], eax",
            "jb 2f",
            "lea edi, [ebp + refusal_lacks + {down}]",
            "call refusal_say",
            "2:",
            "pop edi",
            "call refusal_say",
            "lea edi, [ebp + refusal_end + {down}]",
            "call refusal_say",
            // Under a hypervisor, exit QEMU.
            "cmp dword ptr [ebp + refusal_cpuid + {down}], 0",
            "je 3f",
            "mov eax, 1",
            "cpuid",
            "test ecx, ecx",
            "jns 3f",
            "mov edx, {debug_exit}",
            "mov eax, {failure}",
            "out dx, eax",
            "3:",
            "cli",
            "hlt",
            "jmp 3b",

            // Notes the framebuffer that a multiboot2 loader passes (3.6.12), if it is below 4 GiB.
            "refusal_find_frame:",
            "cmp esi, {magic}",
            "jne 4f",
            "mov ecx, dword ptr [ebx]",
            "add ecx, ebx",
            "lea edx, [ebx + 8]",
            "2:",
            "lea eax, [edx + 32]",
            "cmp eax, ecx",
            "ja 4f",
            "mov eax, dword ptr [edx]",
            "cmp eax, 8",
            "je 3f",
            "test eax, eax",
            "jz 4f",
            "mov eax, dword ptr [edx + 4]",
            "cmp eax, 8",
            "jb 4f",
            "add eax, 7",
            "jc 4f",
            "and eax, -8",
            "add edx, eax",
            "jc 4f",
            "jmp 2b",
            "3:",
            "cmp byte ptr [edx + 29], 1",
            "ja 4f",
            "cmp dword ptr [edx + 12], 0",
            "jne 4f",
            "lea edi, [ebp + refusal_frame + {down}]",
            "movzx eax, byte ptr [edx + 28]",
            "add eax, 7",
            "shr eax, 3",
            "mov dword ptr [edi + 16], eax",
            "mov eax, dword ptr [edx + 24]",
            "mov dword ptr [edi + 12], eax",
            "mov eax, dword ptr [edx + 20]",
            "mov dword ptr [edi + 8], eax",
            "mov eax, dword ptr [edx + 16]",
            "mov dword ptr [edi + 4], eax",
            "mov eax, dword ptr [edx + 8]",
            "mov dword ptr [edi], eax",
            "4:",
            "ret",

            // Sets COM1 to 115200 baud, 8 data bits, no parity, and empties the screen, whichever there is.
            "refusal_open:",
            "mov edx, 0x3F9",
            "xor eax, eax",
            "out dx, al", // no interrupts
            "mov edx, 0x3FB",
            "mov al, 0x80",
            "out dx, al",
            "mov edx, 0x3F8",
            "mov al, 1", // 115200 divided by 1
            "out dx, al",
            "inc edx",
            "xor eax, eax",
            "out dx, al",
            "mov edx, 0x3FB",
            "mov al, 3",
            "out dx, al",
            "inc edx",
            "out dx, al", // ready
            "mov edi, 0xB8000",
            "mov eax, 0x07200720",
            "mov ecx, 80 * 25 / 2",
            "rep stosd",
            "lea edx, [ebp + refusal_frame + {down}]",
            "mov edi, dword ptr [edx]",
            "test edi, edi",
            "jz 2f",
            "mov eax, dword ptr [edx + 12]",
            "mul dword ptr [ebp + refusal_frame + {down} + 4]",
            "mov ecx, eax",
            "xor eax, eax",
            "rep stosb",
            "2:",
            "ret",

            // Writes the text that `edi` points to.
            "refusal_say:",
            "movzx eax, byte ptr [edi]",
            "test eax, eax",
            "jz 4f",
            "inc edi",
            "cmp eax, 10",
            "je 2f",
            "call refusal_transmit",
            "mov word ptr [2 * esi + 0xB8000], ax",
            "mov byte ptr [2 * esi + 0xB8001], 0x4F", // white on red
            "call refusal_draw",
            "inc esi",
            "jmp refusal_say",
            "2:",
            "mov eax, 13",
            "call refusal_transmit",
            "mov eax, 10",
            "call refusal_transmit",
            "mov eax, esi",
            "xor edx, edx",
            "mov ecx, 80",
            "div ecx",
            "inc eax",
            "mul ecx",
            "mov esi, eax",
            "jmp refusal_say",
            "4:",
            "ret",

            // Sends the character in `eax`, with the same bounded wait for the transmitter as elsewhere.
            "refusal_transmit:",
            "push eax",
            "mov ecx, 100000",
            "mov edx, 0x3FD",
            "2:",
            "in al, dx",
            "test al, 0x20",
            "jnz 3f",
            "dec ecx",
            "jnz 2b",
            "3:",
            "pop eax",
            "mov edx, 0x3F8",
            "out dx, al",
            "ret",

            // Draws the character in `eax` at position `esi` of the framebuffer, if there is one and it has that
            // position.
            "refusal_draw:",
            "pushad",
            "lea ebx, [ebp + refusal_frame + {down}]",
            "cmp dword ptr [ebx], 0",
            "je 5f",
            "sub eax, 32",
            "jb 5f",
            "cmp eax, 95",
            "jae 5f",
            "shl eax, 4",
            "lea ecx, [ebp + {glyphs} + {down}]",
            "add ecx, eax",
            "push ecx",
            "mov eax, esi",
            "xor edx, edx",
            "mov ecx, 80",
            "div ecx",
            "pop esi", // the glyph; eax is the line, edx the column
            "lea ecx, [8 * edx + 8]",
            "cmp ecx, dword ptr [ebx + 8]",
            "ja 5f",
            "inc eax",
            "shl eax, 4",
            "cmp eax, dword ptr [ebx + 12]",
            "ja 5f",
            "sub eax, 16",
            "mov ecx, edx",
            "mul dword ptr [ebx + 4]",
            "mov edi, eax",
            "lea eax, [8 * ecx]",
            "mul dword ptr [ebx + 16]",
            "add edi, eax",
            "add edi, dword ptr [ebx]",
            "mov ah, 16",
            "2:",
            "push edi",
            "mov dh, byte ptr [esi]",
            "inc esi",
            "mov dl, 8",
            "3:",
            "shl dh, 1",
            "sbb al, al", // a pixel of the character is all ones: white, or the palette's last colour
            "mov ecx, dword ptr [ebx + 16]",
            "rep stosb",
            "dec dl",
            "jnz 3b",
            "pop edi",
            "add edi, dword ptr [ebx + 4]",
            "dec ah",
            "jnz 2b",
            "5:",
            "popad",
            "ret",
            ".code64",
            ".popsection",
            down = const $crate::image::OFFSET.wrapping_neg(),
            magic = const $crate::image::MAGIC,
            glyphs = sym $crate::image::GLYPHS,
            debug_exit = const $crate::image::DEBUG_EXIT,
            failure = const $crate::image::DEBUG_EXIT_FAILURE,
        );
    };
}
