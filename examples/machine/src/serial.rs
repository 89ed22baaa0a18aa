//! The first serial port, for text and for the log.

use core::fmt::{self, Write};

use crate::port;

/// The first serial port's registers.
const COM1: u16 = 0x3F8;

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: a serial port does no DMA. Bit 5 of the line status: the transmitter has room for a byte.
            unsafe {
                while port::read(COM1 + 5) & 0x20 == 0 {}
                port::write(COM1, byte);
            }
        }
        Ok(())
    }
}

/// Prints text.
pub fn print(text: fmt::Arguments<'_>) {
    let _ = Serial.write_fmt(text);
}

impl log::Log for Serial {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        print(format_args!("{}: {}\n", record.level(), record.args()));
    }

    fn flush(&self) {}
}

/// Prints log messages from now on.
pub(crate) fn log() {
    let _ = log::set_logger(&Serial);
    log::set_max_level(log::LevelFilter::Info);
}
