//! What a driver takes from its platform (queues, requests, interrupts), and how all of it goes back.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::ManuallyDrop;

use super::hinter::Hinter;
use super::poison::{self, Poison};
use super::queues::BalloonQueue;
use super::reporter::Reporter;
use super::requests::{Request, Requests};
use crate::memory::FrameRun;
use crate::pci::{Command, Function};
use crate::platform::{PageFrames, Platform};
use crate::virtio::spec::Features;
use crate::virtio::{
    Alignment, Interrupts, Layout, QueueOptions, Quiesced, RingFormat, RingLayout, Transport, TransportError,
    TransportKind, UsedLength, Virtqueue,
};

/// A queue of the balloon.
pub(super) type Vring<P, T> = Virtqueue<<P as Platform>::Memory, T>;

/// All that is to be given back when a driver ends, or when it fails to start half-way.
pub(super) struct Parts<P: Platform> {
    pub(super) function: Function,
    /// The command register as it was found.
    pub(super) command: Command,
    pub(super) inflate: Option<Vring<P, Request>>,
    pub(super) deflate: Option<Vring<P, Request>>,
    pub(super) statistics: Option<Vring<P, ()>>,
    pub(super) hinter: Option<Hinter<P>>,
    pub(super) reporter: Option<Reporter<P>>,
    /// Queues of features that were not accepted, which nobody uses: some devices do not start without them.
    pub(super) idle: Vec<Vring<P, ()>>,
    /// What free frames hold, if the device was told.
    pub(super) poison: Option<Poison<P>>,
    pub(super) requests: Option<Requests<P::Memory>>,
    pub(super) interrupts: Option<Interrupts<P::Registers>>,
}

/// A device that would not stop, and what it keeps. Dropping that gives nothing back.
pub(super) struct Unstopped<P: Platform> {
    pub(super) error: TransportError,
    pub(super) parts: ManuallyDrop<Box<Parts<P>>>,
}

/// The layout of a queue of at most `most` entries for which the device says `size`. A legacy device's queues have that
/// size and no other; `None` where it cannot be.
pub(super) fn layout(transport: TransportKind, format: RingFormat, size: u16, most: u16) -> Option<RingLayout> {
    match transport {
        TransportKind::Legacy => Layout::new(size, Alignment::Legacy).map(RingLayout::Split),
        TransportKind::Modern => RingLayout::fitting(format, size.min(most.max(1))),
    }
}

/// How queues are to work, whose requests have at most so many descriptors.
pub(super) fn queue_options(transport: TransportKind, features: Features, descriptors: u16) -> QueueOptions {
    // The device only reads. What it says it wrote means nothing to a balloon, and some count what they read.
    let used_length = match transport {
        TransportKind::Modern => UsedLength::Lenient,
        TransportKind::Legacy => UsedLength::Ignored,
    };
    QueueOptions {
        event_idx: features.contains(Features::EVENT_IDX),
        in_order: features.contains(Features::IN_ORDER),
        indirect_entries: if features.contains(Features::INDIRECT_DESC) { descriptors } else { 0 },
        used_length,
    }
}

impl<P: Platform> Parts<P> {
    /// Nothing yet, but for the function whose command register held `command`.
    pub(super) fn new(function: Function, command: Command) -> Self {
        Self {
            function,
            command,
            inflate: None,
            deflate: None,
            statistics: None,
            hinter: None,
            reporter: None,
            idle: Vec::new(),
            poison: None,
            requests: None,
            interrupts: None,
        }
    }

    /// Gives everything back, in an order that leaves nobody with what is gone: the device has stopped, so memory
    /// first, then interrupts, then the registers that their handler reads.
    ///
    /// A device that would not stop may go on using memory. It is cut off from it as far as PCI can do that, and what it
    /// was given is not used again: neither the queues nor the frames in flight.
    ///
    /// # Errors
    /// That error of a device that would not stop, and what it keeps.
    pub(super) fn dismantle<T>(
        mut self,
        platform: &mut P,
        transport: T,
        stopped: Result<Quiesced, TransportError>,
    ) -> Result<(), Unstopped<P>>
    where
        P: PageFrames,
        T: Transport<Registers = P::Registers>,
    {
        let interrupts = self.interrupts.take();
        let (function, mut command) = (self.function, self.command);
        // Before anything goes back: whatever the device says of itself, from here it can write no memory and raise no
        // message.
        function.disable(platform.config(), Command::BUS_MASTER);
        let stopped = match stopped {
            Ok(proof) => {
                self.release_memory(platform, &proof);
                Ok(())
            }
            Err(error) => {
                // Even if firmware had let it.
                command.remove(Command::BUS_MASTER);
                log::error!("{error}; the memory it was given is not used again");
                Err(Unstopped { error, parts: ManuallyDrop::new(Box::new(self)) })
            }
        };
        if let Some(interrupts) = interrupts {
            interrupts.release(platform, &function);
        }
        transport.release(platform);
        restore_command(platform, &function, command);
        stopped
    }

    /// Gives the memory back. Returns how many frames that were in flight are free, and how many ballooned.
    pub(super) fn release_memory(self, platform: &mut P, proof: &Quiesced) -> (u64, u64)
    where
        P: PageFrames,
    {
        let count = |requests: &[Request]| requests.iter().map(|request| u64::from(request.frames())).sum::<u64>();
        let (mut freed, mut ballooned) = (0, 0);
        if let Some(queue) = self.inflate {
            let requests = queue.release(platform, proof);
            freed += count(&requests);
            give_back(platform, &requests, BalloonQueue::Inflate, self.poison);
        }
        if let Some(queue) = self.deflate {
            let requests = queue.release(platform, proof);
            ballooned += count(&requests);
            give_back(platform, &requests, BalloonQueue::Deflate, self.poison);
        }
        if let Some(queue) = self.statistics {
            queue.release(platform, proof);
        }
        if let Some(hinter) = self.hinter {
            freed += hinter.release(platform, proof);
        }
        if let Some(reporter) = self.reporter {
            freed += reporter.release(platform, proof);
        }
        for queue in self.idle {
            queue.release(platform, proof);
        }
        if let Some(requests) = self.requests {
            platform.release_dma(requests.into_memory());
        }
        (freed, ballooned)
    }
}

/// Gives back the frames of requests that a device has let go of without having finished them.
pub(super) fn give_back<P: PageFrames>(
    platform: &mut P,
    requests: &[Request],
    queue: BalloonQueue,
    poison: Option<Poison<P>>,
) {
    match queue {
        // The host may have taken these or not; after the reset they are ordinary memory with any contents.
        BalloonQueue::Inflate => give(platform, requests, |platform, run| poison::release(poison, platform, run)),
        // These the host may still have: without its word they stay ballooned.
        BalloonQueue::Deflate => give(platform, requests, P::confirm_ballooned),
        BalloonQueue::Statistics => {}
    }
}

fn give<P>(platform: &mut P, requests: &[Request], give: impl Fn(&mut P, FrameRun)) {
    for run in requests.iter().flat_map(Request::runs) {
        give(platform, *run);
    }
}

/// Puts decoding and bus mastering back to what was found. INTx stays off: nobody is there to serve the line.
pub(super) fn restore_command<P: Platform>(platform: &mut P, function: &Function, found: Command) {
    let ours = Command::IO | Command::MEMORY | Command::BUS_MASTER;
    function.disable(platform.config(), ours - found);
    function.enable(platform.config(), ours & found);
}
