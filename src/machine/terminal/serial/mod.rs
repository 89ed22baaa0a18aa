//! The serial port: the kernel's console.
//!
//! It is the one that firmware's tables name, else the first found at a PC's usual ports. No wait for the line to
//! accept output is long (`transmitter.rs`), and interrupts need not arrive (`interrupt.rs`).

pub(crate) mod interrupt;
mod ports;
mod transmitter;

use core::fmt;

use uart_16550::spec::CLK_FREQUENCY_HZ;
use uart_16550::spec::registers::{IER, LSR};
use uart_16550::{BaudRate, Config, Uart16550};

use crate::acpi::SerialPort;
use crate::machine::terminal::serial::ports::Ports;
use crate::machine::terminal::serial::transmitter::{Line, Transmitter};
use crate::machine::time::clock;

/// Where a PC has its serial ports, in the order of the search.
const COM: [u16; 4] = [0x3F8, 0x2F8, 0x3E8, 0x2E8];

/// The default speed of a port.
const SPEED: u32 = 115_200;

/// A serial port, or its absence.
pub(crate) struct Serial {
    uart: Option<Uart16550<Ports>>,
    /// The port that firmware's tables name, used or not.
    named: Option<SerialPort>,
    transmitter: Transmitter,
    /// The port interrupts for each received byte, unless that is suspended.
    interrupts: bool,
    held: bool,
}

impl Line for Uart16550<Ports> {
    fn take(&mut self, bytes: &[u8]) -> usize {
        self.send_bytes(bytes)
    }

    fn now(&self) -> u64 {
        clock::rough_nanoseconds()
    }
}

impl Serial {
    /// No port yet: everything written is dropped.
    pub(crate) const fn absent() -> Self {
        Self { uart: None, named: None, transmitter: Transmitter::new(), interrupts: false, held: false }
    }

    /// Looks for a port where PCs have them, and sets the first one to 115200 baud, 8 data bits, no parity. Returns
    /// whether there is one.
    pub(crate) fn initialise(&mut self) -> bool {
        // SAFETY: these ports are a UART's or nothing on every PC, and only this value drives them.
        COM.into_iter().any(|base| unsafe { self.use_port(base, Some(SPEED)) })
    }

    /// Uses the port that firmware's tables name, if it exists, instead of the one that was found. Nothing has been
    /// sent yet.
    pub(crate) fn prefer(&mut self, port: SerialPort) {
        self.named = Some(port);
        if let Some(base) = port.io_port().filter(|&base| (self.base(), port.speed) != (Some(base), Some(SPEED))) {
            // SAFETY: firmware says that a UART is there, and only this value drives it.
            unsafe { self.use_port(base, port.speed) };
        }
    }

    /// The port that firmware's tables name, used or not.
    pub(crate) fn named(&self) -> Option<SerialPort> {
        self.named
    }

    /// Uses the port at `base` from now on, if there is one, at this speed or at its present one.
    ///
    /// # Safety
    /// There is a UART or nothing at the eight ports, and no other code drives them.
    unsafe fn use_port(&mut self, base: u16, speed: Option<u32>) -> bool {
        // SAFETY: the caller's promise.
        let Some(ports) = (unsafe { Ports::new(base) }) else { return false };
        ports.hurry(true);
        let config = config(speed, &ports);
        // SAFETY: likewise.
        let mut uart = unsafe { Uart16550::new_with_backend(ports) };
        let found = uart.init(config).is_ok() && uart.backend().hear_themselves();
        uart.backend().hurry(false);
        if found {
            (self.uart, self.transmitter) = (Some(uart), Transmitter::new());
        }
        found
    }

    /// Whether there is a port.
    pub(crate) fn is_present(&self) -> bool {
        self.uart.is_some()
    }

    /// The first of its I/O ports, if there is one.
    pub(crate) fn base(&self) -> Option<u16> {
        Some(self.uart.as_ref()?.backend().base())
    }

