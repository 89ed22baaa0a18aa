//! Typed bytes that wait to be read.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::machine::lock::Lock;
use crate::machine::terminal::line::with_serial;
use crate::machine::terminal::serial::Serial;

/// Longest input that waits to be read, in bytes.
const INPUT: usize = 1024;

/// Bytes received on the serial line that wait to be read: a ring.
pub(crate) struct Input {
    bytes: [u8; INPUT],
    first: usize,
    length: usize,
}

pub(crate) static INPUT_RING: Lock<Input> = Lock::new(Input { bytes: [0; INPUT], first: 0, length: 0 });

/// Reads from the serial port's receiver as long as there is room; the rest waits there, or is lost on the line. Called
/// by the interrupt handler, so it is bounded however many bytes the port claims to have.
pub(crate) fn take_input() {
    fill();
}

/// The same; returns whether the ring is full. Then the port must not interrupt until there is room: its waiting bytes
/// would make a level-triggered line interrupt endlessly.
fn fill() -> bool {
    INPUT_RING.with(|input| {
        while input.length < INPUT
            && let Some(byte) = with_serial(Serial::receive)
        {
            input.bytes[(input.first + input.length) % INPUT] = byte;
            input.length += 1;
        }
        let is_full = input.length == INPUT;
        if is_full {
            with_serial(|serial| serial.hold_receive_interrupt(true));
        }
        is_full
    })
}

/// Reads bytes for which there was no room before, and lets the port interrupt again.
pub(super) fn refill() {
    if !fill() {
        with_serial(|serial| serial.hold_receive_interrupt(false));
        // Bytes that came before that may not have interrupted.
        fill();
    }
}

/// Set if the serial port does not interrupt.
static LOOKING: AtomicBool = AtomicBool::new(false);

/// Makes the serial port be polled for input, while it has no interrupt.
pub(crate) fn look_for_input(look: bool) {
    LOOKING.store(look, Ordering::Relaxed);
}

/// Whether the serial port must be polled.
pub(super) fn is_polled() -> bool {
    LOOKING.load(Ordering::Relaxed)
}

/// Appends bytes that were typed elsewhere: all of them, or none if there is no room, since part of an escape sequence
/// would be another key.
pub(crate) fn put_input(bytes: &[u8]) {
    INPUT_RING.with(|input| {
        if input.length + bytes.len() <= INPUT {
            for &byte in bytes {
                input.bytes[(input.first + input.length) % INPUT] = byte;
                input.length += 1;
            }
        }
    });
}

/// Whether a byte waits to be read.
pub(crate) fn has_input() -> bool {
    INPUT_RING.with(|input| input.length > 0)
}

/// Takes the first byte. Also returns whether the ring was full.
pub(super) fn pop() -> Option<(u8, bool)> {
    INPUT_RING.with(|input| {
        let byte = *input.bytes.get(input.first).filter(|_| input.length > 0)?;
        let was_full = input.length == INPUT;
        input.first = (input.first + 1) % INPUT;
        input.length -= 1;
        Some((byte, was_full))
    })
}

/// Takes bytes up to the last one that is `wanted`. Returns whether there was one, and whether the ring was full.
pub(super) fn pop_through(wanted: u8) -> (bool, bool) {
    INPUT_RING.with(|input| {
        let at = |index: usize| input.bytes[(input.first + index) % INPUT];
        let last = (0..input.length).rev().find(|&index| at(index) == wanted);
        let was_full = input.length == INPUT;
        if let Some(last) = last {
            input.first = (input.first + last + 1) % INPUT;
            input.length -= last + 1;
        }
        (last.is_some(), was_full)
    })
}
