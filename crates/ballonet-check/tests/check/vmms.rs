//! The tester against models of real VMMs' devices: which checks each fails, and the table of them in the
//! documentation.

use std::fmt::Write;

use ballonet_check::{Outcome, Severity, checks};

use super::run::{QUICK, test, with_access};
use ballonet_models::Behaviour;

/// A VMM, and the expected results for its device.
struct Expected {
    vmm: &'static str,
    device: Behaviour,
    fails: &'static [&'static str],
    warns: &'static [&'static str],
    /// Why the run ends early.
    ends: Option<&'static str>,
}

/// Those whose devices can be tested to the end: the columns of the table.
fn testable() -> [Expected; 8] {
    [
        Expected {
            vmm: "Cloud Hypervisor",
            device: with_access(Behaviour::cloud_hypervisor()),
            fails: &["features-ok-refuses-unoffered", "absent-vectors-are-refused"],
            warns: &[
                "accepted-features-read-back",
                "queue-addresses-read-back",
                "suppressed-interrupts-stay-away",
                "the-first-interrupt-can-be-suppressed",
            ],
            ends: None,
        },
        Expected {
            vmm: "Firecracker",
            device: with_access(Behaviour::firecracker()),
            fails: &["features-ok-refuses-unoffered"],
            warns: &[
                "queues-of-declined-features-may-be-left-out",
                "accepted-features-read-back",
                "suppressed-interrupts-stay-away",
                "the-first-interrupt-can-be-suppressed",
            ],
            ends: None,
        },
        // Without the window in configuration space.
        Expected {
            vmm: "Alioth",
            device: Behaviour::alioth(),
            fails: &[
                "pci-access-is-there",
                "reset-restores-queue-sizes",
                "features-ok-refuses-unoffered",
                "absent-vectors-are-refused",
                "a-new-target-changes-the-generation",
            ],
            warns: &["queue-addresses-read-back"],
            ends: None,
        },
        // Bit 8 is its own, with two queues.
        Expected {
            vmm: "crosvm",
            device: with_access(Behaviour::crosvm()),
            fails: &[],
            warns: &["reserved-features-are-not-offered"],
            ends: None,
        },
        Expected {
            vmm: "kvmtool",
            device: with_access(Behaviour::kvmtool()),
            fails: &[],
            warns: &[
                "used-length-of-readable-buffers-is-0",
                "suppressed-interrupts-stay-away",
                "the-first-interrupt-can-be-suppressed",
            ],
            ends: None,
        },
        Expected {
            vmm: "Firecracker on MMIO",
            device: Behaviour::firecracker().on_mmio(),
            fails: &["features-ok-refuses-unoffered"],
            warns: &[
                "queues-of-declined-features-may-be-left-out",
                "suppressed-interrupts-stay-away",
                "the-first-interrupt-can-be-suppressed",
            ],
            ends: None,
        },
        Expected {
            vmm: "StratoVirt",
            device: Behaviour::stratovirt(),
            fails: &[],
            warns: &["reserved-features-are-not-offered"],
            ends: None,
        },
        Expected { vmm: "Dragonball", device: Behaviour::dragonball(), fails: &[], warns: &[], ends: None },
    ]
}

/// Those whose devices cannot, or are of the past.
fn hindered() -> [Expected; 4] {
    [
        Expected {
            vmm: "crosvm before 2025",
            device: with_access(Behaviour::crosvm_before_2025()),
            fails: &[],
            warns: &["reserved-features-are-not-offered"],
            ends: None,
        },
        Expected {
            vmm: "Firecracker up to 1.16",
            device: with_access(Behaviour::firecracker_1_16()),
            fails: &["driver-ok-sticks"],
            warns: &[],
            ends: Some("accepts no status after a reset"),
        },
        Expected {
            vmm: "Firecracker, resets failing",
            device: with_access(Behaviour::firecracker_failing()),
            fails: &["reset-clears-status"],
            warns: &[],
            ends: Some("a reset did not finish"),
        },
        // It does not serve the queues of frames.
        Expected {
            vmm: "libkrun",
            device: with_access(Behaviour::libkrun()),
            fails: &["actual-is-kept", "inflate-completes"],
            warns: &["queues-of-declined-features-may-be-left-out"],
            ends: None,
        },
    ]
}

#[test]
fn each_vmm_fails_what_is_known_of_it_and_nothing_else() {
    for Expected { vmm, device, fails, warns, ends } in testable().into_iter().chain(hindered()) {
        let report = test(device, QUICK, |_| {});
        let of = |must: bool| {
            let failed = report.outcomes.iter().filter(|(_, _, outcome)| matches!(outcome, Outcome::Failed(_)));
            failed.filter(move |(_, severity, _)| (*severity == Severity::Must) == must).map(|(name, ..)| *name)
        };
        assert_eq!(of(true).collect::<Vec<_>>(), fails, "{vmm}: {:?}", report.failed());
        assert_eq!(of(false).collect::<Vec<_>>(), warns, "{vmm}: {:?}", report.failed());
        assert_eq!(report.summary.troubled, 0, "{vmm}");
        let ended = report.summary.ended.as_deref();
        assert_eq!(ended.is_some(), ends.is_some(), "{vmm}: {ended:?}");
        assert!(ends.is_none_or(|words| ended.is_some_and(|reason| reason.contains(words))), "{vmm}: {ended:?}");
    }
}

/// Checks by VMM: those that at least one does not pass.
fn table() -> String {
    let expected = testable();
    let names: Vec<_> = expected.iter().map(|one| one.vmm).collect();
    let mut table = format!("\n| check | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for name in checks().map(|check| check.name) {
        let word = |one: &Expected| match (one.fails.contains(&name), one.warns.contains(&name)) {
            (true, _) => "fails",
            (false, true) => "warns",
            (false, false) => "",
        };
        let words: Vec<_> = expected.iter().map(word).collect();
        if words.iter().any(|word| !word.is_empty()) {
            writeln!(table, "| `{name}` | {} |", words.join(" | ")).expect("a string takes everything");
        }
    }
    table
}

/// The documentation's table matches these lists, which the test above compares with the tester's results.
/// `BALLONET_WRITE_DOCS=1` rewrites it.
#[test]
fn the_documentation_has_what_each_vmm_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/checks.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (head, rest) = text.split_once("<!-- vmms -->\n").expect("a mark where the table begins");
    let (_, tail) = rest.split_once("<!-- end of vmms -->").expect("a mark where the table ends");
    let expected = format!("{head}<!-- vmms -->\n{}\n<!-- end of vmms -->{tail}", table());
    if std::env::var_os("BALLONET_WRITE_DOCS").is_some() {
        std::fs::write(path, &expected).unwrap();
    } else {
        assert_eq!(text, expected, "docs/checks.md is out of date");
    }
}
