//! The first two sectors of a bzImage: its header, and the path from real mode to Linux's 32-bit entry.
//!
//! A bzImage is these 1,024 bytes followed by the image's memory (`scripts/bzimage.sh`). Boot loaders that enter in
//! protected or long mode only read the header. QEMU's and kvmtool's `-kernel` enter here.
//!
//! *On entry* (Linux, Documentation/arch/x86/boot.rst, "Running the kernel"): real mode, these bytes at `cs` minus
//! 0x20, with the loader's fields filled in and 32 KiB of memory from there; the image where `code32_start` says.
//!
//! *We establish*: a zero page with this header and the BIOS's memory map (INT 15h, E820), A20 on, protected mode with
//! flat segments, `esi` = the zero page.

/// Defines the header and its code, in a section that no loader of the ELF image loads.
#[doc(hidden)]
#[macro_export]
macro_rules! bzimage_header {
    () => {
        core::arch::global_asm!(
            ".pushsection .bzimage, \"\", @progbits",
            ".code16",
            ".org 0x1f1",
            ".byte 1",                           // setup_sects: beside the first
            ".short 0",                          // root_flags
            ".long __image_paragraphs",          // syssize
            ".short 0, 0xffff, 0",               // ram_size, vid_mode: as it is, root_dev
            ".short 0xaa55",                     // boot_flag
            ".byte 0xeb, {setup} - 0x202",       // jump
            ".long {magic}",
            ".short 0x20c",                      // version: with xloadflags
            ".long 0",                           // realmode_swtch
            ".short 0x1000, {name} - 0x200",     // start_sys_seg, kernel_version
            ".byte 0, 1",                        // type_of_loader, loadflags: LOADED_HIGH
            ".short 0x8000",                     // setup_move_size
            ".long 0x100000",                    // code32_start
            ".long 0, 0, 0",                     // ramdisk_image, ramdisk_size, bootsect_kludge
            ".short 0",                          // heap_end_ptr
            ".byte 0, 0",                        // ext_loader_ver, ext_loader_type
            ".long 0, 0x7fffffff",               // cmd_line_ptr, initrd_addr_max
            ".long 0x200000",                    // kernel_alignment
            ".byte 1, 21",                       // relocatable_kernel, min_alignment
            ".short 1",                          // xloadflags: the 64-bit entry, but nothing above 4 GiB
            ".long {longest_line}, 0",           // cmdline_size, hardware_subarch
            ".quad 0",                           // hardware_subarch_data
            ".long 0, 0",                        // payload_offset, payload_length
            ".quad 0, 0x200000",                 // setup_data, pref_address
            ".long __image_size, 0",             // init_size, handover_offset

            ".org {setup}",
            "cli",
            "cld",
            "mov ax, cs",
            "sub ax, 0x20",
            "mov ds, ax",
            "mov es, ax",
            "mov ss, ax",
            "mov esp, 0x8000",
            // The zero page: this header, and zeros.
            "mov di, {zero_page}",
            "mov cx, 0x800",
            "xor ax, ax",
            "rep stosw",
            "mov si, 0x1f1",
            "mov di, {zero_page} + 0x1f1",
            "mov cx, {setup} - 0x1f1",
            "rep movsb",

            // The memory map: the BIOS gives an entry at a time until `ebx` is 0.
            "mov di, {zero_page} + 0x2d0",
            "xor ebx, ebx",
            "2:",
            "mov eax, 0xe820",
            "mov edx, {smap}",
            "mov ecx, 20",
            "int 0x15",
            "jc 3f",
            "cmp eax, {smap}",
            "jne 3f",
            // qboot ends with an empty one.
            "mov eax, dword ptr [di + 8]",
            "or eax, dword ptr [di + 12]",
            "jz 4f",
            "add di, 20",
            "inc byte ptr [{zero_page} + 0x1e8]",
            "js 3f",                             // 128: no room for more
            "4:",
            "test ebx, ebx",
            "jnz 2b",
            "3:",

            // Address line 20: by the BIOS, then by port 0x92 where there is one.
            "mov ax, 0x2401",
            "int 0x15",
            "cli",
            "in al, 0x92",
            "test al, 2",
            "jnz 4f",
            "or al, 2",
            "and al, 0xfe",                      // bit 0 would reset the machine
            "out 0x92, al",
            "4:",
            // While it is off, 1 MiB is 0. What is written over is the vector of INT 80h.
            "xor ax, ax",
            "mov fs, ax",
            "dec ax",
            "mov gs, ax",
            "mov ebx, dword ptr fs:[0x200]",
            "mov ecx, 0x10000",
            "5:",
            "mov dword ptr fs:[0x200], ecx",
            "cmp dword ptr gs:[0x210], ecx",
            "jne 6f",
            "dec ecx",
            "jnz 5b",
            "mov si, {complaint}",
            "7:",
            "lodsb",
            "mov bx, 7",
            "mov ah, 0x0e",
            "int 0x10",
            "cmp byte ptr [si], 0",
            "jne 7b",
            "8:",
            "hlt",
            "jmp 8b",
            "6:",
            "mov dword ptr fs:[0x200], ebx",

            // Protected mode, and a far jump to the code below.
            "xor ecx, ecx",
            "mov cx, ds",
            "shl ecx, 4",
            "lea eax, [ecx + {gdt}]",
            "mov dword ptr [{gdt_register} + 2], eax",
            "lea eax, [ecx + {flat}]",
            "mov dword ptr [{far}], eax",
            "lea esi, [ecx + {zero_page}]",
            "mov edx, dword ptr [0x214]",        // code32_start, as the loader left it
            "lgdt [{gdt_register}]",
            "mov eax, cr0",
            "or al, 1",
            "mov cr0, eax",
            ".byte 0x66, 0xff, 0x2e",            // jmp far [far]
            ".short {far}",

            ".org {complaint}",
            ".asciz \"ballonet: address line 20 stays off\"",
            ".org {flat}",
            ".code32",
            "mov eax, 0x18",
            "mov ds, eax",
            "mov es, eax",
            "mov ss, eax",
            "mov fs, eax",
            "mov gs, eax",
            "xor ebx, ebx",
            "xor edi, edi",
            "xor ebp, ebp",
            "jmp edx",
            ".org {name}",
            concat!(".asciz \"ballonet ", env!("CARGO_PKG_VERSION"), "\""),
            // The segments of the protocol: code at 0x10, data at 0x18.
            ".org {gdt}",
            ".quad 0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff",
            ".org {gdt_register}",
            ".short 31",
            ".long 0",
            ".org {far}",
            ".long 0",
            ".short 0x10",
            ".org 0x400",
            ".code64",
            ".popsection",
            magic = const $crate::image::LINUX_MAGIC,
            longest_line = const $crate::image::LONGEST_LINE,
            smap = const 0x534D_4150,            // "SMAP"
            setup = const 0x268,
            zero_page = const 0x4000,
            complaint = const 0x370,
            flat = const 0x398,
            name = const 0x3B0,
            gdt = const 0x3C0,
            gdt_register = const 0x3E0,
            far = const 0x3E8,
        );
    };
}

/// The longest command line, in bytes without its end.
#[doc(hidden)]
pub const LONGEST_LINE: usize = crate::boot::CommandLine::CAPACITY;
