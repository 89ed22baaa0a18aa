//! Exceptions and vectors: each arrives on its own stack, and none harms another.

use core::arch::asm;
use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::machine::recovery::{self, Ending};
use crate::machine::segments::InterruptStack;
use crate::machine::traps::{self, stack_of};
use crate::machine::{TrapFrame, clock, cpuid, local_apic, paging, stack, timer, vectors};
use x86_64::VirtAddr;
use x86_64::instructions::interrupts;
use x86_64::instructions::tables::{lgdt, sgdt};
use x86_64::structures::DescriptorTablePointer;

use crate::tests::suite::{Test, kernel_test, tests};
use crate::tests::support::{Counter, Hooked, fault_of, wait_until};

pub(super) const TESTS: &[Test] = tests![
    each_of_the_256_vectors_arrives_on_its_own_stack,
    dividing_by_zero_raises_de,
    an_invalid_opcode_raises_ud_at_its_address,
    a_breakpoint_returns_behind_itself,
    single_steps_raise_db_one_by_one,
    a_non_canonical_address_raises_gp,
    loading_an_absent_data_segment_raises_np_with_its_selector,
    loading_an_absent_stack_segment_raises_ss_with_its_selector,
    an_unmasked_x87_error_raises_mf,
    a_fault_without_stack_for_it_is_a_double_fault_on_its_own_stack,
    overflowing_the_main_stack_faults_in_its_guard_page,
    an_nmi_during_a_fault_leaves_it_unharmed,
    an_nmi_arrives_after_one_that_was_abandoned,
    a_fault_in_an_interrupt_handler_leaves_it_unharmed,
    what_comes_between_sti_and_hlt_may_keep_the_cpu_from_halting,
];

/// Size of one stub below.
const STUB: u64 = 4;

/// An `int` and a `ret` for each vector.
#[unsafe(naked)]
extern "C" fn raise_stubs() {
    naked_asm!(
        ".set raised, 0",
        ".rept 256",
        ".balign {stub}",
        ".byte 0xCD, raised",
        "ret",
        ".set raised, raised + 1",
        ".endr",
        stub = const STUB,
    )
}

/// Raises a vector by software.
fn raise(vector: u8) {
    let stub = raise_stubs as *const () as u64 + u64::from(vector) * STUB;
    // SAFETY: the stub raises the interrupt and returns; every vector has a gate whose stub preserves all registers.
    unsafe { asm!("call {}", in(reg) stub, clobber_abi("C")) };
}

/// Whether an address is on this interrupt stack.
fn is_on(which: InterruptStack, address: u64) -> bool {
    let (guard, top) = match which {
        InterruptStack::Interrupt => (stack::INTERRUPT.guard(), stack::INTERRUPT.top()),
        InterruptStack::Fault => (stack::FAULT.guard(), stack::FAULT.top()),
        InterruptStack::NonMaskable => (stack::NMI.guard(), stack::NMI.top()),
        InterruptStack::DoubleFault => (stack::DOUBLE_FAULT.guard(), stack::DOUBLE_FAULT.top()),
        InterruptStack::MachineCheck => (stack::MACHINE_CHECK.guard(), stack::MACHINE_CHECK.top()),
    };
    (guard + stack::GUARD as u64..top).contains(&address)
}

/// Whether the CPU pushes an error code when it raises this exception itself.
fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

/// The frame of the last trap that [`note`] saw: its address and its vector.
static FRAME: AtomicU64 = AtomicU64::new(0);
static VECTOR: AtomicU64 = AtomicU64::new(u64::MAX);
const SOFTWARE: &str = "raised by software, without an error code";

fn note(frame: &mut TrapFrame) -> bool {
    let vector = frame.vector as u8;
    FRAME.store(&raw const *frame as u64, Ordering::SeqCst);
    VECTOR.store(frame.vector, Ordering::SeqCst);
    // A software interrupt pushes no error code: the stub would take the next word for it, and return to a wrong
    // address.
    assert!(!has_error_code(vector), "{SOFTWARE}");
    true
}

