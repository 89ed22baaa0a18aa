//! The ladder: tries each mode in order, or only the one that the caller names.
//!
//! A failed step is undone fully before the next: it releases vectors, sets the device's vector registers to
//! `NO_VECTOR`, and restores the MSI-X table and the command register. All this happens before `DRIVER_OK`, while the
//! device is silent.

use alloc::vec::Vec;
use core::fmt;

use super::{InterruptError, InterruptMode, Interrupts, QueueName};
use crate::bus::{Handler, InterruptLine, Note};
use crate::pci::{Command, Msix, MsixVector};
use crate::platform::Platform;
use crate::virtio::attachment::{Attachment, PciAttachment};
use crate::virtio::events::{bits_of, config_changed, vring_interrupt};
use crate::virtio::transport::{Transport, TransportError};

/// A device that needs interrupts.
struct Target<'a, P: Platform> {
    platform: &'a mut P,
    transport: &'a mut Transport<P::Registers>,
    attachment: &'a Attachment,
    name: &'a str,
}

/// Sets up interrupts for a device and its `queues`: in the `forced` mode, or else in the first of the ladder that
/// works. `name` is the device's, such as `virtio0`; vectors are named after it.
///
/// # Errors
/// When the forced mode is not available, and why; or when there is no memory for any.
#[doc(alias = "vp_find_vqs")]
pub(in crate::virtio) fn find_vqs<P: Platform>(
    platform: &mut P,
    transport: &mut Transport<P::Registers>,
    attachment: &Attachment,
    name: &str,
    queues: Vec<QueueName>,
    forced: Option<InterruptMode>,
) -> Result<Interrupts<P::Registers>, InterruptError> {
    let mut interrupts = Interrupts::new(queues).map_err(InterruptError::Memory)?;
    let mut target = Target { platform, transport, attachment, name };
    if let Some(mode) = forced {
        return target.attempt(mode, &mut interrupts).map(|()| interrupts);
    }
    let signals = |mode: &InterruptMode| matches!(attachment, Attachment::Pci(_)) || !mode.is_message_signalled();
    let mut has_msix = true;
    for mode in InterruptMode::LADDER.into_iter().filter(signals) {
        if mode.is_message_signalled() && !has_msix {
            continue;
        }
        match target.attempt(mode, &mut interrupts) {
            Ok(()) => return Ok(interrupts),
            Err(error) => {
                has_msix &= !matches!(error, InterruptError::NoMsix(_));
                log::info!("{name}: no {mode} interrupts: {error}");
            }
        }
    }
    unreachable!("polling cannot be refused")
}

