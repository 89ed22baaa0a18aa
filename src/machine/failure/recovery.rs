//! Continuing after a failure: for tests, which fail one by one.
//!
//! [`catch`] runs a function and returns whatever happens: when the function returns or panics, and when the CPU raises
//! an exception in it or in an interrupt handler meanwhile. The failed code is abandoned, on whichever stack: its
//! destructors do not run, the locks it held are opened, its interrupts acknowledged. Data that it was changing may be
//! half changed, so only test images do this.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::arch::naked_asm;
use core::fmt::{self, Write as _};
use core::mem::offset_of;
use core::panic::PanicInfo;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use x86_64::instructions::interrupts;
use x86_64::registers::control::Cr2;

use crate::machine::devices::config_paths;
use crate::machine::failure::fault::{self, PageFaultError};
use crate::machine::interrupts::frame::{TrapFrame, exception_name};
use crate::machine::interrupts::traps;
use crate::machine::interrupts::{io_apic, lines, local_apic, vectors};
use crate::machine::memory::{frames, heap};
use crate::machine::paging;
use crate::machine::smp::cpu::Cpu;
use crate::machine::smp::registry;
use crate::machine::terminal::text::Text;
use crate::machine::terminal::{keyboard, line, ring, screen};

/// Longest message of a panic that is kept, in bytes.
const MESSAGE: usize = 480;
/// Longest path of a source file that is kept, in bytes.
const PATH: usize = 120;
/// Most return addresses that are kept.
const DEPTH: usize = 16;

/// How a function ended.
#[derive(Debug)]
pub(crate) enum Ending<R> {
    /// It returned.
    Returned(R),
    /// It panicked, or an interrupt handler did.
    Panicked(Panic),
    /// The CPU raised an exception.
    Faulted(Box<Fault>),
}

/// A panic: its message and location.
#[derive(Debug, Clone)]
pub(crate) struct Panic {
    /// The message.
    pub message: String,
    /// The source file.
    pub file: String,
    /// The line in it.
    pub line: u32,
}

/// An exception, with all that the CPU and its registers show.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// The registers.
    pub frame: TrapFrame,
    /// CR2: the faulting address of a page fault.
    pub address: u64,
    /// Return addresses, innermost first; the rest are 0.
    trace: [u64; DEPTH],
}

impl Fault {
    fn of(frame: &TrapFrame) -> Self {
        let mut trace = [0; DEPTH];
        let addresses = core::iter::once(frame.rip).chain(fault::backtrace(frame.rbp));
        for (slot, address) in trace.iter_mut().zip(addresses) {
            *slot = address;
        }
        Self { frame: frame.clone(), address: Cr2::read_raw(), trace }
    }

    /// The vector.
    pub(crate) fn vector(&self) -> u8 {
        self.frame.vector as u8
    }

    /// Shows it on the serial line as the kernel shows a fatal one.
    pub(crate) fn show(&self) {
        fault::show(&self.frame, self.address, self.trace.iter().copied().take_while(|&address| address != 0));
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = exception_name(self.vector()).unwrap_or("reserved vector");
        write!(f, "{name} at {:#x}, error code {:#x}", self.frame.rip, self.frame.error_code)?;
        if self.vector() == 14 {
            write!(f, ": {}", PageFaultError { code: self.frame.error_code, address: self.address })?;
        }
        Ok(())
    }
}

/// Where to resume: the registers that a call preserves (System V ABI), and the flags.
#[derive(Default)]
#[repr(C)]
struct Context {
    rbx: u64,
    rbp: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    /// The stack pointer at the entry of [`enter`]: it points to the return address.
    rsp: u64,
    rflags: u64,
    mxcsr: u32,
    /// The x87 control word.
    fcw: u32,
}

/// The failure, until it can be reported.
#[expect(clippy::large_enum_variant, reason = "it lies on a stack, where nothing can be allocated")]
enum Reason {
    None,
    Panic { message: Text<MESSAGE>, file: Text<PATH>, line: u32 },
    Fault(Fault),
}

/// A call of [`catch`] in progress.
struct Catch {
    context: Context,
    reason: Reason,
}

