//! Hostile checks: sound devices survive them, and the weaknesses of others are found.

use ballonet_check::{Outcome, Summary, Tier};

use super::others::{TRANSPORTS, TYPES, device, test_by};
use super::run::{Report, sound, test, with_access};
use Harm::{Dies, Overwrites, Spins, Stalls, StaysDead};
use ballonet_models::{Behaviour, Handling, Harm, Weakness};

/// A violation that a device does not survive, by clause and words of the model's misstep; the harm; the check that
/// finds it, and the chapters in which it is the only one.
type Row = (&'static str, &'static str, Harm, &'static str, &'static str);

/// Weaknesses, one at a time in a device that is sound otherwise.
const WEAKNESSES: &[Row] = &[
    ("SPLIT-DESC-02", "does not end", Spins, "hostile-split-loop-of-one", "hostile"),
    ("SPLIT-DESC-02", "next leaves", Dies, "hostile-split-next-is-the-size", "hostile"),
    ("SPLIT-DESC-02", "head leaves", Dies, "hostile-split-head-is-the-size", "hostile"),
    ("SPLIT-AVAIL-01", "", Dies, "hostile-split-index-jumps-by-one-too-many", "hostile"),
    ("SPLIT-USUP-01", "", StaysDead, "hostile-split-available-flags-are-all-ones", "hostile"),
    ("SPLIT-USUP-03", "", StaysDead, "hostile-split-available-flags-with-event-index", "hostile"),
    ("SPLIT-FRAME-01", "", Spins, "hostile-split-writable-between-readable", "hostile"),
    ("RSVD-05", "buffer 0xfee00000", Dies, "hostile-split-address-of-the-local-apic", "hostile"),
    ("RSVD-05", "buffer 0x4000000000000", StaysDead, "hostile-split-address-beyond-ram", "hostile"),
    ("RSVD-05", "buffer 0xfffffffffffffff0", Spins, "hostile-split-end-passes-2-to-the-64", "hostile"),
    ("SPLIT-IND-01", "", Dies, "hostile-split-table-without-the-feature", "hostile-more-tables"),
    ("SPLIT-IND-02", "", Spins, "hostile-split-table-nested", "hostile-tables,hostile-more-tables"),
    ("SPLIT-IND-04", "", Spins, "hostile-split-table-with-next", "hostile-tables,hostile-more-tables"),
    ("PACKED-IND-01", "", Dies, "hostile-packed-table-without-the-feature", "hostile-more-tables"),
    ("PACKED-IND-02", "", StaysDead, "hostile-packed-table-nested", "hostile-tables,hostile-more-tables"),
    ("PACKED-IND-04", "", Spins, "hostile-packed-table-with-next", "hostile-tables,hostile-more-tables"),
    ("PACKED-SG-02", "longer than the ring", Spins, "hostile-packed-next-in-all", "hostile-packed"),
    ("PACKED-SG-02", "buffer id", Dies, "hostile-packed-id-is-the-size", "hostile-packed"),
    ("PACKED-SG-03", "", Dies, "hostile-packed-writable-between-readable", "hostile-packed"),
    ("PACKED-SG-06", "", StaysDead, "hostile-packed-wrap-flips-in-mid-chain", "hostile-packed"),
    ("PACKED-EVENT", "", Dies, "hostile-packed-event-flags-reserved", "hostile-packed"),
    ("PCI-COMMON-03", "size 0 of", Dies, "hostile-queue-size-0", "hostile-setup"),
    ("PCI-COMMON-03", "size 3 of", Spins, "hostile-queue-size-3", "hostile-setup"),
    ("PCI-COMMON-04", "before its addresses", Dies, "hostile-queue-enabled-without-addresses", "hostile-setup"),
    ("PCI-COMMON-04", "after it was enabled", StaysDead, "hostile-queue-enabled-twice", "hostile-setup"),
    ("PCI-COMMON-04", "does not exist", Dies, "hostile-queue-select-past-the-last", "hostile-setup"),
    ("SPLIT-LAY-01", "descriptor table", Dies, "hostile-queue-descriptors-unaligned-by-1", "hostile-setup"),
    ("PCI-NOTIF-01", "", Spins, "hostile-kick-of-8-bits", "hostile-kicks"),
    ("PCI-NOTIF-03", "not enabled", Dies, "hostile-kick-of-a-queue-that-is-off", "hostile-kicks"),
    ("INIT-14", "", StaysDead, "hostile-kick-before-driver-ok", "hostile-kicks"),
    ("INIT-01", "status 0x0 -> 0x4", Dies, "hostile-status-driver-ok-first", "hostile-status"),
    ("INIT-08", "features written at status 0xb", Dies, "hostile-features-after-features-ok", "hostile-status"),
    ("FEAT-01", "accepted 0xffffffffffffffff", StaysDead, "hostile-features-all-bits", "hostile-status"),
    ("FEAT-05", "feature word 2", Dies, "hostile-features-selectors-past-the-last-word", "hostile-status"),
    (
        "PCI-MSIX-04",
        "",
        Dies,
        "hostile-pci-vector-is-the-table-size",
        "hostile-pci,hostile-vectors,hostile-common,hostile-window",
    ),
    (
        "PCI-CAP-08",
        "",
        Dies,
        "hostile-pci-header-is-overwritten",
        "hostile-pci,hostile-vectors,hostile-common,hostile-window",
    ),
    (
        "PCI-BAR",
        "decoding on",
        Dies,
        "hostile-pci-bars-are-sized-in-traffic",
        "hostile-pci,hostile-vectors,hostile-common,hostile-window",
    ),
    (
        "PCI-ACC-02",
        "write",
        Spins,
        "hostile-common-in-8-bits",
        "hostile-pci,hostile-vectors,hostile-common,hostile-window",
    ),
    (
        "PCI-MASTER",
        "",
        StaysDead,
        "hostile-pci-mastering-off-at-driver-ok",
        "hostile-pci,hostile-vectors,hostile-common,hostile-window",
    ),
    (
        "PCI-CFGACC-01",
        "3 bytes",
        Spins,
        "hostile-window-of-3-bytes",
        "hostile-pci,hostile-vectors,hostile-common,hostile-window",
    ),
    ("QRST-01", "= 2", Dies, "hostile-ring-reset-of-2", "hostile-resets"),
    ("BAL-OP-01", "no RAM", Dies, "hostile-inflate-frame-beyond-ram", "hostile-frames"),
    ("BAL-PFNS", "of 1 bytes", Spins, "hostile-inflate-of-1-byte", "hostile-frames"),
    ("BAL-STATS-01", "", StaysDead, "hostile-statistics-two-buffers", "hostile-statistics"),
    ("BAL-STATS-05", "of 5 bytes", Dies, "hostile-statistics-of-5-bytes", "hostile-statistics"),
    ("BAL-ACTUAL", "1 bytes", Spins, "hostile-actual-in-bytes", "hostile-balloon"),
    ("BAL-POISON-03", "", StaysDead, "hostile-poison-changes-while-it-runs", "hostile-balloon"),
];