impl<P: Platform> Target<'_, P> {
    /// Sets up one mode, or changes nothing.
    fn attempt(
        &mut self,
        mode: InterruptMode,
        interrupts: &mut Interrupts<P::Registers>,
    ) -> Result<(), InterruptError> {
        interrupts.mode = mode;
        let outcome = match mode {
            InterruptMode::PerQueue | InterruptMode::Shared => self.message_signalled(interrupts),
            InterruptMode::Line => self.line(interrupts),
            InterruptMode::Polling => {
                // Nothing would handle the line.
                if let Attachment::Pci(PciAttachment { function, .. }) = self.attachment {
                    function.set_intx(self.platform.config(), false);
                }
                Ok(())
            }
        };
        outcome.inspect_err(|_| self.undo(interrupts))
    }

    fn undo(&mut self, interrupts: &mut Interrupts<P::Registers>) {
        if interrupts.table.is_some() {
            // `NO_VECTOR` cannot be refused.
            let _ = self.transport.set_config_vector(None);
            for queue in &interrupts.queues {
                let _ = self.transport.set_queue_vector(queue.index, None);
            }
            self.transport.set_msix(false);
        }
        interrupts.clear(self.platform);
    }

    fn message_signalled(&mut self, interrupts: &mut Interrupts<P::Registers>) -> Result<(), InterruptError> {
        let shared = interrupts.mode == InterruptMode::Shared;
        let needed = 1 + if shared { 1 } else { interrupts.queues.len() };
        let msix = self.usable_msix(needed)?;
        let table = self.platform.map(msix.table).map_err(InterruptError::Map)?;
        let pending = match self.platform.map(msix.pending) {
            Ok(pending) => pending,
            Err(error) => {
                self.platform.unmap(table);
                return Err(InterruptError::Map(error));
            }
        };
        match msix.enable(self.platform.config(), table, pending) {
            Ok(table) => interrupts.table = Some(table),
            Err((error, windows)) => {
                windows.into_iter().for_each(|window| self.platform.unmap(window));
                return Err(InterruptError::Memory(error));
            }
        }
        self.transport.set_msix(true);
        let name = self.name;
        self.add_vector(interrupts, format_args!("{name}-config"), config_changed, 0)?;
        if shared {
            let queues = bits_of(interrupts.queues.iter().map(|queue| queue.index));
            self.add_vector(interrupts, format_args!("{name}-virtqueues"), vring_interrupt, queues)?;
        } else {
            for place in 0..interrupts.queues.len() {
                let queue = interrupts.queues[place];
                let bits = bits_of([queue.index]);
                self.add_vector(interrupts, format_args!("{name}-{}", queue.name), vring_interrupt, bits)?;
            }
        }
        self.assign(interrupts).map_err(InterruptError::Refused)?;
        let Some(table) = &mut interrupts.table else { return Ok(()) };
        for (entry, _) in (0..).filter_map(MsixVector::new).zip(&interrupts.vectors) {
            table.unmask(entry).map_err(InterruptError::Msix)?;
        }
        table.set_function_mask(self.platform.config(), false);
        Ok(())
    }

    /// Programs the next table entry with a new vector, whose handler records `bits` by `note`.
    fn add_vector(
        &mut self,
        interrupts: &mut Interrupts<P::Registers>,
        name: fmt::Arguments<'_>,
        note: Note<P::Registers>,
        bits: u32,
    ) -> Result<(), InterruptError> {
        let handler = Handler::noting(note, interrupts.events.shared(), bits, None);
        let vector = self.platform.allocate_vector(name, handler).map_err(InterruptError::Vector)?;
        let (number, message) = (vector.number, vector.message);
        let entry = interrupts.vectors.len();
        // There is room.
        interrupts.vectors.push(vector);
        let message = message.ok_or(InterruptError::NoMessage(number))?;
        let entry = u16::try_from(entry).ok().and_then(MsixVector::new);
        match (entry, &mut interrupts.table) {
            (Some(entry), Some(table)) => table.program(entry, message).map_err(InterruptError::Msix),
            _ => Ok(()),
        }
    }

    /// The function's MSI-X, if it has enough entries.
    fn usable_msix(&mut self, needed: usize) -> Result<Msix, InterruptError> {
        let Attachment::Pci(PciAttachment { function: pci, bars, .. }) = self.attachment else {
            return Err(InterruptError::NoMsix(self.transport.address()));
        };
        let function = pci.bdf;
        let msix = Msix::find(self.platform.config(), pci, bars).map_err(InterruptError::Msix)?;
        let msix = msix.ok_or(InterruptError::NoMsix(function.into()))?;
        if !pci.command(self.platform.config()).contains(Command::MEMORY) {
            return Err(InterruptError::NotDecoded(function));
        }
        let entries = msix.entries;
        if usize::from(entries) < needed {
            return Err(InterruptError::TooFewEntries { function, entries, needed });
        }
        Ok(msix)
    }

    /// Writes the device's vector registers: 0 for configuration changes, then the queues'.
    fn assign(&mut self, interrupts: &Interrupts<P::Registers>) -> Result<(), TransportError> {
        self.transport.set_config_vector(MsixVector::new(0))?;
        for (own, queue) in (1..).zip(&interrupts.queues) {
            let vector = if interrupts.mode == InterruptMode::Shared { 1 } else { own };
            self.transport.set_queue_vector(queue.index, MsixVector::new(vector))?;
        }
        Ok(())
    }

    fn line(&mut self, interrupts: &mut Interrupts<P::Registers>) -> Result<(), InterruptError> {
        let no_line = InterruptError::NoLine(self.transport.address());
        let (line, pci) = match self.attachment {
            Attachment::Pci(PciAttachment { function: pci, .. }) => {
                let function = pci.bdf;
                let pin = pci.interrupt_pin.ok_or(InterruptError::NoPin(function))?;
                (InterruptLine::Pin { function, pin }, Some(*pci))
            }
            Attachment::Mmio(device) => (InterruptLine::Wired(device.interrupt.ok_or(no_line)?), None),
        };
        let queues = bits_of(interrupts.queues.iter().map(|queue| queue.index));
        let handler = self.transport.line_handler(interrupts.events.shared(), queues).ok_or(no_line)?;
        match self.platform.attach_line(line, format_args!("{}", self.name), handler) {
            Ok(vector) => interrupts.vectors.push(vector),
            Err((error, handler)) => {
                if let Some(registers) = handler.into_registers() {
                    self.platform.unmap(registers);
                }
                return Err(InterruptError::Vector(error));
            }
        }
        if let Some(pci) = pci {
            pci.set_intx(self.platform.config(), true);
        }
        interrupts.line = pci;
        Ok(())
    }
}
