//! Behaviour specific to MMIO devices: registers that claim a wrong device, a single interrupt line, queue reset by a
//! register, and no bus mastering to turn off.

use ballonet::balloon::{Balloon, BalloonError, BalloonQueue, Options};
use ballonet::virtio::{InterruptError, InterruptMode, MmioDevice, MmioError, TransportError, TransportKind};
use ballonet_models::{Behaviour, Bug, Handling, Machine, MmioRegisters, ModelPlatform, feature};

use super::guest::{Guest, bring_up, bring_up_as, try_forced, try_with};

fn modern() -> Behaviour {
    Behaviour::conforming().on_mmio()
}

fn legacy() -> Behaviour {
    Behaviour::conforming().on_legacy_mmio()
}

/// The device with changed registers.
fn with(behaviour: Behaviour, change: impl FnOnce(&mut MmioRegisters)) -> Behaviour {
    let mut changed = behaviour;
    change(changed.mmio.as_mut().expect("a device on MMIO"));
    changed
}

#[track_caller]
fn error_of(behaviour: Behaviour) -> BalloonError {
    let failure = try_with(behaviour, |_| {}).err().expect("the device cannot be driven");
    failure.expect_clean(true);
    failure.error
}

#[test]
fn each_version_is_driven_by_its_own_transport_and_the_line() {
    for (behaviour, kind) in [(modern(), TransportKind::Mmio), (legacy(), TransportKind::MmioLegacy)] {
        let mut guest = bring_up(behaviour);
        assert_eq!((guest.transport(), guest.mode()), (kind, InterruptMode::Line));
        guest.follow(1000);
        guest.follow(0);
        guest.finish();
    }
}

#[test]
fn windows_without_a_virtio_device_are_refused_with_the_value_found() {
    let magic = error_of(with(modern(), |registers| registers.magic = 0x1234_5678));
    assert!(matches!(magic, BalloonError::Mmio(MmioError::Magic { magic: 0x1234_5678, .. })), "{magic}");
    for version in [0, 3, 0xffff_fffe] {
        let error = error_of(with(modern(), |registers| registers.version_lie = Some(version)));
        assert!(matches!(error, BalloonError::Mmio(MmioError::Version { version: v, .. }) if v == version), "{error}");
    }
    let placeholder = error_of(with(modern(), |registers| registers.placeholder = true));
    assert!(matches!(placeholder, BalloonError::Mmio(MmioError::Placeholder(_))), "{placeholder}");
    let entropy = error_of(modern().entropy(1));
    assert!(matches!(entropy, BalloonError::WrongType { number: 4, .. }), "{entropy}");
}

#[test]
fn a_window_that_is_too_small_is_refused_and_one_of_a_placeholder_is_empty() {
    let (machine, at) = Machine::with_balloon(8, with(modern(), |registers| registers.placeholder = true));
    let mut platform = ModelPlatform::new(&machine);
    let ballonet::virtio::DeviceHandle::Mmio(device) = machine.handle(at) else { panic!("it is on MMIO") };
    assert_eq!(device.identify(&mut platform), Ok(None));
    let base = match device.address() {
        ballonet::platform::DeviceAddress::Mmio(base) => base,
        other => panic!("{other}"),
    };
    let small = MmioDevice::new(base, 0xff, None);
    let error = Balloon::probe(&mut platform, small, Options::default()).err().expect("it is too small");
    assert!(matches!(error, BalloonError::Mmio(MmioError::Small(_))), "{error}");
    machine.expect_no_missteps();
}

#[test]
fn registers_with_impossible_values_are_reported() {
    let register = |behaviour| match error_of(behaviour) {
        BalloonError::Transport(TransportError::Register { register, value, .. }) => (register, value),
        error => panic!("{error}"),
    };
    for base in [modern(), legacy()] {
        let size = register(with(base.clone(), |registers| registers.size_lie = Some(0x1_0040)));
        assert_eq!(size, ("QueueSizeMax", 0x1_0040));
    }
    assert_eq!(register(with(modern(), |registers| registers.in_use = 1)), ("QueueReady", 1));
    assert_eq!(register(with(legacy(), |registers| registers.in_use = 77)), ("QueuePFN", 77));
}

#[test]
fn a_status_of_more_than_eight_bits_is_refused() {
    for base in [modern(), legacy()] {
        let failure = try_with(with(base, |registers| registers.status_junk = 0x100), |_| {}).err();
        let error = failure.expect("the device cannot be driven").error;
        let is_it = matches!(error, BalloonError::Transport(TransportError::Register { register: "Status", .. }));
        assert!(is_it, "{error}");
    }
}

#[test]
fn a_reset_that_never_ends_is_given_up_on() {
    for base in [modern(), legacy()] {
        let failure = try_with(Behaviour { reset_time: u64::MAX, ..base }, |_| {}).err().expect("it is not reset");
        let is_it = matches!(failure.error, BalloonError::Transport(TransportError::ResetTimeout { .. }));
        assert!(is_it, "{}", failure.error);
        failure.expect_clean(true);
    }
}

