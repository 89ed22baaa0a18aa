//! How a port requests service: by message (MSI-X, otherwise MSI), by its interrupt line, or not at all.
//!
//! A handler only records bits. A line's handler also clears the events that it records, since the line stays asserted
//! until then. It has its own window onto the port's configuration registers, because it may run while another CPU uses
//! the configuration ports.

use derive_more::Display;

use crate::bus::{Cause, Events, EventsLease, OutOfMemory};
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
    /// Not at all: the slot is polled.
    #[display("poll")]
    Polling,
}

impl SlotMode {
    /// All modes, best first.
    const LADDER: [Self; 4] = [Self::Msix, Self::Msi, Self::Line, Self::Polling];
}

/// The bit for any event; those of slot status are below.
const PENDING: u32 = 1 << 31;

/// What the handler recorded.
#[derive(Debug)]
pub(super) struct SlotEvents(EventsLease);

impl SlotEvents {
    /// Whether the slot must be polled. If called with interrupts off right before `sti; hlt`, `false` cannot be stale.
    pub(super) fn is_pending(&self) -> bool {
        self.0.is_pending()
    }

    /// Takes the recorded events. Later ones stay for the next call.
    pub(super) fn take(&self) -> SlotStatus {
        taken(&self.0)
    }

    /// Number of interrupts.
    pub(super) fn count(&self) -> u32 {
        self.0.count(Cause::Config) as u32
    }
}

/// Takes the recorded events.
fn taken(events: &Events) -> SlotStatus {
    SlotStatus::from_bits_retain((events.take() & !PENDING) as u16)
}

fn note(events: &Events, happened: SlotStatus) {
    events.note(Cause::Config);
    events.raise(PENDING | u32::from(happened.bits()));
}

/// The handler of a message: requests a poll.
#[doc(alias = "pciehp_isr")]
fn message_interrupt<R>(events: &Events, _: u32, _: Option<&mut R>) -> Handled {
    note(events, SlotStatus::empty());
    Handled::Yes
}

/// The handler of a line: `registers` are the port's configuration space, with slot status at `slot_status`.
fn line_interrupt<R: Registers>(events: &Events, slot_status: u32, registers: Option<&mut R>) -> Handled {
    let Some(registers) = registers else { return Handled::No };
    let slot_status = slot_status as usize;
    let status = Status::from_bits_retain(registers.read16(usize::from(STATUS)));
    // All ones: the port is gone and did not interrupt.
    if status.bits() == u16::MAX || !status.contains(Status::INTERRUPT) {
        return Handled::No;
    }
    let happened = SlotStatus::from_bits_retain(registers.read16(slot_status)).intersection(SlotStatus::EVENTS);
    if happened.is_empty() {
        return Handled::No;
    }
    registers.write16(slot_status, happened.bits());
    note(events, happened);
    Handled::Yes
}

/// The interrupt source of a port.
enum Source<R> {
    Msix { table: MsixTable<R>, vector: Vector },
    Msi { msi: EnabledMsi, vector: Vector },
    Line { vector: Vector },
    Polling,
}

/// The interrupts of a port. They end by [`SlotInterrupts::release`].
#[must_use = "vectors stay taken until they are released"]
pub(super) struct SlotInterrupts<R> {
    function: Function,
    /// The command register as found.
    command: Command,
    events: SlotEvents,
    source: Source<R>,
}

impl<R: Registers + Send + 'static> SlotInterrupts<R> {
    /// Sets up interrupts for the port with this capability: in the `forced` mode, or else in the first that works,
    /// with polling as the last. `name` is for the vector.
    ///
    /// # Errors
    /// When there is no memory for events.
    pub(super) fn find<P: Platform<Registers = R>>(
        platform: &mut P,
        port: &Node,
        express: &Express,
        name: &str,
        forced: Option<SlotMode>,
    ) -> Result<Self, OutOfMemory> {
        let events = SlotEvents(EventsLease::take()?);
        let Node { function: port, bars, .. } = port;
        close_unused_windows(platform.config(), port.bdf);
        // Messages need bus mastering, and the MSI-X table is in memory.
        let command = port.enable(platform.config(), Command::MEMORY | Command::BUS_MASTER);
        let mut target = Target { platform, port, bars, express, name, events: events.0.shared() };
        let ladder = SlotMode::LADDER.into_iter().filter(|mode| forced.is_none_or(|forced| forced == *mode));
        let source = ladder.into_iter().find_map(|mode| target.attempt(mode)).unwrap_or(Source::Polling);
        Ok(Self { function: *port, command, events, source })
    }

    /// What the handler recorded.
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

    /// Releases everything; the port's interrupts are already disabled.
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
            Source::Line { vector } => {
                self.function.set_intx(platform.config(), false);
                if let Some(registers) = platform.detach_line(vector).and_then(Handler::into_registers) {
                    platform.unmap(registers);
                }
            }
            Source::Polling => {}
        }
        // The bridge must keep forwarding to the devices behind it.
        let kept = Command::IO | Command::MEMORY | Command::BUS_MASTER;
        let now = self.function.command(platform.config()).intersection(kept);
        self.function.set_command(platform.config(), self.command | now);
    }
}

