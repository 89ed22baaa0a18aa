//! `mode=bench` against the device models: every case that a device offers is measured, and nothing is left behind.

use std::cell::Cell;

use ballonet::balloon::Options;
use ballonet::bench::{Bench, BenchError, Case, Shape, Stopwatch};
use ballonet::virtio::{InterruptMode, RingFormat, TransportKind};

use crate::models::{Allocated, Behaviour, Handling, HostSide, Machine, ModelPlatform};

/// Counts how often it is asked. The model's interrupts come in whenever they like; time jumps to the next.
struct Count<'a> {
    machine: &'a Machine,
    ticks: Cell<u64>,
    holds: u32,
}

impl<'a> Count<'a> {
    fn new(machine: &'a Machine) -> Self {
        Self { machine, ticks: Cell::new(0), holds: 0 }
    }
}

impl Stopwatch for Count<'_> {
    fn ticks(&self) -> u64 {
        self.ticks.set(self.ticks.get() + 1);
        self.ticks.get()
    }

    fn hold_interrupts(&mut self) {
        self.holds += 1;
    }

    fn admit_interrupts(&mut self) {
        if !self.machine.sleep() {
            self.machine.pass(1_000_000);
        }
    }

    fn release_interrupts(&mut self) {
        self.holds -= 1;
    }
}

/// The cases of a device that does not offer to keep the order.
fn any_order() -> impl Iterator<Item = Case> {
    Case::ALL.into_iter().filter(|case| !case.in_order)
}

/// Measures everything that a device offers.
fn bench(behaviour: Behaviour, options: &Options) -> Vec<(Case, InterruptMode)> {
    let (machine, at) = Machine::with_balloon(16, behaviour);
    let mut platform = ModelPlatform::new(&machine);
    let mut watch = Count::new(&machine);
    let bench = Bench { function: at, options, rounds: 16 };
    let cases = bench.cases(&mut platform).expect("the device can be asked");
    let measured = cases
        .into_iter()
        .map(|case| {
            let outcome = bench.measure(&mut platform, &mut watch, case);
            let (mode, figures) = outcome.unwrap_or_else(|error| panic!("{case}: {error}; {:#?}", machine.missteps()));
            for (leg, series) in figures.legs() {
                assert!(series.minimum() <= series.median(), "{case} {leg}: {series:?}");
            }
            assert!(figures.round_trip.minimum() >= 2, "the clock was read twice in between: {figures:?}");
            (case, mode)
        })
        .collect();
    assert_eq!(watch.holds, 0, "interrupts are still held");
    left_as_found(&machine, &platform);
    measured
}

/// Nothing is allocated, no frame is away, and the device made no complaint.
fn left_as_found(machine: &Machine, platform: &ModelPlatform) {
    machine.expect_no_missteps();
    assert_eq!(machine.allocated(), Allocated::default());
    assert_eq!(platform.frames.free(), platform.frames.total());
    assert_eq!(machine.bus(|bus| bus.ram.count_host(HostSide::Ballooned)), 0, "the host has frames");
}

#[test]
fn a_device_that_offers_all_is_measured_in_every_case() {
    for (vectors, mode) in
        [(6, InterruptMode::PerQueue), (2, InterruptMode::Shared), (1, InterruptMode::Line), (0, InterruptMode::Line)]
    {
        for handling in [Handling::AtOnce, Handling::Later(20_000)] {
            let behaviour = Behaviour { handling, ..Behaviour::qemu_10(vectors).packed() };
            let expected: Vec<_> = any_order().map(|case| (case, mode)).collect();
            assert_eq!(bench(behaviour, &Options::default()), expected);
        }
    }
}

#[test]
fn a_device_that_keeps_the_order_is_measured_with_and_without() {
    for batches in [false, true] {
        let measured = bench(Behaviour::qemu_10(6).packed().in_order(batches), &Options::default());
        assert!(measured.iter().map(|(case, _)| *case).eq(Case::ALL), "{measured:?}");
    }
}

#[test]
fn what_is_not_offered_or_declined_is_left_out() {
    let split = bench(Behaviour::qemu_10(6), &Options::default());
    assert!(split.len() == 6 && split.iter().all(|(case, _)| case.ring == RingFormat::Split));
    let mut options = Options::default();
    options.ring = Some(RingFormat::Packed);
    options.declined = ballonet::virtio::spec::Features::INDIRECT_DESC;
    let packed = bench(Behaviour::qemu_10(6).packed(), &options);
    let wanted = |case: &Case| case.ring == RingFormat::Packed && case.shape != Shape::Indirect;
    assert!(packed.len() == 4 && packed.iter().all(|(case, _)| wanted(case)));
}

#[test]
fn a_transitional_device_is_measured_by_its_legacy_interface_and_one_without_interrupts_by_asking() {
    let mut options = Options::default();
    options.transport = Some(TransportKind::Legacy);
    assert_eq!(bench(Behaviour::qemu_10(6).transitional(), &options).len(), 6);
    let mut options = Options::default();
    options.interrupts = Some(InterruptMode::Polling);
    let polled = bench(Behaviour::letter().packed(), &options);
    assert!(polled.len() == 12 && polled.iter().all(|(_, mode)| *mode == InterruptMode::Polling));
}

#[test]
fn a_device_that_returns_nothing_is_an_error_and_what_it_may_have_stays_ballooned() {
    let (machine, at) = Machine::with_balloon(16, Behaviour { stalls_after: Some(0), ..Behaviour::letter() });
    let mut platform = ModelPlatform::new(&machine);
    let bench = Bench { function: at, options: &Options::default(), rounds: 1 };
    let error = bench.measure(&mut platform, &mut Count::new(&machine), Case::ALL[0]).err();
    assert!(matches!(error, Some(BenchError::Silence { waited_ms: 2000.. })), "{error:?}");
    machine.expect_no_missteps();
    assert_eq!(machine.allocated(), Allocated::default());
    assert_eq!(platform.frames.ballooned_frames(), 1);
}
