//! The path of an application processor from real mode to Rust.
//!
//! *On entry* by a startup IPI (SDM vol. 3, 10.4.4): real mode, `cs:ip` = the page that the IPI names, everything else
//! as after an INIT. *We establish*: long mode through the tables of the entry code, then the kernel's own, a stack
//! that ends in a null frame pointer; then `enter` of [`write()`].
//!
//! The code is copied to a page below 1 MiB, together with its parameters.

use core::arch::{global_asm, naked_asm};
use core::mem::{offset_of, size_of};
use core::ptr::copy_nonoverlapping;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::registers::control::EferFlags;

use crate::machine::smp::cpu::Cpu;
use crate::machine::start::entry::{CR0, CR4, EFER, EFER_LONG_MODE};

/// The page is below this address: within reach of real mode, and below a PC's video memory.
pub(crate) const PAGE_LIMIT: u64 = 0xA_0000;

/// An address to jump to with the segment.
#[repr(C)]
struct FarAddress {
    offset: u32,
    selector: u16,
    unused: u16,
}

/// The code's parameters, in its page.
#[repr(C)]
struct Parameters {
    /// Null, 32-bit code, data, 64-bit code.
    gdt: [u64; 4],
    /// Its limit and its address, as `lgdt` takes them.
    gdt_limit: u16,
    gdt_base: [u16; 2],
    unused: u16,
    protected: FarAddress,
    long: FarAddress,
    /// Physical address of the entry code's tables.
    tables: u32,
    /// Bits to set in EFER.
    efer: u32,
    /// Where the processor continues in the image.
    entry: u64,
}

/// The offset of the parameters: after the jump to the code.
const PARAMETERS: usize = 8;

const CODE_32: u16 = 8;
const DATA: u16 = 16;
const CODE_64: u16 = 24;
const GDT: [u64; 4] = [0, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x00AF_9B00_0000_FFFF];

unsafe extern "C" {
    static ballonet_trampoline: u8;
    static ballonet_trampoline_protected: u8;
    static ballonet_trampoline_long: u8;
    static ballonet_trampoline_end: u8;
}

// A constant here; it runs only where it is copied to.
global_asm!(
    ".pushsection .rodata.trampoline, \"a\", @progbits",
    ".p2align 4",
    ".globl ballonet_trampoline",
    "ballonet_trampoline:",
    ".code16",
    "jmp ballonet_trampoline_real",
    ".org ballonet_trampoline + {parameters} + {size}",
    "ballonet_trampoline_real:",
    "cli",
    "cld",
    "mov ax, cs",
    "mov ds, ax",
    "movzx ebx, ax",
    "shl ebx, 4", // where the page is
    ".byte 0x0F, 0x01, 0x16", // lgdt [gdt], whose address has 24 bits in real mode
    ".short {gdt}",
    "mov eax, cr0",
    "or al, 1",
    "mov cr0, eax",
    ".byte 0x66, 0xFF, 0x2E", // jmp fword ptr [protected]
    ".short {protected}",
    ".code32",
    ".globl ballonet_trampoline_protected",
    "ballonet_trampoline_protected:",
    "mov ax, {data}",
    "mov ds, ax",
    "mov eax, {cr4}",
    "mov cr4, eax",
    "mov eax, dword ptr [ebx + {tables}]",
    "mov cr3, eax",
    "mov ecx, {efer_register}",
    "rdmsr",
    "or eax, dword ptr [ebx + {efer}]",
    "wrmsr",
    "mov eax, {cr0}", // caches on, too, which INIT leaves off
    "mov cr0, eax",
    ".byte 0xFF, 0x6B, {long}", // jmp fword ptr [ebx + long]
    ".code64",
    ".globl ballonet_trampoline_long",
    "ballonet_trampoline_long:",
    "mov ebx, ebx", // the upper half is undefined after the change of mode
    "mov rax, qword ptr [rbx + {entry}]",
    "jmp rax",
    ".globl ballonet_trampoline_end",
    "ballonet_trampoline_end:",
    ".popsection",
    parameters = const PARAMETERS,
    size = const size_of::<Parameters>(),
    gdt = const PARAMETERS + offset_of!(Parameters, gdt_limit),
    protected = const PARAMETERS + offset_of!(Parameters, protected),
    long = const PARAMETERS + offset_of!(Parameters, long),
    tables = const PARAMETERS + offset_of!(Parameters, tables),
    efer = const PARAMETERS + offset_of!(Parameters, efer),
    entry = const PARAMETERS + offset_of!(Parameters, entry),
    data = const DATA,
    cr0 = const CR0,
    cr4 = const CR4,
    efer_register = const EFER,
);

