//! The registers of a UART in I/O ports, and whether there is a UART behind them.

use core::cell::Cell;

use uart_16550::backend::Backend;
use uart_16550::spec::registers::{LCR, LSR, MCR, MSR, offsets};
use x86_64::instructions::port::Port;

use crate::machine::time::clock;

/// How long a transmitter may take to send what firmware left in it: at 2400 baud a full queue takes 67 ms.
const TRANSMIT: u64 = 100_000_000;
/// How long a looped-back byte may take: at 115200 baud 87 µs, at the slowest speed 0.1 s.
const LOOP: u64 = 100_000_000;
/// The byte sent to itself.
const PROBE: u8 = 0xA5;
/// What an absent port reads as.
const NOTHING: u8 = 0xFF;

/// The eight ports of a UART.
#[derive(Debug)]
pub(crate) struct Ports {
    base: u16,
    /// From this time on the transmitter is reported as empty. The UART crate waits for that without a bound during
    /// set-up, and if the host does not read it may never become empty.
    hurried: Cell<Option<u64>>,
}

impl Ports {
    /// The ports from `base` on; `None` if fewer than eight are left.
    ///
    /// # Safety
    /// There is a UART or nothing, and no other code drives it.
    pub(crate) unsafe fn new(base: u16) -> Option<Self> {
        base.checked_add(offsets::SPR as u16).map(|_| Self { base, hurried: Cell::new(None) })
    }

    /// The first port.
    pub(crate) fn base(&self) -> u16 {
        self.base
    }

    /// Sets or clears the bound on waits for the transmitter.
    pub(crate) fn hurry(&self, bound: bool) {
        self.hurried.set(bound.then(|| clock::rough_nanoseconds() + TRANSMIT));
    }

    /// The clock divisor that sets the speed.
    pub(crate) fn divisor(&self) -> u16 {
        let mut control = self.port(offsets::LCR);
        // SAFETY: a UART or nothing is there; registers are restored.
        unsafe {
            let former = control.read();
            control.write(former | LCR::DLAB.bits());
            let divisor = u16::from_le_bytes([self.port(offsets::DLL).read(), self.port(offsets::DLM).read()]);
            control.write(former);
            divisor
        }
    }

    fn port(&self, offset: usize) -> Port<u8> {
        Port::new(self.base + offset as u16)
    }

    /// Whether a UART is there that loops back. A bus that merely holds a written value for a moment does not. Tested
    /// by the modem lines, which takes no time; or, on machines without them, by a byte.
    pub(crate) fn hear_themselves(&self) -> bool {
        let mut control = self.port(offsets::MCR);
        // SAFETY: a UART or nothing is there; registers are restored, and nothing is sent.
        unsafe {
            let former = control.read();
            let heard = self.modem_loops() || self.byte_loops();
            control.write(former);
            // Clears the modem line changes that the test caused.
            self.port(offsets::MSR).read();
            heard
        }
    }

    /// Whether the modem outputs loop back to the inputs.
    ///
    /// # Safety
    /// As for [`Ports::new`]; the caller restores the modem control register.
    unsafe fn modem_loops(&self) -> bool {
        let lines_in = MSR::CTS | MSR::DSR | MSR::RI | MSR::CD;
        let pairs =
            [(MCR::RTS | MCR::OUT_2_INT_ENABLE, MSR::CTS | MSR::CD), (MCR::DTR | MCR::OUT_1, MSR::DSR | MSR::RI)];
        pairs.into_iter().all(|(out, back)| {
            // SAFETY: the caller's promise.
            let status = unsafe {
                self.port(offsets::MCR).write((MCR::LOOP_BACK | out).bits());
                self.port(offsets::MSR).read()
            };
            MSR::from_bits_retain(status) & lines_in == back
        })
    }

    /// Whether a byte that is sent comes back.
    ///
    /// # Safety
    /// As above.
    unsafe fn byte_loops(&self) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            self.port(offsets::MCR).write(MCR::LOOP_BACK.bits());
            self.port(offsets::DATA).write(PROBE);
        }
        let end = clock::rough_nanoseconds() + LOOP;
        loop {
            // The time is read first: the host may deschedule the CPU between the two.
            let is_late = clock::rough_nanoseconds() > end;
            // SAFETY: the caller's promise.
            let status = LSR::from_bits_retain(unsafe { self.port(offsets::LSR).read() });
            if status.contains(LSR::DATA_READY) {
                // SAFETY: the caller's promise.
                return unsafe { self.port(offsets::DATA).read() } == PROBE;
            }
            if is_late {
                return false;
            }
        }
    }
}

impl Backend for Ports {
    unsafe fn read(&mut self, offset: u8) -> u8 {
        // SAFETY: a UART or nothing is there, as promised to `new`.
        let value = unsafe { self.port(offset.into()).read() };
        if usize::from(offset) != offsets::LSR {
            return value;
        }
        let is_late = self.hurried.get().is_some_and(|end| clock::rough_nanoseconds() > end);
        line_status(value, is_late)
    }

    unsafe fn write(&mut self, offset: u8, value: u8) {
        // SAFETY: as above.
        unsafe { self.port(offset.into()).write(value) };
    }
}

/// The line status, read as `value`. A port that is gone, such as a removed card's, would deliver bytes endlessly; no
/// UART without parity reads like that. After the time limit the transmitter counts as empty.
const fn line_status(value: u8, is_late: bool) -> u8 {
    let value = if value == NOTHING { value & !LSR::DATA_READY.bits() } else { value };
    if is_late { value | LSR::TRANSMITTER_EMPTY.bits() } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_gone_has_no_bytes() {
        let ready = LSR::DATA_READY.bits();
        assert_eq!(line_status(NOTHING, false) & ready, 0);
        assert!([ready, NOTHING & !LSR::PARITY_ERROR.bits()].iter().all(|&value| line_status(value, false) == value));
        assert_eq!(line_status(ready, true), ready | LSR::TRANSMITTER_EMPTY.bits());
    }
}
