//! The keyboard controller (i8042), or firmware that emulates one for USB keyboards.
//!
//! It may be absent although the tables list it, and incomplete where firmware emulates it. So only the necessary
//! commands are sent, and every wait is bounded. Its interrupt may not arrive: until one has, the keyboard is polled.

use alloc::string::String;
use core::sync::atomic::{AtomicBool, Ordering};

use derive_more::Display;
use log::{Level, info, log, warn};
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::instructions::port::Port;

use crate::acpi::{Fadt, InterruptRoute, Madt};
use crate::machine::interrupts::{io_apic, local_apic, vectors};
use crate::machine::lock::Lock;
use crate::machine::terminal::ring;
use crate::machine::time::clock;
use crate::screen::Keyboard;
use ballonet::platform::Handled;

/// The keyboard's ISA interrupt.
const IRQ: u8 = 1;

/// Data to and from the keyboard, and the controller's status and commands.
const DATA: u16 = 0x60;
const STATUS: u16 = 0x64;

/// Status: a byte can be read; the last byte written has not been taken yet; the byte to be read is the mouse's.
const READABLE: u8 = 1 << 0;
const BUSY: u8 = 1 << 1;
const FROM_MOUSE: u8 = 1 << 5;
/// What an absent port reads as.
const NOTHING: u8 = 0xFF;

/// Commands to the controller.
const READ_CONFIGURATION: u8 = 0x20;
const WRITE_CONFIGURATION: u8 = 0x60;
const DISABLE_MOUSE: u8 = 0xA7;
const DISABLE_KEYBOARD: u8 = 0xAD;
const ENABLE_KEYBOARD: u8 = 0xAE;

/// Configuration: keyboard interrupt, mouse interrupt; keyboard clock off, mouse clock off; translate to scan code set
/// 1.
const KEYBOARD_INTERRUPT: u8 = 1 << 0;
const MOUSE_INTERRUPT: u8 = 1 << 1;
const KEYBOARD_OFF: u8 = 1 << 4;
const MOUSE_OFF: u8 = 1 << 5;
const TRANSLATE: u8 = 1 << 6;

/// Command to the keyboard: send keys; and its acknowledgement.
const SEND_KEYS: u8 = 0xF4;
const ACKNOWLEDGED: u8 = 0xFA;

/// The longest wait, in nanoseconds and in polls, since the CPU may be descheduled meanwhile: a keyboard takes up to 20
/// ms.
const PATIENCE: u64 = 30_000_000;
const LOOKS: u32 = 1000;
/// Bytes read at a time: more than any controller buffers.
const MOST_BYTES: usize = 32;

pub(crate) static KEYBOARD: Lock<Keyboard> = Lock::new(Keyboard::new());

/// Why no keyboard is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub(crate) enum KeyboardError {
    /// The tables say so.
    #[display("ACPI says that there is no controller")]
    NotInTables,
    /// The ports read as absent.
    #[display("no controller answers")]
    Absent,
    /// The controller accepts no command.
    #[display("the controller accepts no commands")]
    Busy,
    /// It does not answer.
    #[display("the controller does not return its configuration")]
    Silent,
}

/// Whether there is a keyboard to type on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyboardState {
    /// There is one.
    Answered,
    /// There is a controller, but no keyboard has answered. One may be plugged in later.
    Silent,
    /// There is no usable controller.
    Absent,
}

/// Set until an interrupt of it has arrived.
static POLLED: AtomicBool = AtomicBool::new(false);
static PRESENT: AtomicBool = AtomicBool::new(false);
static ANSWERED: AtomicBool = AtomicBool::new(false);

/// Whether there is a keyboard, as far as is known.
pub(crate) fn state() -> KeyboardState {
    match (PRESENT.load(Ordering::Relaxed), ANSWERED.load(Ordering::Relaxed)) {
        (true, true) => KeyboardState::Answered,
        (true, false) => KeyboardState::Silent,
        (false, _) => KeyboardState::Absent,
    }
}

/// Whether it must be polled, since none of its interrupts has arrived.
pub(crate) fn is_polled() -> bool {
    POLLED.load(Ordering::Relaxed)
}

/// Takes typed characters.
pub(crate) fn look() {
    without_interrupts(take_keys);
}

/// Sets up the keyboard, if there is one. Its characters are read like those from the serial line. Interrupts are on.
pub(crate) fn connect(madt: Option<&Madt>, fadt: Option<&Fadt>) {
    match try_connect(fadt) {
        Ok(answered) => {
            PRESENT.store(true, Ordering::Relaxed);
            ANSWERED.store(answered, Ordering::Relaxed);
            let interrupts = madt.is_some_and(|madt| attach(madt.isa_irq(IRQ)));
            POLLED.store(!interrupts, Ordering::Relaxed);
            let who = if answered { "listening" } else { "the controller works; no keyboard has answered yet" };
            let how = if interrupts { "" } else { ", polled every 20 ms: no interrupt of it has arrived" };
            // A detail, unless something is wrong.
            let level = if answered && interrupts { Level::Debug } else { Level::Info };
            log!(level, "PS/2 keyboard: {who}{how}");
        }
        Err(error @ (KeyboardError::NotInTables | KeyboardError::Absent)) => info!("PS/2 keyboard: {error}"),
        Err(error) => warn!("PS/2 keyboard: {error}"),
    }
}

