//! A thread per guest, so that a hanging QEMU delays neither the picture nor the other guests.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::guest::Guest;
use crate::model::{Mark, Sample, State};

/// A request to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Set the guest's target, in bytes.
    Target(u64),
    /// Poll statistics at this interval, in seconds; 0 for never.
    Statistics(u64),
    /// End the thread; with `quit`, also QEMU.
    End { quit: bool },
}

/// News from a guest's thread.
pub(crate) struct Update {
    /// Which guest.
    pub(crate) guest: usize,
    /// The figures.
    pub(crate) sample: Sample,
    /// Events since the last update.
    pub(crate) marks: Vec<Mark>,
    /// The guest's state.
    pub(crate) state: State,
    /// Why an order failed.
    pub(crate) error: Option<String>,
}

/// A guest's thread.
pub(crate) struct Worker {
    orders: Sender<Order>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Sends a sample every `interval` as guest `number`, until ordered to end or QEMU ends.
    pub(crate) fn start(number: usize, guest: Guest, interval: Duration, updates: Sender<Update>) -> Self {
        let (orders, inbox) = channel();
        let thread = thread::spawn(move || serve(number, guest, interval, &inbox, &updates));
        Self { orders, thread }
    }

    /// Sends an order. An update brings the answer.
    pub(crate) fn order(&self, order: Order) {
        // A thread that has ended has already sent the reason.
        let _ = self.orders.send(order);
    }

    /// Waits until the thread has left its guest.
    pub(crate) fn join(self) {
        let _ = self.thread.join();
    }
}

fn serve(number: usize, mut guest: Guest, interval: Duration, inbox: &Receiver<Order>, updates: &Sender<Update>) {
    let mut due = Instant::now();
    let mut error = None;
    loop {
        match inbox.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(Order::End { quit }) => {
                guest.leave();
                if quit {
                    guest.quit();
                }
                return;
            }
            // Show the result at once.
            Ok(order) => error = obey(&mut guest, order).err(),
            Err(RecvTimeoutError::Timeout) => {
                due += interval;
                // Missed samples are skipped.
                due = due.max(Instant::now());
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let sample = guest.sample();
        let (marks, state) = (guest.take_marks(), guest.state().clone());
        if updates.send(Update { guest: number, sample, marks, state, error: error.take() }).is_err()
            || guest.has_ended()
        {
            return;
        }
    }
}

fn obey(guest: &mut Guest, order: Order) -> Result<(), String> {
    match order {
        Order::Target(bytes) => guest.set_target(bytes),
        Order::Statistics(seconds) => guest.poll_statistics(seconds),
        Order::End { .. } => Ok(()),
    }
    .map_err(|error| format!("{}: {error}", guest.name))
}
