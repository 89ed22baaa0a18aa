//! How the driver reaches its device's structures: anywhere that the capabilities point to, by mappings where
//! possible, otherwise through the PCI configuration access capability.

use ballonet::balloon::BalloonError;
use ballonet::pci::{Bdf, ConfigSpace};
use ballonet::platform::Platform;
use ballonet::virtio::InterruptMode::{self, Line, PerQueue, Polling, Shared};
use ballonet::virtio::{InterfaceError, TransportError, TransportKind};

use super::guest::{Failure, Guest, bring_up, bring_up_with, expect_up, try_choosing, try_with};
use ballonet_models::feature::{NOTIF_CONFIG_DATA, NOTIFICATION_DATA};
use ballonet_models::{Behaviour, Capability, Layout, Machine, ModelPlatform};

/// Checks that the balloon works and that shutdown leaves nothing behind.
#[track_caller]
fn works(mut guest: Guest) {
    for pages in [1000, 300, 0] {
        guest.follow(pages);
    }
    guest.finish();
}

/// Starts the driver with every structure reached through configuration space.
#[track_caller]
fn through_config(behaviour: Behaviour, mode: Option<InterruptMode>) -> Guest {
    let choose = |options: &mut ballonet::balloon::Options| {
        (options.through_config, options.interrupts) = (true, mode);
    };
    // Only the BAR of the MSI-X table can be mapped.
    expect_up(try_choosing(behaviour.with_pci_access(), choose, |machine| machine.limit_reach(&[0, 2, 4], true)))
}

#[track_caller]
fn interface_error(outcome: Result<Guest, Box<Failure>>) -> InterfaceError {
    let failure = outcome.err().expect("no driver");
    println!("{}", failure.error);
    failure.expect_clean(true);
    match failure.error {
        BalloonError::Interface(error) => error,
        error => panic!("{error}"),
    }
}

#[test]
fn the_whole_balloon_is_driven_through_configuration_space_at_every_step_of_the_ladder() {
    for mode in [PerQueue, Shared, Line, Polling] {
        for behaviour in [Behaviour::conforming(), Behaviour::qemu_10(6).packed()] {
            let guest = through_config(behaviour, Some(mode));
            assert_eq!(guest.mode(), mode);
            works(guest);
        }
    }
}

#[test]
fn wide_kicks_go_through_configuration_space_too() {
    let kicks = Behaviour::conforming().features | NOTIFICATION_DATA | NOTIF_CONFIG_DATA;
    works(through_config(Behaviour::conforming().with_features(kicks).packed(), None));
}

#[test]
fn structures_that_cannot_be_mapped_are_reached_through_configuration_space() {
    // The MSI-X table is in its own BAR, or in the one that cannot be mapped.
    for (behaviour, bar, mode) in [
        (Behaviour::qemu_10(6), 4, PerQueue),
        (Behaviour::cloud_hypervisor(), 0, Polling),
        (Behaviour::crosvm(), 0, Line),
    ] {
        let guest = bring_up_with(behaviour.with_pci_access(), |machine| machine.limit_reach(&[bar], true));
        assert_eq!(guest.mode(), mode);
        works(guest);
    }
}

#[test]
fn mappable_structures_are_not_reached_through_configuration_space() {
    let mut behaviour = Behaviour { layout: Layout::odd(), ..Behaviour::conforming() };
    let window = behaviour.layout.capabilities.len();
    behaviour = behaviour.with_pci_access();
    behaviour.layout.capabilities.swap(0, window);
    for bar in [2, 4] {
        works(bring_up_with(behaviour.clone(), |machine| machine.limit_reach(&[bar], true)));
    }
}

#[test]
fn bars_without_addresses_are_reached_through_configuration_space_and_never_decoded() {
    for (behaviour, mode) in [(Behaviour::qemu_10(6), Line), (Behaviour::conforming().packed(), Line)] {
        let behaviour = Behaviour { unplaced: true, ..behaviour }.with_pci_access();
        let guest = bring_up(behaviour.clone());
        assert_eq!(guest.mode(), mode, "the MSI-X table is unreachable");
        works(guest);
        let guest = bring_up_with(behaviour, |machine| machine.limit(0, false, false));
        assert_eq!(guest.mode(), Polling);
        works(guest);
    }
}