fn weak((clause, words, harm): (&'static str, &'static str, Harm)) -> Behaviour {
    Behaviour { weakness: Some(Weakness { clause, words, harm }), ..sound() }
}

/// The checks with harm to something.
fn harmed(report: &Report) -> Vec<(&'static str, Outcome)> {
    let harmful = |outcome: &Outcome| outcome.tier() != Tier::None;
    report.outcomes.iter().filter(|(.., outcome)| harmful(outcome)).map(|(name, _, o)| (*name, o.clone())).collect()
}

#[test]
fn a_sound_device_survives() {
    for handling in [Handling::Later(20_000), Handling::AtOnce] {
        let report = test(Behaviour { handling, ..sound() }, "hostile", |_| {});
        assert_eq!(report.failed(), [], "{handling:?}");
        let of = |wanted: &Outcome| report.outcomes.iter().filter(|(.., outcome)| outcome == wanted).count();
        let survived = of(&Outcome::Ok) + of(&Outcome::Refused) + of(&Outcome::NeedsReset);
        // Those for hints, function resets and power management are skipped.
        assert!(survived >= 300, "{survived} were made, skipped: {:?}", report.skipped());
        assert_eq!(report.summary.troubled, 0, "{:?}", report.outcomes);
    }
}

#[test]
fn every_vmm_survives() {
    for (name, behaviour) in Behaviour::every_vmm() {
        let report = test(with_access(behaviour), "hostile", |_| {});
        assert_eq!(harmed(&report), [], "{name}");
    }
}

/// Types of devices, and transports, by their places in the lists: each of both at least once.
const PAIRS: [(usize, usize); 10] = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 3), (2, 0), (2, 2), (4, 4), (5, 3)];

