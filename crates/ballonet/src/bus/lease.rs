//! Events for a driver and its interrupt handlers.
//!
//! A handler may run on another CPU at any moment until its vector is released, so it may not borrow from its driver;
//! and stable Rust has no shared allocation (`Arc`) that fails without a panic. So events are never freed: a free list
//! keeps unused ones for the next driver. There are as many as devices that ever ran at the same time.

use alloc::vec::Vec;
use core::ops::Deref;

use spin::Mutex;

use super::{Events, OutOfMemory, heap};

/// Events, and a link for the list of unused ones.
#[derive(Debug)]
struct Node {
    events: Events,
    next: Mutex<Option<&'static Node>>,
}

/// The head of the list of unused events.
static SPARE: Mutex<Option<&'static Node>> = Mutex::new(None);

/// A driver's events; another driver may reuse them after it is dropped.
#[derive(Debug)]
pub(crate) struct EventsLease(&'static Node);

impl EventsLease {
    /// Cleared events.
    ///
    /// # Errors
    /// When the heap has no room for new ones.
    pub(crate) fn take() -> Result<Self, OutOfMemory> {
        if let Some(node) = pop() {
            node.events.clear();
            return Ok(Self(node));
        }
        // No lock is held here: to allocate, a kernel may have to deflate a balloon.
        let mut nodes: Vec<Node> = heap::vector(1)?;
        nodes.push(Node { events: Events::new(), next: Mutex::new(None) });
        let nodes: &'static [Node] = nodes.leak();
        Ok(Self(&nodes[0]))
    }

    /// For handlers.
    pub(crate) const fn shared(&self) -> &'static Events {
        &self.0.events
    }
}

fn pop() -> Option<&'static Node> {
    let mut spare = SPARE.lock();
    let node = (*spare)?;
    *spare = node.next.lock().take();
    Some(node)
}

impl Deref for EventsLease {
    type Target = Events;

    fn deref(&self) -> &Events {
        self.shared()
    }
}

impl Drop for EventsLease {
    fn drop(&mut self) {
        let mut spare = SPARE.lock();
        *self.0.next.lock() = spare.replace(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Cause;

    #[test]
    fn events_of_an_earlier_driver_are_as_new() {
        for _ in 0..100 {
            let events = [EventsLease::take().unwrap(), EventsLease::take().unwrap()];
            assert!(!core::ptr::eq(events[0].shared(), events[1].shared()), "two drivers have the same");
            for events in &events {
                assert_eq!((events.take(), events.count(Cause::Config), events.count(Cause::Stray)), (0, 0, 0));
                events.raise(1);
                events.note(Cause::Config);
                events.note(Cause::Stray);
            }
        }
    }
}
