//! The reach of a device model: guest RAM, the clock, the interrupt controller, and the list of missteps.

use std::collections::VecDeque;

use ballonet::platform::MsiMessage;

use crate::behaviour::{Harm, Weakness};
use crate::world::Ram;

/// The most missteps kept, so that a driver that loops on one does not fill the memory.
const MOST_MISSTEPS: usize = 64;

/// A violation by the driver or the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misstep {
    /// The clause or rule broken, such as `STATUS-02`.
    pub clause: &'static str,
    /// The violation, in words.
    pub what: String,
}

/// A message-signalled interrupt on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlight {
    pub due: u64,
    pub message: MsiMessage,
}

/// The world as devices see it.
#[derive(Debug)]
pub struct Bus {
    pub ram: Ram,
    /// Virtual time in nanoseconds.
    pub now: u64,
    pub(crate) messages: VecDeque<InFlight>,
    missteps: Vec<Misstep>,
    /// The misstep that a device does not survive, and whether it happened since [`Bus::take_harm`].
    weakness: Option<Weakness>,
    hit: bool,
}

impl Bus {
    pub fn new(ram: Ram) -> Self {
        Self { ram, now: 1_000_000, messages: VecDeque::new(), missteps: Vec::new(), weakness: None, hit: false }
    }

    /// Records a misstep.
    pub(crate) fn misstep(&mut self, clause: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.hit |= self.weakness.is_some_and(|weak| weak.clause == clause && what.contains(weak.words));
        if self.missteps.len() < MOST_MISSTEPS {
            self.missteps.push(Misstep { clause, what });
        }
    }

    /// A device with this weakness is on the bus.
    pub(crate) fn expect(&mut self, weakness: Option<Weakness>) {
        self.weakness = weakness.or(self.weakness);
    }

    /// The harm that is due.
    pub(crate) fn take_harm(&mut self) -> Option<Harm> {
        std::mem::take(&mut self.hit).then_some(self.weakness?.harm)
    }

    pub fn missteps(&self) -> &[Misstep] {
        &self.missteps
    }

    /// Sends a message-signalled interrupt that arrives after `delay` nanoseconds.
    pub(crate) fn send(&mut self, message: MsiMessage, delay: u64) {
        self.messages.push_back(InFlight { due: self.now + delay, message });
    }

    /// Delivers all messages in flight at once: a read flushes earlier posted writes.
    pub(crate) fn flush_messages(&mut self) {
        let now = self.now;
        self.messages.iter_mut().for_each(|m| m.due = m.due.min(now));
    }

    /// The first message that has arrived.
    pub(crate) fn arrived(&mut self) -> Option<MsiMessage> {
        let at = self.messages.iter().position(|m| m.due <= self.now)?;
        self.messages.remove(at).map(|m| m.message)
    }
}
