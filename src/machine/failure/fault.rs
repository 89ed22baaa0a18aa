//! Reports a failure of the kernel itself: a fault's registers and backtrace, a panic's location. Then the kernel
//! exits.

use core::fmt::Write as _;
use core::panic::{Location, PanicInfo};
use core::sync::atomic::{AtomicU32, Ordering};

use x86_64::registers::control::Cr2;

use crate::console::events::{self, Hex};
use crate::machine::cpu::cpuid::Features;
use crate::machine::cpu::stack;
use crate::machine::interrupts::frame::{TrapFrame, exception_name};
use crate::machine::interrupts::{machine_check, nmi};
use crate::machine::power::{self, ExitStatus};
use crate::machine::smp::cpu::Cpu;
use crate::machine::smp::registry;
use crate::machine::terminal::log;

/// Most return addresses that a backtrace holds.
const DEPTH: usize = 16;

/// A page fault's error code, in words (SDM vol. 3, 5.7).
pub(crate) struct PageFaultError {
    /// The error code.
    pub(crate) code: u64,
    /// The address that was accessed.
    pub(crate) address: u64,
}

impl core::fmt::Display for PageFaultError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(if self.code & 0x10 != 0 {
            "instruction fetch"
        } else if self.code & 2 != 0 {
            "write"
        } else {
            "read"
        })?;
        write!(f, " at {:#x}", self.address)?;
        f.write_str(if self.code & 8 != 0 {
            ", where a page table entry has reserved bits set"
        } else if self.code & 1 != 0 {
            ", where the page does not allow it"
        } else {
            ", where no page is present"
        })
    }
}

/// Whether `length` bytes from `address` lie on a stack of a CPU that runs.
pub(crate) fn is_on_stack(address: u64, length: u64) -> bool {
    stack::contains(address, length, |number| registry::get(number).is_some())
}

/// The call sites found by walking frame pointers from `rbp`, as long as they lie on the kernel's stacks: an address
/// within each call instruction. The return address could belong to another line, or to another function after a call
/// that never returns.
pub(crate) fn backtrace(rbp: u64) -> impl Iterator<Item = u64> + Clone {
    let mut pointer = rbp;
    core::iter::from_fn(move || {
        if !pointer.is_multiple_of(8) || !is_on_stack(pointer, 16) {
            return None;
        }
        // SAFETY: both words lie on one of the kernel's stacks, which are mapped and never move.
        let [next, back] = unsafe { (pointer as *const [u64; 2]).read() };
        // A caller's frame is above its callee's, on the same stack; anything else ends the walk.
        pointer = if next > pointer { next } else { 0 };
        (back != 0).then_some(back - 1)
    })
    .take(DEPTH)
}

/// Reads page 0, which is never mapped, to show how faults are reported.
pub(crate) fn provoke() {
    // SAFETY: nothing is mapped there, so nothing is read; the fault ends the kernel.
    unsafe { core::ptr::without_provenance::<u8>(8).read_volatile() };
}

/// One more than the number of the CPU that reports a failure; 0 while none does.
static REPORTER: AtomicU32 = AtomicU32::new(0);

/// Begins the report, if this is the first failure. A second failure, within the report or on another CPU that is about
/// to be stopped, must not start another report.
fn begin() {
    x86_64::instructions::interrupts::disable();
    let this = Cpu::this().number() + 1;
    match REPORTER.compare_exchange(0, this, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => registry::stop_others(),
        Err(reporter) if reporter == this => power::exit(ExitStatus::Failure),
        Err(_) => registry::stop_this(),
    }
    log::seize(format_args!("ballonet {} has failed; a photo of this screen shows why", env!("CARGO_PKG_VERSION")));
}

/// ` on CPU n:`, if there are several CPUs.
struct OnCpu;

impl core::fmt::Display for OnCpu {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if registry::count() == 1 { Ok(()) } else { write!(f, " on CPU {}:", Cpu::this().number()) }
    }
}

/// Reports an unexpected exception, and ends the kernel with failure.
pub(crate) fn report(frame: &TrapFrame) -> ! {
    begin();
    explain(frame.vector as u8);
    show(frame, Cr2::read_raw(), core::iter::once(frame.rip).chain(backtrace(frame.rbp)));
    power::exit(ExitStatus::Failure)
}

