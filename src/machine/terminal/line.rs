//! Output on the serial line: lines of text for people, or one JSON object a line for programs.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::acpi::SerialPort;
use crate::console::events::{self, Event};
use crate::console::{ERASE_LINE, Object, redraw};
use crate::machine::lock::Lock;
use crate::machine::terminal::serial::Serial;
use crate::machine::terminal::text::Text;
use crate::machine::time::clock;

/// Longest status line kept, in bytes.
const STATUS: usize = 200;

/// The serial line and the contents of its last line.
pub(crate) struct Output {
    serial: Serial,
    /// A line that is being edited or redrawn; log lines go above it.
    status: Text<STATUS>,
}

pub(crate) static OUTPUT: Lock<Output> = Lock::new(Output { serial: Serial::absent(), status: Text::new() });
static JSON: AtomicBool = AtomicBool::new(false);

/// Finds a serial port. Returns whether there is one.
pub(super) fn initialise() -> bool {
    OUTPUT.with(|output| output.serial.initialise())
}

/// Logs to the serial port that firmware's tables name, if it exists. Nothing has been logged yet.
pub(crate) fn prefer(port: SerialPort) {
    with_serial(|serial| serial.prefer(port));
}

/// Chooses JSON or text.
pub(crate) fn set_json(json: bool) {
    JSON.store(json, Ordering::Relaxed);
}

/// Whether lines are text for people.
pub(crate) fn is_text() -> bool {
    !JSON.load(Ordering::Relaxed)
}

/// Runs `action` on the serial port.
pub(crate) fn with_serial<R>(action: impl FnOnce(&mut Serial) -> R) -> R {
    OUTPUT.with(|output| action(&mut output.serial))
}

/// Waits until everything written has left the serial port, but no longer than `most` nanoseconds: a reader may have stopped.
pub(crate) fn drain(most: u64) {
    with_serial(|serial| serial.drain(most));
}

/// Tries a blocked line again, and reports lost lines.
pub(crate) fn retry() {
    OUTPUT.with(|output| {
        output.begin();
        output.serial.flush();
    });
}

/// Clears the terminal, except the status line. Does nothing in JSON mode.
pub(crate) fn clear_terminal() {
    if is_text() {
        OUTPUT.with(|output| {
            // Cursor to the top, erase to the end (ECMA-48 CUP, ED). The serial port's writes do not fail.
            let _ = output.serial.write_str("\x1b[H\x1b[2J");
            output.draw_status();
            output.serial.flush();
        });
    }
}

/// Writes one JSON object, in JSON mode; nothing in text mode.
pub(crate) fn emit(event: &dyn Event) {
    if !is_text() {
        OUTPUT.with(|output| {
            output.begin();
            output.event(event);
            output.serial.flush();
        });
    }
}

/// Writes one line of text, in text mode, above the status line; as a `console` event in JSON mode.
pub(super) fn serial_line(text: fmt::Arguments<'_>) {
    if is_text() {
        OUTPUT.with(|output| output.line(text));
    } else {
        emit(&events::ConsoleLine { text: &text });
    }
}

/// Sets the status line: the last line on a terminal, redrawn after every other line. Empty for none.
pub(crate) fn set_status(text: fmt::Arguments<'_>) {
    if is_text() {
        OUTPUT.with(|output| output.set_status(text));
    }
}

/// Writes part of a line, unless the line is in use. Nothing in JSON mode.
pub(super) fn write_raw(text: &str) -> fmt::Result {
    if !is_text() {
        return Ok(());
    }
    let write = |output: &mut Output| {
        output.begin();
        let written = output.serial.write_str(text);
        output.serial.flush();
        written
    };
    OUTPUT.try_with(write).unwrap_or(Err(fmt::Error))
}

impl Output {
    /// Called before each write: reports the lines lost while it was blocked.
    fn begin(&mut self) {
        let Some(lines) = self.serial.resume().filter(|&lines| lines > 0) else { return };
        if is_text() {
            let _ = writeln!(self.serial, "serial line: {lines} lines lost: the reader had stopped");
        } else {
            self.event(&events::Lost { lines });
        }
        self.serial.reported(lines);
        self.draw_status();
    }

    fn event(&mut self, event: &dyn Event) {
        let mut object = Object::begin(&mut self.serial, event.name(), clock::milliseconds());
        event.write(&mut object);
        // The serial port's writes do not fail.
        let _ = object.end();
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        self.begin();
        if !self.status.as_str().is_empty() {
            let _ = self.serial.write_str(ERASE_LINE);
        }
        let _ = self.serial.write_fmt(text);
        let _ = self.serial.write_str("\n");
        self.draw_status();
        self.serial.flush();
    }

    fn set_status(&mut self, text: fmt::Arguments<'_>) {
        self.begin();
        let mut status = Text::new();
        // What does not fit is cut off.
        let _ = status.write_fmt(text);
        if self.status.as_str().is_empty() && status.as_str().is_empty() {
            return;
        }
        let former = core::mem::replace(&mut self.status, status);
        let _ = redraw(former.as_str(), self.status.as_str(), &mut self.serial);
        self.serial.flush();
    }

    fn draw_status(&mut self) {
        let _ = self.serial.write_str(self.status.as_str());
    }
}
