//! The first serial port, COM1: the kernel's console.

use core::fmt;

use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::IER;
use uart_16550::{BaudRate, Config, Uart16550};
use x86_64::instructions::port::Port;

/// Where COM1 is on every PC.
const COM1: u16 = 0x3F8;

/// The ISA interrupt of COM1.
pub const COM1_IRQ: u8 = 4;

/// How often an unready transmitter is asked before what it should send is dropped: at 115200 baud a full FIFO takes
/// 1.4 ms, and a port read about 1 µs.
const PATIENCE: u32 = 100_000;

/// A serial port, or the place where one would be.
pub struct Serial {
    uart: Option<Uart16550<PioBackend>>,
    dropped: u64,
    /// The line took nothing for long: until it takes a byte again, nothing waits for it.
    stuck: bool,
}

impl Serial {
    /// No port yet: everything written is dropped.
    pub const fn absent() -> Self {
        Self { uart: None, dropped: 0, stuck: false }
    }

    /// Looks for COM1 and sets it to 115200 baud, 8 data bits, no parity. Returns whether it is there.
    pub fn initialise(&mut self) -> bool {
        // SAFETY: COM1's eight ports are either a UART or nothing on every PC, and only this value drives them.
        let Ok(mut uart) = (unsafe { Uart16550::new_port(COM1) }) else { return false };
        let config = Config { baud_rate: BaudRate::Baud115200, ..Config::DEFAULT };
        if uart.init(config).is_ok() && hears_itself() {
            self.uart = Some(uart);
        }
        self.is_present()
    }

    /// Whether there is a port.
    pub fn is_present(&self) -> bool {
        self.uart.is_some()
    }

    /// Asks for an interrupt whenever a byte has come in.
    pub fn enable_receive_interrupt(&mut self) {
        if let Some(uart) = &mut self.uart {
            uart.enable_interrupts(IER::DATA_READY);
        }
    }

    /// The next byte that has come in, if any.
    pub fn receive(&mut self) -> Option<u8> {
        self.uart.as_mut()?.try_receive_byte().ok()
    }

    /// Bytes dropped because the line did not take them.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn send(&mut self, mut bytes: &[u8]) {
        let Some(uart) = &mut self.uart else { return };
        let mut patience = if self.stuck { 1 } else { PATIENCE };
        while !bytes.is_empty() && patience > 0 {
            let sent = uart.send_bytes(bytes);
            bytes = bytes.get(sent..).unwrap_or_default();
            patience = if sent == 0 { patience - 1 } else { PATIENCE };
        }
        self.stuck = !bytes.is_empty();
        self.dropped = self.dropped.saturating_add(bytes.len() as u64);
    }
}

impl fmt::Write for Serial {
    /// Sends text, with a carriage return before each line feed, as terminals want it.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                self.send(b"\r\n");
            }
            self.send(line.as_bytes());
        }
        Ok(())
    }
}

/// Registers of COM1 by their offsets: data, modem control, line status.
const DATA: u16 = 0;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
/// Modem control: what is sent comes back, and does not go out on the line.
const LOOPBACK: u8 = 1 << 4;
/// Line status: a byte has come in.
const DATA_READY: u8 = 1 << 0;
/// What is sent to itself.
const PROBE: u8 = 0xA5;

/// Whether a byte that the UART sends to itself comes back: what merely keeps what is written to it, as a bus does for a moment, does
/// not do that. Sending a byte takes 87 µs, and reading a port about 1 µs, so the wait is long enough, and ends.
fn hears_itself() -> bool {
    let register = |offset: u16| Port::<u8>::new(COM1 + offset);
    // SAFETY: COM1's registers, which answered as a UART's; what is changed is put back, and nothing goes out on the line.
    unsafe {
        let control = register(MODEM_CONTROL).read();
        register(MODEM_CONTROL).write(control | LOOPBACK);
        register(DATA).write(PROBE);
        let came = (0..PATIENCE / 100).any(|_| register(LINE_STATUS).read() & DATA_READY != 0);
        let heard = came && register(DATA).read() == PROBE;
        register(MODEM_CONTROL).write(control);
        heard
    }
}
