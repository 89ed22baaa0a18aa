//! Interrupts: their sources and their handlers.

use alloc::boxed::Box;
use core::fmt;

use derive_more::Display;

use super::{Bdf, Events, InterruptPin};

/// An interrupt line that a device asserts, named by its bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[non_exhaustive]
pub enum InterruptLine {
    /// The line of a PCI function's interrupt pin.
    #[display("{function} pin {pin}")]
    Pin {
        /// The function.
        function: Bdf,
        /// Its pin.
        pin: InterruptPin,
    },
    /// An input of the machine's interrupt controllers.
    #[display("{_0}")]
    Wired(WiredInterrupt),
}

/// An input of the machine's interrupt controllers, given by a firmware table or by the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[display("GSI {gsi} {polarity} {trigger}")]
pub struct WiredInterrupt {
    /// Its global system interrupt number.
    pub gsi: u32,
    /// The line's active level.
    pub polarity: Polarity,
    /// Edge or level triggered.
    pub trigger: Trigger,
}

/// The active level of an interrupt line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum Polarity {
    /// High, as on ISA.
    #[display("active high")]
    ActiveHigh,
    /// Low, as on PCI.
    #[display("active low")]
    ActiveLow,
}

/// How an interrupt line triggers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum Trigger {
    /// By the edge to the active level, as on ISA.
    #[display("edge")]
    Edge,
    /// By the active level, as on PCI.
    #[display("level")]
    Level,
}

/// The result of an interrupt handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// The interrupt came from this device and was recorded.
    Yes,
    /// This device did not interrupt: on a shared line another one did.
    No,
}

/// An interrupt handler, which the platform keeps and runs. It needs no memory besides this value.
///
/// `R` are the platform's registers: the handler of an interrupt line owns those that it reads, until
/// `Platform::detach_line` returns the handler.
pub struct Handler<R>(Action<R>);

/// A handler's action.
enum Action<R> {
    /// Records bits for a driver.
    Note { note: Note<R>, events: &'static Events, bits: u32, registers: Option<R> },
    /// An action of the platform's own.
    Closure(Box<dyn FnMut() -> Handled + Send>),
}

/// Records `bits`, or the bits that the registers show, in a driver's events.
pub(crate) type Note<R> = fn(&Events, u32, Option<&mut R>) -> Handled;

impl<R> Handler<R> {
    /// A handler that runs `action`. It must not allocate.
    pub fn new(action: impl FnMut() -> Handled + Send + 'static) -> Self {
        Self(Action::Closure(Box::new(action)))
    }

    /// A handler that records bits in `events`.
    pub(crate) const fn noting(note: Note<R>, events: &'static Events, bits: u32, registers: Option<R>) -> Self {
        Self(Action::Note { note, events, bits, registers })
    }

    /// Runs it: with interrupts off, on any CPU, but on one at a time. It neither waits nor allocates.
    #[inline]
    pub fn run(&mut self) -> Handled {
        match &mut self.0 {
            Action::Note { note, events, bits, registers } => note(events, *bits, registers.as_mut()),
            Action::Closure(action) => action(),
        }
    }

    /// The registers that it owned.
    pub(crate) fn into_registers(self) -> Option<R> {
        match self.0 {
            Action::Note { registers, .. } => registers,
            Action::Closure(_) => None,
        }
    }
}

impl<R> fmt::Debug for Handler<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

/// The memory write that a device performs to raise a message-signalled interrupt (PCI 3.0, 6.8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiMessage {
    /// The address that the device writes to.
    pub address: u64,
    /// The value that it writes.
    pub data: u32,
}

/// An allocated interrupt vector, until `Platform::release_vector` or `detach_line`.
#[derive(Debug, PartialEq, Eq)]
pub struct Vector {
    /// The platform's number for it, unique while it is allocated.
    pub number: u32,
    /// The message that raises it; `None` for the vector of an interrupt line.
    pub message: Option<MsiMessage>,
}
