//! What interrupts must preserve: the red zone, SSE and x87 state, general registers and flags.
//!
//! The compiler and the prebuilt `core` use all of these. Each test keeps known values in a leaf function in
//! assembly, while a timer interrupts it again and again with a handler that spoils everything it can.

use alloc::sync::Arc;
use core::arch::{asm, naked_asm};
use core::sync::atomic::{AtomicU8, Ordering};

use crate::machine::{clock, local_apic, vectors};
use x86_64::instructions::interrupts::without_interrupts;

use crate::tests::suite::{Skip, Test, kernel_test, tests};
use crate::tests::support::{Counter, PATIENCE_NS, apic_timer_hz};

pub(super) const TESTS: &[Test] = tests![
    interrupts_leave_the_red_zone_alone,
    interrupts_leave_sse_and_x87_state_alone,
    interrupts_leave_general_registers_and_flags_alone,
    a_storm_of_interrupts_is_counted_once_each,
];

/// Interrupts that each test must see.
const INTERRUPTS: u64 = 500;
/// Rounds of checks that each test must make.
const ROUNDS: u64 = 1_000_000;
/// Rounds per call of a leaf.
const STRIDE: u64 = 20_000;
/// Time between two interrupts: short, but long enough for progress under an emulator.
const PERIOD_NS: u64 = 30_000;

/// A timer that interrupts repeatedly; its handler spoils registers and stack.
struct Storm(Counter);

impl Storm {
    fn start() -> Result<Self, Skip> {
        let ticks = u32::try_from(apic_timer_hz()? * PERIOD_NS / 1_000_000_000).unwrap_or(u32::MAX).max(1);
        let vector = Arc::new(AtomicU8::new(0));
        let own = Arc::clone(&vector);
        let counter = Counter::with("storm", move || {
            spoil();
            local_apic::start_countdown(ticks, own.load(Ordering::Relaxed));
        });
        vector.store(counter.vector, Ordering::Relaxed);
        local_apic::start_countdown(ticks, counter.vector);
        Ok(Self(counter))
    }

