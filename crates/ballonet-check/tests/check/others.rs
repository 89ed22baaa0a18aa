//! Devices of other types, and every transport: sound ones pass, and each bug is found by the check that is meant for
//! it.

use super::run::{ENDS, PATIENCE, QUICK, RAM, Report, sound, with_access};
use ballonet_check::{Check, Outcome, Selection, Severity, Subject, run};
use ballonet_models::{Behaviour, Bug, Capability, Machine, ModelPlatform, feature};

/// Makes another device of one.
pub type Change = fn(Behaviour) -> Behaviour;

/// A device by each transport that it can have.
pub const TRANSPORTS: [(&str, Change); 5] = [
    ("modern", |device| device),
    ("transitional", |device| with_access(without_access(device).transitional())),
    ("legacy", |device| without_access(device).legacy()),
    ("mmio", Behaviour::on_mmio),
    ("mmio-legacy", Behaviour::on_legacy_mmio),
];

fn without_access(mut device: Behaviour) -> Behaviour {
    device.layout.capabilities.retain(|capability| !matches!(capability, Capability::Raw(_)));
    device
}

/// A device of each type that the models know.
pub const TYPES: [(&str, Change); 6] = [
    ("balloon", |device| device),
    ("rng", |device| device.entropy(7)),
    ("blk", |device| device.block(false)),
    ("read-only blk", |device| device.block(true)),
    ("console", Behaviour::console),
    ("net", Behaviour::network),
];

/// Runs checks on a device; block devices may be written, and a legacy interface is preferred.
pub fn test_by(behaviour: Behaviour, list: &str, legacy: bool) -> Report {
    let (machine, at) = Machine::with_balloon(RAM, behaviour);
    let mut platform = ModelPlatform::new(&machine);
    let selection = Selection::parse(list, |unknown| panic!("no check is named {unknown}"));
    let mut outcomes = Vec::new();
    let subject = Subject { handle: machine.handle(at), legacy, writes: true, memory: Some(ENDS), port: None };
    let summary = run(&mut platform, subject, &selection, PATIENCE, |check: &Check, outcome: &Outcome| {
        outcomes.push((check.name, check.severity, outcome.clone()));
    });
    Report { outcomes, summary }
}

/// Both interfaces of a device that has a legacy one.
fn by_both(name: &str) -> &'static [bool] {
    if name == "transitional" { &[false, true] } else { &[false] }
}

/// A sound device of a type, by a transport, without what no device on that transport can offer.
pub fn device(of_type: Change, by: Change) -> Behaviour {
    of_type(by(sound()))
}