kernel_test! {
    fn each_of_the_256_vectors_arrives_on_its_own_stack() {
        // The hook acknowledges nothing, so no real interrupt may arrive meanwhile.
        interrupts::disable();
        let hooked = Hooked::with(note);
        for vector in 0..=u8::MAX {
            VECTOR.store(u64::MAX, Ordering::SeqCst);
            let before = vectors::counted(vector);
            match recovery::catch(|| raise(vector)) {
                Ending::Returned(()) => assert!(!has_error_code(vector), "vector {vector}"),
                Ending::Panicked(panic) => assert!(has_error_code(vector) && panic.message == SOFTWARE, "{panic:?}"),
                Ending::Faulted(fault) => panic!("vector {vector}: {fault}"),
            }
            assert_eq!(VECTOR.load(Ordering::SeqCst), u64::from(vector), "the vector that arrived");
            assert_eq!(vectors::counted(vector), before + 1, "vector {vector} is counted once");
            let (frame, expected) = (FRAME.load(Ordering::SeqCst), stack_of(vector));
            assert!(is_on(expected, frame), "vector {vector} with its frame at {frame:#x} is not on {expected:?}");
        }
        drop(hooked);
        interrupts::enable();
    }
}

kernel_test! {
    fn dividing_by_zero_raises_de() {
        // SAFETY: the division faults.
        let fault = fault_of(|| unsafe {
            asm!("xor edx, edx", "mov eax, 1", "xor ecx, ecx", "div ecx", out("eax") _, out("ecx") _, out("edx") _);
        });
        assert_eq!((fault.vector(), fault.frame.error_code), (0, 0), "{fault}");
    }
}

kernel_test! {
    fn an_invalid_opcode_raises_ud_at_its_address() {
        let fault = fault_of(|| {
            // SAFETY: the instruction faults.
            unsafe { asm!("lea rax, [rip + 2f]", "2: ud2", out("rax") _) }
        });
        assert_eq!((fault.vector(), fault.frame.rip), (6, fault.frame.rax), "{fault}");
    }
}

kernel_test! {
    fn a_breakpoint_returns_behind_itself() {
        let hooked = Hooked::with(note);
        let (before, after): (u64, u64);
        // SAFETY: the hook returns from the breakpoint.
        unsafe { asm!("lea {0}, [rip + 2f]", "int3", "2: lea {1}, [rip - 7]", out(reg) before, out(reg) after) };
        drop(hooked);
        assert_eq!(before, after);
        assert_eq!(VECTOR.load(Ordering::SeqCst), 3);
    }
}

/// The trap flag.
const TRAP: u64 = 1 << 8;
static STEPS: AtomicU64 = AtomicU64::new(0);

fn step(frame: &mut TrapFrame) -> bool {
    if frame.vector != 1 {
        return recovery::abandon_on_exception(frame);
    }
    if STEPS.fetch_add(1, Ordering::SeqCst) == 3 {
        frame.rflags &= !TRAP;
    }
    true
}

kernel_test! {
    fn single_steps_raise_db_one_by_one() {
        STEPS.store(0, Ordering::SeqCst);
        let hooked = Hooked::with(step);
        interrupts::without_interrupts(|| {
            // SAFETY: each step returns; the fourth ends stepping.
            unsafe {
                asm!("pushfq", "or qword ptr [rsp], {}", "popfq", ".rept 6", "nop", ".endr", const TRAP);
            }
        });
        drop(hooked);
        assert_eq!(STEPS.load(Ordering::SeqCst), 4);
    }
}

kernel_test! {
    fn a_non_canonical_address_raises_gp() {
        let address = 0x8000_0000_0000_0000_u64;
        // SAFETY: the access faults.
        let fault = fault_of(|| unsafe { asm!("mov al, [{}]", in(reg) address, out("al") _) });
        assert_eq!((fault.vector(), fault.frame.error_code), (13, 0), "{fault}");
    }
}