#[test]
fn unreachable_structures_are_reported_as_an_error() {
    let conforming = Behaviour::conforming;
    let unplaced = || Behaviour { unplaced: true, ..conforming() };
    let error = interface_error(try_with(unplaced(), |_| {}));
    assert!(matches!(error, InterfaceError::Capability(_)), "{error}");
    let error = interface_error(try_with(conforming(), |machine| machine.limit_reach(&[4], true)));
    assert!(matches!(error, InterfaceError::Modern(_)), "{error}");
    for behaviour in [unplaced(), conforming()] {
        let behaviour = behaviour.with_pci_access();
        let error = interface_error(try_with(behaviour, |machine| machine.limit_reach(&[4], false)));
        assert!(matches!(error, InterfaceError::Modern(_)), "{error}");
    }
    for (behaviour, transport) in [(conforming(), None), (conforming().transitional(), Some(TransportKind::Legacy))] {
        let choose = |options: &mut ballonet::balloon::Options| {
            (options.through_config, options.transport) = (true, transport);
        };
        let error = interface_error(try_choosing(behaviour, choose, |_| {}));
        assert!(error.to_string().contains("no usable PCI configuration access"), "{error}");
    }
}

#[test]
fn a_device_that_vanishes_behind_the_window_is_released() {
    let mut survived = false;
    for accesses in (0..2000).step_by(3) {
        let behaviour = Behaviour { removed_after: Some(accesses), ..Behaviour::qemu_7_2() }.with_pci_access();
        match try_choosing(behaviour, |options| options.through_config = true, |_| {}) {
            Ok(mut guest) => {
                guest.device(|b, bus| b.set_target(200, bus));
                let _ = guest.try_run();
                survived = !guest.device(|b, _| b.gone());
                guest.finish();
            }
            Err(failure) => failure.expect_clean(false),
        }
        if survived {
            break;
        }
    }
    assert!(survived, "2000 accesses should be enough");
}

/// The clauses that these accesses to the window break; each is a data width and a selection.
fn clauses_of(accesses: &[(u8, u8, u32, u32)]) -> Vec<&'static str> {
    let (machine, at): (Machine, Bdf) = Machine::with_balloon(16, Behaviour::conforming().with_pci_access());
    let mut platform = ModelPlatform::new(&machine);
    let config = platform.config();
    let mut capability = u16::from(config.read8(at, 0x34));
    while config.read16(at, capability + 2) >> 8 != 5 {
        capability = config.read8(at, capability + 1).into();
    }
    for &(width, bar, offset, length) in accesses {
        config.write8(at, capability + 4, bar);
        config.write32(at, capability + 8, offset);
        config.write32(at, capability + 12, length);
        match width {
            1 => drop(config.read8(at, capability + 16)),
            2 => drop(config.read16(at, capability + 16)),
            _ => drop(config.read32(at, capability + 16)),
        }
    }
    machine.missteps().iter().map(|misstep| misstep.clause).collect()
}

#[test]
fn the_model_names_the_clause_of_each_misstep_at_the_window() {
    let status = (1, 4, 0x14, 1);
    assert_eq!(clauses_of(&[status, status]), [""; 0], "correct accesses are accepted");
    for (access, clause) in [
        ((4, 4, 0, 0), "PCI-CFGACC-01"),
        ((4, 4, 0, 3), "PCI-CFGACC-01"),
        ((4, 4, 2, 4), "PCI-CFGACC-01"),
        ((4, 4, 0x14, 1), "PCI-CFGACC-02"),
        ((4, 4, 0x8000, 4), "PCI-CFGACC-02"),
        ((4, 1, 0, 4), "PCI-CFGACC-02"),
        ((4, 6, 0, 4), "PCI-CFGACC-02"),
    ] {
        assert!(clauses_of(&[access]).contains(&clause), "{access:x?}");
    }
}

