//! The platform boundary: every side effect of a driver goes through these traits.
//!
//! A kernel implements [`Platform`] once; the drivers then need nothing else from it. Static dispatch throughout: on
//! the machine each register access is one instruction. There is no global state: two devices are two values.
//!
//! What a device can write (registers, DMA memory) is never behind a reference; it is read and written by value.

use alloc::string::String;

use derive_more::{Display, Error};

pub use crate::bus::{
    DeviceAddress, DmaExhausted, DmaMemory, Handled, Handler, InterruptLine, MsiMessage, Polarity, RegisterWindow,
    Registers, Trigger, Vector, WiredInterrupt,
};
use crate::memory::{FrameRun, IdleRun};
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

/// No interrupt vector could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
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

    /// Maps a window of registers, uncached. The device decodes its addresses.
    ///
    /// # Errors
    /// When the platform cannot reach the addresses.
    fn map(&mut self, window: RegisterWindow) -> Result<Self::Registers, MapError>;

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

    /// Attaches `handler` to an interrupt line. Those of PCI are shared and level-triggered: the handler says whether the
    /// interrupt was its own.
    ///
    /// # Errors
    /// When the platform does not know the line, or vectors have run out.
    fn attach_line(&mut self, line: InterruptLine, name: String, handler: Handler) -> Result<Vector, VectorError>;

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
