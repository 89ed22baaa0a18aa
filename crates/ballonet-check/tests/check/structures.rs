//! Configuration spaces with something wrong in them.

use super::run::{QUICK, Report, sound, test};
use ballonet_models::{Behaviour, Capability, feature};

/// A sound device with its layout changed.
fn with(change: impl FnOnce(&mut Behaviour)) -> Report {
    let mut behaviour = sound();
    change(&mut behaviour);
    test(behaviour, QUICK, |_| {})
}

/// The device fails this check.
#[track_caller]
fn expect(report: &Report, name: &str) {
    let failed = report.failed();
    assert!(failed.iter().any(|(failed, _)| *failed == name), "{name} did not fail: {failed:?}");
}

/// Changes a virtio structure: its offset and length.
fn window(kind: u8, change: impl Fn(&mut u32, &mut u32)) -> Report {
    with(|b| {
        if let Capability::Virtio { offset, length, .. } = b.layout.capability(kind) {
            change(offset, length);
        }
    })
}

/// Changes the notify multiplier.
fn multiplier(value: u32) -> Report {
    with(|b| {
        if let Capability::Virtio { multiplier, .. } = b.layout.capability(2) {
            *multiplier = Some(value);
        }
    })
}

#[test]
fn wrong_ids_are_found() {
    expect(&with(|b| b.revision = 0), "modern-revision-is-1-or-higher");
    expect(&with(|b| (b.device_id, b.revision) = (0x1002, 1)), "transitional-revision-is-0");
}

#[test]
fn a_broken_capability_list_is_found() {
    expect(&with(|b| b.layout.last_link = 0x40), "capability-list-is-whole");
    expect(&with(|b| b.layout.last_link = 0x20), "capability-list-is-whole");
}

#[test]
fn a_capability_that_is_too_short_is_found() {
    expect(
        &with(|b| b.layout.capabilities.push(Capability::Raw(vec![9, 0, 12, 4, 4, 0, 0, 0, 0, 0, 0, 0]))),
        "capabilities-are-long-enough",
    );
}

#[test]
fn missing_structures_are_found() {
    for kind in 1..=4 {
        let report = with(|b| b.layout = b.layout.clone().without(kind));
        expect(&report, "structures-are-all-there");
        assert!(report.summary.ended.is_some(), "there is nothing to test");
    }
    expect(&with(|b| b.layout.capabilities.retain(|c| !matches!(c, Capability::Raw(_)))), "pci-access-is-there");
}

#[test]
fn misplaced_structures_are_found() {
    expect(&window(4, |offset, _| *offset += 0x100_0000), "structures-lie-in-their-bars");
    expect(&window(1, |offset, _| *offset += 2), "structures-are-aligned");
    expect(&window(2, |offset, _| *offset += 1), "structures-are-aligned");
    expect(&window(1, |_, length| *length = 0x30), "structures-are-long-enough");
    expect(&window(1, |_, length| *length = 0x38), "common-structure-has-what-is-offered");
    expect(&window(3, |offset, _| *offset = 0x10), "structures-do-not-overlap");
    expect(&window(4, |_, length| *length = 8), "configuration-is-long-enough");
    expect(&window(2, |_, length| *length = 8), "doorbells-are-in-their-window");
}

#[test]
fn registers_at_misaligned_addresses_are_not_touched() {
    for (kind, shift) in [(1, 2), (1, 1), (2, 1), (4, 2)] {
        let report = window(kind, |offset, _| *offset += shift);
        let reason = report.summary.ended.unwrap_or_else(|| panic!("structure {kind} shifted by {shift} is used"));
        assert!(reason.contains("aligned"), "{reason}");
    }
}

#[test]
fn an_odd_multiplier_is_found() {
    for value in [1, 3, 6, 12] {
        expect(&multiplier(value), "notify-multiplier-is-legal");
    }
}

#[test]
fn features_that_may_not_be_offered_are_found() {
    expect(&with(|b| b.features |= 1 << 30), "reserved-features-are-not-offered");
    expect(&with(|b| b.features &= !(1 << 32)), "version-1-is-offered");
    let report = with(|b| (b.size_lie, b.features) = (Some(48), b.features & !feature::RING_PACKED));
    expect(&report, "queue-sizes-are-legal");
}

#[test]
fn used_lengths_of_what_was_only_read_are_found() {
    expect(&with(|b| b.claims = 4), "used-length-of-readable-buffers-is-0");
}

#[test]
fn one_vector_is_found_too_few() {
    expect(&with(|b| b.vectors = Some(1)), "msix-has-two-vectors");
}
