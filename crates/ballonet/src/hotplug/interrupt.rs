//! How a port requests service: by a message (MSI-X, or else MSI), by its interrupt line, or not at all.
//!
//! A handler leaves bits and no more. On a line it also clears the events that it notes, since the line stays asserted
//! until they are; it does so through a window of its own onto the port's configuration registers, because it may come
//! while another CPU is using the ports to configuration space.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};

use derive_more::Display;
use spin::Mutex;

use crate::pci::bridge::close_unused_windows;
use crate::pci::express::SlotStatus;
use crate::pci::register::{STATUS, Status};
use crate::pci::{Bars, Command, EnabledMsi, Express, Function, Msi, Msix, MsixTable, MsixVector, Node};
use crate::platform::{Handled, Handler, InterruptLine, Platform, Registers, Vector};

/// How a port interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum SlotMode {
    /// By MSI-X.
    #[display("msix")]
    Msix,
    /// By MSI.
    #[display("msi")]
    Msi,
    /// By its interrupt line.
    #[display("intx")]
    Line,
    /// Not at all: it is looked at every now and then.
    #[display("poll")]
    Polling,
}

impl SlotMode {
    /// All, the best first.
    const LADDER: [Self; 4] = [Self::Msix, Self::Msi, Self::Line, Self::Polling];
}

/// What the handler leaves.
#[derive(Debug, Default)]
pub(super) struct SlotEvents {
    /// Events that were noted and cleared.
    noted: AtomicU16,
    pending: AtomicBool,
    count: AtomicU32,
}

impl SlotEvents {
    /// Whether the slot is to be looked at. With interrupts off, right before the CPU is put to sleep by `sti; hlt`, no
    /// answer of *no* can be out of date.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Takes what was noted. What happens from now on is for the next time.
    pub(super) fn take(&self) -> SlotStatus {
        self.pending.store(false, Ordering::Release);
        SlotStatus::from_bits_retain(self.noted.swap(0, Ordering::AcqRel))
    }

    /// How many interrupts there were.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    fn note(&self, events: SlotStatus) {
        self.noted.fetch_or(events.bits(), Ordering::AcqRel);
        self.pending.store(true, Ordering::Release);
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The handler of a message: somebody is to look.
#[doc(alias = "pciehp_isr")]
fn message_interrupt(events: &SlotEvents) -> Handled {
    events.note(SlotStatus::empty());
    Handled::Yes
}

/// The handler of a line: `registers` are the port's configuration space, with slot status at `slot_status`.
fn line_interrupt(events: &SlotEvents, registers: &mut impl Registers, slot_status: usize) -> Handled {
    let status = Status::from_bits_retain(registers.read16(usize::from(STATUS)));
    // All ones: the port is gone, and asks for nothing.
    if status.bits() == u16::MAX || !status.contains(Status::INTERRUPT) {
        return Handled::No;
    }
    let happened = SlotStatus::from_bits_retain(registers.read16(slot_status)).intersection(SlotStatus::EVENTS);
    if happened.is_empty() {
        return Handled::No;
    }
    registers.write16(slot_status, happened.bits());
    events.note(happened);
    Handled::Yes
}

/// What a port interrupts by.
enum Source<R> {
    Msix { table: MsixTable<R>, vector: Vector },
    Msi { msi: EnabledMsi, vector: Vector },
    Line { registers: Arc<Mutex<R>>, vector: Vector },
    Polling,
}

/// The interrupts of a port. They end by [`SlotInterrupts::release`].
#[must_use = "vectors stay taken until they are released"]
pub(super) struct SlotInterrupts<R> {
    function: Function,
    /// The command register as found.
    command: Command,
    events: Arc<SlotEvents>,
    source: Source<R>,
}

impl<R: Registers + Send + 'static> SlotInterrupts<R> {
    /// Gives the port with this capability interrupts: in the mode that is `forced`, or else in the first of the ladder that
    /// works, and polling if none does. `name` is the vector's.
    pub(super) fn find<P: Platform<Registers = R>>(
        platform: &mut P,
        port: &Node,
        express: &Express,
        name: &str,
        forced: Option<SlotMode>,
    ) -> Self {
        let Node { function: port, bars, .. } = port;
        close_unused_windows(platform.config(), port.bdf);
        // Interrupts are messages too, and the table of MSI-X is in memory.
        let command = port.enable(platform.config(), Command::MEMORY | Command::BUS_MASTER);
        let events = Arc::new(SlotEvents::default());
        let mut target = Target { platform, port, bars, express, name, events: &events };
        let ladder = SlotMode::LADDER.into_iter().filter(|mode| forced.is_none_or(|forced| forced == *mode));
        let source = ladder.into_iter().find_map(|mode| target.attempt(mode)).unwrap_or(Source::Polling);
        Self { function: *port, command, events, source }
    }

