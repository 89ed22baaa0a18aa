//! From configuration space to `DRIVER_OK`, on the devices of all VMMs and on devices that cannot be driven.

use ballonet::balloon::BalloonError;
use ballonet::virtio::TransportError;

use super::guest::{Guest, bring_up, try_with};
use ballonet_models::feature::{
    EVENT_IDX, NOTIF_CONFIG_DATA, NOTIFICATION_DATA, RING_PACKED, RING_RESET, STATS_VQ, VERSION_1,
};
use ballonet_models::{Bar, Behaviour, Capability, Region, Structure};

#[test]
fn every_vmm_is_driven_without_a_misstep_and_left_clean() {
    for (name, behaviour) in Behaviour::every_device() {
        println!("{name}");
        let mut guest = bring_up(behaviour);
        guest.follow(1000);
        guest.follow(300);
        guest.follow(0);
        guest.finish();
    }
}

#[test]
fn only_implemented_features_of_a_device_that_offers_every_bit_are_accepted() {
    let mut guest = bring_up(Behaviour::conforming().with_features(u64::MAX));
    let accepted = guest.device(|b, _| b.common.accepted());
    // MUST_TELL_HOST, STATS_VQ, DEFLATE_ON_OOM, FREE_PAGE_HINT, PAGE_REPORTING, INDIRECT_DESC, EVENT_IDX, VERSION_1,
    // ACCESS_PLATFORM, RING_PACKED, IN_ORDER, ORDER_PLATFORM, NOTIFICATION_DATA, NOTIF_CONFIG_DATA, RING_RESET.
    let bits = [0, 1, 2, 3, 5, 28, 29, 32, 33, 34, 35, 36, 38, 39, 40];
    let implemented = bits.into_iter().fold(0, |features, bit| features | 1 << bit);
    assert_eq!(accepted, implemented, "accepted {accepted:#x}");
    guest.follow(500);
    guest.finish();
}

#[test]
fn kicks_have_the_negotiated_width_and_value() {
    let conforming = Behaviour::conforming();
    for kicks in [0, NOTIFICATION_DATA, NOTIF_CONFIG_DATA, NOTIFICATION_DATA | NOTIF_CONFIG_DATA] {
        for rings in [0, RING_PACKED] {
            let features = conforming.features | kicks | rings;
            let mut guest = bring_up(conforming.clone().with_features(features));
            assert_eq!(guest.device(|b, _| b.common.accepted()) & (kicks | rings), kicks | rings);
            for pages in [3000, 10, 8000, 0] {
                guest.follow(pages);
            }
            guest.finish();
        }
    }
}

#[test]
fn version_1_alone_is_enough() {
    let mut guest = bring_up(Behaviour::conforming().with_features(VERSION_1));
    assert_eq!(guest.device(|b, _| b.common.accepted()), VERSION_1);
    guest.follow(500);
    guest.follow(0);
    guest.finish();
}

#[test]
fn offered_and_implemented_features_are_accepted() {
    let guest = bring_up(Behaviour::conforming());
    let wanted = VERSION_1 | EVENT_IDX | STATS_VQ | 1;
    assert_eq!(guest.device(|b, _| b.common.accepted()) & wanted, wanted);
    guest.finish();
}

#[test]
fn ring_reset_is_accepted_only_with_its_register() {
    let behaviour = Behaviour::cloud_hypervisor();
    let without = Behaviour { features: behaviour.features | RING_RESET, ..behaviour };
    for (behaviour, accepted) in [(Behaviour::qemu_7_2(), RING_RESET), (without, 0)] {
        let guest = bring_up(behaviour);
        assert_eq!(guest.device(|b, _| b.common.accepted()) & RING_RESET, accepted);
        guest.finish();
    }
}

#[test]
fn a_slow_reset_is_awaited() {
    bring_up(Behaviour { reset_time: 200_000_000, ..Behaviour::conforming() }).finish();
}

#[test]
fn status_grows_step_by_step_and_ends_with_a_reset() {
    let mut guest = bring_up(Behaviour::conforming());
    assert_eq!(guest.device(|b, _| b.common.status_writes.clone()), [0, 1, 3, 11, 15]);
    guest.shut_down();
    assert_eq!(guest.device(|b, _| b.common.status_writes.last().copied()), Some(0));
    guest.finish();
}

#[test]
fn a_device_that_cannot_be_driven_ends_in_an_error_and_leaves_nothing_behind() {
    let conforming = Behaviour::conforming;
    let with = |change: &dyn Fn(&mut Behaviour)| {
        let mut behaviour = conforming();
        change(&mut behaviour);
        behaviour
    };
    let window = |cfg_type, offset, length| {
        with(&|b| {
            let Capability::Virtio { offset: o, length: l, .. } = b.layout.capability(cfg_type) else { return };
            (*o, *l) = (offset, length);
        })
    };
    let cases = [
        ("legacy only", conforming().with_features(EVENT_IDX)),
        ("features refused", Behaviour { refuses_features: true, ..conforming() }),
        ("reset never done", Behaviour { reset_time: u64::MAX, ..conforming() }),
        ("no common structure", with(&|b| b.layout = b.layout.clone().without(1))),
        ("no notify structure", with(&|b| b.layout = b.layout.clone().without(2))),
        ("no device structure", with(&|b| b.layout = b.layout.clone().without(4))),
        ("common structure beyond its BAR", window(1, 0x3ff0, 0x1000)),
        ("notify structure beyond its BAR", window(2, 0x4000, 0x1000)),
        ("device structure at the end of the address space", window(4, 0xffff_fff0, 0x100)),
        ("common structure too short", window(1, 0, 0x20)),
        ("device structure too short", window(4, 0x2000, 4)),
        ("BAR not there", with(&|b| b.layout.bars[4] = Bar::None)),
        ("no queue", Behaviour { num_queues: Some(0), ..conforming() }),
        ("queue size not a power of two", Behaviour { size_lie: Some(48), ..conforming() }),
        ("kicks beyond the notify structure", Behaviour { notify_off: Some(0x2000), ..conforming() }),
    ];
    for (name, behaviour) in cases {
        let stays_dirty = name == "reset never done";
        match try_with(behaviour, |_| {}) {
            Ok(mut guest) if name == "queue size not a power of two" => {
                // A driver may use the next lower power of two.
                guest.follow(100);
                guest.finish();
            }
            Ok(_) => panic!("{name}: no error"),
            Err(failure) => {
                println!("{name}: {}", failure.error);
                failure.expect_clean(!stays_dirty);
            }
        }
    }
}