/// Returns whether a keyboard has answered. One may be plugged in later.
fn try_connect(fadt: Option<&Fadt>) -> Result<bool, KeyboardError> {
    if fadt.is_some_and(|fadt| !fadt.has_keyboard_controller()) {
        return Err(KeyboardError::NotInTables);
    }
    if status() == NOTHING {
        return Err(KeyboardError::Absent);
    }
    without_interrupts(set_up)
}

/// Gives the keyboard's line a vector. Returns whether an interrupt has arrived on it.
fn attach(route: InterruptRoute) -> bool {
    let allocated = vectors::allocate(String::from("keyboard"), vectors::Handler::new(interrupt));
    let Ok(vector) = allocated.inspect_err(|error| warn!("PS/2 keyboard: {error}")) else { return false };
    let id = u8::try_from(local_apic::id()).unwrap_or(0);
    if io_apic::route(route, vector, id).is_none() {
        vectors::release(vector);
        return false;
    }
    // The line signals the next byte only after this one has been read.
    without_interrupts(drain);
    arrives()
}

/// Whether a keyboard's answers interrupt. Unknown for one that has not answered.
fn arrives() -> bool {
    POLLED.store(true, Ordering::Relaxed);
    let asked = ANSWERED.load(Ordering::Relaxed) && without_interrupts(|| write(SEND_KEYS)).is_ok();
    asked && patiently(|| !is_polled())
}

/// Makes the controller interrupt only for the keyboard and translate, and the keyboard send keys. Firmware usually
/// leaves it like that, but a loader may have turned interrupts off.
fn set_up() -> Result<bool, KeyboardError> {
    command(DISABLE_KEYBOARD)?;
    command(DISABLE_MOUSE)?;
    drain();
    command(READ_CONFIGURATION)?;
    let configuration = read().ok_or(KeyboardError::Silent)?;
    let off = MOUSE_INTERRUPT | KEYBOARD_OFF;
    command(WRITE_CONFIGURATION)?;
    write(configuration & !off | KEYBOARD_INTERRUPT | MOUSE_OFF | TRANSLATE)?;
    command(ENABLE_KEYBOARD)?;
    write(SEND_KEYS)?;
    Ok(read() == Some(ACKNOWLEDGED))
}

fn interrupt() -> Handled {
    if take_keys() > 0 {
        POLLED.store(false, Ordering::Relaxed);
    }
    Handled::Yes
}

/// Reads the available bytes, with interrupts off. Returns how many.
fn take_keys() -> usize {
    // Bounded, however many bytes it claims to have.
    for taken in 0..MOST_BYTES {
        let status = status();
        if status == NOTHING || status & READABLE == 0 {
            return taken;
        }
        let byte = take();
        if status & FROM_MOUSE != 0 {
            continue;
        }
        ANSWERED.store(true, Ordering::Relaxed);
        if let Some(typed) = KEYBOARD.with(|keyboard| keyboard.feed(byte)) {
            ring::put_input(typed.bytes());
        }
    }
    MOST_BYTES
}

fn status() -> u8 {
    // SAFETY: the controller's status, or an absent port; reading it has no effect.
    unsafe { Port::new(STATUS).read() }
}

/// Reads the available byte.
fn take() -> u8 {
    // SAFETY: the controller's data, or an absent port: it only takes a byte from the controller's buffer.
    unsafe { Port::new(DATA).read() }
}

fn drain() {
    for _ in 0..MOST_BYTES {
        if status() & READABLE == 0 {
            break;
        }
        take();
    }
}

/// Waits until a bit of the status has the given value. Returns whether it has.
fn wait(bit: u8, set: bool) -> bool {
    patiently(|| (status() & bit != 0) == set)
}

/// Waits for a condition, for a bounded time. Returns whether it holds.
fn patiently(condition: impl Fn() -> bool) -> bool {
    let end = clock::rough_nanoseconds() + PATIENCE;
    let mut looks = 0;
    loop {
        if condition() {
            return true;
        }
        if looks >= LOOKS && clock::rough_nanoseconds() > end {
            return false;
        }
        looks += 1;
    }
}

fn read() -> Option<u8> {
    wait(READABLE, true).then(take)
}

fn command(command: u8) -> Result<(), KeyboardError> {
    put(STATUS, command)
}

fn write(byte: u8) -> Result<(), KeyboardError> {
    put(DATA, byte)
}

fn put(port: u16, byte: u8) -> Result<(), KeyboardError> {
    if !wait(BUSY, false) {
        return Err(KeyboardError::Busy);
    }
    // SAFETY: the controller's port, and it is ready; only commands that neither reset the CPU nor switch A20 are sent.
    unsafe { Port::new(port).write(byte) };
    Ok(())
}
