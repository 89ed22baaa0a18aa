//! The device is removed after any access; frames are handled as `MUST_TELL_HOST` requires.

use super::*;

/// Everything that a driver may be doing when its device is removed.
fn live(guest: &mut Guest) -> Result<(), BalloonError> {
    guest.device(|b, bus| b.set_target(1500, bus));
    guest.try_run()?;
    guest.device(|b, bus| b.set_target(300, bus));
    guest.try_run_steps(3)?;
    guest.reset()?;
    guest.try_run()?;
    guest.device(|b, bus| b.set_target(1100, bus));
    guest.try_run_steps(3)?;
    match guest.reset_queue(BalloonQueue::Inflate) {
        Err(BalloonError::Transport(TransportError::NoQueueReset { .. })) => {}
        outcome => outcome?,
    }
    guest.try_run()?;
    guest.device(Balloon::request_statistics);
    guest.try_run()?;
    guest.freeze()?;
    guest.device(|b, _| b.set_target_silently(900));
    guest.restore()?;
    guest.try_run()?;
    guest.device(Balloon::raise_needs_reset);
    guest.try_run()
}

/// Removes the device after 0, 1, 2, ... register accesses, until a whole life takes fewer.
fn sweep(kind: &Behaviour) {
    for accesses in 0.. {
        assert!(accesses < 5000, "a whole life should take fewer accesses");
        let mut guest = bring_up(kind.clone());
        let told = guest.device(|b, _| b.common.accepted()) & feature::MUST_TELL_HOST != 0;
        guest.device(|b, _| b.remove_after(accesses));
        let outcome = live(&mut guest);
        if !guest.device(|b, _| b.gone()) {
            outcome.expect("a device that stays works");
            guest.expect_balloon(900);
            guest.finish();
            return;
        }
        // The driver may have missed the removal so far: nothing reports it.
        if outcome.is_ok() {
            guest.driver_mut().recheck();
        }
        let error = outcome.and_then(|()| guest.try_run()).expect_err("a device that is gone");
        let BalloonError::Transport(TransportError::Gone(_)) = error else {
            panic!("gone after {accesses} accesses: {error}");
        };
        assert_eq!(guest.driver().status().failed, Some(error));
        guest.expect_nothing_allocated();
        guest.machine.expect_no_missteps();
        guest.platform.frames.expect_whole();
        assert_eq!(guest.platform.frames.in_flight(), 0);
        let ballooned = guest.platform.frames.ballooned_frames();
        assert_eq!(guest.driver().status().actual, ballooned);
        assert!(told || ballooned == 0, "{ballooned} frames still count as ballooned, but the device is gone");
        assert!(matches!(guest.reset(), Err(BalloonError::Transport(TransportError::Gone(_)))));
        guest.finish();
    }
}

#[test]
fn a_device_that_vanishes_after_any_access_loses_no_frame() {
    sweep(&Behaviour::conforming());
}

#[test]
fn a_device_on_a_line_that_vanishes_after_any_access_loses_no_frame() {
    sweep(&Behaviour::qemu_7_2());
}

#[test]
fn a_legacy_device_that_vanishes_after_any_access_loses_no_frame() {
    sweep(&lenient(Behaviour::conforming().legacy()));
}

#[test]
fn a_device_that_vanishes_during_a_queue_reset_loses_no_frame() {
    for (name, kind) in resettable() {
        for (queue, first, then) in [(BalloonQueue::Inflate, 0, 3000), (BalloonQueue::Deflate, 3000, 0)] {
            for accesses in 0.. {
                assert!(accesses < 100, "the reset of a queue should take fewer accesses");
                let mut guest = bring_up(lenient(kind.clone()));
                guest.follow(first);
                guest.device(|b, bus| {
                    b.stall_from_now(true);
                    b.set_target(then, bus);
                });
                guest.run();
                guest.device(|b, _| b.remove_after(accesses));
                let outcome = guest.reset_queue(queue);
                if !guest.device(|b, _| b.gone()) {
                    outcome.expect("a device that stays resets its queue");
                    break;
                }
                if outcome.is_ok() {
                    guest.driver_mut().recheck();
                    guest.try_run().expect_err("a device that is gone");
                }
                let left = (guest.driver().status().actual, guest.platform.frames.ballooned_frames());
                assert_eq!(left, (0, 0), "{name}, {queue}: gone after {accesses} accesses");
                guest.finish();
            }
        }
    }
}

#[test]
fn frames_return_to_the_guest_after_removal_unless_the_host_must_be_told() {
    for (kind, stay) in [(Behaviour::conforming(), 2000), (lenient(Behaviour::conforming()), 0)] {
        for noticed in [true, false] {
            let mut guest = bring_up(kind.clone());
            guest.follow(2000);
            let free = guest.platform.frames.free();
            guest.device(|b, _| b.unplug());
            if noticed {
                guest.driver_mut().recheck();
                assert!(guest.try_run().is_err());
            }
            guest.shut_down();
            assert_eq!(guest.platform.frames.ballooned_frames(), stay);
            assert_eq!(guest.platform.frames.free(), free + 2000 - stay);
            assert_eq!(guest.machine.bus(|bus| bus.ram.count_host(HostSide::Ballooned)), 2000);
            guest.finish();
        }
    }
}