    /// Calls `leaf` until it has run its rounds and been interrupted often enough.
    ///
    /// # Panics
    /// When it returns anything but 0, or interrupts stop.
    fn rage(self, mut leaf: impl FnMut(u64) -> u64) {
        let mut rounds = 0;
        let mut progress = (0, clock::nanoseconds());
        while rounds < ROUNDS || self.0.count() < INTERRUPTS {
            let failure = leaf(STRIDE);
            assert_eq!(failure, 0, "the leaf's code for the spoiled value, after {} interrupts", self.0.count());
            rounds += STRIDE;
            vectors::note_progress();
            let (count, now) = (self.0.count(), clock::nanoseconds());
            if count > progress.0 {
                progress = (count, now);
            }
            assert!(now - progress.1 < PATIENCE_NS, "no interrupt came any more after {count} of them");
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        local_apic::start_countdown(0, self.0.vector);
    }
}

/// Overwrites the SSE and x87 registers and much of the stack.
#[inline(never)]
fn spoil() {
    let mxcsr: u32 = 0x1F80 | 1 << 13 | 0x3F; // rounding down, all flags up
    let room = core::hint::black_box([0xA5_u8; 2048]);
    // SAFETY: all clobbers are declared. MXCSR and the x87 state stay spoiled, which the interrupt stub must repair;
    // the Rust code until then uses neither.
    unsafe {
        asm!(
            "pcmpeqd xmm0, xmm0", "pcmpeqd xmm1, xmm1", "pcmpeqd xmm2, xmm2", "pcmpeqd xmm3, xmm3",
            "pcmpeqd xmm4, xmm4", "pcmpeqd xmm5, xmm5", "pcmpeqd xmm6, xmm6", "pcmpeqd xmm7, xmm7",
            "pcmpeqd xmm8, xmm8", "pcmpeqd xmm9, xmm9", "pcmpeqd xmm10, xmm10", "pcmpeqd xmm11, xmm11",
            "pcmpeqd xmm12, xmm12", "pcmpeqd xmm13, xmm13", "pcmpeqd xmm14, xmm14", "pcmpeqd xmm15, xmm15",
            "ldmxcsr [{mxcsr}]",
            "fninit", "fldz", "fldz", "fldz",
            "xor eax, eax", "xor ecx, ecx", "xor edx, edx", "xor esi, esi", "xor edi, edi",
            "xor r8d, r8d", "xor r9d, r9d", "xor r10d, r10d", "xor r11d, r11d",
            mxcsr = in(reg) &raw const mxcsr,
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _,
            out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _,
            out("xmm13") _, out("xmm14") _, out("xmm15") _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _, out("st(5)") _,
            out("st(6)") _, out("st(7)") _,
        );
    }
    core::hint::black_box(room);
}

/// Keeps `seed + n` in the n-th word below the stack pointer, for all 16 words of the red zone, and checks them
/// `rounds` times. Returns 0, or the number of the changed word.
#[unsafe(naked)]
extern "C" fn red_zone(rounds: u64, seed: u64) -> u64 {
    naked_asm!(
        ".set slot, 1",
        ".rept 16",
        "lea rax, [rsi + slot]",
        "mov [rsp - 8 * slot], rax",
        ".set slot, slot + 1",
        ".endr",
        "2:",
        // Emulators take interrupts at jumps.
        "jmp 3f",
        "3:",
        ".set slot, 1",
        ".rept 16",
        "lea rax, [rsi + slot]",
        "mov ecx, slot",
        "cmp [rsp - 8 * slot], rax",
        "jne 4f",
        ".set slot, slot + 1",
        ".endr",
        "dec rdi",
        "jnz 2b",
        "xor ecx, ecx",
        "4:",
        "mov eax, ecx",
        "ret",
    )
}

kernel_test! {
    fn interrupts_leave_the_red_zone_alone() {
        let mut seed = 0x0123_4567_89AB_CDEF_u64;
        Storm::start()?.rage(|rounds| {
            seed = seed.rotate_left(7) ^ clock::tsc();
            red_zone(rounds, seed)
        });
    }
}

/// Bytes of SSE and x87 state that FXSAVE stores; it does not write the rest of its 512.
const SAVED: usize = 416;

/// An area for FXSAVE (SDM vol. 1, table 10-2).
#[repr(C, align(16))]
struct Area([u8; 512]);

impl Area {
    /// A state with distinct registers and unusual settings.
    fn peculiar() -> Self {
        let mut area = Self([0; 512]);
        area.0[0..2].copy_from_slice(&0x0E7F_u16.to_le_bytes()); // x87: toward zero, 53 bits, all masked
        area.0[2..4].copy_from_slice(&0x0000_u16.to_le_bytes()); // top of stack: 0
        area.0[4] = 0xFF; // no register is empty
        area.0[24..28].copy_from_slice(&0x0000_FF80_u32.to_le_bytes()); // MXCSR: to zero, flush to zero, all masked
        area.0[28..32].copy_from_slice(&Self::mxcsr_mask().to_le_bytes());
        for register in 0..8 {
            let number = &mut area.0[32 + 16 * register..][..10];
            number.copy_from_slice(&[0x11 * register as u8 + 3, 1, 2, 3, 4, 5, 6, 0x87, register as u8 + 1, 0x40]);
        }
        for (index, byte) in area.0[160..416].iter_mut().enumerate() {
            *byte = (index as u8).wrapping_mul(167).wrapping_add(13);
        }
        area
    }

