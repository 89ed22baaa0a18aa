//! Bugs that a device can have, one at a time: the tester of devices has to find each of them.

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress};

use super::balloon::Balloon;
use super::behaviour::feature;
use super::bus::Bus;
use super::queue::{INDIRECT, Purpose, Request, WRITE};

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    // Registers.
    /// A reset leaves ACKNOWLEDGE in the status.
    ResetKeepsStatus,
    /// A reset leaves queues enabled, as far as `queue_enable` says.
    ResetKeepsQueueEnable,
    /// A reset leaves queue sizes as the driver set them.
    ResetKeepsQueueSize,
    /// A reset leaves events with their vectors.
    ResetKeepsVectors,
    /// After `FEATURES_OK` fewer features are offered.
    FeaturesChange,
    /// Feature words beyond the second repeat the first two.
    FeatureWordsRepeat,
    /// `FEATURES_OK` sticks whatever was accepted.
    TakesUnofferedFeatures,
    /// `FEATURES_OK` does not stick unless all features are accepted.
    WantsAllFeatures,
    /// Selectors of absent queues show queue 0.
    AbsentQueueIsQueue0,
    /// A smaller queue size is ignored.
    IgnoresQueueSize,
    /// All queues share the address registers.
    SharedQueueAddresses,
    /// `queue_enable` reads 0 always.
    QueueEnableReads0,
    /// A vector beyond the table is taken.
    TakesAbsentVector,
    /// A vector reads back as the one after it.
    VectorReadsBackWrong,
    /// `config_generation` counts reads.
    GenerationCountsReads,
    /// `actual` keeps its low 16 bits only.
    ActualIsCut,
    /// A write of `actual` changes `num_pages` too.
    ActualIsTarget,
    /// `poison_val` is not stored.
    PoisonIsDropped,
    /// Narrow reads of a configuration field give its low byte.
    ConfigurationInWordsOnly,
    /// The window in configuration space reads 0.
    AccessReads0,
    /// The window in configuration space drops writes.
    AccessDropsWrites,

    // Interrupts.
    /// Reading the ISR byte does not clear it.
    IsrStays,
    /// The ISR byte stays 0.
    IsrIsNeverSet,
    /// The ISR byte has a bit of no meaning.
    IsrHasJunk,
    /// The queue bit of the ISR byte is set at `DRIVER_OK`.
    IsrIsSetEarly,
    /// Interrupt Status is never set.
    InterruptStatusIsNeverSet,
    /// Used buffers send no message.
    MessagesAreLost,
    /// Used buffers raise the vector of configuration changes.
    QueuesRaiseConfigVector,
    /// Queues without a vector raise vector 0.
    NoVectorIsVector0,
    /// The driver's wish not to be interrupted is ignored.
    IgnoresSuppression,
    /// With `EVENT_IDX` no buffer interrupts but the first.
    EventIndexIsMissed,
    /// A message is sent after each reset.
    InterruptsAfterReset,

    // Rings.
    /// Each used entry is there twice.
    UsesTwice,
    /// Used entries name the next descriptor.
    UsedIdIsOff,
    /// Of several buffers the second comes back first.
    OutOfOrder,
    /// A readable buffer is written.
    WritesReadable,
    /// The available ring's flags, or the driver's event suppression structure, are written.
    WritesDriverArea,
    /// The byte behind the used ring, or the device's event suppression structure, is written.
    WritesBehindRing,
    /// Available buffers are used as soon as a queue is enabled.
    UsesBeforeDriverOk,
    /// Kicks are served before `DRIVER_OK`.
    ServesEarlyKicks,
    /// Buffers that were available before `DRIVER_OK` are passed over.
    ForgetsEarlyBuffers,
    /// The device says that it needs no kicks, and goes to sleep.
    AsksForNoKicks,
    /// The device's flags for the kicks it wants are ones that do not exist.
    SuppressionIsJunk,
    /// A request of several descriptors is never used.
    LosesChains,
    /// A request with a table is never used.
    LosesTables,
    /// A buffer at an odd address is never used.
    LosesUnaligned,
    /// A request of more than 64 frames is never used.
    LosesLarge,
    /// A queue of one entry is not served.
    LosesRingsOfOne,
    /// A queue whose size is no power of two is not served.
    LosesOddRings,
    /// After 40000 requests a queue is not served any more.
    StopsAtTheWrap,
    /// A kick without a buffer is an error that needs a reset.
    NeedsResetForNothing,

    // The balloon's own.
    /// The statistics buffer comes back at once, always.
    StatisticsComeBack,
    /// Reports of free pages are never used.
    LosesReports,
    /// With `MUST_TELL_HOST` deflate requests are never used.
    LosesToldDeflates,
    /// With `PAGE_POISON` inflate requests are never used.
    LosesPoisoned,

    // Resets of single queues.
    /// `queue_reset` reads 1 for ever.
    QueueResetNeverEnds,
    /// A reset of one queue stops all.
    QueueResetStopsAll,
    /// A queue that was reset is not served again.
    ResetQueueStaysDead,
}