    /// What the handler leaves.
    pub(super) fn events(&self) -> &SlotEvents {
        &self.events
    }

    /// How the port interrupts.
    pub(super) const fn mode(&self) -> SlotMode {
        match self.source {
            Source::Msix { .. } => SlotMode::Msix,
            Source::Msi { .. } => SlotMode::Msi,
            Source::Line { .. } => SlotMode::Line,
            Source::Polling => SlotMode::Polling,
        }
    }

    /// Gives everything back; the port has been told to interrupt no more.
    pub(super) fn release<P: Platform<Registers = R>>(self, platform: &mut P) {
        match self.source {
            Source::Msix { table, vector } => {
                let (table, pending) = table.disable(platform.config());
                platform.unmap(table);
                platform.unmap(pending);
                platform.release_vector(vector);
            }
            Source::Msi { msi, vector } => {
                msi.disable(platform.config());
                platform.release_vector(vector);
            }
            Source::Line { registers, vector } => {
                self.function.set_intx(platform.config(), false);
                platform.release_vector(vector);
                // The handler, which had the other reference, has been dropped.
                if let Some(registers) = Arc::into_inner(registers) {
                    platform.unmap(registers.into_inner());
                }
            }
            Source::Polling => {}
        }
        // Bridges go on passing on what is behind them.
        let kept = Command::IO | Command::MEMORY | Command::BUS_MASTER;
        let now = self.function.command(platform.config()).intersection(kept);
        self.function.set_command(platform.config(), self.command | now);
    }
}

/// A port about to get interrupts.
struct Target<'a, P> {
    platform: &'a mut P,
    port: &'a Function,
    bars: &'a Bars,
    express: &'a Express,
    name: &'a str,
    events: &'a Arc<SlotEvents>,
}

impl<P: Platform> Target<'_, P> {
    /// Sets up one mode, or leaves everything as it was.
    fn attempt(&mut self, mode: SlotMode) -> Option<Source<P::Registers>> {
        match mode {
            SlotMode::Msix => self.msix(),
            SlotMode::Msi => self.msi(),
            SlotMode::Line => self.line(),
            SlotMode::Polling => {
                // Nobody would take the line back.
                self.port.set_intx(self.platform.config(), false);
                Some(Source::Polling)
            }
        }
    }

    fn message_vector(&mut self, mode: SlotMode) -> Option<Vector> {
        let events = Arc::clone(self.events);
        let handler: Handler = Box::new(move || message_interrupt(&events));
        tell(self.name, mode, self.platform.allocate_vector(String::from(self.name), handler))
    }

    fn msix(&mut self) -> Option<Source<P::Registers>> {
        let msix = tell(self.name, SlotMode::Msix, Msix::find(self.platform.config(), self.port, self.bars))??;
        let entry = MsixVector::new(self.express.message_number()).filter(|entry| entry.number() < msix.entries)?;
        let vector = self.message_vector(SlotMode::Msix)?;
        let Some(message) = vector.message else {
            self.platform.release_vector(vector);
            return None;
        };
        let Some(table) = tell(self.name, SlotMode::Msix, self.platform.map(msix.table)) else {
            self.platform.release_vector(vector);
            return None;
        };
        let Some(pending) = tell(self.name, SlotMode::Msix, self.platform.map(msix.pending)) else {
            self.platform.unmap(table);
            self.platform.release_vector(vector);
            return None;
        };
        let mut table = msix.enable(self.platform.config(), table, pending);
        // The table has the entry.
        let _ = table.program(entry, message).and_then(|()| table.unmask(entry));
        table.set_function_mask(self.platform.config(), false);
        Some(Source::Msix { table, vector })
    }

    fn msi(&mut self) -> Option<Source<P::Registers>> {
        let msi = tell(self.name, SlotMode::Msi, Msi::find(self.platform.config(), self.port))??;
        let vector = self.message_vector(SlotMode::Msi)?;
        let enabled = vector.message.and_then(|message| msi.enable(self.platform.config(), message));
        let Some(msi) = enabled else {
            self.platform.release_vector(vector);
            return None;
        };
        Some(Source::Msi { msi, vector })
    }

    fn line(&mut self) -> Option<Source<P::Registers>> {
        let pin = self.port.interrupt_pin?;
        let registers = Arc::new(Mutex::new(self.platform.map_config(self.port.bdf)?));
        let (events, window) = (Arc::clone(self.events), Arc::clone(&registers));
        let slot_status = usize::from(self.express.slot_status_offset());
        let handler: Handler = Box::new(move || line_interrupt(&events, &mut *window.lock(), slot_status));
        let line = InterruptLine::Pin { function: self.port.bdf, pin };
        let attached = self.platform.attach_line(line, self.name.to_string(), handler);
        match tell(self.name, SlotMode::Line, attached) {
            Some(vector) => {
                self.port.set_intx(self.platform.config(), true);
                Some(Source::Line { registers, vector })
            }
            None => {
                if let Some(registers) = Arc::into_inner(registers) {
                    self.platform.unmap(registers.into_inner());
                }
                None
            }
        }
    }
}

