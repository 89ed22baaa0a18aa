//! The platform boundary: every side effect of a driver goes through these traits.
//!
//! A kernel implements [`Platform`] once; the drivers then need nothing else from it. Static dispatch throughout: on
//! the machine each register access is one instruction. There is no global state: two devices are two values.
//!
//! What a device can write (registers, DMA memory) is never behind a reference; it is read and written by value.

use alloc::boxed::Box;
use alloc::string::String;

use derive_more::{Display, Error};

use crate::pci::{BarWindow, Bdf, ConfigSpace, InterruptPin};
use crate::virtio::ConfigWindow;

/// A window of device registers, in memory or I/O space: all or part of one BAR.
///
/// Offsets are in bytes from the start of the window. Accesses have exactly the width named and are naturally aligned.
/// An access outside the window or a misaligned one is a bug of the caller and panics: windows are checked against
/// what a driver needs from them when they are made.
pub trait Registers {
    /// Size of the window in bytes.
    fn len(&self) -> usize;

    /// Whether the window holds no register at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the 8-bit register at `offset`.
    fn read8(&self, offset: usize) -> u8;
    /// Reads the 16-bit register at `offset`.
    fn read16(&self, offset: usize) -> u16;
    /// Reads the 32-bit register at `offset`.
    fn read32(&self, offset: usize) -> u32;
    /// Writes the 8-bit register at `offset`.
    fn write8(&mut self, offset: usize, value: u8);
    /// Writes the 16-bit register at `offset`.
    fn write16(&mut self, offset: usize, value: u16);
    /// Writes the 32-bit register at `offset`.
    fn write32(&mut self, offset: usize, value: u32);

    /// Writes the 64-bit register at `offset` as two 32-bit stores, low half first (virtio 1.4, 4.1.3.1).
    fn write64(&mut self, offset: usize, value: u64) {
        self.write32(offset, value as u32);
        self.write32(offset + 4, (value >> 32) as u32);
    }
}

/// Memory that a driver and its device share: zeroed, physically contiguous, owned by this value.
///
/// Offsets are in bytes from the start; multi-byte accesses are naturally aligned, in the CPU's byte order, single-copy
/// atomic and *relaxed*: order between them is the business of [`crate::virtio::barrier`]. An access outside
/// the memory is a bug of the caller and panics.
pub trait DmaMemory {
    /// The address that the device uses for the first byte.
    fn device_address(&self) -> u64;
    /// Size in bytes.
    fn len(&self) -> usize;

    /// Whether there is no memory at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Loads 16 bits.
    fn load16(&self, offset: usize) -> u16;
    /// Loads 32 bits.
    fn load32(&self, offset: usize) -> u32;
    /// Loads 64 bits.
    fn load64(&self, offset: usize) -> u64;
    /// Stores 16 bits.
    fn store16(&mut self, offset: usize, value: u16);
    /// Stores 32 bits.
    fn store32(&mut self, offset: usize, value: u32);
    /// Stores 64 bits.
    fn store64(&mut self, offset: usize, value: u64);
    /// Copies `bytes` in, in no particular order. Any alignment.
    fn write_bytes(&mut self, offset: usize, bytes: &[u8]);
    /// Copies bytes out, in no particular order. Any alignment.
    fn read_bytes(&self, offset: usize, bytes: &mut [u8]);
}

/// What an interrupt handler found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// The interrupt was this device's, and has been taken note of.
    Yes,
    /// This device did not ask: on a shared line another did.
    No,
}

/// An interrupt handler. It runs with interrupts off, on the interrupt stack, and must not allocate.
pub type Handler = Box<dyn FnMut() -> Handled + Send>;

/// The memory write that a device performs to raise a message-signalled interrupt (PCI 3.0, 6.8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiMessage {
    /// Where the device writes.
    pub address: u64,
    /// What it writes.
    pub data: u32,
}

/// An allocated interrupt vector. Only [`Platform::release_vector`] ends it.
#[derive(Debug, PartialEq, Eq)]
pub struct Vector {
    /// The platform's number for it, unique while it is allocated.
    pub number: u32,
    /// The message that raises it; `None` for a vector that stands for an interrupt line.
    pub message: Option<MsiMessage>,
}

