//! The ladder of interrupt modes: a vector to each queue, one for all, the interrupt line, none.
//!
//! [`find_vqs`] tries them in this order, or the one that it is told. A step that fails is undone fully before the
//! next: vectors given back, the device's vector registers at `NO_VECTOR`, the MSI-X table and the command register as
//! they were found. All this happens before `DRIVER_OK`, while the device is silent.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use derive_more::{Display, Error};

use super::device::{Device, FeaturesOk};
use super::events::{Events, Pending, config_changed, intx_interrupt, shared_vring_interrupt, vring_interrupt};
use super::transport::{QueueIndex, Transport, TransportError};
use crate::pci::{Bars, Bdf, Command, Function, Msix, MsixError, MsixTable, MsixVector};
use crate::platform::{AffinityError, Handler, MapError, Platform, Registers, Vector, VectorError};

/// How a device interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterruptMode {
    /// MSI-X, a vector for configuration changes and one for each queue.
    PerQueue,
    /// MSI-X, a vector for configuration changes and one for all queues.
    Shared,
    /// The interrupt line; the ISR byte says what it was.
    Line,
    /// Not at all: the driver looks by itself.
    Polling,
}

impl InterruptMode {
    /// All modes, in the order in which they are tried.
    pub const LADDER: [Self; 4] = [Self::PerQueue, Self::Shared, Self::Line, Self::Polling];

    /// The word for it on a command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::PerQueue => "msix",
            Self::Shared => "msix-shared",
            Self::Line => "intx",
            Self::Polling => "poll",
        }
    }
}

