//! What the kernel says on the serial line: text for people, or one JSON object a line for programs. The screen, where
//! there is one, has the text in either case.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use log::{Level, LevelFilter, Metadata, Record};

use super::clock;
use super::keyboard;
use super::lock::Lock;
use super::screen;
use super::serial::{Serial, interrupt};
use super::text::Text;
use crate::acpi::SerialPort;
use crate::console::events::{self, Event};
use crate::console::{Object, Record as Kept};
use crate::screen::Style;

/// Longest status line kept, in bytes.
const STATUS: usize = 200;

/// The serial line and what stands on its last line.
pub(super) struct Output {
    serial: Serial,
    /// A line that is being edited or redrawn; what is logged meanwhile goes above it.
    status: Text<STATUS>,
}

pub(super) static OUTPUT: Lock<Output> = Lock::new(Output { serial: Serial::absent(), status: Text::new() });
static JSON: AtomicBool = AtomicBool::new(false);
/// Every line that people were told, so that they can look at it again.
static KEPT: Lock<Kept> = Lock::new(Kept::new());

/// Carriage return, erase to the end of the line (ECMA-48 EL).
const ERASE_LINE: &str = "\r\x1b[K";

/// Finds a serial port and starts logging to it, as text. Returns whether there is a port.
pub(crate) fn initialise() -> bool {
    let present = OUTPUT.with(|output| output.serial.initialise());
    // A second call finds the logger set already, which is as good.
    let _ = log::set_logger(&Logger);
    log::set_max_level(LevelFilter::Info);
    present
}

/// Logs to the serial port that firmware's tables name, if it is there. Nothing has been logged yet.
pub(super) fn prefer(port: SerialPort) {
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

/// Longest input that waits to be read, in bytes.
const INPUT: usize = 1024;

/// Bytes that have come in on the serial line and wait to be read: a ring.
pub(super) struct Input {
    bytes: [u8; INPUT],
    first: usize,
    length: usize,
}

pub(super) static INPUT_RING: Lock<Input> = Lock::new(Input { bytes: [0; INPUT], first: 0, length: 0 });

/// Takes from the serial port's receiver what there is room for; the rest waits there, or is lost on the line. Called by
/// the interrupt handler, so it ends however many bytes the port says that it has.
pub(crate) fn take_input() {
    fill();
}

/// The same; returns whether there is no room left. Then the port does not interrupt until there is: the bytes that it keeps would
/// have a level-triggered line interrupt again and again.
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

/// Takes bytes that found no room when they came, and has the port interrupt for those that follow.
fn refill() {
    if !fill() {
        with_serial(|serial| serial.hold_receive_interrupt(false));
        // Those that came before that may not have interrupted.
        fill();
    }
}

/// Looks at the serial port and the keyboard where they do not interrupt.
fn look() {
    if keyboard::is_polled() {
        keyboard::look();
    }
    if is_looked_at() {
        take_input();
    }
}

/// Set where the serial port does not interrupt.
static LOOKING: AtomicBool = AtomicBool::new(false);
/// How often it is looked at then: 20 ms.
const LOOK: u64 = 20_000_000;

/// How often a line that takes nothing is asked whether it does again: 500 ms.
const RETRY: u64 = 500_000_000;

/// Has the serial port looked at for input, while it has no interrupt.
pub(super) fn look_for_input(look: bool) {
    LOOKING.store(look, Ordering::Relaxed);
}

/// Whether the serial port is looked at, since no interrupt of it arrives.
fn is_looked_at() -> bool {
    LOOKING.load(Ordering::Relaxed) || interrupt::may_be_masked()
}

/// When the serial port or the keyboard is to be looked at although nothing has interrupted, in nanoseconds since entry.
pub(crate) fn next_look() -> Option<u64> {
    let looks = is_looked_at() || keyboard::is_polled();
    let wait = if looks { Some(LOOK) } else { with_serial(|serial| serial.is_stuck()).then_some(RETRY) };
    wait.map(|wait| clock::nanoseconds() + wait)
}

/// Asks a line that takes nothing whether it does again, and tells the reader what was lost.
pub(crate) fn retry() {
    OUTPUT.with(Output::begin);
}

/// Puts bytes that were typed elsewhere behind those that have come in on the serial line: all of them, or none where there is no
/// room, since part of an escape sequence would be another key.
pub(super) fn put_input(bytes: &[u8]) {
    INPUT_RING.with(|input| {
        if input.length + bytes.len() <= INPUT {
            for &byte in bytes {
                input.bytes[(input.first + input.length) % INPUT] = byte;
                input.length += 1;
            }
        }
    });
}

/// The next byte that came in.
pub(crate) fn read_input() -> Option<u8> {
    look();
    let (byte, was_full) = INPUT_RING.with(|input| {
        let byte = *input.bytes.get(input.first).filter(|_| input.length > 0)?;
        let was_full = input.length == INPUT;
        input.first = (input.first + 1) % INPUT;
        input.length -= 1;
        Some((byte, was_full))
    })?;
    if was_full {
        refill();
    }
    Some(byte)
}

/// Takes Ctrl-C out of the bytes that wait to be read, and all that was typed before it. Returns whether there was one.
pub(crate) fn take_interrupt() -> bool {
    const CTRL_C: u8 = 3;
    look();
    let (found, was_full) = INPUT_RING.with(|input| {
        let at = |index: usize| input.bytes[(input.first + index) % INPUT];
        let last = (0..input.length).rev().find(|&index| at(index) == CTRL_C);
        let was_full = input.length == INPUT;
        if let Some(last) = last {
            input.first = (input.first + last + 1) % INPUT;
            input.length -= last + 1;
        }
        (last.is_some(), was_full)
    });
    if found && was_full {
        refill();
    }
    found
}

/// Erases what stands on the terminal, but for the status line. Nothing where lines are not text.
pub(crate) fn clear_terminal() {
    if is_text() {
        OUTPUT.with(|output| {
            // Cursor to the top, erase to the end (ECMA-48 CUP, ED). The serial port's writes do not fail.
            let _ = output.serial.write_str("\x1b[H\x1b[2J");
            output.draw_status();
        });
    }
}

/// Whether a byte waits to be read.
pub(crate) fn has_input() -> bool {
    INPUT_RING.with(|input| input.length > 0)
}

/// Takes the serial line and the screen away from whoever was writing: for the kernel's last words, under this title.
pub(crate) fn seize(title: fmt::Arguments<'_>) {
    // SAFETY: called with interrupts off, on the way to the end: the code that held the locks never runs again.
    unsafe {
        OUTPUT.force_unlock();
        screen::begin_report(title);
    }
}

/// Writes one JSON object, in JSON mode; nothing in text mode.
pub(crate) fn emit(event: &dyn Event) {
    if !is_text() {
        OUTPUT.with(|output| {
            output.begin();
            output.event(event);
        });
    }
}

/// Runs `action` on the log as it is kept. It must not log.
pub(crate) fn with_kept<R>(action: impl FnOnce(&Kept) -> R) -> R {
    KEPT.with(|kept| action(kept))
}

/// Writes a line of text as [`line()`] does, which is not kept: it is in the log already, or a passing state.
pub(crate) fn passing(text: fmt::Arguments<'_>) {
    screen::line(Style::PLAIN, text);
    serial_line(text);
}

/// Writes one line of text, in text mode, above the status line; as a `console` event in JSON mode.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    keep(Style::PLAIN, text);
    screen::line(Style::PLAIN, text);
    serial_line(text);
}

