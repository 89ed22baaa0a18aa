//! The log: on the serial line as text for people or events for programs, and on the screen as text in either case.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use log::{Level, LevelFilter, Metadata, Record};

use crate::console::events;
use crate::machine::terminal::kept::keep;
use crate::machine::terminal::line::{self, OUTPUT, serial_line};
use crate::machine::terminal::screen;
use crate::machine::time::clock;
use crate::screen::Style;

pub(crate) use crate::machine::terminal::input::{next_look, read_input, take_interrupt};
pub(crate) use crate::machine::terminal::kept::with_kept;
pub(crate) use crate::machine::terminal::line::{
    clear_terminal, drain, emit, is_text, prefer, retry, set_json, set_status, with_serial,
};
pub(crate) use crate::machine::terminal::ring::has_input;

/// Finds a serial port and starts logging to it, as text. Returns whether there is a port.
pub(crate) fn initialise() -> bool {
    let present = line::initialise();
    // A second call finds the logger set already, which is fine.
    let _ = log::set_logger(&Logger);
    log::set_max_level(LevelFilter::Debug);
    present
}

/// Whether details of the log (level *debug*) are written to the serial line, where each byte exits a virtual machine.
/// They are always stored and shown on the screen.
static DETAILS: AtomicBool = AtomicBool::new(false);

/// Sets whether details are written to the serial line.
pub(crate) fn set_details(wanted: bool) {
    DETAILS.store(wanted, Ordering::Relaxed);
}

/// Takes the serial line and the screen for the failure report, under this title.
pub(crate) fn seize(title: fmt::Arguments<'_>) {
    // SAFETY: called with interrupts off while the kernel ends: the code that held the locks never runs again.
    unsafe {
        OUTPUT.force_unlock();
        screen::begin_report(title);
    }
}

/// Writes a line of text as [`line()`] does, but does not store it: it is in the log already, or transient.
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

/// Echoes a typed line, in text mode.
pub(crate) fn echo(text: fmt::Arguments<'_>) {
    keep(Style::STRONG, text);
    screen::line(Style::STRONG, text);
    if is_text() {
        serial_line(text);
    }
}

/// Text of a failure report, without lock or format: on the screen, and in text mode on the serial line.
pub(crate) struct Raw;

impl Write for Raw {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        screen::write(text);
        line::write_raw(text)
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
            Level::Info => ("", Style::PLAIN),
            Level::Debug | Level::Trace => ("", Style::FAINT),
        };
        let text = format_args!("[{seconds:>4}.{fraction:03}] {mark}{}", record.args());
        keep(style, text);
        screen::line(style, text);
        if record.level() > Level::Info && !DETAILS.load(Ordering::Relaxed) {
            return;
        }
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
