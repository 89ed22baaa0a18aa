//! The platform boundary: every side effect of a driver goes through these traits.
//!
//! A kernel implements [`Platform`] once; the drivers then need nothing else from it. Static dispatch throughout: on
//! the machine each register access is one instruction. There is no global state: two devices are two values.
//!
//! What a device can write (registers, DMA memory) is never behind a reference; it is read and written by value.

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
    /// What was asked for.
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
    /// The vector stands for a line, which is shared and stays where it is.
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

    /// Makes registers of a structure that cannot be mapped, which reach it through configuration space. The accesses
    /// that `window` stands for are to be made with this function's window kept from everybody else: each is a
    /// sequence, and the device's interrupt handler makes them too. By default a platform does not do that.
    fn map_through_config(&mut self, _window: ConfigWindow) -> Option<Self::Registers> {
        None
    }

    /// Makes the configuration space of a function reachable as registers, beside [`Platform::config`] and at any time:
    /// for interrupt handlers. By default, and where configuration space is not mapped into memory, there is no such
    /// way.
    fn map_config(&mut self, _function: Bdf) -> Option<Self::Registers> {
        None
    }

    /// Ends a mapping, of either kind. By default the value is dropped: enough where all memory stays mapped.
    fn unmap(&mut self, registers: Self::Registers) {
        drop(registers);
    }

    /// Allocates zeroed memory that is contiguous for the device. `align` is a power of two, in bytes.
    ///
    /// # Errors
    /// When there is no such memory.
    fn allocate_dma(&mut self, size: usize, align: usize) -> Result<Self::Memory, DmaExhausted>;

    /// Takes DMA memory back. The device no longer knows it.
    fn release_dma(&mut self, memory: Self::Memory);

    /// Allocates a vector for message-signalled interrupts, ready to be raised: the platform runs `handler` then.
    /// `name` is shown to people. By default the platform has no interrupts.
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

    /// Releases a vector of [`Platform::allocate_vector`]; after it returns its handler does not run any more. By
    /// default there is none to release.
    fn release_vector(&mut self, _vector: Vector) {}

    /// Attaches `handler` to an interrupt line. Those of PCI are shared and level-triggered: the handler says whether
    /// the interrupt was its own. By default the platform has no lines.
    ///
    /// # Errors
    /// When the platform does not know the line, or vectors have run out. The handler comes back.
    #[allow(clippy::type_complexity, reason = "the error, and what was refused")]
    fn attach_line(
        &mut self,
        line: InterruptLine,
        _name: fmt::Arguments<'_>,
        handler: Handler<Self::Registers>,
    ) -> Result<Vector, (VectorError, Handler<Self::Registers>)> {
        Err((VectorError::NoLine(line), handler))
    }

    /// Ends what [`Platform::attach_line`] began, and returns the handler, which does not run any more: it owns
    /// registers, which the driver unmaps.
    fn detach_line(&mut self, _vector: Vector) -> Option<Handler<Self::Registers>> {
        None
    }

    /// Waits until the handler of a vector, which may be running on another CPU, has returned. It may be called again
    /// right after. By default there is one CPU, where no handler runs while anything else does.
    fn synchronize_vector(&mut self, _vector: &Vector) {}

    /// Moves a vector to another CPU: returns the new message. The former message keeps working, on the former CPU,
    /// until the vector is released or moved again. By default there is CPU 0 and no other.
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

    /// Time since some fixed moment, in nanoseconds. Never goes back.
    fn now(&self) -> u64;

    /// Eases a busy wait.
    fn relax(&self) {
        core::hint::spin_loop();
    }
}