/// Repeats a line that was typed: for people.
pub(crate) fn echo(text: fmt::Arguments<'_>) {
    keep(Style::STRONG, text);
    screen::line(Style::STRONG, text);
    if is_text() {
        serial_line(text);
    }
}

fn keep(style: Style, text: fmt::Arguments<'_>) {
    KEPT.with(|kept| kept.push(style.bits(), text));
}

fn serial_line(text: fmt::Arguments<'_>) {
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

impl Output {
    /// Comes before whatever is written: a reader who has come back is told what was lost meanwhile.
    fn begin(&mut self) {
        let Some(lines) = self.serial.resume().filter(|&lines| lines > 0) else { return };
        if is_text() {
            let _ = writeln!(self.serial, "serial line: {lines} lines lost while nobody read");
        } else {
            self.event(&events::Lost { lines });
        }
        self.serial.told(lines);
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
    }

    fn set_status(&mut self, text: fmt::Arguments<'_>) {
        self.begin();
        let mut status = Text::new();
        // What does not fit is cut off.
        let _ = status.write_fmt(text);
        if self.status.as_str().is_empty() && status.as_str().is_empty() {
            return;
        }
        self.status = status;
        let _ = self.serial.write_str(ERASE_LINE);
        self.draw_status();
    }

    fn draw_status(&mut self) {
        let _ = self.serial.write_str(self.status.as_str());
    }
}

/// Text without a lock or a format, for the kernel's last words: on the screen, and in text mode on the serial line.
pub(crate) struct Raw;

impl Write for Raw {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        screen::write(text);
        if is_text() {
            let write = |output: &mut Output| {
                output.begin();
                output.serial.write_str(text)
            };
            OUTPUT.try_with(write).unwrap_or(Err(fmt::Error))
        } else {
            Ok(())
        }
    }
}

/// The `log` crate's way to the serial line.
struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let ms = clock::milliseconds();
        let (seconds, fraction) = (ms / 1000, ms % 1000);
        let (mark, style) = match record.level() {
            Level::Error => ("error: ", Style::ERROR),
            Level::Warn => ("warning: ", Style::WARNING),
            Level::Info | Level::Debug | Level::Trace => ("", Style::PLAIN),
        };
        let text = format_args!("[{seconds:>4}.{fraction:03}] {mark}{}", record.args());
        keep(style, text);
        screen::line(style, text);
        if is_text() {
            serial_line(text);
        } else {
            let level = match record.level() {
                Level::Error => "error",
                Level::Warn => "warning",
                Level::Info => "info",
                Level::Debug | Level::Trace => "debug",
            };
            emit(&events::LogLine { level, message: record.args() });
        }
    }

    fn flush(&self) {}
}