/// Reports the cause of an exception, if more is known than the CPU has pushed.
fn explain(vector: u8) {
    let tell = |cause: &dyn core::fmt::Display| {
        log::emit(&events::Cause { message: cause });
        if log::is_text() {
            let _ = write!(log::Raw, "\n{cause}");
        }
    };
    match vector {
        nmi::VECTOR => tell(&nmi::why_fatal()),
        machine_check::VECTOR => machine_check::records(&Features::detect()).for_each(|record| tell(&record)),
        _ => {}
    }
}

/// Shows an exception. `address` is the faulting address of a page fault.
pub(crate) fn show(frame: &TrapFrame, address: u64, trace: impl Iterator<Item = u64> + Clone) {
    let vector = frame.vector as u8;
    let name = exception_name(vector).unwrap_or("reserved vector");
    log::emit(&event(frame, vector, name, address, &|each| trace.clone().for_each(each)));
    let _ = write!(log::Raw, "\nFAULT{} {name} (vector {vector}), error code {:#x}", OnCpu, frame.error_code);
    if vector == 14 {
        let _ = write!(log::Raw, "\n  {}", PageFaultError { code: frame.error_code, address });
    }
    let _ = write!(log::Raw, "\n  rip {:#018x}  rsp {:#018x}  rflags {:#x}", frame.rip, frame.rsp, frame.rflags);
    for (index, (name, value)) in general_registers(frame).into_iter().enumerate() {
        let _ = write!(log::Raw, "{} {name:<3} {value:#018x}", separator(index));
    }
    print_backtrace(trace);
}

fn event<'e>(
    frame: &TrapFrame,
    vector: u8,
    name: &'e str,
    address: u64,
    backtrace: events::Addresses<'e>,
) -> events::Fault<'e> {
    events::Fault {
        cpu: Cpu::this().number(),
        vector: vector.into(),
        name,
        error_code: Hex(frame.error_code),
        address: Hex(address),
        rip: Hex(frame.rip),
        rsp: Hex(frame.rsp),
        rflags: Hex(frame.rflags),
        rax: Hex(frame.rax),
        rbx: Hex(frame.rbx),
        rcx: Hex(frame.rcx),
        rdx: Hex(frame.rdx),
        rsi: Hex(frame.rsi),
        rdi: Hex(frame.rdi),
        rbp: Hex(frame.rbp),
        r8: Hex(frame.r8),
        r9: Hex(frame.r9),
        r10: Hex(frame.r10),
        r11: Hex(frame.r11),
        r12: Hex(frame.r12),
        r13: Hex(frame.r13),
        r14: Hex(frame.r14),
        r15: Hex(frame.r15),
        backtrace,
    }
}

/// The separator before one of several values: three fit in a line of a screen.
const fn separator(index: usize) -> &'static str {
    if index.is_multiple_of(3) { "\n " } else { " " }
}

/// Reports a panic, and ends the kernel with failure.
pub(crate) fn report_panic(info: &PanicInfo<'_>) -> ! {
    begin();
    let rbp = frame_pointer();
    log::emit(&events::Panic {
        cpu: Cpu::this().number(),
        message: &info.message(),
        file: info.location().map(Location::file),
        line: info.location().map(Location::line),
        backtrace: &|each| backtrace(rbp).for_each(each),
    });
    let _ = write!(log::Raw, "\nPANIC{OnCpu} {info}");
    print_backtrace(backtrace(rbp));
    power::exit(ExitStatus::Failure)
}

fn print_backtrace(addresses: impl Iterator<Item = u64>) {
    let _ = log::Raw.write_str("\n  backtrace (addr2line -Cfpie KERNEL ADDRESS):");
    for (index, address) in addresses.enumerate() {
        let _ = write!(log::Raw, "{} {address:#018x}", separator(index));
    }
    let _ = log::Raw.write_str("\n");
}

fn general_registers(frame: &TrapFrame) -> [(&'static str, u64); 15] {
    [
        ("rax", frame.rax),
        ("rbx", frame.rbx),
        ("rcx", frame.rcx),
        ("rdx", frame.rdx),
        ("rsi", frame.rsi),
        ("rdi", frame.rdi),
        ("rbp", frame.rbp),
        ("r8", frame.r8),
        ("r9", frame.r9),
        ("r10", frame.r10),
        ("r11", frame.r11),
        ("r12", frame.r12),
        ("r13", frame.r13),
        ("r14", frame.r14),
        ("r15", frame.r15),
    ]
}

/// The frame pointer of the caller.
#[inline(always)]
fn frame_pointer() -> u64 {
    let rbp;
    // SAFETY: reads a register, nothing else.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) };
    rbp
}
