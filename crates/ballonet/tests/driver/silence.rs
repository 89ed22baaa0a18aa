//! A device whose registers respond but that returns no requests.

use ballonet::balloon::Changes;

use ballonet_models::{Behaviour, feature};

use super::guest::{Guest, bring_up};

const SECOND: u64 = 1_000_000_000;

/// Lets seconds pass and checks the device in each, as the kernel does. Returns how often silence was reported, and
/// how often its end.
fn wait(guest: &mut Guest, seconds: u32) -> (u32, u32) {
    let (mut silent, mut answers) = (0, 0);
    for _ in 0..seconds {
        guest.driver_mut().recheck();
        guest.changes = Changes::empty();
        guest.run();
        silent += u32::from(guest.changes.contains(Changes::SILENT));
        answers += u32::from(guest.changes.contains(Changes::ANSWERS));
        guest.machine.pass(SECOND);
    }
    (silent, answers)
}

#[test]
fn a_device_that_never_uses_a_buffer_is_reported_once() {
    for features in [0, feature::PAGE_REPORTING, feature::RING_PACKED] {
        let conforming = Behaviour::conforming();
        let mut guest =
            bring_up(Behaviour { stalls_after: Some(0), features: conforming.features | features, ..conforming });
        guest.device(|b, bus| b.set_target(1000, bus));
        assert_eq!(wait(&mut guest, 20), (1, 0), "features {features:#x}");
        let (status, counters) = (guest.driver().status(), guest.driver().counters());
        assert!(status.silent && status.inflating > 0, "{status:?}");
        assert_eq!(counters.answers(), 0);
        guest.shut_down();
    }
}

#[test]
fn a_late_answer_is_reported_too() {
    let mut guest = bring_up(Behaviour::conforming());
    guest.follow(500);
    guest.device(|b, bus| {
        b.stall_from_now(true);
        b.set_target(1000, bus);
    });
    assert_eq!(wait(&mut guest, 10), (1, 0));
    guest.device(|b, _| b.stall_from_now(false));
    assert_eq!(wait(&mut guest, 2), (0, 1));
    assert!(!guest.driver().status().silent);
    guest.expect_balloon(1000);
    guest.finish();
}

#[test]
fn an_idle_device_is_not_silent() {
    let mut guest = bring_up(Behaviour { stalls_after: Some(0), ..Behaviour::conforming() });
    assert_eq!(wait(&mut guest, 20), (0, 0));
    assert!(!guest.driver().status().silent);
}