/// The function that a processor calls with its [`Cpu`], on its own stack.
static ENTER: AtomicU64 = AtomicU64::new(0);
/// The kernel's page tables, as CR3 has them.
static ROOT: AtomicU64 = AtomicU64::new(0);
/// The [`Cpu`] of the next processor to start; 0 when none is awaited.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Where a processor continues in the image: claims its [`Cpu`] and its stack, or halts if it is late.
#[unsafe(naked)]
extern "C" fn image_entry() -> ! {
    naked_asm!(
        "mov rax, [rip + {root}]",
        "mov cr3, rax",
        "xor eax, eax",
        "mov ds, ax",
        "mov es, ax",
        "mov ss, ax",
        "mov fs, ax",
        "mov gs, ax",
        "xchg rax, [rip + {next}]",
        "test rax, rax",
        "jz 2f",
        "mov rsp, [rax + {stack}]",
        "mov rdi, rax",
        "xor ebp, ebp",
        "call qword ptr [rip + {enter}]",
        "2:",
        "cli",
        "hlt",
        "jmp 2b",
        root = sym ROOT,
        next = sym NEXT,
        stack = const Cpu::STACK,
        enter = sym ENTER,
    )
}

/// Writes the code and its data to the page at physical address `page`.
///
/// # Safety
/// The page is memory below [`PAGE_LIMIT`] that is mapped one to one, writable, and never used by other code. `tables`
/// is the physical address of page tables that map it and the image, and `root` is that of the kernel's.
pub(crate) unsafe fn write(page: u64, tables: u32, root: u64, nx: bool, enter: extern "C" fn(&'static Cpu) -> !) {
    let start = &raw const ballonet_trampoline;
    let offset_of = |label: *const u8| (label as u64 - start as u64) as u32;
    let at = |label: *const u8| page as u32 + offset_of(label);
    let gdt = page + PARAMETERS as u64;
    let nx = if nx { EferFlags::NO_EXECUTE_ENABLE.bits() as u32 } else { 0 };
    let parameters = Parameters {
        gdt: GDT,
        gdt_limit: (size_of_val(&GDT) - 1) as u16,
        gdt_base: [gdt as u16, (gdt >> 16) as u16],
        unused: 0,
        protected: FarAddress { offset: at(&raw const ballonet_trampoline_protected), selector: CODE_32, unused: 0 },
        long: FarAddress { offset: at(&raw const ballonet_trampoline_long), selector: CODE_64, unused: 0 },
        tables,
        efer: EFER_LONG_MODE | nx,
        entry: image_entry as *const () as u64,
    };
    ROOT.store(root, Ordering::Relaxed);
    ENTER.store(enter as *const () as u64, Ordering::Relaxed);
    let length = offset_of(&raw const ballonet_trampoline_end) as usize;
    // SAFETY: the page is the caller's; the code with its parameters is far less than a page; it is aligned, and so are
    // the parameters in it.
    unsafe {
        copy_nonoverlapping(start, page as *mut u8, length);
        ((page as usize + PARAMETERS) as *mut Parameters).write(parameters);
    }
}

/// The next processor to start takes this one.
pub(crate) fn await_next(cpu: &'static Cpu) {
    NEXT.store(core::ptr::from_ref(cpu) as u64, Ordering::Release);
}

/// Whether a processor has claimed it.
pub(crate) fn has_come() -> bool {
    NEXT.load(Ordering::Acquire) == 0
}

/// Stops waiting for a processor: a later one halts. Returns whether one has claimed it.
pub(crate) fn await_none() -> bool {
    NEXT.swap(0, Ordering::AcqRel) == 0
}

const _: () = assert!(
    size_of::<Parameters>() == 72 && PARAMETERS.is_multiple_of(align_of::<Parameters>()),
    "the code jumps over the parameters"
);