impl Balloon {
    fn has(&self, bug: Bug) -> bool {
        self.behaviour.has(bug)
    }

    /// Whether a request is taken and never used.
    pub(super) fn loses(&self, index: u16, request: &Request) -> bool {
        let Some(bug) = self.behaviour.bug else { return false };
        let queue = self.queue(index);
        let table = request.chain.first().is_some_and(|(_, head)| head.flags & INDIRECT != 0);
        let accepted = |bit| self.common.accepted() & bit != 0;
        match bug {
            Bug::LosesChains => request.chain.len() > 1 && !table,
            Bug::LosesTables => table,
            Bug::LosesUnaligned => request.chain.iter().any(|(_, d)| d.address % 4 != 0),
            Bug::LosesLarge => request.bytes.len() > 4 * 64,
            Bug::LosesRingsOfOne => queue.size() == 1,
            Bug::LosesOddRings => !queue.size().is_power_of_two(),
            Bug::StopsAtTheWrap => queue.completed > 40_000,
            Bug::LosesReports => queue.purpose == Purpose::Reporting,
            Bug::LosesToldDeflates => queue.purpose == Purpose::Deflate && accepted(feature::MUST_TELL_HOST),
            Bug::LosesPoisoned => queue.purpose == Purpose::Inflate && accepted(feature::PAGE_POISON),
            Bug::QueueResetStopsAll => self.common.queues.iter().any(|q| q.idle.is_some()),
            Bug::ResetQueueStaysDead => queue.resets > 0,
            _ => false,
        }
    }

    /// What goes wrong at `DRIVER_OK`.
    pub(super) fn misbehave_at_start(&mut self, bus: &mut Bus) {
        if self.has(Bug::IsrIsSetEarly) {
            self.interrupts.set_isr_early();
        }
        if self.has(Bug::ForgetsEarlyBuffers) {
            self.common.queues.iter_mut().filter(|q| q.enabled).for_each(|queue| drop(queue.take_available(bus)));
        }
    }

    /// What goes wrong when a kick has been handled.
    pub(super) fn misbehave_when_asked(&mut self, index: u16, bus: &mut Bus) {
        match self.behaviour.bug {
            Some(Bug::AsksForNoKicks) => self.queue(index).suppress(1, bus),
            Some(Bug::SuppressionIsJunk) => self.queue(index).suppress(0x103, bus),
            _ => {}
        }
    }

    /// What goes wrong when a request is used.
    pub(super) fn misbehave_at_completion(&mut self, index: u16, request: &Request, bus: &mut Bus) {
        let [(driver, _), (device, length)] = self.queue(index).driver_and_device_areas();
        let memory = bus.ram.memory();
        let flip = |at: u64| {
            let byte = memory.load::<u8>(GuestAddress(at), Ordering::Relaxed).expect("ring in RAM");
            memory.store(byte ^ 0xff, GuestAddress(at), Ordering::Relaxed).expect("ring in RAM");
        };
        let readable = |flags: u16| flags & (WRITE | INDIRECT) == 0;
        match self.behaviour.bug {
            Some(Bug::WritesReadable) => {
                let buffer = request.chain.iter().find(|(_, d)| readable(d.flags));
                if let Some((_, buffer)) = buffer {
                    flip(buffer.address);
                }
            }
            // Bytes that mean nothing: the ring goes on.
            Some(Bug::WritesDriverArea) => {
                memory.write_obj(0xffff_u16, GuestAddress(driver)).expect("ring in RAM");
            }
            Some(Bug::WritesBehindRing) => {
                memory.write_obj(0x99_u8, GuestAddress(device + length)).expect("ring in RAM");
            }
            _ => {}
        }
    }
}
