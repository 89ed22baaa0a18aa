//! Both platforms of this crate against the device models: whole lives, resets, and a `Hal` that refuses memory.

#![allow(clippy::unwrap_used, clippy::incompatible_msrv, reason = "a test may")]
#![allow(clippy::std_instead_of_core, clippy::alloc_instead_of_core, reason = "this program has a standard library")]

mod guest;
mod kernel;
mod transport;
mod world;

use ballonet::virtio::{InterruptMode, RingFormat, TransportKind};
use ballonet_models::{Behaviour, Handling};

use guest::Guest;
use kernel::{Kernel, WithHal, WithTransport};

fn modern() -> Behaviour {
    Behaviour::conforming()
}

/// Devices of every transport and ring format that a `Hal` reaches.
fn reached_by_hal() -> Vec<(Behaviour, TransportKind, RingFormat)> {
    use RingFormat::{Packed, Split};
    vec![
        (modern(), TransportKind::Modern, Split),
        (modern().packed(), TransportKind::Modern, Packed),
        (modern().transitional(), TransportKind::Modern, Split),
        (modern().legacy(), TransportKind::Legacy, Split),
        (Behaviour::qemu_10(6), TransportKind::Modern, Split),
        (modern().on_mmio(), TransportKind::Mmio, Split),
        (modern().packed().on_mmio(), TransportKind::Mmio, Packed),
        (modern().on_legacy_mmio(), TransportKind::MmioLegacy, Split),
    ]
}

/// Those for which a `Transport` of the models is made.
fn reached_by_transport() -> Vec<(Behaviour, TransportKind, RingFormat)> {
    let is_mmio = |kind| matches!(kind, TransportKind::Mmio | TransportKind::MmioLegacy);
    reached_by_hal().into_iter().filter(|(_, kind, _)| is_mmio(*kind)).collect()
}

#[track_caller]
fn whole_life<K: Kernel>(devices: Vec<(Behaviour, TransportKind, RingFormat)>) {
    for (behaviour, kind, ring) in devices {
        let mut guest = Guest::<K>::start(behaviour).expect("a balloon");
        let status = guest.status();
        assert_eq!((status.transport, status.ring, status.interrupts), (kind, ring, InterruptMode::Polling));
        for target in [1000, 5000, 300, 301, 0] {
            guest.follow(target);
        }
        guest.finish();
    }
}

#[test]
fn a_kernel_with_a_hal_inflates_and_deflates_to_the_frame() {
    whole_life::<WithHal>(reached_by_hal());
}

#[test]
fn a_kernel_with_a_transport_inflates_and_deflates_to_the_frame() {
    whole_life::<WithTransport>(reached_by_transport());
}

#[track_caller]
fn true_statistics<K: Kernel>(devices: Vec<(Behaviour, TransportKind, RingFormat)>) {
    for (behaviour, ..) in devices {
        let mut guest = Guest::<K>::start(behaviour).expect("a balloon");
        for target in [1000, 200] {
            guest.follow(target);
            let report = guest.ask_statistics();
            assert_eq!(report, world::figures().map(|(tag, value)| (tag as u16, value)));
        }
        guest.finish();
    }
}

#[test]
fn statistics_are_those_that_the_kernel_gives() {
    true_statistics::<WithHal>(reached_by_hal());
    true_statistics::<WithTransport>(reached_by_transport());
}

#[track_caller]
fn resets<K: Kernel>(devices: Vec<(Behaviour, TransportKind, RingFormat)>) {
    for (behaviour, ..) in devices {
        let slow = Behaviour { handling: Handling::Later(3_000_000), ..behaviour };
        let mut guest = Guest::<K>::start(slow).expect("a balloon");
        guest.follow(2000);
        guest.reset().expect("it starts again");
        guest.follow(500);
        // In the midst of its requests.
        guest.set_target(4000);
        let _ = guest.poll();
        guest.reset().expect("it starts again");
        guest.follow(4000);
        guest.follow(0);
        guest.finish();
    }
}

