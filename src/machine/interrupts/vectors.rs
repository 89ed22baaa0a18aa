//! Interrupt vectors: their owners, counts and handlers.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use x86_64::instructions::interrupts::without_interrupts;

use crate::machine::interrupts::local_apic;
pub(crate) use crate::machine::interrupts::numbers::{
    APIC_ERROR, DEVICE_VECTORS, FIRST_EXTERNAL, FLUSH, PIC, SPURIOUS, TIMER, WAKE,
};
use crate::machine::interrupts::numbers::{FIRST_DEVICE, LAST_DEVICE};
use crate::machine::lock::Lock;
use crate::machine::smp::cpu::Cpu;
use crate::machine::smp::registry;
use ballonet::platform::{self, Handled, VectorError};

use crate::machine::devices::mmio::Window;

/// What runs at an interrupt.
pub(crate) type Handler = platform::Handler<Window>;

/// A vector's owner.
struct Owner {
    name: String,
    handler: Handler,
}

/// A vector's owner or nobody. Unlike an `Option`, which puts `None` into the name, nobody is all zeros: so the table is
/// not in the image's file.
#[repr(u8)]
enum Seat {
    Empty,
    Taken(Owner),
}

impl Seat {
    fn owner(&self) -> Option<&Owner> {
        if let Self::Taken(owner) = self { Some(owner) } else { None }
    }

    fn owner_mut(&mut self) -> Option<&mut Owner> {
        if let Self::Taken(owner) = self { Some(owner) } else { None }
    }
}

/// The state of one vector, except its counts, which are per CPU.
struct Slot {
    seat: Lock<Seat>,
    /// Number of the CPU that it interrupts.
    cpu: AtomicU32,
    /// Interrupts that the owner did not claim, or that came without an owner.
    unclaimed: AtomicU64,
}

static SLOTS: [Slot; 256] =
    [const { Slot { seat: Lock::new(Seat::Empty), cpu: AtomicU32::new(0), unclaimed: AtomicU64::new(0) } }; 256];

/// How often `vector` has come, to all CPUs.
pub(crate) fn counted(vector: u8) -> u64 {
    registry::all().map(|cpu| cpu.counted(vector)).sum()
}

/// Opens the lock on a vector's owner, which its handler holds.
///
/// # Safety
/// The handler never continues.
#[cfg(feature = "test-image")]
pub(crate) unsafe fn force_unlock(vector: u8) {
    // SAFETY: the caller vouches that the holder is gone.
    unsafe { SLOTS[usize::from(vector)].seat.force_unlock() }
}

/// Runs the owner's handler and acknowledges the interrupt. Called by the stub, with interrupts off.
pub(crate) fn deliver(vector: u8) {
    let slot = &SLOTS[usize::from(vector)];
    let handled = slot.seat.with(|seat| seat.owner_mut().map(|owner| owner.handler.run()));
    if handled != Some(Handled::Yes) {
        slot.unclaimed.fetch_add(1, Ordering::Relaxed);
    }
    // A spurious interrupt or one of the PICs is not in service in the local APIC; any vector of a device's message is.
    if (vector == SPURIOUS || vector < FIRST_DEVICE) && local_apic::in_service() != Some(vector) {
        return;
    }
    let cpu = Cpu::this();
    // Before the acknowledgement, which lets the next one in.
    let burst = cpu.burst.load(Ordering::Relaxed);
    cpu.burst.store(burst.saturating_add(1), Ordering::Relaxed);
    if burst >= LONGEST_BURST {
        hold_all(cpu);
    }
    local_apic::end_of_interrupt();
    // A device's handler may have left bits for the main loop.
    if !cpu.is_boot() && vector <= LAST_DEVICE {
        registry::wake(registry::boot());
    }
}

/// The number of interrupts on a CPU after which the interrupted code must show progress ([`note_progress`]) before
/// more are let in. Otherwise a device that interrupts faster than its handler returns would stop that code.
const LONGEST_BURST: u32 = 1000;

static HOLDS: AtomicU64 = AtomicU64::new(0);

/// Keeps all interrupts pending, not only those of device vectors, since a device chooses the vector in its message.
fn hold_all(cpu: &Cpu) {
    if !cpu.is_held.swap(true, Ordering::Relaxed) {
        HOLDS.fetch_add(1, Ordering::Relaxed);
        local_apic::hold_up_to(SPURIOUS);
    }
}

/// Called by interrupted code to show progress. Blocked interrupts then come at once.
pub(crate) fn note_progress() {
    let cpu = Cpu::this();
    cpu.burst.store(0, Ordering::Relaxed);
    if cpu.is_held.load(Ordering::Relaxed) {
        without_interrupts(|| {
            cpu.is_held.store(false, Ordering::Relaxed);
            local_apic::hold_none();
        });
    }
}

