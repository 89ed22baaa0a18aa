//! Shared by many tests: bounded waits, deliberate faults, self-made interrupts.

use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::machine::recovery::{self, Ending, Fault};
use crate::machine::traps::{self, TrapHook};
use crate::machine::{clock, cpuid, local_apic, vectors};
use ballonet::platform::Handled;

use crate::tests::suite::Skip;

/// The longest wait for an event: far longer than any event takes.
pub(super) const PATIENCE_NS: u64 = 20_000_000_000;

/// Why a test that needs several CPUs is skipped. `tests/machine.rs` then boots it with more.
pub(super) const ONE_CPU: &str = "one CPU runs";

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not hold for a very long time.
#[track_caller]
pub(super) fn wait_until(mut condition: impl FnMut() -> bool) {
    let end = clock::nanoseconds() + PATIENCE_NS;
    while !condition() {
        assert!(clock::nanoseconds() < end, "what was waited for did not happen");
        vectors::note_progress();
        core::hint::spin_loop();
    }
}

/// Lets time pass with interrupts on.
pub(super) fn pass(nanoseconds: u64) {
    let end = clock::nanoseconds() + nanoseconds;
    while clock::nanoseconds() < end {
        vectors::note_progress();
        core::hint::spin_loop();
    }
}

/// Runs `action`, which must raise an exception, and returns that.
///
/// # Panics
/// When `action` raises no exception, or panics itself.
#[track_caller]
pub(super) fn fault_of<R>(action: impl FnOnce() -> R) -> Fault {
    match recovery::catch(action) {
        Ending::Faulted(fault) => *fault,
        Ending::Returned(_) => panic!("no exception was raised"),
        Ending::Panicked(panic) => panic!("{} ({}:{})", panic.message, panic.file, panic.line),
    }
}

/// Page-fault error code (SDM vol. 3, 5.7): the page is present but forbids the access.
pub(super) const PRESENT: u64 = 1;
/// Page-fault error code: a write.
pub(super) const WRITE: u64 = 2;
/// Page-fault error code: an instruction fetch.
pub(super) const FETCH: u64 = 16;

/// Asserts that `action` raises a page fault at `address` with this error code.
#[track_caller]
pub(super) fn assert_page_fault<R>(address: u64, error_code: u64, action: impl FnOnce() -> R) {
    let fault = fault_of(action);
    assert_eq!(fault.vector(), 14, "{fault}");
    assert_eq!((fault.address, fault.frame.error_code), (address, error_code), "address and error code: {fault}");
}

/// Replaces the trap hook while this value lives. After a failure the suite restores the hook.
pub(super) struct Hooked;

impl Hooked {
    /// Installs `hook`.
    pub(super) fn with(hook: TrapHook) -> Self {
        traps::set_hook(Some(hook));
        Self
    }
}

impl Drop for Hooked {
    fn drop(&mut self) {
        recovery::watch();
    }
}

/// A vector whose handler counts. Dropping this frees the vector.
pub(super) struct Counter {
    /// The vector.
    pub vector: u8,
    count: Arc<AtomicU64>,
}

impl Counter {
    /// A vector of this name.
    pub(super) fn new(name: &str) -> Self {
        Self::with(name, || {})
    }

    /// A vector whose handler also does something.
    pub(super) fn with(name: &str, mut action: impl FnMut() + Send + 'static) -> Self {
        let count = Arc::new(AtomicU64::new(0));
        let handlers = Arc::clone(&count);
        let handler = move || {
            action();
            handlers.fetch_add(1, Ordering::SeqCst);
            Handled::Yes
        };
        let vector = vectors::allocate(String::from(name), vectors::Handler::new(handler)).expect("a vector is free");
        Self { vector, count }
    }

    /// Number of the handler's runs.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until the handler has run `count` times.
    #[track_caller]
    pub(super) fn wait_for(&self, count: u64) {
        wait_until(|| self.count() >= count);
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        vectors::release(self.vector);
    }
}

/// A vector whose handler requests the next interrupt, over and over, until it is stopped.
pub(super) struct Storm {
    vector: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Storm {
    /// A storm that has not begun.
    pub(super) fn new() -> Self {
        Self { vector: Arc::new(AtomicU64::new(0)), is_over: Arc::new(AtomicBool::new(false)) }
    }

    /// The handler's action: requests an interrupt of the CPU that it runs on.
    pub(super) fn ask_again(&self) -> impl FnMut() + Send + 'static {
        let (vector, is_over) = (Arc::clone(&self.vector), Arc::clone(&self.is_over));
        move || {
            if !is_over.load(Ordering::SeqCst) {
                local_apic::send_to_self(vector.load(Ordering::SeqCst) as u8);
            }
        }
    }

    /// Sets its vector, before the first interrupt.
    pub(super) fn set_vector(&self, vector: u8) {
        self.vector.store(vector.into(), Ordering::SeqCst);
    }

    /// Makes the handler stop requesting interrupts.
    pub(super) fn stop(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

/// A line's entry in its IOAPIC: masked.
pub(super) const MASKED: u32 = 1 << 16;

/// The rate of the local APIC's timer, divided by 16, in Hz.
///
/// # Errors
/// When it could not be measured.
pub(super) fn apic_timer_hz() -> Result<u64, Skip> {
    match clock::rate().map(|rate| rate.apic_hz) {
        Some(hz) if hz > 0 => Ok(hz),
        _ => Err(Skip::because("the rate of the local APIC's timer is not known")),
    }
}

/// Skips the test if the CPU cannot make pages non-executable.
///
/// # Errors
/// When the CPU has no NX.
pub(super) fn require_nx(features: &cpuid::Features) -> Result<(), Skip> {
    if features.nx { Ok(()) } else { Err(Skip::because("the CPU has no NX")) }
}