#[test]
fn message_signalled_modes_are_refused_and_polling_needs_no_line() {
    for mode in [InterruptMode::PerQueue, InterruptMode::Shared] {
        let failure = try_forced(modern(), mode, |_| {}).err().expect("there is no MSI-X");
        let is_it = matches!(failure.error, BalloonError::Interrupt(InterruptError::NoMsix(_)));
        assert!(is_it, "{}", failure.error);
        failure.expect_clean(true);
    }
    let polling = |behaviour| try_with(behaviour, |machine: &Machine| machine.limit(200, false, false));
    for behaviour in [modern(), legacy()] {
        let mut guest = super::guest::expect_up(polling(behaviour));
        assert_eq!(guest.mode(), InterruptMode::Polling);
        guest.follow(700);
        guest.finish();
    }
}

#[test]
fn undefined_bits_of_the_interrupt_status_are_ignored_and_not_acknowledged() {
    for base in [modern(), legacy()] {
        let mut guest = bring_up(base.with_bug(Bug::IsrHasJunk));
        guest.follow(600);
        guest.follow(0);
        guest.finish();
    }
}

#[test]
fn an_interrupt_status_that_stays_set_blocks_nothing() {
    let mut guest = bring_up(modern().with_bug(Bug::IsrStays));
    guest.device(|b, bus| b.set_target(600, bus));
    guest.run_steps(2000);
    assert_eq!(guest.driver().status().actual, 600);
    guest.shut_down();
    guest.expect_nothing_allocated();
}

#[test]
fn a_queue_is_reset_by_its_register_and_used_again() {
    let behaviour = modern().with_features(modern().features | feature::RING_RESET);
    for behaviour in [behaviour.clone(), behaviour.packed()] {
        let mut guest = bring_up(behaviour);
        guest.follow(1000);
        for queue in [BalloonQueue::Inflate, BalloonQueue::Deflate] {
            guest.reset_queue(queue).unwrap_or_else(|error| panic!("{error}"));
        }
        guest.follow(3000);
        guest.follow(0);
        guest.finish();
    }
}

/// QEMU's virtio-mmio offers `RING_RESET` but lacks its register: `QueueReset` reads 0, and the queue continues.
#[test]
fn a_queue_that_was_not_really_reset_is_noticed() {
    let behaviour = modern().with_features(modern().features | feature::RING_RESET);
    let mut guest = bring_up(with(behaviour, |registers| registers.no_queue_reset = true));
    guest.follow(1000);
    let error = guest.reset_queue(BalloonQueue::Inflate).expect_err("it is not reset");
    let is_it = matches!(error, BalloonError::Transport(TransportError::QueueResetTimeout { enabled: 1, .. }));
    assert!(is_it, "{error}");
    guest.run();
    guest.follow(2000);
    guest.finish();
}

#[test]
fn a_smaller_queue_works_with_either_version() {
    for behaviour in [modern(), legacy()] {
        let mut guest = bring_up_as(behaviour, |options| options.queue_size = 8);
        assert!(guest.device(|b, _| b.common.queues.iter().filter(|q| q.enabled).all(|q| q.size() == 8)));
        guest.follow(5000);
        guest.follow(0);
        guest.finish();
    }
}

#[test]
fn kicks_carry_queue_progress_and_never_configuration_data() {
    let kicks = feature::NOTIFICATION_DATA | feature::NOTIF_CONFIG_DATA;
    for rings in [0, feature::RING_PACKED] {
        let mut guest = bring_up(modern().with_features(modern().features | kicks | rings));
        assert_eq!(guest.device(|b, _| b.common.accepted()) & kicks, feature::NOTIFICATION_DATA);
        guest.follow(3000);
        guest.follow(0);
        guest.finish();
    }
}

fn lives(mut guest: Guest) {
    guest.follow(2000);
    guest.reset().unwrap_or_else(|error| panic!("{error}"));
    guest.run();
    guest.expect_balloon(2000);
    guest.freeze().unwrap_or_else(|error| panic!("{error}"));
    guest.restore().unwrap_or_else(|error| panic!("{error}"));
    guest.run();
    guest.follow(500);
    guest.shut_down();
    guest.start_again();
    guest.run();
    guest.follow(0);
    guest.finish();
}

#[test]
fn resets_freezes_and_later_drivers_keep_ballooned_frames() {
    for behaviour in [modern(), legacy(), modern().packed(), Behaviour::firecracker().on_mmio()] {
        lives(bring_up(Behaviour { handling: Handling::AtOnce, ..behaviour.clone() }));
        lives(bring_up(behaviour));
    }
}

#[test]
fn a_device_that_vanishes_at_any_access_leaves_nothing_behind() {
    for base in [modern(), legacy()] {
        for accesses in 0..120 {
            match try_with(Behaviour { removed_after: Some(accesses), ..base.clone() }, |_| {}) {
                Ok(mut guest) => {
                    guest.device(|b, bus| b.set_target(500, bus));
                    let _ = guest.try_run_steps(200);
                    guest.shut_down();
                    guest.platform.frames.expect_whole();
                    guest.expect_nothing_allocated();
                }
                Err(failure) => failure.expect_clean(false),
            }
        }
    }
}