/// A GDT like the kernel's with one more entry: a data segment that is not present.
struct Absent {
    kernels: DescriptorTablePointer,
    table: [u64; 16],
    selector: u16,
}

impl Absent {
    /// Data, writable, ring 0, not present.
    const DESCRIPTOR: u64 = 0x0000_1200_0000_0000;

    fn new() -> Self {
        let kernels = sgdt();
        let entries = (usize::from(kernels.limit) + 1) / 8;
        let mut absent = Self { kernels, table: [0; 16], selector: (entries * 8) as u16 };
        for (index, entry) in absent.table.iter_mut().take(entries).enumerate() {
            // SAFETY: the GDT is that long.
            *entry = unsafe { kernels.base.as_ptr::<u64>().add(index).read() };
        }
        absent.table[entries] = Self::DESCRIPTOR;
        absent
    }

    /// Runs `action` with this table.
    fn with<R>(&self, action: impl FnOnce(u16) -> R) -> R {
        let base = VirtAddr::from_ptr(self.table.as_ptr());
        // SAFETY: this table has the kernel's entries at the same offsets; it stays valid until the kernel's is
        // loaded again.
        unsafe { lgdt(&DescriptorTablePointer { limit: (self.table.len() * 8 - 1) as u16, base }) };
        let result = action(self.selector);
        // SAFETY: the previous table.
        unsafe { lgdt(&self.kernels) };
        result
    }
}

kernel_test! {
    fn loading_an_absent_data_segment_raises_np_with_its_selector() {
        let absent = Absent::new();
        // SAFETY: the load faults.
        let fault = absent.with(|selector| fault_of(|| unsafe { asm!("mov ds, {:x}", in(reg) selector) }));
        assert_eq!((fault.vector(), fault.frame.error_code), (11, absent.selector.into()), "{fault}");
    }
}

kernel_test! {
    fn loading_an_absent_stack_segment_raises_ss_with_its_selector() {
        let absent = Absent::new();
        // SAFETY: the load faults.
        let fault = absent.with(|selector| fault_of(|| unsafe { asm!("mov ss, {:x}", in(reg) selector) }));
        assert_eq!((fault.vector(), fault.frame.error_code), (12, absent.selector.into()), "{fault}");
    }
}

kernel_test! {
    fn an_unmasked_x87_error_raises_mf() {
        let control: u16 = 0x037F & !(1 << 2); // zero divide
        let fault = fault_of(|| {
            // SAFETY: the wait faults; recovery restores the x87 state.
            unsafe { asm!("fninit", "fldcw [{}]", "fld1", "fldz", "fdivp", "fwait", in(reg) &raw const control) }
        });
        assert_eq!((fault.vector(), fault.frame.error_code), (16, 0), "{fault}");
    }
}

/// The TSS's pointer to an interrupt stack: seven 64-bit pointers from 0x24 on (SDM vol. 3, figure 8-11).
fn tss_entry(which: InterruptStack) -> *mut u64 {
    let task: u16;
    // SAFETY: this reads a register.
    unsafe { asm!("str {:x}", out(reg) task, options(nomem, nostack, preserves_flags)) };
    let descriptor = sgdt().base.as_ptr::<u64>().wrapping_byte_add(usize::from(task));
    // SAFETY: the task register selects the TSS's descriptor in the GDT, which has two words.
    let (low, high) = unsafe { (descriptor.read(), descriptor.add(1).read()) };
    let base = (low >> 16 & 0xFF_FFFF) | (low >> 56) << 24 | high << 32;
    (base + 0x24 + 8 * which as u64) as *mut u64
}

