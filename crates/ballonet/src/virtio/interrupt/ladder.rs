//! The ladder: each mode is tried in its order, or the one that the caller names.
//!
//! A step that fails is undone fully before the next: vectors given back, the device's vector registers at `NO_VECTOR`, the
//! MSI-X table and the command register as they were found. All this happens before `DRIVER_OK`, while the device is silent.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{InterruptError, InterruptMode, Interrupts, QueueName};
use crate::bus::{Handler, InterruptLine};
use crate::pci::{Command, Msix, MsixVector};
use crate::platform::Platform;
use crate::virtio::attachment::{Attachment, PciAttachment};
use crate::virtio::events::{config_changed, shared_vring_interrupt, vring_interrupt};
use crate::virtio::transport::{Transport, TransportError};

/// A device that needs interrupts.
struct Target<'a, P: Platform> {
    platform: &'a mut P,
    transport: &'a mut Transport<P::Registers>,
    attachment: &'a Attachment,
    name: &'a str,
    queues: &'a [QueueName],
}

/// Gives a device and its `queues` interrupts: in the mode that is `forced`, or else in the first of the ladder that
/// works. `name` is the device's, `virtio0`; vectors are named after it.
///
/// # Errors
/// When the forced mode is not available, and why.
#[doc(alias = "vp_find_vqs")]
pub(in crate::virtio) fn find_vqs<P: Platform>(
    platform: &mut P,
    transport: &mut Transport<P::Registers>,
    attachment: &Attachment,
    name: &str,
    queues: &[QueueName],
    forced: Option<InterruptMode>,
) -> Result<Interrupts<P::Registers>, InterruptError> {
    let mut target = Target { platform, transport, attachment, name, queues };
    if let Some(mode) = forced {
        return target.attempt(mode);
    }
    let signals = |mode: &InterruptMode| matches!(attachment, Attachment::Pci(_)) || !mode.is_message_signalled();
    for mode in InterruptMode::LADDER.into_iter().filter(signals) {
        match target.attempt(mode) {
            Ok(interrupts) => return Ok(interrupts),
            Err(error) => log::info!("{name}: no {mode} interrupts: {error}"),
        }
    }
    unreachable!("polling needs nothing that could be refused")
}

impl<P: Platform> Target<'_, P> {
    /// Sets up one mode, or leaves everything as it was.
    fn attempt(&mut self, mode: InterruptMode) -> Result<Interrupts<P::Registers>, InterruptError> {
        let mut interrupts = Interrupts::new(mode, self.queues);
        let outcome = match mode {
            InterruptMode::PerQueue | InterruptMode::Shared => self.message_signalled(&mut interrupts),
            InterruptMode::Line => self.line(&mut interrupts),
            InterruptMode::Polling => {
                // Nobody would take the line back.
                if let Attachment::Pci(PciAttachment { function, .. }) = self.attachment {
                    function.set_intx(self.platform.config(), false);
                }
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
        interrupts.release(self.platform);
    }

    fn message_signalled(&mut self, interrupts: &mut Interrupts<P::Registers>) -> Result<(), InterruptError> {
        let plan = self.plan(interrupts);
        let msix = self.usable_msix(plan.len())?;
        let table = self.platform.map(msix.table).map_err(InterruptError::Map)?;
        let pending = match self.platform.map(msix.pending) {
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
        let (line, pci) = match self.attachment {
            Attachment::Pci(PciAttachment { function: pci, .. }) => {
                let function = pci.bdf;
                let pin = pci.interrupt_pin.ok_or(InterruptError::NoPin(function))?;
                (InterruptLine::Pin { function, pin }, Some(*pci))
            }
            Attachment::Mmio(device) => {
                let wired = device.interrupt.ok_or(InterruptError::NoLine(device.address()))?;
                (InterruptLine::Wired(wired), None)
            }
        };
        let handler = self.transport.line_handler(Arc::clone(&interrupts.events));
        let vector = self.platform.attach_line(line, self.name.to_string(), handler).map_err(InterruptError::Vector)?;
        interrupts.vectors.push(vector);
        if let Some(pci) = pci {
            pci.set_intx(self.platform.config(), true);
        }
        interrupts.line = pci;
        Ok(())
    }
}
