//! The hot-plug slot that the device is in: the host unplugs the device there, and plugs it in again.
//!
//! An unplug has three parts, as on a PC: the host presses the slot's button, the driver lets the device go, and the slot's
//! power is switched off, upon which the device disappears. A device that is plugged in gets power, and then the header that
//! it had.

use super::function_reset::Header;
use super::{MSIX_CONTROL, MSIX_ENABLE, TestDevice};
use crate::host::HostAction;
use crate::verdict::{Stop, Verdict, fail, skip_unless, trouble_unless};
use ballonet::hotplug::{PolledSlot, Stage, Task, Timing};
use ballonet::pci::capability::id;
use ballonet::pci::{Command, ConfigSpace, Function};

/// The wait for the host, as a multiple of the wait for a device.
const STALLS: u64 = 5;

/// A slot that is served, and its device.
pub(crate) struct CardSlot {
    slot: PolledSlot,
    function: Function,
    /// What the device had before the host unplugged it.
    header: Header,
}

/// A function that was just plugged in, before anything was written to it.
pub(crate) struct NewFunction {
    pub(crate) command: Command,
    /// Whether MSI-X is on.
    pub(crate) sends_messages: bool,
}

impl TestDevice<'_> {
    /// Has the host request the device's removal, and waits for the press of the slot's button. The device works on.
    pub(crate) fn request_unplug(&mut self) -> Verdict {
        self.serve_slot()?;
        self.ask_host_to(HostAction::Unplug)?;
        let mut removal = None;
        self.await_slot("the host was to unplug the device, and nobody pressed the slot's button", |_, task| {
            removal = task.or(removal);
            removal.is_some()
        })?;
        match removal {
            Some(Task::Remove { surprise: false }) => Ok(()),
            _ => fail!("the slot lost the device, which still had a driver"),
        }
    }

    /// Switches the slot's power off. The host then takes the device.
    pub(crate) fn power_off(&mut self) -> Verdict {
        let now = self.platform.now();
        if let Some(card) = &mut self.slot {
            card.slot.removed(&mut self.platform.config(), now);
        }
        self.await_slot("the slot's power was not switched off", |slot, _| rests(slot, Stage::Off))
    }

    /// Waits until the function no longer answers; `false` if it still does.
    pub(crate) fn is_absent(&mut self) -> Verdict<bool> {
        let bdf = self.function()?.function.bdf;
        let limit = self.patience.stall;
        self.wait(limit, |device| Ok(device.platform.config().read32(bdf, 0) == u32::MAX))
    }

    /// Has the host plug the device in, switches the slot's power on, and restores the device's header. Nothing else is
    /// written to it.
    pub(crate) fn plug_in(&mut self) -> Verdict<NewFunction> {
        self.ask_host_to(HostAction::Plug)?;
        self.await_slot("the host was to plug the device in, and it did not come", |slot, task| {
            task == Some(Task::Add) || slot.stage() == Stage::Adding
        })?;
        let new = self.put_back_header()?;
        self.await_slot("the slot did not settle", |slot, _| rests(slot, Stage::On))?;
        Ok(new)
    }

    /// Unplugs and plugs.
    pub(crate) fn replug(&mut self) -> Verdict<NewFunction> {
        self.request_unplug()?;
        self.power_off()?;
        self.plug_in()
    }

    /// Brings the device back if a check left it unplugged, and serves the slot no longer.
    pub(crate) fn leave_slot(&mut self) -> Verdict {
        let outcome = match self.slot.as_ref().map(|card| card.slot.stage()) {
            None | Some(Stage::On) => Ok(()),
            Some(Stage::Removing) => self.power_off().and_then(|()| self.plug_in()).map(drop),
            Some(Stage::Adding) => self.put_back_header().map(drop),
            Some(_) => self.plug_in().map(drop),
        };
        if let Some(card) = self.slot.take() {
            card.slot.release(&mut self.platform.config());
        }
        outcome.map_err(|stop| Stop::trouble(format_args!("the device stays unplugged: {}", stop.reason())))
    }

    /// Begins to serve the slot; skips the check where there is none.
    fn serve_slot(&mut self) -> Verdict {
        if self.slot.is_some() {
            return Ok(());
        }
        let function = self.function()?.function;
        let Some(port) = self.port else {
            return Err(Stop::skipped(format_args!(
                "no host program unplugs the device here; ballonet-check does for QEMU"
            )));
        };
        let config = &self.platform.config();
        let slot = Function::probe(config, port).map(|port| PolledSlot::find(config, &port, Timing::PROMPT));
        let Some(mut slot) = slot.transpose().map_err(|error| Stop::failed(format_args!("{error}")))?.flatten() else {
            return Err(Stop::skipped(format_args!("the device is in no slot with native hot-plug")));
        };
        // Where ACPI does the hot-plug, the slot's registers may say anything.
        skip_unless!(slot.stage() == Stage::On, "the slot of the device is not on, but {}", slot.stage());
        let header = Header::read(config, function.bdf);
        let now = self.platform.now();
        slot.start(&mut self.platform.config(), now);
        self.slot = Some(CardSlot { slot, function, header });
        self.await_slot("the slot did not settle", |slot, _| rests(slot, Stage::On))
    }

    /// Requests an action that the slot shows.
    fn ask_host_to(&mut self, action: HostAction) -> Verdict {
        let taken = self.host.borrow_mut().ask_host(action, None);
        skip_unless!(taken, "no host program performs `{}` here; ballonet-check does for QEMU", action.word());
        Ok(())
    }

    /// Serves the slot until something holds. Ends the check without a verdict, with `otherwise`, if it does not in time:
    /// the wait is for the host, which may be late.
    fn await_slot(&mut self, otherwise: &str, mut holds: impl FnMut(&PolledSlot, Option<Task>) -> bool) -> Verdict {
        let limit = self.patience.stall * STALLS;
        let done = self.wait(limit, |device| {
            let now = device.platform.now();
            let Some(card) = &mut device.slot else { return Err(Stop::trouble(format_args!("no slot is served"))) };
            let report = card.slot.poll(&mut device.platform.config(), now);
            let report = report.map_err(|error| Stop::failed(format_args!("{error}")))?;
            if let Some(error) = report.errors.into_iter().flatten().next() {
                fail!("{error}");
            }
            Ok(holds(&card.slot, report.task))
        })?;
        let stage = self.slot.as_ref().map_or(Stage::Off, |card| card.slot.stage());
        trouble_unless!(done, "{otherwise} within {} ms; the slot's state: {stage}", limit / 1_000_000);
        Ok(())
    }

    /// Reads what the new function has, and gives it the header of the old one.
    fn put_back_header(&mut self) -> Verdict<NewFunction> {
        let now = self.platform.now();
        let Some(card) = &mut self.slot else { return Err(Stop::trouble(format_args!("no slot is served"))) };
        let config = &mut self.platform.config();
        let bdf = card.function.bdf;
        let Some(function) = Function::probe(config, bdf) else {
            fail!("the device was plugged in, and no function answers at {bdf}");
        };
        // Not the device under test: it gets no header that is not its own, and no verdict.
        let (vendor, before) = (function.vendor, card.function.vendor);
        trouble_unless!(vendor == before, "a function of vendor {vendor:#06x} was plugged in, not of {before:#06x}");
        let messages = function.capability(config, id::MSI_X).ok().flatten();
        let control = messages.map_or(0, |found| config.read16(bdf, found.offset + MSIX_CONTROL));
        let new = NewFunction { command: function.command(config), sends_messages: control & MSIX_ENABLE != 0 };
        card.header.restore(config, bdf);
        if let Some(error) = card.slot.added(config, true, now) {
            fail!("{error}");
        }
        Ok(new)
    }
}

/// Whether a slot has reached a stage, and its port shows that.
fn rests(slot: &PolledSlot, stage: Stage) -> bool {
    slot.stage() == stage && slot.deadline().is_none()
}
