//! A failing heap: each allocation of the driver fails in turn. Nothing panics: the driver returns an error with the
//! size, or works with less; it releases everything, and the next start succeeds.
//!
//! An infallible allocation aborts this program, so none is overlooked.

#![allow(clippy::std_instead_of_core, clippy::alloc_instead_of_core, reason = "this program has a standard library")]

mod failing;
mod outside;

use std::collections::BTreeSet;

use ballonet::balloon::{Balloon, BalloonError, BalloonQueue, Changes, Next, Options};
use ballonet::platform::Platform;
use ballonet::rng::Rng;
use ballonet::virtio::{DeviceHandle, DeviceOptions, InterruptMode, RingFormat};
use ballonet_models::feature::{FREE_PAGE_HINT, PAGE_POISON, PAGE_REPORTING, RING_RESET};
use ballonet_models::{Allocated, Balloon as Model, Behaviour, HostSide, Machine};

use outside::Shielded;

type Driver = Balloon<Shielded>;

/// More allocations than any part of a driver's life makes.
const MANY: usize = 1000;
/// The host's target, in pages.
const TARGET: u32 = 3000;

/// A guest whose driver may start.
struct Guest {
    machine: Machine,
    platform: Shielded,
    device: DeviceHandle,
    options: Options,
}

/// The outcome of an action during which an allocation failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The driver works with less.
    Less,
    /// The error.
    Error(String),
}

impl Guest {
    fn new(behaviour: &Behaviour, options: &Options) -> Self {
        let (machine, at) = Machine::with_balloon(64, behaviour.clone());
        let platform = Shielded::new(&machine);
        Self { device: machine.handle(at), platform, machine, options: options.clone() }
    }

    fn probe(&mut self) -> Result<Driver, BalloonError> {
        Balloon::probe(&mut self.platform, self.device, self.options.clone())
    }

    /// Polls until nothing more happens.
    fn settle(&mut self, balloon: &mut Driver) -> Result<(), BalloonError> {
        let mut quiet = 0;
        while quiet < 5 {
            let progress = balloon.poll(&mut self.platform)?;
            let is_idle = progress.next != Next::Now && progress.changes == Changes::empty();
            quiet = if is_idle && !failing::outside(|| self.machine.sleep()) { quiet + 1 } else { 0 };
        }
        Ok(())
    }

    /// The host sets a target, and the driver follows.
    fn follow(&mut self, balloon: &mut Driver, pages: u32) -> Result<(), BalloonError> {
        failing::outside(|| self.machine.each_balloon(|device, bus| device.set_target(pages, bus)));
        self.settle(balloon)
    }

    /// Panics unless the driver works normally, and leaves everything as it found it.
    #[track_caller]
    fn expect_working(mut self, mut balloon: Driver) {
        self.follow(&mut balloon, TARGET).expect("the driver runs");
        assert_eq!(balloon.status().actual, u64::from(TARGET), "{:?}", balloon.status());
        self.follow(&mut balloon, 0).expect("the driver runs");
        assert_eq!(balloon.shutdown(&mut self.platform), 0);
        self.expect_clean();
    }

    /// Panics unless nothing is allocated and no frame is missing.
    #[track_caller]
    fn expect_clean(&self) {
        assert_eq!(self.machine.allocated(), Allocated::default());
        self.machine.expect_no_missteps();
        self.platform.frames.0.expect_whole();
        assert_eq!(
            self.machine.bus(|bus| bus.ram.count_host(HostSide::Ballooned)),
            self.platform.frames.0.ballooned_frames()
        );
    }
}

/// Runs `trial` with the first allocation failing, then the second, and so on, until all succeed. Returns their number,
/// and the outcomes.
#[track_caller]
fn each(what: &str, mut trial: impl FnMut(usize) -> Option<Outcome>) -> (usize, BTreeSet<Outcome>) {
    let mut outcomes = BTreeSet::new();
    for number in 0..MANY {
        match trial(number) {
            Some(outcome) => _ = outcomes.insert(outcome),
            None => return (number, outcomes),
        }
    }
    panic!("{what} allocates without end");
}

/// Runs `action` with allocation `number` failing. Returns its result, and whether that allocation was reached.
fn failing<T>(number: usize, action: impl FnOnce() -> T) -> (T, bool) {
    let result = failing::inside(number, action);
    (result, failing::has_failed())
}