/// The innermost [`Catch`]. It is on its caller's stack frame, which exists as long as it is the innermost.
static INNERMOST: AtomicPtr<Catch> = AtomicPtr::new(null_mut());
/// Set while a failure is being handled: another one meanwhile is fatal.
static ABANDONING: AtomicBool = AtomicBool::new(false);

/// From here on exceptions end the innermost [`catch`].
pub(crate) fn watch() {
    traps::set_hook(Some(abandon_on_exception));
}

/// Runs `action`, and returns however it ends.
pub(crate) fn catch<R>(action: impl FnOnce() -> R) -> Ending<R> {
    let mut call = Call { action: Some(action), result: None };
    let mut catch = Catch { context: Context::default(), reason: Reason::None };
    let this = &raw mut catch;
    let outer = INNERMOST.swap(this, Ordering::SeqCst);
    // SAFETY: the context and the call live on this stack frame, which exists until `enter` has returned; the function
    // is the one for this type of call. To the compiler `leave` looks like a return of `enter`: callee-saved registers
    // are restored, and it had to assume that everything else changed.
    let returned = unsafe { enter(&raw mut (*this).context, run_call_of(&call), (&raw mut call).cast()) } == RETURNED;
    INNERMOST.store(outer, Ordering::SeqCst);
    // SAFETY: no other code has the pointer now.
    let reason = core::mem::replace(unsafe { &mut (*this).reason }, Reason::None);
    ABANDONING.store(false, Ordering::SeqCst);
    match (reason, call.result.take()) {
        (Reason::Panic { message, file, line }, _) => {
            Ending::Panicked(Panic { message: message.as_str().to_string(), file: file.as_str().to_string(), line })
        }
        (Reason::Fault(fault), _) => Ending::Faulted(Box::new(fault)),
        (Reason::None, Some(result)) if returned => Ending::Returned(result),
        (Reason::None, _) => unreachable!("a call that neither returned nor failed"),
    }
}

/// A function on its way through [`enter`], and its result on the way back.
struct Call<F, R> {
    action: Option<F>,
    result: Option<R>,
}

type Run = unsafe extern "C" fn(*mut ());

/// [`run_call`] for the type of this call.
fn run_call_of<F: FnOnce() -> R, R>(_: &Call<F, R>) -> Run {
    run_call::<F, R>
}

/// # Safety
/// `call` points to a `Call<F, R>` that no other code uses meanwhile.
unsafe extern "C" fn run_call<F: FnOnce() -> R, R>(call: *mut ()) {
    // SAFETY: the caller's promise.
    let call = unsafe { &mut *call.cast::<Call<F, R>>() };
    if let Some(action) = call.action.take() {
        call.result = Some(action());
    }
}

/// What [`enter`] returns when the function returned.
const RETURNED: u64 = 0;
/// What it returns when [`leave`] ended it.
const LEFT: u64 = 1;

/// Saves the context and calls `run(call)`. Returns when that does, or when [`leave`] is called with the context.
#[unsafe(naked)]
unsafe extern "C" fn enter(context: *mut Context, run: Run, call: *mut ()) -> u64 {
    naked_asm!(
        "mov [rdi + {rbx}], rbx",
        "mov [rdi + {rbp}], rbp",
        "mov [rdi + {r12}], r12",
        "mov [rdi + {r13}], r13",
        "mov [rdi + {r14}], r14",
        "mov [rdi + {r15}], r15",
        "mov [rdi + {rsp}], rsp",
        "stmxcsr [rdi + {mxcsr}]",
        "fnstcw [rdi + {fcw}]",
        "pushfq",
        "pop qword ptr [rdi + {rflags}]",
        "mov rdi, rdx",
        "sub rsp, 8", // calls are made with the stack aligned to 16
        "call rsi",
        "add rsp, 8",
        "mov eax, {returned}",
        "ret",
        rbx = const offset_of!(Context, rbx),
        rbp = const offset_of!(Context, rbp),
        r12 = const offset_of!(Context, r12),
        r13 = const offset_of!(Context, r13),
        r14 = const offset_of!(Context, r14),
        r15 = const offset_of!(Context, r15),
        rsp = const offset_of!(Context, rsp),
        rflags = const offset_of!(Context, rflags),
        mxcsr = const offset_of!(Context, mxcsr),
        fcw = const offset_of!(Context, fcw),
        returned = const RETURNED,
    )
}

