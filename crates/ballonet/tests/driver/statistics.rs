//! Statistics: requested by the device, answered with true values, one buffer at a time.

use ballonet::balloon::Statistics;
use ballonet::balloon::wire::Tag;

use super::guest::{Guest, bring_up, bring_up_sized};
use ballonet_models::feature::VERSION_1;
use ballonet_models::{Balloon, Behaviour};

const MEMFREE: u16 = 4;
const MEMTOT: u16 = 5;
const AVAIL: u16 = 6;

/// The value of a tag in the newest report.
fn value(guest: &Guest, tag: u16) -> Option<u64> {
    guest.device(|b, _| b.reports.last().and_then(|report| report.iter().find(|(t, _)| *t == tag).map(|(_, v)| *v)))
}

/// Requests a report and waits for it.
fn ask(guest: &mut Guest) {
    let before = guest.device(|b, _| b.reports.len());
    assert!(guest.device(Balloon::request_statistics), "the device has no statistics buffer");
    guest.run();
    assert_eq!(guest.device(|b, _| b.reports.len()), before + 1, "one report per request");
}

#[test]
fn the_first_statistics_are_sent_without_a_request_and_are_true() {
    let mut guest = bring_up(Behaviour::conforming());
    guest.run();
    assert_eq!(guest.device(|b, _| b.reports.len()), 1);
    assert_eq!(value(&guest, MEMTOT), Some(guest.platform.frames.total() * 4096));
    guest.finish();
}

#[test]
fn values_are_true_when_requested() {
    let mut guest = bring_up_sized(64, Behaviour::conforming());
    guest.run();
    for pages in [0, 5000, 100] {
        guest.follow(pages);
        ask(&mut guest);
        assert_eq!(value(&guest, MEMFREE), Some(guest.platform.frames.free() * 4096), "balloon of {pages}");
        assert!(value(&guest, AVAIL) <= value(&guest, MEMTOT));
    }
    assert!(guest.platform.frames.hold(300));
    ask(&mut guest);
    assert_eq!(value(&guest, MEMFREE), Some(guest.platform.frames.free() * 4096));
    guest.finish();
}

#[test]
fn every_report_has_the_same_tags_each_once() {
    let mut guest = bring_up(Behaviour::cloud_hypervisor());
    guest.run();
    (0..20).for_each(|_| ask(&mut guest));
    guest.device(|b, _| {
        for report in &b.reports {
            let mut tags: Vec<u16> = report.iter().map(|(tag, _)| *tag).collect();
            tags.sort_unstable();
            tags.dedup();
            assert_eq!(tags.len(), report.len(), "a tag twice in {report:?}");
            assert!(tags.iter().all(|tag| *tag < 16), "an undefined tag in {report:?}");
            assert_eq!(report.len() % 3, 0, "a length that the misprint of the specification forbids");
        }
    });
    guest.finish();
}

#[test]
fn statistics_are_answered_while_the_balloon_moves() {
    let mut guest = bring_up(Behaviour::qemu_10(6));
    guest.run();
    guest.device(|b, bus| b.set_target(8000, bus));
    for _ in 0..10 {
        guest.run_steps(2);
        guest.device(Balloon::request_statistics);
    }
    guest.run();
    assert!(guest.device(|b, _| b.reports.len()) > 5);
    guest.expect_balloon(8000);
    guest.finish();
}

/// The tags of virtio 1.4 and Linux's additions, minus one, since the number of entries must be a multiple of three.
#[test]
fn fifteen_of_all_sixteen_statistics_are_sent() {
    let mut guest = bring_up(Behaviour::conforming());
    let all = Tag::ALL.into_iter().fold(Statistics::default(), |all, tag| all.with(tag, 1000 + tag as u64));
    guest.platform.told = all;
    // The driver requests the tags when it starts; earlier requests do not count.
    guest.freeze().expect("it can be frozen");
    guest.device(|b, _| b.reports.clear());
    guest.restore().expect("it starts again");
    guest.run();
    ask(&mut guest);
    for tag in 0..16 {
        let expected = match tag {
            MEMFREE | MEMTOT | AVAIL => continue,
            9 => None,
            tag => Some(1000 + u64::from(tag)),
        };
        assert_eq!(value(&guest, tag), expected, "tag {tag}");
    }
    assert_eq!(guest.device(|b, _| b.reports.last().map(Vec::len)), Some(15));
    guest.finish();
}

#[test]
fn a_device_without_statistics_gets_no_buffer() {
    let mut guest = bring_up(Behaviour::conforming().with_features(VERSION_1));
    guest.follow(100);
    assert_eq!(guest.device(|b, _| b.reports.len()), 0);
    guest.finish();
}