/// Firmware left bus mastering on, possibly with queues in memory that the kernel now uses.
#[test]
fn a_device_that_was_not_reset_has_bus_mastering_turned_off() {
    let conforming = || {
        let mut behaviour = Behaviour::conforming();
        behaviour.command |= 1 << 2;
        behaviour
    };
    for (stays, behaviour) in [
        (true, Behaviour { refuses_features: true, ..conforming() }),
        (false, Behaviour { reset_time: u64::MAX, ..conforming() }),
    ] {
        let failure = try_with(behaviour, |_| {}).err().expect("it cannot be started");
        assert_eq!(failure.is_bus_master(), stays, "{}", failure.error);
    }
}

#[test]
fn a_capability_list_that_loops_ends() {
    for link in [0x40, 0x44, 0x50, 0xff, 0x03, 0x10] {
        let mut behaviour = Behaviour::conforming();
        behaviour.layout.last_link = link;
        match try_with(behaviour, |_| {}) {
            Ok(guest) => guest.finish(),
            Err(failure) => {
                println!("{link:#x}: {}", failure.error);
                failure.expect_clean(true);
            }
        }
    }
}

#[test]
fn useless_capabilities_are_skipped() {
    let mut behaviour = Behaviour::conforming();
    let list = &mut behaviour.layout.capabilities;
    // An invalid BAR number, an unknown type, and a common structure outside its BAR, all before the good ones.
    let useless = [
        Capability::Virtio { cfg_type: 1, bar: 6, offset: 0, length: 0x1000, multiplier: None },
        Capability::Virtio { cfg_type: 77, bar: 0, offset: 0, length: 1, multiplier: None },
        Capability::Virtio { cfg_type: 1, bar: 4, offset: 0x10_0000, length: 0x1000, multiplier: None },
        Capability::Virtio { cfg_type: 4, bar: 0, offset: 0, length: 0x1000, multiplier: None },
        Capability::Raw(vec![0x09, 0, 3]),
    ];
    list.splice(0..0, useless);
    let mut guest = bring_up(behaviour);
    guest.follow(100);
    guest.finish();
}

#[test]
fn one_port_doorbell_serves_all_queues() {
    // Like QEMU's `modern-pio-notify=on`: the first of two notify structures is in an I/O BAR, with multiplier 0.
    let mut behaviour = Behaviour::qemu_10(6);
    let layout = &mut behaviour.layout;
    layout.bars[2] = Bar::Io(4);
    layout.regions.push(Region { structure: Structure::Notify, bar: 2, offset: 0, length: 4 });
    let doorbell = Capability::Virtio { cfg_type: 2, bar: 2, offset: 0, length: 4, multiplier: Some(0) };
    layout.capabilities.insert(0, doorbell);
    let mut guest = bring_up(behaviour);
    guest.follow(1000);
    guest.follow(0);
    guest.finish();
}

#[test]
fn a_huge_structure_length_is_harmless() {
    for (cfg_type, length) in [(1, 0x4000), (4, 0x2000), (2, 0x1000)] {
        let mut behaviour = Behaviour::conforming();
        let Capability::Virtio { length: l, .. } = behaviour.layout.capability(cfg_type) else { unreachable!() };
        *l = length;
        let mut guest = bring_up(behaviour);
        guest.follow(100);
        guest.finish();
    }
}

#[test]
fn a_driver_that_runs_out_of_dma_memory_releases_everything() {
    let mut succeeded = false;
    for allocations in 0..40 {
        match try_with(Behaviour::conforming(), |machine| machine.limit_dma(allocations)) {
            Ok(guest) => {
                guest.finish();
                succeeded = true;
                break;
            }
            Err(failure) => failure.expect_clean(true),
        }
    }
    assert!(succeeded, "40 allocations should be enough");
}

#[test]
fn a_device_that_vanishes_at_any_access_is_released() {
    let mut survived = false;
    for accesses in 0..2000 {
        match try_with(Behaviour { removed_after: Some(accesses), ..Behaviour::conforming() }, |_| {}) {
            Ok(mut guest) => {
                guest.device(|b, bus| b.set_target(200, bus));
                let _ = guest.try_run();
                survived = !guest.device(|b, _| b.gone());
                guest.finish();
            }
            Err(failure) => {
                let at = failure.at();
                let gone = [BalloonError::NoFunction(at), TransportError::Gone(at.into()).into()];
                assert!(gone.contains(&failure.error), "gone after {accesses} accesses: {}", failure.error);
                failure.expect_clean(false);
            }
        }
        if survived {
            break;
        }
    }
    assert!(survived, "2000 accesses should be enough");
}

#[test]
fn firmware_values_of_the_bars_and_status_bits_survive() {
    let mut guest: Guest = bring_up(Behaviour::conforming());
    guest.shut_down();
    assert!(guest.device(|b, _| b.config.bars_restored()));
    assert!(!guest.device(|b, _| b.config.status_cleared()));
    guest.finish();
}