/// Says why a mode is not to be had.
fn tell<T, E: core::fmt::Display>(name: &str, mode: SlotMode, outcome: Result<T, E>) -> Option<T> {
    outcome.inspect_err(|error| log::info!("{name}: no {mode} interrupts: {error}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The registers that a handler looks at: command and status, slot control and slot status.
    struct Page {
        status: u16,
        slot_status: u16,
    }

    const SLOT_STATUS: usize = 0x5A;

    impl Registers for Page {
        fn len(&self) -> usize {
            4096
        }
        fn read8(&self, _: usize) -> u8 {
            unreachable!("registers have 16 bits")
        }
        fn read16(&self, offset: usize) -> u16 {
            if offset == SLOT_STATUS { self.slot_status } else { self.status }
        }
        fn read32(&self, _: usize) -> u32 {
            unreachable!("registers have 16 bits")
        }
        fn write8(&mut self, _: usize, _: u8) {
            unreachable!("registers have 16 bits")
        }
        fn write16(&mut self, offset: usize, value: u16) {
            assert_eq!(offset, SLOT_STATUS);
            self.slot_status &= !(value & SlotStatus::EVENTS.bits());
        }
        fn write32(&mut self, _: usize, _: u32) {
            unreachable!("a dword would clear more than it should")
        }
    }

    #[test]
    fn a_line_handler_claims_its_own_and_silences_it() {
        let events = SlotEvents::default();
        let happened = SlotStatus::ATTENTION_BUTTON | SlotStatus::PRESENCE_CHANGED;
        let mut page = Page { status: Status::INTERRUPT.bits(), slot_status: (happened | SlotStatus::PRESENT).bits() };
        assert_eq!(line_interrupt(&events, &mut page, SLOT_STATUS), Handled::Yes);
        assert_eq!(page.slot_status, SlotStatus::PRESENT.bits());
        assert!(events.is_pending());
        assert_eq!((events.take(), events.is_pending(), events.count()), (happened, false, 1));
    }

    #[test]
    fn a_line_handler_leaves_the_interrupts_of_others_alone() {
        let events = SlotEvents::default();
        let happened = SlotStatus::LINK_CHANGED.bits();
        let others = [
            // It did not ask, whatever its slot status says.
            Page { status: 0, slot_status: happened },
            // It asks for something else.
            Page { status: Status::INTERRUPT.bits(), slot_status: SlotStatus::PRESENT.bits() },
            // It is gone.
            Page { status: 0xFFFF, slot_status: 0xFFFF },
        ];
        for mut page in others {
            let before = page.slot_status;
            assert_eq!(line_interrupt(&events, &mut page, SLOT_STATUS), Handled::No);
            assert_eq!(page.slot_status, before);
        }
        assert!(!events.is_pending());
    }

    #[test]
    fn a_message_only_asks_to_be_looked_at() {
        let events = SlotEvents::default();
        assert_eq!(message_interrupt(&events), Handled::Yes);
        assert!(events.is_pending());
        assert!(events.take().is_empty());
    }
}