kernel_test! {
    fn a_fault_without_stack_for_it_is_a_double_fault_on_its_own_stack() {
        let entry = tss_entry(InterruptStack::Fault);
        // SAFETY: `tss_entry` returns a valid address.
        let top = unsafe { entry.read_unaligned() };
        assert_eq!(top, stack::FAULT.top());
        // As if the fault stack had overflowed: neither the invalid opcode's frame nor then the page fault's can be
        // pushed.
        // SAFETY: only until the double fault, which uses another stack.
        unsafe { entry.write_unaligned(stack::FAULT.guard() + 0x800) };
        // SAFETY: the exception ends the closure.
        let invalid = || unsafe { asm!("ud2") };
        let fault = fault_of(invalid);
        // SAFETY: restores the old value.
        unsafe { entry.write_unaligned(top) };
        assert_eq!((fault.vector(), fault.frame.error_code), (8, 0), "{fault}");
        assert_eq!(fault_of(invalid).vector(), 6, "faults are handled again");
    }
}

kernel_test! {
    fn overflowing_the_main_stack_faults_in_its_guard_page() {
        #[inline(never)]
        fn deeper(levels: u64) -> u64 {
            let room = core::hint::black_box([levels; 64]);
            if levels == 0 { room[3] } else { deeper(levels - 1) + room[5] }
        }
        let guard = stack::MAIN.guard();
        assert!(paging::with(|space| space.lookup(guard)).is_none(), "without a guard page this would end badly");
        let fault = fault_of(|| core::hint::black_box(deeper(1 << 40)));
        assert_eq!(fault.vector(), 14, "{fault}");
        assert!((guard..guard + stack::GUARD as u64).contains(&fault.address), "{fault}, guard page at {guard:#x}");
    }
}

/// Length of `ud2`.
const UD2: u64 = 2;
static FAULTS: AtomicU64 = AtomicU64::new(0);
static NMIS: AtomicU64 = AtomicU64::new(0);
static FAULT_FRAME: AtomicU64 = AtomicU64::new(0);
static INTERRUPTED: AtomicU64 = AtomicU64::new(0);

/// Steps over `ud2`; an NMI arrives meanwhile.
fn interrupted_fault(frame: &mut TrapFrame) -> bool {
    match frame.vector {
        6 => {
            let before = frame.clone();
            let nmis = NMIS.load(Ordering::SeqCst);
            local_apic::send_nmi_to_self();
            wait_until(|| NMIS.load(Ordering::SeqCst) > nmis);
            assert!(same(&before, frame), "the NMI changed the fault's frame from {before:?} to {frame:?}");
            FAULT_FRAME.store(&raw const *frame as u64, Ordering::SeqCst);
            FAULTS.fetch_add(1, Ordering::SeqCst);
            frame.rip += UD2;
            true
        }
        2 => {
            FRAME.store(&raw const *frame as u64, Ordering::SeqCst);
            INTERRUPTED.store(frame.rsp, Ordering::SeqCst);
            // Clobbers registers as a handler may.
            cpuid::brand();
            NMIS.fetch_add(1, Ordering::SeqCst);
            true
        }
        _ => recovery::abandon_on_exception(frame),
    }
}

fn same(left: &TrapFrame, right: &TrapFrame) -> bool {
    let words = |frame: &TrapFrame| {
        // SAFETY: a frame consists of exactly 22 words.
        unsafe { (&raw const *frame).cast::<[u64; 22]>().read() }
    };
    words(left) == words(right)
}

kernel_test! {
    fn an_nmi_during_a_fault_leaves_it_unharmed() {
        FAULTS.store(0, Ordering::SeqCst);
        NMIS.store(0, Ordering::SeqCst);
        let hooked = Hooked::with(interrupted_fault);
        for round in 1..=100_u64 {
            let (mut a, mut b) = (round, !round);
            // SAFETY: the hook steps over the instruction.
            unsafe { asm!("ud2", inout("rax") a, inout("r15") b) };
            assert_eq!((a, b), (round, !round), "registers after the fault");
            assert_eq!((FAULTS.load(Ordering::SeqCst), NMIS.load(Ordering::SeqCst)), (round, round));
            assert!(is_on(InterruptStack::Fault, FAULT_FRAME.load(Ordering::SeqCst)));
            assert!(is_on(InterruptStack::NonMaskable, FRAME.load(Ordering::SeqCst)));
            assert!(is_on(InterruptStack::Fault, INTERRUPTED.load(Ordering::SeqCst)), "the NMI came during the fault");
        }
        drop(hooked);
    }
}

