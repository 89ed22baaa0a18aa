//! Interrupt vectors: who has which, how often each came, and what runs when it comes.

use alloc::string::String;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use spin::Mutex;
use x86_64::instructions::interrupts::without_interrupts;

use super::local_apic;
use crate::platform::{Handled, Handler, VectorError};

/// The first vector that is not an exception (SDM vol. 3, 7.2).
pub const FIRST_EXTERNAL: u8 = 32;
/// Where the two PICs are moved to: masked, they still raise spurious interrupts 7 and 15.
pub const PIC: u8 = 0x20;
/// The first vector for devices.
const FIRST_DEVICE: u8 = 0x30;
/// The last vector for devices.
const LAST_DEVICE: u8 = 0xEF;
/// How many vectors devices share.
pub const DEVICE_VECTORS: u32 = (LAST_DEVICE - FIRST_DEVICE) as u32 + 1;
/// The local APIC's timer.
pub const TIMER: u8 = 0xF0;
/// The local APIC's errors.
pub const APIC_ERROR: u8 = 0xFE;
/// The local APIC's spurious interrupt: low four bits set, as old APICs want it; never acknowledged.
pub const SPURIOUS: u8 = 0xFF;

/// A vector's owner.
struct Owner {
    name: String,
    handler: Handler,
}

/// All there is about one vector.
struct Slot {
    owner: Mutex<Option<Owner>>,
    count: AtomicU64,
    /// Interrupts that the owner said were not its own, or that came when there was no owner.
    unclaimed: AtomicU64,
}

static SLOTS: [Slot; 256] =
    [const { Slot { owner: Mutex::new(None), count: AtomicU64::new(0), unclaimed: AtomicU64::new(0) } }; 256];

/// Counts an interrupt.
pub fn count(vector: u8) {
    SLOTS[usize::from(vector)].count.fetch_add(1, Ordering::Relaxed);
}

/// How often `vector` has come.
pub fn counted(vector: u8) -> u64 {
    SLOTS[usize::from(vector)].count.load(Ordering::Relaxed)
}

/// Opens the lock on a vector's owner, whoever holds it: its handler does.
///
/// # Safety
/// The handler never runs on from where it is.
pub(super) unsafe fn force_unlock(vector: u8) {
    // SAFETY: the caller vouches that the holder is gone.
    unsafe { SLOTS[usize::from(vector)].owner.force_unlock() }
}

/// Runs the owner's handler and acknowledges the interrupt. Called by the stub, with interrupts off.
pub fn deliver(vector: u8) {
    let slot = &SLOTS[usize::from(vector)];
    let handled = slot.owner.lock().as_mut().map(|owner| (owner.handler)());
    if handled != Some(Handled::Yes) {
        slot.unclaimed.fetch_add(1, Ordering::Relaxed);
    }
    // Neither a spurious interrupt nor one of the PICs is in service in the local APIC.
    if vector == SPURIOUS || vector < FIRST_DEVICE {
        return;
    }
    // Before the acknowledgement, which lets the next one in.
    if BURST.fetch_add(1, Ordering::Relaxed) >= LONGEST_BURST {
        hold_all();
    }
    local_apic::end_of_interrupt();
}

/// Interrupts after which the code below them has to show a sign of life before more are let in. A device that interrupts
/// faster than its handler returns would keep that code from running at all.
const LONGEST_BURST: u32 = 1000;

/// Interrupts since the last sign of life.
static BURST: AtomicU32 = AtomicU32::new(0);
/// The local APIC keeps interrupts pending.
static HELD: AtomicBool = AtomicBool::new(false);
static HOLDS: AtomicU64 = AtomicU64::new(0);

/// Keeps all interrupts pending, not those of devices' vectors alone: which vector a message names the device says.
fn hold_all() {
    if !HELD.swap(true, Ordering::Relaxed) {
        HOLDS.fetch_add(1, Ordering::Relaxed);
        local_apic::hold_up_to(SPURIOUS);
    }
}

/// A sign of life of the code that interrupts interrupt: it gets along, so it may be interrupted. What was asked for
/// while all were held back comes at once.
pub fn sign_of_life() {
    BURST.store(0, Ordering::Relaxed);
    if HELD.load(Ordering::Relaxed) {
        without_interrupts(|| {
            HELD.store(false, Ordering::Relaxed);
            local_apic::hold_none();
        });
    }
}

/// How often interrupts were held back because they came too fast.
pub fn holds() -> u64 {
    HOLDS.load(Ordering::Relaxed)
}

/// Gives a free device vector to `handler`. Vectors of 16 share a priority; low ones are taken first.
///
/// # Errors
/// When every one is taken.
pub fn allocate(name: String, handler: Handler) -> Result<u8, VectorError> {
    let mut owner = Some(Owner { name, handler });
    for vector in FIRST_DEVICE..=LAST_DEVICE {
        let taken = without_interrupts(|| {
            let slot = &SLOTS[usize::from(vector)];
            let mut place = slot.owner.lock();
            if place.is_some() {
                return false;
            }
            slot.count.store(0, Ordering::Relaxed);
            slot.unclaimed.store(0, Ordering::Relaxed);
            *place = owner.take();
            true
        });
        if taken {
            return Ok(vector);
        }
    }
    Err(VectorError::Exhausted(DEVICE_VECTORS))
}

/// Gives one of the fixed vectors its handler.
pub fn install(vector: u8, name: String, handler: Handler) {
    let former = without_interrupts(|| SLOTS[usize::from(vector)].owner.lock().replace(Owner { name, handler }));
    debug_assert!(former.is_none(), "vector {vector} is installed once");
}

/// Takes a vector back. When it returns, the handler runs on no CPU and has been dropped.
pub fn release(vector: u8) {
    // Dropped out here, with interrupts on, since a drop may free memory.
    let owner = without_interrupts(|| SLOTS[usize::from(vector)].owner.lock().take());
    drop(owner);
}

/// How many device vectors have an owner.
pub fn allocated() -> usize {
    (FIRST_DEVICE..=LAST_DEVICE)
        .filter(|&vector| without_interrupts(|| SLOTS[usize::from(vector)].owner.lock().is_some()))
        .count()
}

/// What is known of a vector.
#[derive(Debug, Clone)]
pub struct VectorView {
    /// The vector.
    pub vector: u8,
    /// Its owner's name.
    pub name: String,
    /// How often it came.
    pub count: u64,
    /// How often nobody claimed it.
    pub unclaimed: u64,
}

/// Every vector that has an owner or has come, in order.
pub fn views() -> impl Iterator<Item = VectorView> {
    (FIRST_EXTERNAL..=u8::MAX).filter_map(|vector| {
        let slot = &SLOTS[usize::from(vector)];
        let name = without_interrupts(|| slot.owner.lock().as_ref().map(|owner| owner.name.clone()));
        let count = slot.count.load(Ordering::Relaxed);
        let unclaimed = slot.unclaimed.load(Ordering::Relaxed);
        (name.is_some() || count > 0).then(|| VectorView { vector, name: name.unwrap_or_default(), count, unclaimed })
    })
}
