//! Devices that lie, stall, interrupt endlessly or vanish: each case ends in a specific error or does no harm, and
//! the guest stays intact.

use ballonet::balloon::BalloonError;

use super::guest::{Guest, bring_up, bring_up_sized};
use ballonet_models::{Behaviour, Handling, Lie};

/// Lets a device misbehave while the balloon grows and shrinks. Returns the driver's final error, if any.
fn provoke(behaviour: Behaviour) -> (Guest, Option<BalloonError>) {
    let mut guest = bring_up(behaviour);
    for pages in [4000, 100, 6000] {
        guest.device(|b, bus| b.set_target(pages, bus));
        if let Err(error) = guest.try_run() {
            return (guest, Some(error));
        }
    }
    (guest, None)
}

#[test]
fn a_lie_in_the_used_ring_ends_in_an_error_a_reset_and_an_intact_guest() {
    let lies = [Lie::IdOutOfRange, Lie::IdNotInFlight, Lie::IdRepeated, Lie::IndexJumps];
    for lie in lies {
        for after in [1, 5, 20] {
            for base in [Behaviour::conforming(), Behaviour::qemu_7_2(), Behaviour::conforming().packed()] {
                let (guest, error) = provoke(Behaviour { lie: Some((after, lie)), ..base });
                let error = error.unwrap_or_else(|| panic!("{lie:?} after {after} completions: no error"));
                println!("{lie:?} after {after}: {error}");
                guest.expect_given_up();
            }
        }
    }
}

/// An index that goes back over an entry which the driver has not read removes that entry: the request is lost, and
/// the driver cannot detect it.
#[test]
fn a_used_index_that_goes_back_is_harmless() {
    for after in [1, 5, 20] {
        let (mut guest, error) =
            provoke(Behaviour { lie: Some((after, Lie::IndexGoesBack)), ..Behaviour::conforming() });
        if error.is_some() {
            guest.expect_given_up();
        }
        guest.platform.frames.expect_whole();
        guest.shut_down();
        guest.finish();
    }
}

#[test]
fn a_used_length_beyond_the_buffer_is_harmless() {
    let (guest, error) = provoke(Behaviour { lie: Some((3, Lie::LengthTooLong)), ..Behaviour::conforming() });
    match error {
        Some(_) => guest.expect_given_up(),
        None => {
            guest.expect_balloon(6000);
            guest.finish();
        }
    }
}

#[test]
fn a_device_that_never_answers_keeps_only_its_requests_in_flight() {
    let mut guest = bring_up(Behaviour { stalls_after: Some(4), ..Behaviour::conforming() });
    guest.device(|b, bus| b.set_target(6000, bus));
    let _ = guest.try_run();
    guest.machine.pass(3_600_000_000_000);
    let _ = guest.try_run();
    guest.platform.frames.expect_whole();
    guest.machine.expect_no_missteps();
    // Shutdown frees everything: after the reset the device no longer uses memory.
    guest.shut_down();
    guest.finish();
}

#[test]
fn a_reset_that_never_ends_leaks_memory_that_the_device_may_still_write() {
    let mut guest = bring_up(Behaviour { stalls_after: Some(4), ..Behaviour::conforming() });
    guest.device(|b, bus| b.set_target(6000, bus));
    let _ = guest.try_run();
    guest.device(|b, _| b.behaviour.reset_time = u64::MAX);
    guest.shut_down();
    guest.machine.expect_no_missteps();
    guest.platform.frames.expect_whole();
    assert_eq!(guest.machine.allocated().vectors, 0, "no handler may stay");
}

#[test]
fn surprise_removal_during_work_ends_in_an_error_and_an_intact_guest() {
    for steps in 0..8 {
        let mut guest = bring_up(Behaviour::qemu_10(6));
        guest.device(|b, bus| b.set_target(6000, bus));
        guest.run_steps(steps);
        guest.device(|b, _| b.unplug());
        let _ = guest.try_run();
        guest.shut_down();
        guest.platform.frames.expect_whole();
        assert_eq!(guest.machine.allocated().vectors, 0);
        assert_eq!(guest.machine.allocated().mappings, 0);
    }
}

#[test]
fn spurious_interrupts_are_harmless() {
    for base in [Behaviour::qemu_10(6), Behaviour::qemu_10(2), Behaviour::qemu_7_2()] {
        for period in [1, 700, 100_000] {
            let mut guest = bring_up(Behaviour { spurious: Some(period), ..base.clone() });
            guest.follow(3000);
            guest.follow(0);
            guest.finish();
        }
    }
}

#[test]
fn an_interrupt_of_another_device_on_a_shared_line_is_not_claimed() {
    use ballonet::pci::Bdf;
    let mut guest = bring_up(Behaviour::qemu_7_2());
    // Another function on the same line, without a driver, asserts it permanently.
    let other = Bdf::new(0, 0, 9, 0).unwrap();
    guest.machine.plug(other, Behaviour::qemu_7_2());
    guest.machine.balloon(other, |b, _| b.pull_line_for_ever());
    guest.follow(2000);
    guest.finish();
}

#[test]
fn a_host_that_steals_time_does_not_break_bounded_waits() {
    for stolen in [1_000_000, 1_000_000_000, 10_000_000_000] {
        let mut guest = bring_up(Behaviour { stolen, reset_time: 1_000_000, ..Behaviour::conforming() });
        guest.follow(2000);
        guest.follow(0);
        guest.finish();
    }
}

#[test]
fn late_interrupts_lose_nothing() {
    let choices = vec![65_000, 0, 32_000, 9, 50_000, 12_345];
    let schedule = ballonet_models::Schedule::new(choices);
    for base in [Behaviour::qemu_10(6), Behaviour::qemu_10(2)] {
        let behaviour = Behaviour {
            interrupt_delay: 5_000_000,
            service: 1_000_000,
            schedule: schedule.clone(),
            handling: Handling::Later(10_000),
            ..base
        };
        let mut guest = bring_up_sized(32, behaviour);
        for pages in [5000, 0, 3000] {
            guest.follow(pages);
        }
        guest.finish();
    }
}

#[test]
fn a_target_whose_interrupt_is_lost_is_found_by_polling() {
    let mut guest = bring_up(Behaviour::qemu_7_2());
    guest.follow(100);
    guest.device(|b, _| b.set_target_silently(3000));
    guest.run();
    assert_eq!(guest.device(|b, _| b.actual()), 100, "the driver got no interrupt");
    guest.driver_mut().recheck();
    guest.run();
    guest.expect_balloon(3000);
    guest.finish();
}