/// Makes the [`enter`] that saved `context` return. Uses `iretq`, which restores the stack and the flags at once and,
/// after an NMI, unblocks NMIs.
#[unsafe(naked)]
unsafe extern "C" fn leave(context: *const Context) -> ! {
    naked_asm!(
        "mov rbx, [rdi + {rbx}]",
        "mov rbp, [rdi + {rbp}]",
        "mov r12, [rdi + {r12}]",
        "mov r13, [rdi + {r13}]",
        "mov r14, [rdi + {r14}]",
        "mov r15, [rdi + {r15}]",
        "fninit",
        "fldcw [rdi + {fcw}]",
        "ldmxcsr [rdi + {mxcsr}]",
        "mov rax, [rdi + {rsp}]",
        "lea rcx, [rax + 8]", // as `ret` leaves it
        "mov rdx, ss",
        "mov rsi, cs",
        "push rdx",
        "push rcx",
        "push qword ptr [rdi + {rflags}]",
        "push rsi",
        "push qword ptr [rax]",
        "mov eax, {left}",
        "iretq",
        rbx = const offset_of!(Context, rbx),
        rbp = const offset_of!(Context, rbp),
        r12 = const offset_of!(Context, r12),
        r13 = const offset_of!(Context, r13),
        r14 = const offset_of!(Context, r14),
        r15 = const offset_of!(Context, r15),
        rsp = const offset_of!(Context, rsp),
        rflags = const offset_of!(Context, rflags),
        mxcsr = const offset_of!(Context, mxcsr),
        fcw = const offset_of!(Context, fcw),
        left = const LEFT,
    )
}

/// Ends the innermost [`catch`] with a panic. Returns if there is none: then the kernel itself panics.
pub(crate) fn abandon_on_panic(info: &PanicInfo<'_>) {
    abandon(|| {
        let (mut message, mut file) = (Text::new(), Text::new());
        // What does not fit is cut off.
        let _ = write!(message, "{}", info.message());
        if let Some(place) = info.location() {
            let _ = file.write_str(place.file());
        }
        Reason::Panic { message, file, line: info.location().map_or(0, core::panic::Location::line) }
    });
}

/// The hook for exceptions: ends the innermost [`catch`] with a fault. `false` if the vector is no exception, or there
/// is no [`catch`].
pub(crate) fn abandon_on_exception(frame: &mut TrapFrame) -> bool {
    if frame.vector < u64::from(vectors::FIRST_EXTERNAL) {
        abandon(|| Reason::Fault(Fault::of(frame)));
    }
    false
}

/// Ends the innermost [`catch`], if there is one, no failure is being handled already, and no other CPU runs a job:
/// that CPU may hold any lock, and would continue to use data on the abandoned stack.
fn abandon(reason: impl FnOnce() -> Reason) {
    interrupts::disable();
    // Only the boot CPU has a call to return from.
    if !Cpu::this().is_boot() || registry::all().any(Cpu::is_busy) {
        return;
    }
    let catch = INNERMOST.load(Ordering::SeqCst);
    if catch.is_null() || ABANDONING.swap(true, Ordering::SeqCst) {
        return;
    }
    // SAFETY: what held the locks is abandoned below.
    unsafe { open_locks() };
    local_apic::end_all_interrupts();
    // SAFETY: the innermost catch is still in `enter`, and its stack frame has both; its code is not running, so no
    // other code uses them.
    unsafe {
        (*catch).reason = reason();
        leave(&raw const (*catch).context)
    }
}

/// Opens all locks of the machine.
///
/// # Safety
/// No holder of one ever runs again.
unsafe fn open_locks() {
    // SAFETY: the caller's promise.
    unsafe {
        heap::force_unlock();
        frames::force_unlock();
        paging::SPACE.force_unlock();
        io_apic::IO_APICS.force_unlock();
        lines::LINES.force_unlock();
        config_paths::ORDER.force_unlock();
        line::OUTPUT.force_unlock();
        ring::INPUT_RING.force_unlock();
        screen::DISPLAY.force_unlock();
        keyboard::KEYBOARD.force_unlock();
        for vector in 0..=u8::MAX {
            vectors::force_unlock(vector);
        }
    }
}