#[test]
fn a_reset_loses_no_frame() {
    resets::<WithHal>(reached_by_hal());
    resets::<WithTransport>(reached_by_transport());
}

/// Starts with allocation 0 and `more` after it refused, then from 1 on, until nothing is: each start succeeds with less
/// or leaves nothing behind. Returns how many failed.
#[track_caller]
fn refusals_at_start<K: Kernel>(behaviour: &Behaviour, more: usize) -> usize {
    let mut failed = 0;
    for number in 0..1000 {
        let started = Guest::<K>::start_refused(behaviour.clone(), number..number + 1 + more);
        let was_refused = world::was_refused();
        world::refuse(0..0);
        match started {
            Ok(mut guest) => {
                guest.follow(1000);
                guest.finish();
            }
            Err(error) => {
                failed += 1;
                let error = error.to_string();
                assert!(error.starts_with("no ") && error.contains("DMA memory"), "{error}");
                world::expect_clean();
            }
        }
        if !was_refused {
            return failed;
        }
    }
    panic!("a start allocates without end");
}

#[track_caller]
fn refusals<K: Kernel>(devices: Vec<(Behaviour, TransportKind, RingFormat)>) {
    for (behaviour, kind, ring) in devices {
        // One that is tried again may succeed, as where small blocks could not share a frame.
        for more in [0, 1] {
            refusals_at_start::<K>(&behaviour, more);
        }
        let failed = refusals_at_start::<K>(&behaviour, usize::MAX / 2);
        assert!(failed >= 2, "{kind}, {ring}: the rings and a request are needed; {failed} starts failed");
    }
}

#[test]
fn a_start_without_memory_does_with_less_or_leaves_nothing_behind() {
    refusals::<WithHal>(reached_by_hal());
    refusals::<WithTransport>(reached_by_transport());
}

#[track_caller]
fn refused_frames<K: Kernel>(behaviour: &Behaviour) {
    let mut held_up = 0;
    for number in 0..40 {
        let mut guest = Guest::<K>::start(behaviour.clone()).expect("a balloon");
        world::refuse(number..usize::MAX);
        guest.set_target(1000);
        guest.settle().expect("no memory is no fault");
        let reached = guest.status().actual;
        held_up += usize::from(reached < 1000);
        assert_eq!(u64::from(world::frames_taken()), reached, "what is taken is ballooned");
        world::refuse(0..0);
        guest.memory_freed();
        guest.follow(1000);
        guest.follow(0);
        guest.finish();
    }
    assert!(held_up > 10, "1000 frames take more allocations");
}

#[test]
fn a_balloon_without_frames_waits_and_goes_on_when_there_are_some() {
    refused_frames::<WithHal>(&modern());
    refused_frames::<WithTransport>(&modern().on_mmio());
}

#[track_caller]
fn refused_resets<K: Kernel>(behaviour: &Behaviour) {
    let mut failed = 0;
    for number in 0..1000 {
        let mut guest = Guest::<K>::start(behaviour.clone()).expect("a balloon");
        guest.follow(1500);
        world::refuse(number..usize::MAX);
        let result = guest.reset();
        let was_refused = world::was_refused();
        world::refuse(0..0);
        if let Err(error) = result {
            failed += 1;
            assert!(error.to_string().contains("DMA memory"), "{error}");
            guest.reset().expect("there is memory again");
        }
        guest.follow(200);
        guest.follow(0);
        guest.finish();
        if !was_refused {
            assert!(failed >= 2, "the rings are needed");
            return;
        }
    }
    panic!("a reset allocates without end");
}

#[test]
fn a_reset_without_memory_says_so_and_another_one_succeeds() {
    refused_resets::<WithHal>(&modern());
    refused_resets::<WithHal>(&modern().legacy());
    refused_resets::<WithTransport>(&modern().packed().on_mmio());
}