/// The outcome of an action; an error must be about memory.
#[track_caller]
fn outcome<T>(result: &Result<T, BalloonError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Less,
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("no ") && text.ends_with(" bytes of heap"), "not an error about memory: {text}");
            Outcome::Error(text)
        }
    }
}

/// A conforming device with additional features.
fn with(features: u64) -> Behaviour {
    let behaviour = Behaviour::conforming();
    let features = behaviour.features | features;
    behaviour.with_features(features)
}

/// Devices and options that differ in the allocations of a start.
fn variants() -> Vec<(&'static str, Behaviour, Options)> {
    let mut options = Options::new("virtio0");
    // Fewer allocations of the same kind.
    options.window = 4;
    let all = with(FREE_PAGE_HINT | PAGE_REPORTING | PAGE_POISON);
    let forced = |mode| {
        let mut options = options.clone();
        options.interrupts = Some(mode);
        options
    };
    let mut poisoned = options.clone();
    (poisoned.poison, poisoned.ring) = (Some(0xAA), Some(RingFormat::Split));
    vec![
        ("modern", Behaviour::conforming(), options.clone()),
        ("all features", all.clone(), options.clone()),
        ("poison", all, poisoned),
        ("packed", Behaviour::conforming().packed(), options.clone()),
        ("small", Behaviour::conforming(), Options::small("virtio0")),
        ("legacy", Behaviour::conforming().legacy(), options.clone()),
        ("mmio", Behaviour::conforming().on_mmio(), options.clone()),
        ("shared vector", Behaviour::conforming(), forced(InterruptMode::Shared)),
        ("line", Behaviour::conforming(), forced(InterruptMode::Line)),
        ("polling", Behaviour::conforming(), forced(InterruptMode::Polling)),
    ]
}

#[test]
fn a_probe_that_runs_out_of_heap_returns_the_error_and_leaves_nothing_behind() {
    for (name, behaviour, options) in variants() {
        let (count, outcomes) = each(name, |number| {
            let mut guest = Guest::new(&behaviour, &options);
            let (result, failed) = failing(number, || guest.probe());
            let outcome = outcome(&result);
            match result {
                Ok(balloon) => guest.expect_working(balloon),
                Err(_) => {
                    guest.expect_clean();
                    let balloon = guest.probe().expect("memory is available again");
                    guest.expect_working(balloon);
                }
            }
            failed.then_some(outcome)
        });
        assert!(count > 5 && outcomes.len() > 2, "{name}: {count} allocations, {outcomes:?}");
    }
}

/// Runs `action` on a driver at work, with each allocation failing in turn.
#[track_caller]
fn each_while_running(
    what: &str,
    action: impl Fn(&mut Guest, &mut Driver) -> Result<(), BalloonError>,
) -> (usize, BTreeSet<Outcome>) {
    let (mut total, mut all) = (0, BTreeSet::new());
    for (name, behaviour, options) in variants() {
        let (count, outcomes) = each(&format!("{what}, {name}"), |number| {
            let mut guest = Guest::new(&behaviour, &options);
            let mut balloon = guest.probe().expect("there is memory");
            guest.follow(&mut balloon, TARGET / 2).expect("the driver runs");
            guest.machine.each_balloon(|device, bus| device.set_target(TARGET, bus));
            let _ = balloon.poll(&mut guest.platform).expect("the driver runs");
            let (result, failed) = failing(number, || action(&mut guest, &mut balloon));
            let outcome = outcome(&result);
            if balloon.status().failed.is_some() || result.is_err() {
                balloon.reset(&mut guest.platform).expect("memory is available again");
            }
            guest.expect_working(balloon);
            failed.then_some(outcome)
        });
        total += count;
        all.extend(outcomes);
    }
    (total, all)
}

#[test]
fn a_reset_that_runs_out_of_heap_returns_the_error_and_another_one_succeeds() {
    let (count, outcomes) = each_while_running("reset", |guest, balloon| balloon.reset(&mut guest.platform));
    assert!(count > 100 && outcomes.len() > 5, "{count} allocations, {outcomes:?}");
}

#[test]
fn a_restore_that_runs_out_of_heap_returns_the_error_and_the_device_is_reset() {
    let (count, outcomes) = each_while_running("restore", |guest, balloon| {
        balloon.freeze(&mut guest.platform)?;
        balloon.restore(&mut guest.platform)
    });
    assert!(count > 100 && outcomes.len() > 5, "{count} allocations, {outcomes:?}");
}