#[test]
fn sound_devices_of_every_type_survive_by_every_transport() {
    for (of_type, by) in PAIRS {
        let ((name, of_type), (transport, by)) = (TYPES[of_type], TRANSPORTS[by]);
        let report = test_by(device(of_type, by), "hostile", transport == "transitional");
        assert_eq!(report.failed(), [], "{name} by {transport}");
        let Summary { ok, troubled, ended, .. } = report.summary;
        assert!(ok > 250 && troubled == 0 && ended.is_none(), "{name} by {transport}: {ok}, {troubled}, {ended:?}");
    }
}

/// Weaknesses of registers that only one transport has: the transport by its place in the list.
const OF_TRANSPORTS: &[(usize, Row)] = &[
    (MODERN, ("PCI-ACC", "write of 1 bytes at BAR4 0x1000", Dies, "hostile-isr-is-written", "hostile-common")),
    (MMIO, ("MMIO-REG-02", "read of 1 bytes", Dies, "hostile-mmio-reads-of-8-bits", "hostile-mmio")),
    (MMIO, ("MMIO-REG-02", "read of 2 bytes", Spins, "hostile-mmio-reads-of-16-bits", "hostile-mmio")),
    (MMIO, ("MMIO-REG-02", "write of 1 bytes at 0x70", Dies, "hostile-mmio-status-of-8-bits", "hostile-mmio")),
    (MMIO, ("MMIO-REG-01", "write at 0x0,", Dies, "hostile-mmio-read-only-registers-are-written", "hostile-mmio")),
    (MMIO, ("MMIO-REG-01", "read at 0x14,", StaysDead, "hostile-mmio-write-only-registers-are-read", "hostile-mmio")),
    (MMIO, ("MMIO-REG-01", "read at 0x18,", Spins, "hostile-mmio-gaps-are-read", "hostile-mmio")),
    (MMIO, ("MMIO-REG-01", "write at 0x18,", Dies, "hostile-mmio-gaps-are-written", "hostile-mmio")),
    (MMIO, ("MMIO-REG-01", "0x10f written to Status", Dies, "hostile-mmio-status-with-high-bits", "hostile-mmio")),
    (MMIO, ("MMIO-REG-07", "", Dies, "hostile-mmio-features-are-not-selected", "hostile-mmio")),
    (MMIO, ("MMIO-REG-08", "size 65536 of", Spins, "hostile-mmio-size-65536", "hostile-mmio")),
    (MMIO, ("MMIO-REG-08", "no size was written", Dies, "hostile-mmio-ready-goes-and-comes", "hostile-mmio")),
    (MMIO, ("MMIO-REG-09", "QueueReady written", Dies, "hostile-mmio-ready-2", "hostile-mmio")),
    (MMIO, ("MMIO-REG-09", "QueueSize written", StaysDead, "hostile-mmio-size-while-ready", "hostile-mmio")),
    (MMIO, ("MMIO-REG-09", "QueueAddress(0)", Dies, "hostile-mmio-addresses-while-ready", "hostile-mmio")),
    (PORTS, ("LEG-PCI-01", "read of 1 bytes at 0x0 ", Dies, "hostile-ports-are-read-in-every-width", "hostile-ports")),
    (PORTS, ("LEG-PCI-01", "write of 1 bytes at 0x8 ", Spins, "hostile-ports-page-in-bytes", "hostile-ports")),
    (PORTS, ("LEG-PCI-01", "write of 2 bytes at 0x8 ", Dies, "hostile-ports-page-in-words", "hostile-ports")),
    (PORTS, ("LEG-PCI-01", "write of 4 bytes at 0x0 ", StaysDead, "hostile-ports-offer-is-written", "hostile-ports")),
    (PORTS, ("LEG-PCI-01", "write of 2 bytes at 0xc ", Dies, "hostile-ports-size-is-written", "hostile-ports")),
    (PORTS, ("LEG-PCI-01", "write of 1 bytes at 0x13", Dies, "hostile-ports-isr-is-written", "hostile-ports")),
    (PORTS, ("LEG-VQ-03", ": 0xffffffff000-", Dies, "hostile-block-page-is-all-ones", "hostile-blocks")),
    (PORTS, ("LEG-VQ-03", ": 0xa0000-", Spins, "hostile-block-page-of-the-video-hole", "hostile-blocks")),
    (PORTS, ("LEG-VQ", "missing", Dies, "hostile-block-page-of-an-absent-queue", "hostile-blocks")),
    (
        PORTS,
        (
            "INIT-10",
            "address written before",
            StaysDead,
            "hostile-block-page-before-the-driver-is-there",
            "hostile-blocks",
        ),
    ),
    (PORTS, ("LEG-RSVD-02", "", Dies, "hostile-legacy-features-on-a-running-device", "hostile-blocks")),
    (OLD_MMIO, ("LEG-MMIO-02", "pages of 0 bytes", Dies, "hostile-mmio-page-size-0", "hostile-legacy-mmio")),
    (OLD_MMIO, ("LEG-MMIO-02", "pages of 4095 ", Spins, "hostile-mmio-page-size-odd", "hostile-legacy-mmio")),
    (OLD_MMIO, ("LEG-MMIO-03", "alignment 0", Dies, "hostile-mmio-align-0", "hostile-legacy-mmio")),
    (OLD_MMIO, ("LEG-MMIO-03", "alignment 3", StaysDead, "hostile-mmio-align-3", "hostile-legacy-mmio")),
];

