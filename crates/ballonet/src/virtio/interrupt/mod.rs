//! The ladder of interrupt modes: a vector per queue, one for all queues, the interrupt line, polling.
//!
//! `ladder` tries the modes; [`Interrupts`] is the result. An MMIO device has its line, or no interrupts.

use alloc::vec::Vec;
use core::fmt;

use derive_more::{Display, Error};

use super::events::Pending;
use super::queue::QueueIndex;
use super::transport::TransportError;
use crate::bus::{DeviceAddress, Events, EventsLease, Handler, OutOfMemory, Registers, Vector, heap};
use crate::pci::{Bdf, Function, MsixError, MsixTable, MsixVector};
use crate::platform::{AffinityError, MapError, Platform, VectorError};

mod ladder;

pub(super) use ladder::find_vqs;

/// How a device interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterruptMode {
    /// MSI-X: one vector for configuration changes and one per queue.
    PerQueue,
    /// MSI-X: one vector for configuration changes and one for all queues.
    Shared,
    /// The interrupt line; the ISR byte reports the cause.
    Line,
    /// None: the driver polls.
    Polling,
}

impl InterruptMode {
    /// All modes, in the order in which they are tried.
    pub const LADDER: [Self; 4] = [Self::PerQueue, Self::Shared, Self::Line, Self::Polling];

    /// Whether interrupts are messages, which only PCI has.
    const fn is_message_signalled(self) -> bool {
        matches!(self, Self::PerQueue | Self::Shared)
    }
}

impl From<InterruptMode> for &'static str {
    /// Its name on a command line.
    fn from(value: InterruptMode) -> Self {
        match value {
            InterruptMode::PerQueue => "msix",
            InterruptMode::Shared => "msix-shared",
            InterruptMode::Line => "intx",
            InterruptMode::Polling => "poll",
        }
    }
}

impl fmt::Display for InterruptMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad((*self).into())
    }
}

