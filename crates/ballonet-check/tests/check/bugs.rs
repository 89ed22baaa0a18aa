//! Bugs put into a sound device on purpose: each is found by the check meant for it.

use super::run::{QUICK, sound, test};
use ballonet_models::{Behaviour, Bug};

/// Each bug, and the check that must find it.
const BUGS: &[(Bug, &str)] = &[
    (Bug::ResetKeepsStatus, "reset-clears-status"),
    (Bug::ResetKeepsQueueEnable, "reset-disables-queues"),
    (Bug::ResetKeepsQueueSize, "reset-restores-queue-sizes"),
    (Bug::ResetKeepsVectors, "reset-unmaps-vectors"),
    (Bug::FeaturesChange, "offered-features-hold-still"),
    (Bug::FeatureWordsRepeat, "feature-words-beyond-are-0"),
    (Bug::TakesUnofferedFeatures, "features-ok-refuses-unoffered"),
    (Bug::WantsAllFeatures, "any-offered-subset-is-taken"),
    (Bug::AbsentQueueIsQueue0, "absent-queues-have-size-0"),
    (Bug::IgnoresQueueSize, "smaller-queue-sizes-read-back"),
    (Bug::SharedQueueAddresses, "queues-are-apart"),
    (Bug::QueueEnableReads0, "queue-enable-reads-back"),
    (Bug::TakesAbsentVector, "absent-vectors-are-refused"),
    (Bug::VectorReadsBackWrong, "vectors-read-back"),
    (Bug::GenerationCountsReads, "generation-holds-still"),
    (Bug::GenerationStays, "a-new-target-changes-the-generation"),
    (Bug::TargetsAreSilent, "a-new-target-interrupts"),
    (Bug::TargetsAreSilent, "a-new-target-interrupts-by-line"),
    (Bug::StatisticsAreKept, "statistics-come-when-the-host-asks"),
    (Bug::ActualIsCut, "actual-is-kept"),
    (Bug::ActualIsTarget, "writing-actual-leaves-the-target"),
    (Bug::PoisonIsDropped, "poison-value-is-kept"),
    (Bug::ConfigurationInWordsOnly, "configuration-reads-the-same-in-parts"),
    (Bug::AccessReads0, "pci-access-reads-registers"),
    (Bug::AccessDropsWrites, "pci-access-writes-registers"),
    (Bug::IsrStays, "isr-is-cleared-by-reading"),
    (Bug::IsrIsNeverSet, "isr-tells-of-used-buffers"),
    (Bug::IsrIsSetEarly, "isr-is-0-while-idle"),
    (Bug::IsrHasJunk, "isr-has-no-undefined-bits"),
    (Bug::InterruptStatusIsNeverSet, "interrupt-status-follows-isr"),
    (Bug::MessagesAreLost, "interrupts-arrive-by-queue"),
    (Bug::QueuesRaiseConfigVector, "interrupts-come-on-their-own-vector"),
    (Bug::NoVectorIsVector0, "queues-without-vector-do-not-interrupt"),
    (Bug::IgnoresSuppression, "suppressed-interrupts-stay-away"),
    (Bug::EventIndexIsMissed, "interrupts-come-at-the-event-index"),
    (Bug::InterruptsAfterReset, "no-interrupt-after-a-reset"),
    (Bug::UsesTwice, "nothing-is-used-twice"),
    (Bug::UsedIdIsOff, "used-ids-are-outstanding"),
    (Bug::OutOfOrder, "buffers-are-used-in-order"),
    (Bug::WritesReadable, "readable-buffers-are-left-alone"),
    (Bug::WritesDriverArea, "driver-areas-are-left-alone"),
    (Bug::WritesBehindRing, "nothing-else-is-written"),
    (Bug::UsesBeforeDriverOk, "nothing-is-used-before-driver-ok"),
    (Bug::ServesEarlyKicks, "kicks-before-driver-ok-are-ignored"),
    (Bug::ForgetsEarlyBuffers, "early-buffers-are-used-after-driver-ok"),
    (Bug::AsksForNoKicks, "wanted-kicks-are-enough"),
    (Bug::SuppressionIsJunk, "suppression-flags-are-legal"),
    (Bug::LosesChains, "chains-work"),
    (Bug::LosesTables, "tables-of-one-descriptor-work"),
    (Bug::LosesUnaligned, "buffers-may-be-unaligned"),
    (Bug::LosesLarge, "requests-may-have-256-frames"),
    (Bug::LosesRingsOfOne, "rings-of-one-descriptor-work"),
    (Bug::LosesOddRings, "every-packed-size-works"),
    (Bug::NeedsResetForNothing, "kicks-for-nothing-do-no-harm"),
    (Bug::StatisticsComeBack, "statistics-wait-to-be-asked-for"),
    (Bug::LosesReports, "reports-of-free-pages-complete"),
    (Bug::LosesToldDeflates, "telling-the-host-first-works"),
    (Bug::LosesPoisoned, "balloon-works-with-poison"),
    (Bug::QueueResetNeverEnds, "queue-reset-ends"),
    (Bug::QueueResetStopsAll, "queue-reset-leaves-other-queues-alone"),
    (Bug::ResetQueueStaysDead, "a-reset-queue-works-again"),
];

#[test]
fn each_bug_is_found_by_the_check_that_is_meant_for_it() {
    let mut missed = Vec::new();
    for &(bug, name) in BUGS {
        let report = test(sound().with_bug(bug), QUICK, |_| {});
        let failed = report.failed();
        match failed.iter().find(|(failed, _)| *failed == name) {
            Some((_, detail)) => println!("{bug:?}: {name}: {detail} ({} failed in all)", failed.len()),
            None => missed.push((bug, name, failed.iter().map(|(name, _)| *name).collect::<Vec<_>>())),
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

/// Bugs whose checks need a silent host.
const SILENT: &[Bug] = &[
    Bug::GenerationCountsReads,
    Bug::ActualIsTarget,
    Bug::ConfigurationInWordsOnly,
    Bug::IsrStays,
    Bug::IsrIsSetEarly,
    Bug::InterruptStatusIsNeverSet,
    Bug::QueuesRaiseConfigVector,
    Bug::NoVectorIsVector0,
    Bug::IgnoresSuppression,
    Bug::IsrIsNeverSet,
    Bug::MessagesAreLost,
    Bug::EventIndexIsMissed,
];

#[test]
fn a_host_that_moves_the_target_now_and_then_hides_no_bug() {
    for bug in SILENT {
        let (_, name) = BUGS.iter().find(|(listed, _)| listed == bug).expect("a bug of the list");
        for seed in 1..=3 {
            let behaviour = Behaviour { moves: Some((10_000_000, seed)), ..sound().with_bug(*bug) };
            let report = test(behaviour, name, |_| {});
            assert_eq!(report.failed().len(), 1, "{bug:?}: {name}, seed {seed}: {:?}", report.outcomes);
        }
    }
}

#[test]
fn an_index_that_does_not_wrap_is_found() {
    let report = test(sound().with_bug(Bug::StopsAtTheWrap), "ring-indices-wrap", |_| {});
    assert_eq!(report.failed().len(), 1);
}