const MODERN: usize = 0;
const PORTS: usize = 2;
const MMIO: usize = 3;
const OLD_MMIO: usize = 4;

#[test]
fn each_weakness_of_a_transport_is_found_by_the_check_that_is_meant_for_it() {
    let mut missed = Vec::new();
    for &(by, (clause, words, harm, name, chapters)) in OF_TRANSPORTS {
        let behaviour = Behaviour { weakness: Some(Weakness { clause, words, harm }), ..TRANSPORTS[by].1(sound()) };
        let report = test_by(behaviour, chapters, false);
        let harmed = harmed(&report);
        let right = matches!(&harmed[..], [(found, Outcome::Wedged(_))] if *found == name);
        if !right || report.summary.ended.is_none() {
            missed.push((clause, words, harm, name, harmed, report.summary));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn each_weakness_is_found_by_the_check_that_is_meant_for_it() {
    let mut missed = Vec::new();
    for &(clause, words, harm, name, chapters) in WEAKNESSES {
        let report = test(weak((clause, words, harm)), chapters, |_| {});
        let harmed = harmed(&report);
        // The device is down from there on, so the run ends.
        let right = matches!(&harmed[..], [(found, Outcome::Wedged(_))] if *found == name);
        if !right || report.summary.ended.is_none() {
            missed.push((clause, words, harm, name, harmed, report.summary));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn a_queue_that_stops_and_asks_for_no_reset_is_a_warning() {
    let report = test(weak(("SPLIT-DESC-02", "head leaves", Stalls)), "hostile-split", |_| {});
    let stalled = |(name, _, outcome): &&(&'static str, _, Outcome)| {
        *name == "hostile-split-head-is-the-size" && matches!(outcome, Outcome::Stalled(_))
    };
    assert!(report.outcomes.iter().any(|outcome| stalled(&outcome)), "{:?}", report.failed());
    assert_eq!(harmed(&report), []);
    assert!(report.summary.is_success() && report.summary.warned > 0, "{:?}", report.summary);
}

#[test]
fn a_write_past_what_is_given_is_corruption() {
    for (clause, words, name) in [
        ("SPLIT-AVAIL-01", "", "hostile-split-index-jumps-by-one-too-many"),
        ("PACKED-SG-02", "buffer id", "hostile-packed-id-is-the-size"),
        ("BAL-PFNS", "of 3 bytes", "hostile-inflate-of-3-bytes"),
    ] {
        let report = test(weak((clause, words, Overwrites)), name, |_| {});
        let [(found, Outcome::Corrupted(detail))] = &harmed(&report)[..] else { panic!("{:?}", report.outcomes) };
        assert_eq!(*found, name);
        assert!(detail.contains("the device wrote 0xee over") && detail.contains("was not given"), "{detail}");
        assert!(report.summary.ended.is_none() && report.summary.harmed == 1);
    }
}

/// All of a run's checks are reported, those after the device's death with the reason.
#[test]
fn what_follows_a_death_is_skipped_with_the_reason() {
    let report = test(weak(("SPLIT-DESC-02", "does not end", Spins)), "hostile-split", |_| {});
    let after = report.outcomes.iter().skip(1);
    let skipped =
        |outcome: &Outcome| matches!(outcome, Outcome::Skipped(reason) if reason.contains("after a hostile check"));
    assert!(after.clone().all(|(.., outcome)| skipped(outcome)), "{:?}", report.outcomes);
    assert!(report.outcomes.len() > 40);
}