/// Why a window of registers could not be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
#[display("cannot map {window}: {reason}")]
pub struct MapError {
    /// What was asked for.
    pub window: BarWindow,
    /// Why not.
    #[error(not(source))]
    pub reason: &'static str,
}

/// No DMA memory is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
#[display("no {size} bytes of contiguous DMA memory aligned to {align}")]
pub struct DmaExhausted {
    /// Size asked for, in bytes.
    pub size: usize,
    /// Alignment asked for, in bytes.
    pub align: usize,
}

/// No interrupt vector could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum VectorError {
    /// All vectors are taken.
    #[display("all {_0} interrupt vectors are taken")]
    Exhausted(#[error(not(source))] u32),
    /// The platform cannot receive message-signalled interrupts.
    #[display("the platform takes no message-signalled interrupts")]
    NoMessages,
    /// The platform knows no line for this function's pin.
    #[display("no interrupt line is known for {function} pin {pin}")]
    NoLine {
        /// The PCI function.
        function: Bdf,
        /// Its pin.
        pin: InterruptPin,
    },
}

/// Why a vector cannot be moved to another CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
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
    /// A mapped window of a BAR. A driver and its interrupt handler may read one window at the same time.
    type Registers: Registers + Send + Sync + 'static;
    /// Memory shared with a device.
    type Memory: DmaMemory;

    /// PCI configuration space.
    fn config(&mut self) -> &mut Self::Config;

    /// Makes a window of a BAR reachable, uncached. The BAR holds an address and its decoding is on.
    ///
    /// # Errors
    /// When the platform cannot reach the addresses.
    fn map(&mut self, window: BarWindow) -> Result<Self::Registers, MapError>;

    /// Makes registers of a structure that cannot be mapped, which reach it through configuration space. The accesses that
    /// `window` stands for are to be made with this function's window kept from everybody else: each is a sequence,
    /// and the device's interrupt handler makes them too. By default a platform does not do that.
    fn map_through_config(&mut self, _window: ConfigWindow) -> Option<Self::Registers> {
        None
    }

    /// Makes the configuration space of a function reachable as registers, beside [`Platform::config`] and at any time: for
    /// interrupt handlers. By default, and where configuration space is not mapped into memory, there is no such way.
    fn map_config(&mut self, _function: Bdf) -> Option<Self::Registers> {
        None
    }

    /// Ends a mapping, of either kind.
    fn unmap(&mut self, registers: Self::Registers);

    /// Allocates zeroed memory that is contiguous for the device. `align` is a power of two, in bytes.
    ///
    /// # Errors
    /// When there is no such memory.
    fn allocate_dma(&mut self, size: usize, align: usize) -> Result<Self::Memory, DmaExhausted>;

    /// Takes DMA memory back. The device no longer knows it.
    fn release_dma(&mut self, memory: Self::Memory);

    /// Allocates a vector for message-signalled interrupts, ready to be raised. `name` is shown to people. By default the
    /// platform has no interrupts.
    ///
    /// # Errors
    /// When vectors have run out, or the platform has no message-signalled interrupts.
    fn allocate_vector(&mut self, _name: String, _handler: Handler) -> Result<Vector, VectorError> {
        Err(VectorError::NoMessages)
    }

    /// Attaches `handler` to the line that the pin of a function is wired to. Lines are shared and level-triggered:
    /// the handler says whether the interrupt was its own. By default the platform has no lines.
    ///
    /// # Errors
    /// When no line is known for the pin, or vectors have run out.
    fn attach_line(
        &mut self,
        function: Bdf,
        pin: InterruptPin,
        _name: String,
        _handler: Handler,
    ) -> Result<Vector, VectorError> {
        Err(VectorError::NoLine { function, pin })
    }

    /// Releases a vector; after it returns its handler does not run any more. By default there is none to release.
    fn release_vector(&mut self, _vector: Vector) {}

    /// Waits until the handler of a vector, which may be running on another CPU, has returned. It may be called again
    /// right after. By default there is one CPU, where no handler runs while anything else does.
    fn synchronize_vector(&mut self, _vector: &Vector) {}

    /// Moves a vector to another CPU: returns the new message. The former message keeps working, on the former CPU, until the
    /// vector is released or moved again. By default there is CPU 0 and no other.
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
