//! Free page hinting on the device's side (virtio 1.4, 5.5.6.5): the command that asks for hints, and the driver's
//! answers. It checks the driver's protocol, and reclaims the memory behind each hinted frame, as some hosts do.

use std::collections::BTreeSet;

use crate::device::pages::lent;
use crate::queue::{INDIRECT, Request, WRITE};
use crate::world::Bus;
use crate::world::{GuestSide, HostSide};

/// From the host: stop hinting, hinted frames stay. From the driver: the round is over.
pub(crate) const STOP: u32 = 0;
/// Hinted frames may be used again.
pub(crate) const DONE: u32 = 1;

/// The state of both sides.
#[derive(Debug, Default)]
pub struct Hints {
    command: u32,
    /// Commands given since the last reset.
    given: BTreeSet<u32>,
    /// The command that the driver read last.
    seen: u32,
    /// The round that the driver opened last, unless it has read DONE since.
    opened: Option<u32>,
    /// The driver has read DONE, but an opening that it published before may still be in the queue.
    opening_before_done: bool,
    /// The round that is open.
    open: Option<u32>,
    /// Commands that came from the driver.
    pub commands: Vec<u32>,
    /// Frames hinted in rounds that were current when the hint came, in total.
    pub heeded: u64,
    /// The longest hint, in frames.
    pub longest: usize,
}

impl Hints {
    /// The host sets a command.
    pub fn give(&mut self, command: u32) {
        self.command = command;
        self.given.insert(command);
    }

    /// The device is reset: rounds start over, and the driver owns the frames that it holds.
    pub(crate) fn reset(&mut self, bus: &mut Bus) {
        let (commands, heeded, longest) = (std::mem::take(&mut self.commands), self.heeded, self.longest);
        *self = Self { command: STOP, commands, heeded, longest, ..Self::default() };
        bus.ram.hints_count = false;
    }

    /// The driver reads the command. In QEMU it reads STOP while a round is open.
    pub fn read(&mut self, stop_while_open: bool, bus: &mut Bus) -> u32 {
        let under_way = stop_while_open && self.open == Some(self.command);
        self.seen = if under_way { STOP } else { self.command };
        if self.seen == DONE {
            self.opened = None;
            self.opening_before_done = true;
            bus.ram.hints_count = false;
        }
        self.seen
    }

    /// Takes a buffer from the driver. `at_once`: it was just published, so the driver knew the last command it read.
    pub fn take(&mut self, request: &Request, at_once: bool, bus: &mut Bus) {
        let parts = || request.chain.iter().map(|(_, descriptor)| descriptor).filter(|d| d.flags & INDIRECT == 0);
        if parts().any(|part| part.flags & WRITE == 0) {
            return self.take_command(request, parts().count(), at_once, bus);
        }
        if self.open.is_none() {
            bus.misstep("BAL-HINT-02", "free memory before the round's id");
        }
        if at_once && self.seen <= DONE {
            bus.misstep("BAL-HINT-05", format!("free memory after the command {}", self.seen));
        }
        let (frames, whole) = lent(request);
        if !whole || frames.is_empty() {
            bus.misstep("BAL-HINT-04", format!("a hint of {:?}", request.chain));
        }
        self.longest = self.longest.max(frames.len());
        self.heeded += if self.open == Some(self.command) { frames.len() as u64 } else { 0 };
        bus.ram.hints_count |= self.seen != DONE;
        frames.into_iter().for_each(|pfn| take_hinted(pfn, bus));
    }

    fn take_command(&mut self, request: &Request, parts: usize, at_once: bool, bus: &mut Bus) {
        let Some(bytes) = request.bytes.first_chunk().filter(|bytes| request.bytes.len() == bytes.len() && parts == 1)
        else {
            return bus.misstep("BAL-HINT-01", format!("a command of {} bytes", request.bytes.len()));
        };
        let command = u32::from_le_bytes(*bytes);
        self.commands.push(command);
        if command == STOP {
            if self.open.take().is_none() {
                bus.misstep("BAL-HINT-06", "a round was closed that is not open");
            }
            return;
        }
        if let Some(open) = self.open {
            bus.misstep("BAL-HINT-06", format!("round {command:#x} opened before {open:#x} was closed"));
        }
        if command == DONE || !self.given.contains(&command) {
            bus.misstep("BAL-HINT-02", format!("round {command:#x} opened, for which the host did not ask"));
        }
        let before_done = std::mem::take(&mut self.opening_before_done) && !at_once;
        if self.opened.replace(command) == Some(command) {
            bus.misstep("BAL-HINT-03", format!("round {command:#x} opened twice"));
        }
        // DONE has come after it, so the same id may be opened again.
        if before_done {
            self.opened = None;
        }
        self.open = Some(command);
    }

    /// When idle, no round is open, and after DONE the driver holds no frames.
    pub fn check_idle(&self, bus: &mut Bus) {
        if let Some(open) = self.open {
            bus.misstep("BAL-HINT-06", format!("round {open:#x} is not closed"));
        }
        let left = bus.ram.count_host(HostSide::Hinted);
        if self.seen == DONE && left > 0 {
            bus.misstep("BAL-HINT-10", format!("{left} frames stay hinted although the host is done"));
        }
    }
}

/// A frame is hinted and the host reclaims its memory: the frame must be the driver's.
fn take_hinted(pfn: u32, bus: &mut Bus) {
    if !bus.ram.contains(pfn) || bus.ram.guest_side(pfn) != GuestSide::Driver {
        return bus.misstep("BAL-HINT-04", format!("hint of {pfn:#x}, which the driver was not given"));
    }
    if !matches!(bus.ram.host_side(pfn), HostSide::Guest | HostSide::Hinted | HostSide::Unknown) {
        bus.misstep("BAL-HINT-04", format!("hint of {pfn:#x}, which is {:?}", bus.ram.host_side(pfn)));
    }
    bus.ram.set_host_side(pfn, HostSide::Hinting);
    bus.ram.discard(pfn);
}

/// The device returns a hint. Its frames must be untouched.
pub(crate) fn finish_hinted(request: &Request, bus: &mut Bus) {
    if request.chain.iter().any(|(_, descriptor)| descriptor.flags & (WRITE | INDIRECT) == 0) {
        return;
    }
    for pfn in lent(request).0 {
        if !bus.ram.untouched(pfn) {
            bus.misstep("BAL-HINT-07", format!("{pfn:#x} was written before its hint came back"));
        }
        bus.ram.set_host_side(pfn, HostSide::Hinted);
    }
}