    /// Enables an interrupt for each received byte.
    fn enable_receive_interrupt(&mut self) {
        self.interrupts = true;
        self.set_receive_interrupt();
    }

    /// Suspends these interrupts, or resumes them.
    pub(crate) fn hold_receive_interrupt(&mut self, hold: bool) {
        if core::mem::replace(&mut self.held, hold) != hold {
            self.set_receive_interrupt();
        }
    }

    fn set_receive_interrupt(&mut self) {
        match &mut self.uart {
            Some(uart) if self.interrupts && !self.held => uart.enable_interrupts(IER::DATA_READY),
            Some(uart) if self.interrupts => uart.disable_interrupts(IER::DATA_READY),
            _ => {}
        }
    }

    /// Enables or disables the interrupt for an empty transmitter, which comes at once if it is empty.
    fn set_transmit_interrupt(&mut self, on: bool) {
        if let Some(uart) = &mut self.uart {
            if on { uart.enable_interrupts(IER::THR_EMPTY) } else { uart.disable_interrupts(IER::THR_EMPTY) }
        }
    }

    /// Whether the port has requested an interrupt. It requests the one for an empty transmitter once.
    fn take_pending(&mut self) -> bool {
        self.uart.as_mut().is_some_and(|uart| uart.isr().has_pending_interrupt())
    }

    /// The next received byte, if any.
    pub(crate) fn receive(&mut self) -> Option<u8> {
        self.uart.as_mut()?.try_receive_byte().ok()
    }

    /// Sends the bytes of an incomplete load.
    pub(crate) fn flush(&mut self) {
        if let Some(uart) = &mut self.uart {
            self.transmitter.flush(uart);
        }
    }

    /// Waits until the last byte has left the port, but no longer than `most` nanoseconds: a reader may have stopped.
    /// Does not wait if the line is stuck.
    pub(crate) fn drain(&mut self, most: u64) {
        self.flush();
        if self.transmitter.is_stuck() {
            return;
        }
        let Some(uart) = &mut self.uart else { return };
        let end = clock::rough_nanoseconds().saturating_add(most);
        while !uart.lsr().contains(LSR::TRANSMITTER_EMPTY) && clock::rough_nanoseconds() < end {
            core::hint::spin_loop();
        }
    }

    /// Bytes dropped because the line did not take them.
    pub(crate) fn dropped(&self) -> u64 {
        self.transmitter.dropped()
    }

    /// Whether the line is stuck, so that nothing waits for it.
    pub(crate) fn is_stuck(&self) -> bool {
        self.transmitter.is_stuck()
    }

    /// Tries a stuck line again. Returns how many lines were lost meanwhile: the caller reports that and calls
    /// [`Serial::reported`].
    pub(crate) fn resume(&mut self) -> Option<u64> {
        self.transmitter.resume(self.uart.as_mut()?)
    }

    /// The loss of `lines` lines has been reported.
    pub(crate) fn reported(&mut self, lines: u64) {
        self.transmitter.reported(lines);
    }
}

/// The configuration of a port: a speed, or its present one.
fn config(speed: Option<u32>, ports: &Ports) -> Config {
    let at = |speed| Config { baud_rate: BaudRate::from_integer(speed), ..Config::DEFAULT };
    // With a clock that yields this speed for the divisor.
    let frequency = || CLK_FREQUENCY_HZ.checked_mul(ports.divisor().into()).filter(|&frequency| frequency > 0);
    match speed {
        Some(speed) => at(speed),
        None => frequency().map_or(at(SPEED), |frequency| Config { frequency, ..at(SPEED) }),
    }
}

impl fmt::Write for Serial {
    /// Sends text, with a carriage return before each line feed, as terminals want it. Its end may wait for
    /// [`Serial::flush`].
    ///
    /// Byte by byte: some VMMs drop all bytes of a string instruction, which exits the guest once for all of them.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(uart) = &mut self.uart {
            self.transmitter.write(text, uart);
        }
        Ok(())
    }
}
