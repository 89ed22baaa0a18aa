//! The platform boundary: every side effect of a driver goes through these traits.
//!
//! A kernel implements [`Platform`] once; the drivers then need nothing else from it. Static dispatch throughout: on
//! the machine each register access is one instruction. There is no global state: two devices are two values.
//!
//! Memory that a device can write (registers, DMA memory) is never behind a reference; it is read and written by value.

use core::fmt;

use derive_more::{Display, Error};

pub use crate::bus::{
    DeviceAddress, DeviceName, DmaExhausted, DmaMemory, Handled, Handler, InterruptLine, MsiMessage, OutOfMemory,
    Polarity, RegisterWindow, Registers, Trigger, Vector, WiredInterrupt,
};
use crate::pci::{Bdf, ConfigSpace, ConfigWindow};

/// Why a window of registers could not be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
#[display("cannot map {window}: {reason}")]
pub struct MapError {
    /// The window requested.
    pub window: RegisterWindow,
    /// Why not.
    #[error(not(source))]
    pub reason: &'static str,
}

/// No interrupt vector is available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
#[non_exhaustive]
pub enum VectorError {
    /// All vectors are taken.
    #[display("all {_0} interrupt vectors are taken")]
    Exhausted(#[error(not(source))] u32),
    /// The platform cannot receive message-signalled interrupts.
    #[display("the platform takes no message-signalled interrupts")]
    NoMessages,
    /// The platform does not know where this line leads.
    #[display("no interrupt line is known for {_0}")]
    NoLine(#[error(not(source))] InterruptLine),
}

/// Why a vector cannot be moved to another CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
#[non_exhaustive]
pub enum AffinityError {
    /// There is no such CPU, or interrupts cannot be sent to it.
    #[display("there is no CPU {_0} to interrupt")]
    NoCpu(#[error(not(source))] u32),
    /// The vector belongs to an interrupt line, which is shared and stays on its CPU.
    #[display("vector {_0} is an interrupt line and stays on its CPU")]
    Line(#[error(not(source))] u32),
}

/// What a driver needs of the kernel it runs in.
pub trait Platform {
    /// How PCI configuration space is reached.
    type Config: ConfigSpace;
    /// A mapped window of registers. A driver and its interrupt handler may read one window at the same time.
    type Registers: Registers + Send + Sync + 'static;
    /// Memory shared with a device.
    type Memory: DmaMemory;

    /// PCI configuration space.
    fn config(&mut self) -> &mut Self::Config;

    /// Maps a window of registers, uncached. The device decodes its addresses. A window may be a single byte (the
    /// interrupt status) and begin anywhere in a page; several may share a page, and one may be mapped twice.
    ///
    /// # Errors
    /// When the platform cannot reach the addresses.
    fn map(&mut self, window: RegisterWindow) -> Result<Self::Registers, MapError>;

    /// Registers of a structure that cannot be mapped, accessed through configuration space. Each access by `window` is
    /// a sequence of steps, and the device's interrupt handler makes such accesses too, so the platform must exclude
    /// all other users of this function's window meanwhile. `None`, the default, if the platform cannot.
    fn map_through_config(&mut self, _window: ConfigWindow) -> Option<Self::Registers> {
        None
    }

    /// The configuration space of a function as registers that an interrupt handler may access at any time, even during
    /// an access by [`Platform::config`]. `None`, the default, if configuration space is not mapped into memory.
    fn map_config(&mut self, _function: Bdf) -> Option<Self::Registers> {
        None
    }

    /// Ends a mapping of any kind. By default the value is dropped, which suffices if all memory stays mapped.
    fn unmap(&mut self, registers: Self::Registers) {
        drop(registers);
    }

    /// Allocates zeroed memory that is contiguous for the device. `align` is a power of two, in bytes.
    ///
    /// # Errors
    /// When there is no such memory.
    fn allocate_dma(&mut self, size: usize, align: usize) -> Result<Self::Memory, DmaExhausted>;

    /// Releases DMA memory, which the device no longer uses.
    fn release_dma(&mut self, memory: Self::Memory);

    /// Allocates a vector for message-signalled interrupts, ready to be raised; the platform then runs `handler`.
    /// `name` is for display. By default the platform has no interrupts.
    ///
    /// # Errors
    /// When vectors have run out, or the platform has no message-signalled interrupts.
    fn allocate_vector(
        &mut self,
        _name: fmt::Arguments<'_>,
        _handler: Handler<Self::Registers>,
    ) -> Result<Vector, VectorError> {
        Err(VectorError::NoMessages)
    }

    /// Releases a vector of [`Platform::allocate_vector`]; when it returns, the vector's handler no longer runs. By
    /// default there are no vectors to release.
    fn release_vector(&mut self, _vector: Vector) {}

    /// Attaches `handler` to an interrupt line. PCI's lines are shared and level-triggered: the handler returns whether
    /// the interrupt was its own. By default the platform has no lines.
    ///
    /// # Errors
    /// When the platform does not know the line, or vectors have run out. The handler is returned.
    #[allow(clippy::type_complexity, reason = "the error, and what was refused")]
    fn attach_line(
        &mut self,
        line: InterruptLine,
        _name: fmt::Arguments<'_>,
        handler: Handler<Self::Registers>,
    ) -> Result<Vector, (VectorError, Handler<Self::Registers>)> {
        Err((VectorError::NoLine(line), handler))
    }

    /// Undoes [`Platform::attach_line`] and returns the handler, which no longer runs: it owns registers, which the
    /// driver unmaps.
    fn detach_line(&mut self, _vector: Vector) -> Option<Handler<Self::Registers>> {
        None
    }

    /// Waits until the handler of a vector, which may be running on another CPU, has returned. It may run again right
    /// after. The default is for a single CPU, where no handler runs at the same time as its caller.
    fn synchronize_vector(&mut self, _vector: &Vector) {}

    /// Moves a vector to another CPU and returns the new message. The old message keeps working, on the old CPU, until
    /// the vector is released or moved again. By default there is only CPU 0.
    ///
    /// # Errors
    /// When there is no such CPU, or the vector is a line.
    fn set_vector_affinity(&mut self, vector: &Vector, cpu: u32) -> Result<MsiMessage, AffinityError> {
        let message = vector.message.ok_or(AffinityError::Line(vector.number))?;
        if cpu == 0 { Ok(message) } else { Err(AffinityError::NoCpu(cpu)) }
    }

    /// The CPU that a vector interrupts.
    fn vector_affinity(&self, _vector: &Vector) -> u32 {
        0
    }

    /// Time since some fixed moment, in nanoseconds. Monotonic.
    fn now(&self) -> u64;

    /// Eases a busy wait.
    fn relax(&self) {
        core::hint::spin_loop();
    }
}