    /// The MXCSR bits that exist: a field that FXSAVE stores and FXRSTOR ignores.
    fn mxcsr_mask() -> u32 {
        let mut now = Self([0; 512]);
        // SAFETY: the area has FXSAVE's size and alignment.
        unsafe { asm!("fxsave64 [{}]", in(reg) &raw mut now) };
        u32::from_le_bytes([now.0[28], now.0[29], now.0[30], now.0[31]])
    }
}

/// Loads the state `wanted`, then `rounds` times saves the current state into `found` and compares [`SAVED`] bytes.
/// Returns 0, or 1 plus the offset of the changed word. `callers` keeps the caller's state.
#[unsafe(naked)]
extern "C" fn fpu_state(rounds: u64, wanted: *const Area, found: *mut Area, callers: *mut Area) -> u64 {
    naked_asm!(
        "fxsave64 [rcx]",
        "fxrstor64 [rsi]",
        "2:",
        "jmp 3f",
        "3:",
        "fxsave64 [rdx]",
        "xor r8d, r8d",
        "4:",
        "mov rax, [rsi + r8]",
        "cmp [rdx + r8], rax",
        "jne 5f",
        "add r8, 8",
        "cmp r8, {saved}",
        "jb 4b",
        "dec rdi",
        "jnz 2b",
        "mov r8, -1",
        "5:",
        "fxrstor64 [rcx]",
        "lea rax, [r8 + 1]",
        "ret",
        saved = const SAVED,
    )
}

kernel_test! {
    fn interrupts_leave_sse_and_x87_state_alone() {
        let wanted = Area::peculiar();
        let (mut found, mut callers) = (Area([0; 512]), Area([0; 512]));
        // A round compares fifty words.
        Storm::start()?.rage(|rounds| fpu_state(rounds / 8, &raw const wanted, &raw mut found, &raw mut callers));
    }
}

/// The flags that the leaf sets: carry, parity, adjust, zero, sign, interrupts, direction, overflow; and the bit that
/// is always 1.
const FLAGS: u64 = 0xED7;

/// Fifteen numbers, one per register.
static NUMBERS: [u64; 15] = {
    let mut numbers = [0; 15];
    let mut index = 0;
    while index < 15 {
        numbers[index] = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(index as u64 + 1);
        index += 1;
    }
    numbers
};

/// Keeps numbers in all general registers and [`FLAGS`] in the flags, and checks them `rounds` times. Returns 0, or 1
/// if a register changed, or 2 if a flag did.
#[unsafe(naked)]
extern "C" fn general_registers(rounds: u64) -> u64 {
    naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
        "push rdi", // the rounds left
        "mov rax, [rip + {numbers}]", "mov rbx, [rip + {numbers} + 8]", "mov rcx, [rip + {numbers} + 16]",
        "mov rdx, [rip + {numbers} + 24]", "mov rsi, [rip + {numbers} + 32]", "mov rdi, [rip + {numbers} + 40]",
        "mov rbp, [rip + {numbers} + 48]", "mov r8, [rip + {numbers} + 56]", "mov r9, [rip + {numbers} + 64]",
        "mov r10, [rip + {numbers} + 72]", "mov r11, [rip + {numbers} + 80]", "mov r12, [rip + {numbers} + 88]",
        "mov r13, [rip + {numbers} + 96]", "mov r14, [rip + {numbers} + 104]", "mov r15, [rip + {numbers} + 112]",
        "2:",
        "push {flags}",
        "popfq",
        "jmp 3f",
        "3:",
        "jmp 4f",
        "4:",
        "jmp 5f",
        "5:",
        "pushfq",
        "cld",
        "cmp qword ptr [rsp], {flags}",
        "lea rsp, [rsp + 8]",
        "jne 7f",
        "cmp rax, [rip + {numbers}]", "jne 6f", "cmp rbx, [rip + {numbers} + 8]", "jne 6f",
        "cmp rcx, [rip + {numbers} + 16]", "jne 6f", "cmp rdx, [rip + {numbers} + 24]", "jne 6f",
        "cmp rsi, [rip + {numbers} + 32]", "jne 6f", "cmp rdi, [rip + {numbers} + 40]", "jne 6f",
        "cmp rbp, [rip + {numbers} + 48]", "jne 6f", "cmp r8, [rip + {numbers} + 56]", "jne 6f",
        "cmp r9, [rip + {numbers} + 64]", "jne 6f", "cmp r10, [rip + {numbers} + 72]", "jne 6f",
        "cmp r11, [rip + {numbers} + 80]", "jne 6f", "cmp r12, [rip + {numbers} + 88]", "jne 6f",
        "cmp r13, [rip + {numbers} + 96]", "jne 6f", "cmp r14, [rip + {numbers} + 104]", "jne 6f",
        "cmp r15, [rip + {numbers} + 112]", "jne 6f",
        "dec qword ptr [rsp]",
        "jnz 2b",
        "xor eax, eax",
        "jmp 8f",
        "6:",
        "mov eax, 1",
        "jmp 8f",
        "7:",
        "mov eax, 2",
        "8:",
        "pop rdi",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
        "ret",
        numbers = sym NUMBERS,
        flags = const FLAGS,
    )
}

kernel_test! {
    fn interrupts_leave_general_registers_and_flags_alone() {
        Storm::start()?.rage(|rounds| general_registers(rounds));
    }
}

kernel_test! {
    fn a_storm_of_interrupts_is_counted_once_each() {
        let storm = Storm::start()?;
        storm.0.wait_for(INTERRUPTS);
        without_interrupts(|| assert_eq!(vectors::counted(storm.0.vector), storm.0.count()));
    }
}