#[test]
fn sound_devices_of_every_type_pass_by_every_transport() {
    let mut failures = Vec::new();
    for (transport, by) in TRANSPORTS {
        for (name, of_type) in TYPES {
            for legacy in by_both(transport) {
                let report = test_by(device(of_type, by), QUICK, *legacy);
                let failed: Vec<_> =
                    report.failed().into_iter().filter(|(name, _)| *name != "mmio-version-is-2").collect();
                if !failed.is_empty() || report.summary.ended.is_some() || report.summary.troubled > 0 {
                    failures.push((transport, name, legacy, failed, report.summary));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn enough_applies_to_each() {
    for (transport, by) in TRANSPORTS {
        for (name, of_type) in TYPES {
            let report = test_by(device(of_type, by), QUICK, false);
            assert!(report.summary.ok > 60, "{name} by {transport}: {:?}", report.summary);
        }
    }
}

/// A bug, the device that has it, its transport by index in the list, and the check that must find it.
type Case = (Bug, usize, usize, &'static str);

const MODERN: usize = 0;
const LEGACY: usize = 2;
const MMIO: usize = 3;
const BALLOON: usize = 0;
const RNG: usize = 1;
const BLK: usize = 2;
const RO_BLK: usize = 3;
const CONSOLE: usize = 4;
const NET: usize = 5;

const BUGS: &[Case] = &[
    (Bug::RandomIsEmpty, RNG, MODERN, "rng-gives-at-least-a-byte"),
    (Bug::RandomIsNotWritten, RNG, MODERN, "rng-writes-what-it-says"),
    (Bug::RandomRepeats, RNG, MODERN, "rng-answers-differ"),
    (Bug::RandomClaimsTooMuch, RNG, MODERN, "rng-gives-no-more-than-fits"),
    (Bug::RandomStartsOver, RNG, MODERN, "rng-does-not-start-over"),
    (Bug::BlockSizeIsOdd, BLK, MODERN, "blk-block-size-is-legal"),
    (Bug::CacheModeIsJunk, BLK, MODERN, "blk-cache-mode-is-0-or-1"),
    (Bug::SectorsAreSwapped, BLK, MODERN, "blk-reads-sectors-in-order"),
    (Bug::ReadsPastTheEnd, BLK, MODERN, "blk-reads-past-the-end-fail"),
    (Bug::WritesReadOnly, RO_BLK, MODERN, "blk-read-only-refuses-writes"),
    (Bug::DropsWrites, BLK, MODERN, "blk-writes-are-read-back"),
    (Bug::FlushFails, BLK, MODERN, "blk-flushes"),
    (Bug::UnknownRequestsAreDone, BLK, MODERN, "blk-unknown-requests-are-unsupported"),
    (Bug::IdentificationIsShort, BLK, MODERN, "blk-identification-has-the-used-length"),
    (Bug::UsedLengthLeavesStatusOut, BLK, MODERN, "blk-used-length-counts-data-and-status"),
    (Bug::ConsoleHasNoPort, CONSOLE, MODERN, "console-has-a-port"),
    (Bug::SentIsWritten, CONSOLE, MODERN, "console-prints"),
    (Bug::LosesSingleBytes, CONSOLE, MODERN, "console-prints-a-single-byte"),
    (Bug::ReceivesNothing, CONSOLE, MODERN, "console-receive-buffers-hold-something"),
    (Bug::PortsAreNotAnnounced, CONSOLE, MODERN, "console-announces-its-ports"),
    (Bug::AddressIsMulticast, NET, MODERN, "net-address-is-one-of-a-device"),
    (Bug::MtuIsSmall, NET, MODERN, "net-mtu-is-legal"),
    (Bug::LinkStatusHasJunk, NET, MODERN, "net-status-has-defined-bits"),
    (Bug::LosesLongFrames, NET, MODERN, "net-sends-the-longest-frame"),
    (Bug::UnknownCommandsAreAcknowledged, NET, MODERN, "net-refuses-unknown-commands"),
    (Bug::ReceivedHeadersAreEmpty, NET, MODERN, "net-received-frames-have-a-header"),
    (Bug::LegacyConfigurationStays, BLK, LEGACY, "legacy-configuration-moves-with-msix"),
    (Bug::LegacyPage0IsIgnored, BALLOON, LEGACY, "legacy-page-0-takes-a-queue-back"),
    (Bug::LegacyPageReadsBackWrong, RNG, LEGACY, "legacy-queue-pages-read-back"),
    (Bug::AckClearsAll, RNG, MMIO, "mmio-interrupt-ack-clears-no-other-bit"),
    (Bug::IsrStays, RNG, MMIO, "mmio-interrupt-ack-clears"),
    (Bug::IsrIsNeverSet, RNG, MMIO, "mmio-interrupt-status-tells-of-used-buffers"),
    (Bug::QueueStaysReady, BALLOON, MMIO, "mmio-queue-ready-0-takes-a-queue-back"),
    (Bug::ResetKeepsInterruptStatus, BALLOON, MMIO, "mmio-reset-clears-interrupt-status"),
    (Bug::AbsentMemoryIsEmpty, RNG, MMIO, "mmio-absent-shared-memory-has-length-all-ones"),
    (Bug::SelectorIsIgnored, RNG, MMIO, "mmio-feature-words-follow-the-selector"),
    // General checks, on devices other than balloons.
    (Bug::UsesTwice, BLK, MODERN, "nothing-is-used-twice"),
    (Bug::LosesChains, NET, MODERN, "net-takes-any-framing"),
    (Bug::OutOfOrder, CONSOLE, MODERN, "buffers-are-used-in-order"),
    (Bug::MessagesAreLost, RNG, MODERN, "interrupts-arrive-by-queue"),
];

#[test]
fn each_bug_is_found_by_the_check_that_is_meant_for_it() {
    let mut missed = Vec::new();
    for &(bug, of_type, by, name) in BUGS {
        let behaviour = device(TYPES[of_type].1, TRANSPORTS[by].1).with_bug(bug);
        let report = test_by(behaviour, name, false);
        let failed: Vec<_> = report.failed().into_iter().map(|(name, _)| name).collect();
        if !failed.contains(&name) {
            missed.push((bug, name, failed, report.outcomes));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn nothing_is_written_to_a_block_device_unless_that_is_allowed() {
    let (machine, at) = Machine::with_balloon(RAM, sound().block(false));
    let mut platform = ModelPlatform::new(&machine);
    let disk = |machine: &Machine| {
        machine.balloon(at, |device, _| match &device.behaviour.other {
            Some(ballonet_models::Other::Block { disk, .. }) => disk.clone(),
            other => panic!("{other:?} is no block device"),
        })
    };
    let before = disk(&machine);
    let mut skipped = Vec::new();
    run(&mut platform, at, &Selection::parse(QUICK, |_| {}), PATIENCE, |check: &Check, outcome: &Outcome| {
        if matches!(outcome, Outcome::Skipped(reason) if reason.contains("writes=on")) {
            skipped.push(check.name);
        }
    });
    assert_eq!(skipped, ["blk-writes-are-read-back", "blk-writes-return-a-status-only"]);
    assert_eq!(before, disk(&machine), "the disk was written");
    let report = test_by(sound().block(false), "blk", false);
    assert_eq!(report.failed_of(Severity::Must), Vec::<&str>::new());
}

#[test]
fn a_check_that_is_named_and_does_not_apply_is_skipped_with_the_reason() {
    let report = test_by(sound(), "rng-answers-differ,mmio-magic-value-is-virt,requests-complete", false);
    let reasons: Vec<_> = report.outcomes.iter().map(|(name, _, outcome)| (*name, outcome.clone())).collect();
    let expected = [
        ("requests-complete", Outcome::Ok),
        ("mmio-magic-value-is-virt", Outcome::Skipped("this is not for a device that is driven by modern".to_owned())),
        ("rng-answers-differ", Outcome::Skipped("this is for devices of type rng".to_owned())),
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn a_device_of_an_unknown_type_is_tested_without_requests() {
    let unknown = Behaviour { device_id: 0x1050, ..sound() };
    let report = test_by(unknown.with_features(feature::VERSION_1), QUICK, false);
    assert_eq!(report.failed(), []);
    assert!(report.summary.ok > 30, "{:?}", report.summary);
    let words = "the tester knows no request to a device of this type";
    let skipped = report.outcomes.iter().filter(|(.., o)| matches!(o, Outcome::Skipped(reason) if reason == words));
    assert!(skipped.count() > 20);
}
