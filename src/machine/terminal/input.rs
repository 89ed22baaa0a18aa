//! Input from the serial line and the keyboard, with or without their interrupts.

use crate::machine::terminal::keyboard;
use crate::machine::terminal::line::with_serial;
use crate::machine::terminal::ring::{self, take_input};
use crate::machine::terminal::serial::interrupt;
use crate::machine::time::clock;

/// The polling interval without interrupts: 20 ms.
const LOOK: u64 = 20_000_000;

/// How often a stuck line is probed: 500 ms.
const RETRY: u64 = 500_000_000;

/// Polls the serial port and the keyboard if they do not interrupt.
fn look() {
    if keyboard::is_polled() {
        keyboard::look();
    }
    if is_looked_at() {
        take_input();
    }
}

/// Whether the serial port is polled, since its interrupt does not arrive.
fn is_looked_at() -> bool {
    ring::is_polled() || interrupt::may_be_masked()
}

/// When the serial port or the keyboard must be polled, in nanoseconds since entry.
pub(crate) fn next_look() -> Option<u64> {
    let looks = is_looked_at() || keyboard::is_polled();
    let wait = if looks { Some(LOOK) } else { with_serial(|serial| serial.is_stuck()).then_some(RETRY) };
    wait.map(|wait| clock::nanoseconds() + wait)
}

/// The next received byte.
pub(crate) fn read_input() -> Option<u8> {
    look();
    let (byte, was_full) = ring::pop()?;
    if was_full {
        ring::refill();
    }
    Some(byte)
}

/// Removes a waiting Ctrl-C and all input typed before it. Returns whether there was one.
pub(crate) fn take_interrupt() -> bool {
    const CTRL_C: u8 = 3;
    look();
    let (found, was_full) = ring::pop_through(CTRL_C);
    if found && was_full {
        ring::refill();
    }
    found
}