/// How often interrupts were blocked because they came too fast.
pub(crate) fn holds() -> u64 {
    HOLDS.load(Ordering::Relaxed)
}

/// Gives `handler` a free device vector for the CPU with this number. 16 vectors share a priority; low ones are taken
/// first.
///
/// # Errors
/// When every one is taken.
pub(crate) fn allocate_on(cpu: u32, name: String, handler: Handler) -> Result<u8, VectorError> {
    let mut owner = Some(Owner { name, handler });
    let take = |&vector: &u8| {
        let slot = &SLOTS[usize::from(vector)];
        slot.seat.with(|seat| {
            if seat.owner().is_some() {
                return false;
            }
            registry::all().for_each(|cpu| cpu.forget_count(vector));
            slot.unclaimed.store(0, Ordering::Relaxed);
            slot.cpu.store(cpu, Ordering::Relaxed);
            *seat = owner.take().map_or(Seat::Empty, Seat::Taken);
            true
        })
    };
    (FIRST_DEVICE..=LAST_DEVICE).find(take).ok_or(VectorError::Exhausted(DEVICE_VECTORS))
}

/// Likewise on the boot CPU.
///
/// # Errors
/// When every one is taken.
pub(crate) fn allocate(name: String, handler: Handler) -> Result<u8, VectorError> {
    allocate_on(0, name, handler)
}

/// Number of the CPU that a vector interrupts.
pub(crate) fn affinity(vector: u8) -> u32 {
    SLOTS[usize::from(vector)].cpu.load(Ordering::Relaxed)
}

/// Notes that a vector interrupts the CPU with this number from now on.
pub(crate) fn set_affinity(vector: u8, cpu: u32) {
    SLOTS[usize::from(vector)].cpu.store(cpu, Ordering::Relaxed);
}

/// How many device vectors interrupt the CPU with this number.
pub(crate) fn on_cpu(cpu: u32) -> usize {
    device_vectors().filter(|&vector| affinity(vector) == cpu).count()
}

/// Device vectors that have an owner.
fn device_vectors() -> impl Iterator<Item = u8> {
    (FIRST_DEVICE..=LAST_DEVICE).filter(|&vector| SLOTS[usize::from(vector)].seat.with(|seat| seat.owner().is_some()))
}

/// Waits until the vector's handler, which may be running on another CPU, has returned.
pub(crate) fn synchronize(vector: u8) {
    // It runs with the lock held.
    SLOTS[usize::from(vector)].seat.with(|_| ());
}

/// Gives one of the fixed vectors its handler.
pub(crate) fn install(vector: u8, name: String, handler: Handler) {
    let taken = Seat::Taken(Owner { name, handler });
    let former = SLOTS[usize::from(vector)].seat.with(|seat| mem::replace(seat, taken));
    debug_assert!(former.owner().is_none(), "vector {vector} is installed once");
}

/// Frees a vector. When this returns, the handler runs on no CPU and has been dropped.
pub(crate) fn release(vector: u8) {
    // Dropped outside the lock, with interrupts on, since a drop may free memory.
    let former = SLOTS[usize::from(vector)].seat.with(|seat| mem::replace(seat, Seat::Empty));
    drop(former);
}

/// How many device vectors have an owner.
pub(crate) fn allocated() -> usize {
    device_vectors().count()
}

/// A vector, as the console shows it.
#[derive(Debug, Clone)]
pub(crate) struct VectorView {
    /// The vector.
    pub vector: u8,
    /// Its owner's name.
    pub name: String,
    /// How often it came.
    pub count: u64,
    /// How often no owner claimed it.
    pub unclaimed: u64,
    /// Number of the CPU that it interrupts.
    pub cpu: u32,
    /// The CPUs that it has come to, by number, and how often.
    pub by_cpu: Vec<(u32, u64)>,
}

/// Every vector that has an owner or has come, in order.
pub(crate) fn views() -> impl Iterator<Item = VectorView> {
    (FIRST_EXTERNAL..=u8::MAX).filter_map(|vector| {
        let slot = &SLOTS[usize::from(vector)];
        let name = slot.seat.with(|seat| seat.owner().map(|owner| owner.name.clone()));
        let counts = registry::all().map(|cpu| (cpu.number(), cpu.counted(vector)));
        let by_cpu: Vec<_> = counts.filter(|&(_, count)| count > 0).collect();
        let count = by_cpu.iter().map(|&(_, count)| count).sum();
        let unclaimed = slot.unclaimed.load(Ordering::Relaxed);
        let cpu = affinity(vector);
        (name.is_some() || count > 0).then(|| VectorView {
            vector,
            name: name.unwrap_or_default(),
            count,
            unclaimed,
            cpu,
            by_cpu,
        })
    })
}