/// Why a mode is not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum InterruptError {
    /// The device has no MSI-X.
    #[display("{_0} has no MSI-X")]
    NoMsix(#[error(not(source))] DeviceAddress),
    /// Its MSI-X is unusable.
    #[display("{_0}")]
    Msix(MsixError),
    /// It does not decode memory, where its table is, because one of its BARs has no address.
    #[display("{_0} does not decode memory, where its MSI-X table is")]
    NotDecoded(#[error(not(source))] Bdf),
    /// Its table is too small.
    #[display("{function} has {entries} MSI-X vectors, {needed} needed")]
    TooFewEntries {
        /// The function.
        function: Bdf,
        /// Entries in the table.
        entries: u16,
        /// Entries that the mode needs.
        needed: usize,
    },
    /// The table could not be mapped.
    #[display("{_0}")]
    Map(MapError),
    /// The platform gave no vector.
    #[display("{_0}")]
    Vector(VectorError),
    /// The platform gave a vector without a message to raise it.
    #[display("vector {_0} has no message")]
    NoMessage(#[error(not(source))] u32),
    /// The device refused a vector.
    #[display("{_0}")]
    Refused(TransportError),
    /// The queue has no vector of its own to move.
    #[display("queue {queue} has no vector of its own that could be moved: the device interrupts by {mode}")]
    NoQueueVector {
        /// The queue's name.
        queue: &'static str,
        /// How the device interrupts.
        mode: InterruptMode,
    },
    /// The platform cannot move a vector.
    #[display("{_0}")]
    Affinity(AffinityError),
    /// The device has no interrupt line.
    #[display("{_0} has no interrupt line")]
    NoLine(#[error(not(source))] DeviceAddress),
    /// The function has no interrupt pin.
    #[display("{_0} has no interrupt pin")]
    NoPin(#[error(not(source))] Bdf),
    /// There is no memory for the mode.
    #[display("{_0}")]
    Memory(OutOfMemory),
}

/// A queue that interrupts, and the name of its vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueName {
    /// The queue.
    pub(super) index: QueueIndex,
    /// Its name: `inflate`.
    pub(super) name: &'static str,
}

/// A device's interrupts, in one of the modes. Ends by `Interrupts::release`.
#[derive(Debug)]
#[must_use = "vectors stay allocated until they are released"]
pub struct Interrupts<R> {
    mode: InterruptMode,
    events: EventsLease,
    queues: Vec<QueueName>,
    /// Has room for one more than the queues.
    vectors: Vec<Vector>,
    table: Option<MsixTable<R>>,
    /// The PCI function whose line was turned on.
    line: Option<Function>,
}

impl<R: Registers> Interrupts<R> {
    /// No interrupts yet, for these queues.
    fn new(queues: Vec<QueueName>) -> Result<Self, OutOfMemory> {
        let (events, vectors) = (EventsLease::take()?, heap::vector(queues.len() + 1)?);
        Ok(Self { mode: InterruptMode::Polling, events, queues, vectors, table: None, line: None })
    }

    /// The mode.
    pub fn mode(&self) -> InterruptMode {
        self.mode
    }

    /// The events that the handlers record.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// The vectors, in the order configuration, queues.
    pub fn vectors(&self) -> &[Vector] {
        &self.vectors
    }

    /// The MSI-X table, in the modes that have one, to mask entries temporarily.
    pub fn table_mut(&mut self) -> Option<&mut MsixTable<R>> {
        self.table.as_mut()
    }

    /// Takes the recorded events; all events if there are no interrupts.
    pub fn take(&self) -> Pending {
        if self.mode == InterruptMode::Polling { Pending::ALL } else { Pending::take(&self.events) }
    }

    /// Waits until none of the device's handlers is running. They may run again right after.
    #[doc(alias = "synchronize_cbs")]
    #[doc(alias = "vp_synchronize_vectors")]
    pub fn synchronize<P: Platform<Registers = R>>(&self, platform: &mut P) {
        self.vectors.iter().for_each(|vector| platform.synchronize_vector(vector));
    }

    /// Moves the interrupt of the queue with this name to another CPU. Queues that share a vector all move.
    ///
    /// # Errors
    /// When the queue has no vector, or the platform cannot move it; nothing changes then.
    #[doc(alias = "set_vq_affinity")]
    #[doc(alias = "vp_set_vq_affinity")]
    pub fn set_queue_affinity<P: Platform<Registers = R>>(
        &mut self,
        platform: &mut P,
        queue: &'static str,
        cpu: u32,
    ) -> Result<(), InterruptError> {
        let entry = self.entry_of(queue).ok_or(InterruptError::NoQueueVector { queue, mode: self.mode })?;
        let number = MsixVector::new(entry).filter(|_| self.table.is_some());
        let place = self.vectors.get_mut(usize::from(entry)).zip(self.table.as_mut()).zip(number);
        let ((vector, table), number) = place.ok_or(InterruptError::NoQueueVector { queue, mode: self.mode })?;
        let message = platform.set_vector_affinity(vector, cpu).map_err(InterruptError::Affinity)?;
        // Masked while it changes; an interrupt raised meanwhile uses the new message.
        table.program(number, message).map_err(InterruptError::Msix)?;
        vector.message = Some(message);
        table.unmask(number).map_err(InterruptError::Msix)
    }

    /// The CPU that the queue of this name interrupts; `None` if the queue has no vector.
    #[doc(alias = "get_vq_affinity")]
    #[doc(alias = "vp_get_vq_affinity")]
    pub fn queue_affinity<P: Platform<Registers = R>>(&self, platform: &P, queue: &str) -> Option<u32> {
        let vector = self.vectors.get(usize::from(self.entry_of(queue)?))?;
        Some(platform.vector_affinity(vector))
    }

    /// The MSI-X table entry of a queue, to set the queue up again; `None` if it has none.
    pub(crate) fn queue_vector(&self, queue: QueueIndex) -> Option<MsixVector> {
        let name = self.queues.iter().find(|known| known.index == queue)?.name;
        MsixVector::new(self.entry_of(name)?)
    }

    /// The MSI-X table entry of a queue. Entry 0 is for configuration changes.
    fn entry_of(&self, queue: &str) -> Option<u16> {
        let position = self.queues.iter().position(|known| known.name == queue)?;
        match self.mode {
            InterruptMode::PerQueue => u16::try_from(position + 1).ok(),
            InterruptMode::Shared => Some(1),
            InterruptMode::Line | InterruptMode::Polling => None,
        }
    }

    /// Releases all vectors and turns MSI-X or the line off. The device has been reset, or was never started.
    #[doc(alias = "del_vqs")]
    #[doc(alias = "vp_del_vqs")]
    pub(super) fn release<P: Platform<Registers = R>>(mut self, platform: &mut P) {
        self.clear(platform);
    }

    /// As [`Interrupts::release`], but another mode can be set up afterwards.
    fn clear<P: Platform<Registers = R>>(&mut self, platform: &mut P) {
        if let Some(function) = self.line.take() {
            function.set_intx(platform.config(), false);
        }
        if let Some(table) = self.table.take() {
            let (table, pending) = table.disable(platform.config());
            platform.unmap(table);
            platform.unmap(pending);
        }
        for vector in self.vectors.drain(..) {
            if self.mode != InterruptMode::Line {
                platform.release_vector(vector);
            } else if let Some(registers) = platform.detach_line(vector).and_then(Handler::into_registers) {
                platform.unmap(registers);
            }
        }
    }
}