#[test]
fn structures_work_in_any_place_and_in_any_listed_order() {
    for layout in [Layout::in_ports(), Layout::odd()] {
        for turn in 0..5 {
            let mut layout = layout.clone();
            layout.capabilities.rotate_left(turn);
            works(bring_up(Behaviour { layout: layout.clone(), ..Behaviour::conforming() }));
            layout.capabilities.reverse();
            works(bring_up(Behaviour { layout, ..Behaviour::conforming() }));
        }
    }
}

#[test]
fn capabilities_without_a_use_here_are_skipped() {
    let mut behaviour = Behaviour::conforming();
    let more = [
        // Vendor data, a shared memory region, a future type, and two structures repeated.
        Capability::Raw(vec![0x09, 0, 8, 9, 0xf4, 0x1a, 1, 2]),
        Capability::Raw([&[0x09, 0, 24, 8, 4, 3, 0, 0][..], &[0; 4], &[0, 0x10, 0, 0], &[0; 8]].concat()),
        Capability::Raw(vec![0x09, 0, 16, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    behaviour.layout.capabilities.splice(0..0, more);
    for cfg_type in [1, 2] {
        let multiplier = (cfg_type == 2).then_some(0);
        let second = Capability::Virtio { cfg_type, bar: 4, offset: 0x3800, length: 0x100, multiplier };
        behaviour.layout.capabilities.push(second);
    }
    works(bring_up(behaviour));
}

#[test]
fn doorbells_may_lie_at_any_multiple_that_keeps_them_aligned() {
    for (multiplier, stride) in [(0, 1), (0, 7), (1, 2), (1, 6), (2, 1), (3, 2), (5, 4), (6, 1), (4096 / 4, 1)] {
        let mut behaviour = Behaviour { notify_stride: stride, ..Behaviour::conforming() };
        let Capability::Virtio { multiplier: it, .. } = behaviour.layout.capability(2) else { unreachable!() };
        *it = Some(multiplier);
        println!("{multiplier} times {stride}");
        works(bring_up(behaviour));
    }
}

#[test]
fn doorbells_that_are_misaligned_or_out_of_range_are_refused_with_an_error() {
    let kicks = NOTIFICATION_DATA | Behaviour::conforming().features;
    for (multiplier, features, offset) in [
        (1, 0, 1),
        (3, 0, 3),
        (5, 0, 5),
        (2, kicks, 2),
        (6, kicks, 6),
        (0x1000, 0, 0x1000),
        (u32::MAX, 0, u32::MAX.into()),
    ] {
        let mut behaviour = Behaviour::conforming();
        behaviour.features |= features;
        let Capability::Virtio { multiplier: it, .. } = behaviour.layout.capability(2) else { unreachable!() };
        *it = Some(multiplier);
        let failure = try_with(behaviour, |_| {}).err().expect("no such doorbell");
        println!("{}", failure.error);
        let BalloonError::Transport(TransportError::Doorbell { queue, offset: named, .. }) = failure.error else {
            panic!("{}", failure.error)
        };
        assert_eq!((queue.number(), named), (1, offset));
        failure.expect_clean(true);
    }
}

#[test]
fn a_device_configuration_may_be_longer_than_known_but_not_shorter_than_needed() {
    for length in [1, 4, 7, 8, 9, 16, 0x1000, u32::MAX] {
        let mut behaviour = Behaviour::conforming();
        let Capability::Virtio { length: it, .. } = behaviour.layout.capability(4) else { unreachable!() };
        *it = length;
        match try_with(behaviour, |_| {}) {
            Ok(guest) if length >= 8 => works(guest),
            Err(failure) if length < 8 => {
                assert!(matches!(failure.error, BalloonError::ShortConfig { .. }), "{}", failure.error);
                failure.expect_clean(true);
            }
            Ok(_) => panic!("{length} bytes are too few"),
            Err(failure) => panic!("{length} bytes: {}", failure.error),
        }
    }
}
