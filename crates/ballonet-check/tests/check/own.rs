//! A failure of the tester itself is no verdict on the device.

use core::sync::atomic::{AtomicU64, Ordering};

use ballonet_check::{Outcome, Patience};

use super::run::{PATIENCE, QUICK, Report, failed_with, sound, test};
use ballonet_models::{Behaviour, RegisterQuirks};

fn troubles(report: &Report) -> Vec<&str> {
    let trouble =
        |(name, _, outcome): &(&'static str, _, Outcome)| matches!(outcome, Outcome::Trouble(_)).then_some(*name);
    report.outcomes.iter().filter_map(trouble).collect()
}

#[test]
fn refused_memory_is_the_testers_trouble() {
    let report = test(sound(), QUICK, |machine| machine.limit_dma(0));
    assert_eq!((report.failed(), troubles(&report)), (vec![], vec!["reset-clears-status"]));
    assert!(report.summary.ended.is_some() && report.summary.troubled == 1, "{:?}", report.summary);
}

/// Checks that have several requests, or descriptors, in a queue at once.
const SEVERAL: &str = "buffers-are-used-in-order,interrupts-come-at-the-event-index,\
    no-interrupt-before-the-event-index,tables-of-many-descriptors-work,no-interrupt-after-a-reset,reports-of-free-pages-complete,\
    direct-and-indirect-may-mix,wanted-kicks-are-enough,reset-ends-in-mid-traffic";

#[test]
fn queues_shorter_than_a_checks_request_fail_nothing() {
    for queue_size in [1, 2, 4] {
        let report = test(Behaviour { queue_size, ..sound() }, SEVERAL, |_| {});
        assert_eq!((report.failed(), troubles(&report)), (vec![], vec![]), "queues of {queue_size}");
    }
}

#[test]
fn queue_sizes_that_outlive_a_reset_fail_one_check_only() {
    let mut device = sound();
    device.quirks.registers = RegisterQuirks { keeps_queue_sizes: true, ..RegisterQuirks::NONE };
    let report = test(device, QUICK, |_| {});
    let failed: Vec<_> = report.failed().into_iter().map(|(name, _)| name).collect();
    assert_eq!((failed, troubles(&report)), (vec!["reset-restores-queue-sizes"], vec![]));
}

#[test]
fn a_device_that_keeps_buffers_causes_no_tester_trouble() {
    for completions in [1, 100, 1000] {
        let report = test(Behaviour { stalls_after: Some(completions), ..sound() }, QUICK, |_| {});
        assert_eq!(troubles(&report), Vec::<&str>::new(), "after {completions} completions");
    }
}

static SLEEPS: AtomicU64 = AtomicU64::new(0);

fn note_sleep(nanoseconds: u64) {
    assert!((1..=PATIENCE.quiet / 4).contains(&nanoseconds), "a sleep of {nanoseconds} ns");
    SLEEPS.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn a_quiet_time_has_its_sleeps_however_much_time_the_host_steals() {
    let patience = Patience { sleep: Some(note_sleep), ..PATIENCE };
    let stolen = Behaviour { stolen: 10 * PATIENCE.quiet, ..sound() };
    assert_eq!(failed_with(patience, stolen, "kicks-before-driver-ok-are-ignored"), [""; 0]);
    assert!((5..50).contains(&SLEEPS.load(Ordering::Relaxed)), "{SLEEPS:?} sleeps");
}