kernel_test! {
    fn an_nmi_arrives_after_one_that_was_abandoned() {
        for _ in 0..3 {
            let fault = fault_of(|| {
                local_apic::send_nmi_to_self();
                wait_until(|| false);
            });
            assert_eq!(fault.vector(), 2, "{fault}");
        }
    }
}

/// Steps over `ud2` and notes its address.
fn step_over(frame: &mut TrapFrame) -> bool {
    if frame.vector != 6 {
        return recovery::abandon_on_exception(frame);
    }
    FAULT_FRAME.store(&raw const *frame as u64, Ordering::SeqCst);
    INTERRUPTED.store(frame.rsp, Ordering::SeqCst);
    FAULTS.fetch_add(1, Ordering::SeqCst);
    frame.rip += UD2;
    true
}

kernel_test! {
    fn a_fault_in_an_interrupt_handler_leaves_it_unharmed() {
        FAULTS.store(0, Ordering::SeqCst);
        let hooked = Hooked::with(step_over);
        let counter = Counter::with("faulting", || {
            let mut kept = 0x1234_5678_9ABC_DEF0_u64;
            // SAFETY: the hook steps over the instruction.
            unsafe { asm!("ud2", inout("r14") kept) };
            assert_eq!(kept, 0x1234_5678_9ABC_DEF0, "a register after the fault");
        });
        for round in 1..=100 {
            local_apic::send_to_self(counter.vector);
            counter.wait_for(round);
            assert_eq!(FAULTS.load(Ordering::SeqCst), round);
            assert!(is_on(InterruptStack::Fault, FAULT_FRAME.load(Ordering::SeqCst)));
            assert!(is_on(InterruptStack::Interrupt, INTERRUPTED.load(Ordering::SeqCst)), "it was in the handler");
        }
        drop(hooked);
    }
}

/// Sets a breakpoint that raises #DB before the code at `address`; `None` clears it.
fn break_at(address: Option<u64>) {
    /// DR7: enables breakpoint 0 for instruction execution.
    const ENABLE_0: u64 = 1 << 1;
    let (address, enable) = address.map_or((0, 0), |address| (address, ENABLE_0));
    // SAFETY: the debug registers only cause #DB, for which the test has a hook.
    unsafe { asm!("mov dr0, {}", "mov dr7, {}", in(reg) address, in(reg) enable, options(nostack, preserves_flags)) };
}

kernel_test! {
    fn what_comes_between_sti_and_hlt_may_keep_the_cpu_from_halting() {
        static CAME: AtomicU64 = AtomicU64::new(0);
        // A breakpoint acts like an NMI at that place.
        let hook = Hooked::with(|frame| {
            let is_it = frame.vector == 1 && frame.rip == traps::hlt();
            if is_it {
                CAME.fetch_add(1, Ordering::SeqCst);
                break_at(None);
                traps::step_over_halt(frame);
            }
            is_it
        });
        timer::arm_at(clock::nanoseconds() + 1_000_000_000);
        let before = vectors::counted(vectors::TIMER);
        break_at(Some(traps::hlt()));
        traps::enable_and_halt();
        assert_eq!(CAME.load(Ordering::SeqCst), 1);
        assert_eq!(vectors::counted(vectors::TIMER), before, "it has halted until the timer woke it");
        timer::disarm();
        drop(hook);
        // Elsewhere no instruction is skipped.
        let mut frame = fault_of(|| raise(3)).frame;
        let before = frame.rip;
        traps::step_over_halt(&mut frame);
        assert_eq!(frame.rip, before);
    }
}
