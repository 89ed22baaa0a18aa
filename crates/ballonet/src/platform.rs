//! The platform boundary: every side effect of a driver goes through these traits.
//!
//! A kernel implements [`Platform`] once; the drivers then need nothing else from it. Static dispatch throughout: on
//! the machine each register access is one instruction. There is no global state: two devices are two values.
//!
//! What a device can write (registers, DMA memory) is never behind a reference; it is read and written by value.

use alloc::boxed::Box;
use alloc::string::String;

use derive_more::{Display, Error};

use crate::memory::{FrameRun, IdleRun};
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

    /// Allocates a vector for message-signalled interrupts, ready to be raised. `name` is shown to people.
    ///
    /// # Errors
    /// When vectors have run out, or the platform has no message-signalled interrupts.
    fn allocate_vector(&mut self, name: String, handler: Handler) -> Result<Vector, VectorError>;

    /// Attaches `handler` to the line that the pin of a function is wired to. Lines are shared and level-triggered:
    /// the handler says whether the interrupt was its own.
    ///
    /// # Errors
    /// When no line is known for the pin, or vectors have run out.
    fn attach_line(
        &mut self,
        function: Bdf,
        pin: InterruptPin,
        name: String,
        handler: Handler,
    ) -> Result<Vector, VectorError>;

    /// Gives a vector back; after it returns its handler does not run any more.
    fn release_vector(&mut self, vector: Vector);

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

/// What fills frames, which the caller has taken, with a byte.
pub type Filler<P> = fn(&mut P, FrameRun, u8);

/// Page frames that a driver may give to the host and take again. Counts are in 4 KiB frames.
///
/// A frame is free, used, ballooned or reserved; a frame in flight to or from the balloon is *used*, by the driver.
pub trait PageFrames {
    /// Takes a run of at most `most` free frames, contiguous and as long as can be had at once; free -> used.
    ///
    /// `None` when nothing is free above what the platform keeps for itself.
    fn take_free(&mut self, most: u32) -> Option<FrameRun>;

    /// Records that the host has taken `run`; used -> ballooned.
    fn confirm_ballooned(&mut self, run: FrameRun);

    /// Picks a run of at most `most` ballooned frames to ask back for; ballooned -> used.
    fn take_ballooned(&mut self, most: u32) -> Option<FrameRun>;

    /// Gives frames back to the kernel; used -> free.
    fn release(&mut self, run: FrameRun);

    /// Frames ballooned now.
    fn ballooned(&self) -> u64;

    /// The address by which a device reaches frames that are reported to it (`ACCESS_PLATFORM`). By default the physical
    /// one. Frame numbers in requests are physical whatever this says, as the balloon defines them.
    fn device_address(&self, run: FrameRun) -> u64 {
        run.start().start().as_u64()
    }

    /// Takes free memory that the host does not know of, to report it (virtio 1.4, 5.5.6.7): a run of at most `most`
    /// frames, large and aligned as the host likes it, that has been free for at least `age` calls of
    /// [`PageFrames::age_free_memory`]; free -> used.
    ///
    /// `None` if there is none. A platform that does not track this always returns `None`, and nothing is reported.
    fn take_unreported(&mut self, _most: u32, _age: u32) -> Option<FrameRun> {
        None
    }

    /// Gives back frames that were taken to be reported, and have been; used -> free. Their contents are garbage. They are
    /// not to be reported again before they were used.
    fn release_reported(&mut self, run: FrameRun) {
        self.release(run);
    }

    /// Frames that [`PageFrames::take_unreported`] could give, whatever their age.
    fn unreported(&self) -> u64 {
        0
    }

    /// Takes free memory for the balloon behind which the host may have something, to report it before it is inflated: a
    /// run of at most `most` frames, large and aligned as the host likes it. What somebody has had comes first;
    /// free -> used.
    ///
    /// `None` if there is none beyond the platform's own reserve, or if the platform does not track this.
    fn take_backed(&mut self, _most: u32) -> Option<FrameRun> {
        None
    }

    /// Writes into each frame of `run`, which is the driver's, a mark of its own, so that it can be told later whether the
    /// host has taken away what was in it. Returns whether that has been done; by default a platform cannot.
    fn mark(&mut self, _run: FrameRun) -> bool {
        false
    }

    /// How many frames of `run`, which is the driver's, still hold what [`PageFrames::mark`] wrote.
    fn marks(&self, _run: FrameRun) -> u32 {
        0
    }

    /// Lets free memory age by one.
    fn age_free_memory(&mut self) {}

    /// Takes free memory whose contents are not needed, so that the host need not copy it when the guest moves (virtio 1.4,
    /// 5.5.6.5): a run of at most `most` frames, large and aligned as the host likes it, that leaves `keep` frames free beside
    /// what the platform keeps for itself; free -> used. All of it was reported and not used since, or none of it counts as
    /// such. It comes back by [`PageFrames::release_reported`] or [`PageFrames::release`].
    ///
    /// `None` when there is none. By default as [`PageFrames::take_free`], which knows of no more to keep.
    fn take_idle(&mut self, most: u32, _keep: u64) -> Option<IdleRun> {
        self.take_free(most).map(IdleRun::unreported)
    }

    /// A function that fills frames that the driver has taken with a byte. By default a platform cannot: then free frames
    /// are never said to hold a value (`PAGE_POISON`), and hinted ones are not taken back before the host is done.
    fn filler() -> Option<Filler<Self>>
    where
        Self: Sized,
    {
        None
    }
}