/// A port that is about to get interrupts.
struct Target<'a, P> {
    platform: &'a mut P,
    port: &'a Function,
    bars: &'a Bars,
    express: &'a Express,
    name: &'a str,
    events: &'static Events,
}

impl<P: Platform> Target<'_, P> {
    /// Sets up one mode, or changes nothing.
    fn attempt(&mut self, mode: SlotMode) -> Option<Source<P::Registers>> {
        match mode {
            SlotMode::Msix => self.msix(),
            SlotMode::Msi => self.msi(),
            SlotMode::Line => self.line(),
            SlotMode::Polling => {
                // Nothing would handle the line.
                self.port.set_intx(self.platform.config(), false);
                Some(Source::Polling)
            }
        }
    }

    fn message_vector(&mut self, mode: SlotMode) -> Option<Vector> {
        let handler = Handler::noting(message_interrupt, self.events, 0, None);
        tell(self.name, mode, self.platform.allocate_vector(format_args!("{}", self.name), handler))
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
        let enabled = msix.enable(self.platform.config(), table, pending).map_err(|(error, windows)| {
            windows.into_iter().for_each(|window| self.platform.unmap(window));
            error
        });
        let Some(mut table) = tell(self.name, SlotMode::Msix, enabled) else {
            self.platform.release_vector(vector);
            return None;
        };
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
        let registers = self.platform.map_config(self.port.bdf)?;
        let slot_status = u32::from(self.express.slot_status_offset());
        let handler = Handler::noting(line_interrupt, self.events, slot_status, Some(registers));
        let line = InterruptLine::Pin { function: self.port.bdf, pin };
        let attached = self.platform.attach_line(line, format_args!("{}", self.name), handler);
        let attached = attached.map_err(|(error, handler)| {
            if let Some(registers) = handler.into_registers() {
                self.platform.unmap(registers);
            }
            error
        });
        let vector = tell(self.name, SlotMode::Line, attached)?;
        self.port.set_intx(self.platform.config(), true);
        Some(Source::Line { vector })
    }
}

/// Logs why a mode is not available.
fn tell<T, E: core::fmt::Display>(name: &str, mode: SlotMode, outcome: Result<T, E>) -> Option<T> {
    outcome.inspect_err(|error| log::info!("{name}: no {mode} interrupts: {error}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The registers that a handler reads: command and status, slot control and slot status.
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
        let events = Events::new();
        let happened = SlotStatus::ATTENTION_BUTTON | SlotStatus::PRESENCE_CHANGED;
        let mut page = Page { status: Status::INTERRUPT.bits(), slot_status: (happened | SlotStatus::PRESENT).bits() };
        assert_eq!(line_interrupt(&events, SLOT_STATUS as u32, Some(&mut page)), Handled::Yes);
        assert_eq!(page.slot_status, SlotStatus::PRESENT.bits());
        assert!(events.is_pending());
        assert_eq!((taken(&events), events.is_pending(), events.count(Cause::Config)), (happened, false, 1));
    }

    #[test]
    fn a_line_handler_leaves_the_interrupts_of_others_alone() {
        let events = Events::new();
        let happened = SlotStatus::LINK_CHANGED.bits();
        let others = [
            // It did not interrupt, whatever its slot status shows.
            Page { status: 0, slot_status: happened },
            // It interrupts for another reason.
            Page { status: Status::INTERRUPT.bits(), slot_status: SlotStatus::PRESENT.bits() },
            // It is gone.
            Page { status: 0xFFFF, slot_status: 0xFFFF },
        ];
        for mut page in others {
            let before = page.slot_status;
            assert_eq!(line_interrupt(&events, SLOT_STATUS as u32, Some(&mut page)), Handled::No);
            assert_eq!(page.slot_status, before);
        }
        assert!(!events.is_pending());
    }

    #[test]
    fn a_message_only_requests_a_poll() {
        let events = Events::new();
        assert_eq!(message_interrupt::<Page>(&events, 0, None), Handled::Yes);
        assert!(events.is_pending());
        assert!(taken(&events).is_empty());
    }
}