impl fmt::Display for InterruptMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Why a mode cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum InterruptError {
    /// The function has no MSI-X capability.
    #[display("{_0} has no MSI-X")]
    NoMsix(#[error(not(source))] Bdf),
    /// Its MSI-X cannot be used.
    #[display("{_0}")]
    Msix(MsixError),
    /// It does not decode memory, where its table is: a BAR of it has no address.
    #[display("{_0} does not decode memory, where its MSI-X table is")]
    NotDecoded(#[error(not(source))] Bdf),
    /// Its table is too small.
    #[display("{function} has {entries} MSI-X vectors, {needed} needed")]
    TooFewEntries {
        /// The function.
        function: Bdf,
        /// Entries in the table.
        entries: u16,
        /// How many the mode takes.
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
    /// The device did not take a vector.
    #[display("{_0}")]
    Refused(TransportError),
    /// The queue has no vector that could be moved.
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
    /// The function has no interrupt pin.
    #[display("{_0} has no interrupt pin")]
    NoPin(#[error(not(source))] Bdf),
}

/// A queue that is to interrupt, and what to call its vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueName {
    /// The queue.
    pub index: QueueIndex,
    /// Its name: `inflate`.
    pub name: &'static str,
}

/// A device's interrupts, in one of the modes. Ends by [`Interrupts::release`].
#[derive(Debug)]
#[must_use = "vectors stay allocated until they are released"]
pub struct Interrupts<R> {
    mode: InterruptMode,
    events: Arc<Events>,
    queues: Vec<QueueName>,
    vectors: Vec<Vector>,
    table: Option<MsixTable<R>>,
}

impl<R: Registers> Interrupts<R> {
    fn new(mode: InterruptMode, queues: &[QueueName]) -> Self {
        let events = Arc::new(Events::new(queues.iter().map(|queue| queue.index)));
        Self { mode, events, queues: queues.to_vec(), vectors: Vec::new(), table: None }
    }

    /// Which mode.
    pub fn mode(&self) -> InterruptMode {
        self.mode
    }

    /// What the handlers leave.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// The vectors, in the order configuration, queues.
    pub fn vectors(&self) -> &[Vector] {
        &self.vectors
    }

    /// The MSI-X table, in the modes that have one, to mask entries for a while.
    pub fn table_mut(&mut self) -> Option<&mut MsixTable<R>> {
        self.table.as_mut()
    }

    /// Takes what happened; everything may have where there are no interrupts.
    pub fn take(&self) -> Pending {
        if self.mode == InterruptMode::Polling { Pending::ALL } else { self.events.take() }
    }

    /// Waits until none of the device's handlers is running. They can run again right after.
    #[doc(alias = "synchronize_cbs")]
    #[doc(alias = "vp_synchronize_vectors")]
    pub fn synchronize<P: Platform<Registers = R>>(&self, platform: &mut P) {
        self.vectors.iter().for_each(|vector| platform.synchronize_vector(vector));
    }

    /// Has the queue of this name interrupt another CPU. Where queues share a vector, all of them move.
    ///
    /// # Errors
    /// When the queue has no vector, or the platform cannot send it there; everything is then as before.
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
        // Masked while it changes; what is raised meanwhile is sent by the new message.
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

    /// The entry of the MSI-X table that a queue raises, for when it is set up anew; `None` where it raises none.
    pub fn queue_vector(&self, queue: QueueIndex) -> Option<MsixVector> {
        let name = self.queues.iter().find(|known| known.index == queue)?.name;
        MsixVector::new(self.entry_of(name)?)
    }

    /// The entry of the MSI-X table that a queue raises. Entry 0 is for configuration changes.
    fn entry_of(&self, queue: &str) -> Option<u16> {
        let position = self.queues.iter().position(|known| known.name == queue)?;
        match self.mode {
            InterruptMode::PerQueue => u16::try_from(position + 1).ok(),
            InterruptMode::Shared => Some(1),
            InterruptMode::Line | InterruptMode::Polling => None,
        }
    }

    /// Gives all vectors back and turns MSI-X off, or the line. The device has been reset, or was never started.
    #[doc(alias = "del_vqs")]
    #[doc(alias = "vp_del_vqs")]
    pub fn release<P: Platform<Registers = R>>(self, platform: &mut P, function: &Function) {
        if self.mode == InterruptMode::Line && !self.vectors.is_empty() {
            function.set_intx(platform.config(), false);
        }
        if let Some(table) = self.table {
            let (table, pending) = table.disable(platform.config());
            platform.unmap(table);
            platform.unmap(pending);
        }
        for vector in self.vectors {
            platform.release_vector(vector);
        }
    }
}

/// A device that is to be given interrupts.
struct Target<'a, P, T> {
    platform: &'a mut P,
    transport: &'a mut T,
    function: &'a Function,
    bars: &'a Bars,
    name: &'a str,
    queues: &'a [QueueName],
}

/// Gives a device and its `queues` interrupts: in the mode that is `forced`, or else in the first of the ladder that
/// works. `name` is the device's, `virtio0`; vectors are named after it.
///
/// # Errors
/// When the forced mode cannot be had, and why.
#[doc(alias = "vp_find_vqs")]
pub fn find_vqs<P, T>(
    platform: &mut P,
    device: &mut Device<T, FeaturesOk>,
    (function, bars): (&Function, &Bars),
    name: &str,
    queues: &[QueueName],
    forced: Option<InterruptMode>,
) -> Result<Interrupts<P::Registers>, InterruptError>
where
    P: Platform,
    T: Transport<Registers = P::Registers>,
{
    let mut target = Target { platform, transport: device.transport_mut(), function, bars, name, queues };
    if let Some(mode) = forced {
        return target.attempt(mode);
    }
    for mode in InterruptMode::LADDER {
        match target.attempt(mode) {
            Ok(interrupts) => return Ok(interrupts),
            Err(error) => log::info!("{name}: no {mode} interrupts: {error}"),
        }
    }
    unreachable!("polling needs nothing that could be refused")
}

impl<P, T> Target<'_, P, T>
where
    P: Platform,
    T: Transport<Registers = P::Registers>,
{
    /// Sets up one mode, or leaves everything as it was.
    fn attempt(&mut self, mode: InterruptMode) -> Result<Interrupts<P::Registers>, InterruptError> {
        let mut interrupts = Interrupts::new(mode, self.queues);
        let outcome = match mode {
            InterruptMode::PerQueue | InterruptMode::Shared => self.message_signalled(&mut interrupts),
            InterruptMode::Line => self.line(&mut interrupts),
            InterruptMode::Polling => {
                // Nobody would take the line back.
                self.function.set_intx(self.platform.config(), false);
                Ok(())
            }
        };
        match outcome {
            Ok(()) => Ok(interrupts),
            Err(error) => {
                self.undo(interrupts);
                Err(error)
            }
        }
    }

    fn undo(&mut self, interrupts: Interrupts<P::Registers>) {
        if interrupts.table.is_some() {
            // No vector cannot be refused.
            let _ = self.transport.set_config_vector(None);
            for queue in self.queues {
                let _ = self.transport.set_queue_vector(queue.index, None);
            }
            self.transport.set_msix(false);
        }
        interrupts.release(self.platform, self.function);
    }

    fn message_signalled(&mut self, interrupts: &mut Interrupts<P::Registers>) -> Result<(), InterruptError> {
        let plan = self.plan(interrupts);
        let msix = self.usable_msix(plan.len())?;
        let table = self.platform.map(msix.table()).map_err(InterruptError::Map)?;
        let pending = match self.platform.map(msix.pending()) {
            Ok(pending) => pending,
            Err(error) => {
                self.platform.unmap(table);
                return Err(InterruptError::Map(error));
            }
        };
        let table = interrupts.table.insert(msix.enable(self.platform.config(), table, pending));
        self.transport.set_msix(true);
        for (entry, (name, handler)) in (0..).filter_map(MsixVector::new).zip(plan) {
            let vector = self.platform.allocate_vector(name, handler).map_err(InterruptError::Vector)?;
            let (number, message) = (vector.number, vector.message);
            interrupts.vectors.push(vector);
            table.program(entry, message.ok_or(InterruptError::NoMessage(number))?).map_err(InterruptError::Msix)?;
        }
        self.assign(interrupts.mode).map_err(InterruptError::Refused)?;
        for (entry, _) in (0..).filter_map(MsixVector::new).zip(&interrupts.vectors) {
            table.unmask(entry).map_err(InterruptError::Msix)?;
        }
        table.set_function_mask(self.platform.config(), false);
        Ok(())
    }

    /// The vectors of a mode: what to call each, and what it runs. The first is for configuration changes.
    fn plan(&self, interrupts: &Interrupts<P::Registers>) -> Vec<(String, Handler)> {
        let mut plan: Vec<(String, Handler)> = Vec::new();
        let events = Arc::clone(&interrupts.events);
        plan.push((format!("{}-config", self.name), Box::new(move || config_changed(&events))));
        if interrupts.mode == InterruptMode::Shared {
            let events = Arc::clone(&interrupts.events);
            plan.push((format!("{}-virtqueues", self.name), Box::new(move || shared_vring_interrupt(&events))));
            return plan;
        }
        for &QueueName { index, name } in self.queues {
            let events = Arc::clone(&interrupts.events);
            plan.push((format!("{}-{name}", self.name), Box::new(move || vring_interrupt(&events, index))));
        }
        plan
    }

    /// The function's MSI-X, if it has enough entries.
    fn usable_msix(&mut self, needed: usize) -> Result<Msix, InterruptError> {
        let function = self.function.bdf();
        let msix = Msix::find(self.platform.config(), self.function, self.bars).map_err(InterruptError::Msix)?;
        let msix = msix.ok_or(InterruptError::NoMsix(function))?;
        if !self.function.command(self.platform.config()).contains(Command::MEMORY) {
            return Err(InterruptError::NotDecoded(function));
        }
        let entries = msix.entries();
        if usize::from(entries) < needed {
            return Err(InterruptError::TooFewEntries { function, entries, needed });
        }
        Ok(msix)
    }

    /// Tells the device which vector is for what: 0 for configuration changes, then the queues'.
    fn assign(&mut self, mode: InterruptMode) -> Result<(), TransportError> {
        self.transport.set_config_vector(MsixVector::new(0))?;
        for (queue, own) in self.queues.iter().zip(1..) {
            let vector = if mode == InterruptMode::Shared { 1 } else { own };
            self.transport.set_queue_vector(queue.index, MsixVector::new(vector))?;
        }
        Ok(())
    }

    fn line(&mut self, interrupts: &mut Interrupts<P::Registers>) -> Result<(), InterruptError> {
        let function = self.function.bdf();
        let pin = self.function.interrupt_pin().ok_or(InterruptError::NoPin(function))?;
        let events = Arc::clone(&interrupts.events);
        let isr = self.transport.isr();
        let handler: Handler = Box::new(move || intx_interrupt(&events, &*isr));
        let vector =
            self.platform.attach_line(function, pin, self.name.to_string(), handler).map_err(InterruptError::Vector)?;
        interrupts.vectors.push(vector);
        self.function.set_intx(self.platform.config(), true);
        Ok(())
    }
}