#[test]
fn freezing_and_polling_allocate_nothing() {
    let frozen = each_while_running("freeze", |guest, balloon| {
        balloon.freeze(&mut guest.platform).and_then(|()| failing::outside(|| balloon.restore(&mut guest.platform)))
    });
    assert_eq!(frozen, (0, BTreeSet::new()));
    let polled = each_while_running("poll", |guest, balloon| {
        guest.follow(balloon, TARGET)?;
        guest.follow(balloon, 0)
    });
    assert_eq!(polled, (0, BTreeSet::new()));
}

#[test]
fn a_recovery_without_heap_returns_the_error_and_a_later_reset_succeeds() {
    let (count, outcomes) = each_while_running("recovery", |guest, balloon| {
        failing::outside(|| guest.machine.each_balloon(Model::raise_needs_reset));
        guest.settle(balloon)
    });
    assert!(count > 100 && outcomes.len() > 5, "{count} allocations, {outcomes:?}");
}

#[test]
fn rounds_of_hints_without_heap_end_early() {
    let behaviour = with(FREE_PAGE_HINT);
    let (count, outcomes) = each("hints", |number| {
        let mut guest = Guest::new(&behaviour, &Options::new("virtio0"));
        let mut balloon = guest.probe().expect("there is memory");
        guest.machine.each_balloon(|device, bus| device.command_hints(7, bus));
        let (result, failed) = failing(number, || guest.settle(&mut balloon));
        let outcome = outcome(&result);
        guest.machine.each_balloon(|device, bus| device.command_hints(1, bus));
        guest.settle(&mut balloon).expect("the driver runs");
        guest.expect_working(balloon);
        failed.then_some(outcome)
    });
    assert!(count > 0, "hints take memory");
    assert_eq!(outcomes, BTreeSet::from([Outcome::Less]));
}

#[test]
fn the_reset_of_a_queue_without_heap_resets_the_device_or_does_nothing() {
    let behaviour = with(RING_RESET);
    let (count, outcomes) = each("queue reset", |number| {
        let mut guest = Guest::new(&behaviour, &Options::new("virtio0"));
        let mut balloon = guest.probe().expect("there is memory");
        guest.machine.each_balloon(|device, bus| device.set_target(TARGET, bus));
        let _ = balloon.poll(&mut guest.platform).expect("the driver runs");
        let (result, failed) = failing(number, || balloon.reset_queue(&mut guest.platform, BalloonQueue::Inflate));
        let outcome = outcome(&result);
        assert_eq!(balloon.status().failed, None);
        guest.expect_working(balloon);
        failed.then_some(outcome)
    });
    assert!(count >= 3, "{count} allocations");
    assert!(outcomes.iter().all(|outcome| *outcome != Outcome::Less), "{outcomes:?}");
}

#[test]
fn an_affinity_that_cannot_be_recorded_is_not_set() {
    let mut guest = Guest::new(&Behaviour::conforming(), &Options::new("virtio0"));
    let mut balloon = guest.probe().expect("there is memory");
    let (result, failed) = failing(0, || balloon.set_queue_affinity(&mut guest.platform, "inflate", 2));
    assert!(failed && matches!(outcome(&result), Outcome::Error(_)));
    assert_eq!(balloon.queue_affinity(&guest.platform, "inflate"), Some(0));
    guest.expect_working(balloon);
}

#[test]
fn the_entropy_driver_also_returns_the_error() {
    let (count, errors) = each("rng", |number| {
        let machine = Machine::new(8);
        let at = ballonet::pci::Bdf::new(0, 0, 3, 0).expect("a function number");
        machine.plug(at, Behaviour::conforming().entropy(1));
        let mut platform = Shielded::new(&machine);
        let (result, failed) = failing(number, || Rng::probe(&mut platform, at, DeviceOptions::new("rng0")));
        let outcome = match result {
            Ok(mut rng) => {
                rng.request(16);
                let mut bytes = [0; 16];
                let end = platform.now() + 1_000_000_000;
                while rng.poll(&mut bytes).expect("it follows the rules").is_none() {
                    assert!(platform.now() < end, "no answer");
                    machine.sleep();
                }
                let (stopped, failed) = failing(0, || rng.shutdown(&mut platform));
                assert!(stopped.is_ok() && !failed, "stopping allocates");
                Outcome::Less
            }
            Err(error) => Outcome::Error(error.to_string()),
        };
        assert_eq!(machine.allocated(), Allocated::default());
        failed.then_some(outcome)
    });
    assert!(count > 3 && errors.iter().any(|error| matches!(error, Outcome::Error(text) if text.contains("heap"))));
}
