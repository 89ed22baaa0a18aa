//! `mode=bench` against the device models: every case that a device offers is measured, and nothing is left behind.

#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "modules of a test program")]
#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(clippy::std_instead_of_core, clippy::alloc_instead_of_core, reason = "this program has a standard library")]

use std::cell::Cell;

use ballonet::balloon::Options;
use ballonet::memory::PageFrames;
use ballonet::memory::Pfn;
use ballonet::virtio::{InterruptMode, RingFormat, TransportKind};
use ballonet_check::bench::{Bench, BenchError, Case, Shape, Stopwatch, Surroundings, Throughput};
use vm_memory::{Bytes, GuestAddress};

use ballonet_models::{Allocated, Behaviour, Bus, Costs, Handling, HostSide, Machine, ModelPlatform, feature};

/// Counts its reads. The model's interrupts may come at any time; time jumps to the next.
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

impl Surroundings for Count<'_> {
    fn idle(&mut self, longest: u64, is_pending: &dyn Fn() -> bool) {
        if !is_pending() && !self.machine.sleep() {
            self.machine.pass(longest);
        }
    }

    fn touch_free_memory(&mut self, frames: &mut impl PageFrames) {
        self.ticks.set(self.ticks.get() + 1);
        let runs: Vec<_> = std::iter::from_fn(|| frames.take_free(512)).collect();
        let write = |bus: &mut Bus, pfn: Pfn| {
            let start = GuestAddress(pfn.start().as_u64());
            bus.ram.memory().write_obj(1_u64, start).expect("frame in RAM");
        };
        self.machine.bus(|bus| runs.iter().flat_map(|run| run.pfns()).for_each(|pfn| write(bus, pfn)));
        runs.into_iter().for_each(|run| frames.release(run));
    }
}

/// The cases of a device without `IN_ORDER`.
fn any_order() -> impl Iterator<Item = Case> {
    Case::ALL.into_iter().filter(|case| !case.in_order)
}

/// Measures everything that a device offers.
fn bench(behaviour: Behaviour, options: &Options) -> Vec<(Case, InterruptMode)> {
    let (machine, at) = Machine::with_balloon(16, behaviour);
    let mut platform = ModelPlatform::new(&machine);
    let mut watch = Count::new(&machine);
    let bench = Bench { device: at.into(), options, rounds: 16 };
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

/// Nothing is allocated, no frame is with the host, and the device detected no misstep.
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
fn features_not_offered_or_declined_are_left_out() {
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
    let polled = bench(Behaviour::conforming().packed(), &options);
    assert!(polled.len() == 12 && polled.iter().all(|(_, mode)| *mode == InterruptMode::Polling));
}

#[test]
fn a_device_that_returns_nothing_is_an_error_and_its_frames_stay_ballooned() {
    let (machine, at) = Machine::with_balloon(16, Behaviour { stalls_after: Some(0), ..Behaviour::conforming() });
    let mut platform = ModelPlatform::new(&machine);
    let bench = Bench { device: at.into(), options: &Options::default(), rounds: 1 };
    let error = bench.measure(&mut platform, &mut Count::new(&machine), Case::ALL[0]).err();
    assert!(matches!(error, Some(BenchError::Silence { waited_ms: 2000.. })), "{error:?}");
    machine.expect_no_missteps();
    assert_eq!(machine.allocated(), Allocated::default());
    assert_eq!(platform.frames.ballooned_frames(), 1);
}

/// How often the driver inflates and deflates.
const PASSES: usize = 2;

/// Measures how fast a device takes the given number of frames.
fn throughput(behaviour: Behaviour, options: &Options, frames: u32) -> Throughput {
    throughput_of(16, PASSES, behaviour, options, frames)
}

/// The same on a machine with `mib` MiB, by `passes` passes.
fn throughput_of(ram: u32, passes: usize, behaviour: Behaviour, options: &Options, frames: u32) -> Throughput {
    let (machine, at) = Machine::with_balloon(ram, behaviour);
    let mut platform = ModelPlatform::new(&machine);
    let mut surroundings = Count::new(&machine);
    let bench = Bench { device: at.into(), options, rounds: 0 };
    let outcome = bench.throughput(&mut platform, &mut surroundings, frames, passes);
    let throughput = outcome.unwrap_or_else(|error| panic!("{error}; {:#?}", machine.missteps()));
    let strategies = 1 + [throughput.indirect, throughput.reported].iter().flatten().count() as u64;
    let passes = passes as u64;
    assert_eq!(surroundings.ticks.get(), strategies * (passes + 1) + passes, "memory is touched before each pass");
    left_as_found(&machine, &platform);
    throughput
}

#[test]
fn throughput_is_of_all_frames_by_prepared_rings_and_by_the_driver() {
    let mut polling = Options::default();
    polling.interrupts = Some(InterruptMode::Polling);
    let mut legacy = Options::default();
    legacy.transport = Some(TransportKind::Legacy);
    for (behaviour, options, tables) in [
        (Behaviour::qemu_10(6), Options::default(), true),
        (Behaviour::qemu_10(6).packed(), Options::default(), true),
        (Behaviour { handling: Handling::Later(20_000), ..Behaviour::qemu_10(2) }, Options::default(), true),
        (Behaviour { handling: Handling::Later(20_000), ..Behaviour::qemu_10(0) }, Options::default(), true),
        (Behaviour::qemu_10(6).transitional(), legacy, true),
        (Behaviour { handling: Handling::Later(20_000), ..Behaviour::conforming() }, polling, true),
        (Behaviour::cloud_hypervisor(), Options::default(), false),
    ] {
        for frames in [1, 300, 1500] {
            let measured = throughput(behaviour.clone(), &options, frames);
            let rates = measured.ceiling().into_iter().chain(measured.driver.map(|journey| journey.rate));
            assert!(rates.clone().all(|rate| rate.bytes == u64::from(frames) * 4096), "{measured:?}");
            assert!(measured.driver.iter().all(|journey| journey.kicks > 0), "{measured:?}");
            assert!(measured.driver.iter().all(|journey| journey.awake <= journey.rate.time), "{measured:?}");
            assert_eq!(measured.indirect.is_some(), tables, "{measured:?}");
        }
    }
}

#[test]
fn the_ceiling_is_the_better_of_the_two_ways_to_prepare_a_ring() {
    let mut options = Options::default();
    options.declined = ballonet::virtio::spec::Features::INDIRECT_DESC;
    let declined = throughput(Behaviour::qemu_10(6), &options, 600);
    assert_eq!((declined.indirect, declined.prepared()), (None, declined.direct));
    let rate = |time| ballonet_check::bench::Rate { bytes: 1 << 30, time };
    let both = Throughput { direct: [rate(5), rate(7)], indirect: Some([rate(6), rate(3)]), ..declined };
    let both = Throughput { reported: None, ..both };
    assert_eq!(both.ceiling(), [rate(5), rate(3)]);
    let three = Throughput { reported: Some([rate(2), rate(4)]), ..both };
    assert_eq!(three.ceiling(), [rate(2), rate(3)]);
    let lucky = Throughput { fastest: [rate(1), rate(9)], ..three };
    assert_eq!((lucky.prepared(), lucky.ceiling()), ([rate(2), rate(3)], [rate(1), rate(3)]));
}

/// A host to which reports cost next to nothing, and one to which frames do (see [`Costs`]).
const QUICK_REPORTS: Costs = Costs { written: 1600, empty: 600, region: 170_000 };
const QUICK_FRAMES: Costs = Costs { written: 700, empty: 600, region: 900_000 };

#[test]
fn nothing_passes_the_ceiling() {
    let features = Behaviour::conforming().features | feature::PAGE_REPORTING;
    let mut by_reports = 0;
    for (costs, handling, more) in [
        (QUICK_REPORTS, Handling::Later(20_000), 0),
        (QUICK_REPORTS, Handling::AtOnce, feature::RING_PACKED),
        (QUICK_FRAMES, Handling::Later(20_000), 0),
    ] {
        let behaviour =
            Behaviour { costs: Some(costs), handling, ..Behaviour::conforming().with_features(features | more) };
        // The driver compares the two paths from 128 MiB on.
        let measured = throughput_of(192, 1, behaviour, &Options::default(), 36_000);
        // Nothing else takes this host's time, so the driver cannot be faster by luck.
        let ceiling = measured.prepared();
        assert_eq!(measured.ceiling(), ceiling);
        for (journey, ceiling) in measured.driver.iter().zip(ceiling) {
            let share = journey.rate.milli_percent_of(ceiling);
            assert!((1..=100_000).contains(&share), "{share} thousandths of a percent: {measured:#?}");
        }
        // Without reports the driver would exceed the ceiling.
        let plain = Throughput { reported: None, ..measured }.prepared()[0];
        by_reports += u32::from(measured.driver[0].rate.milli_percent_of(plain) > 100_000);
    }
    assert_eq!(by_reports, 2, "the driver reports first where that is faster");
}

#[test]
fn more_frames_than_there_are_move_nowhere() {
    let (machine, at) = Machine::with_balloon(16, Behaviour::conforming());
    let mut platform = ModelPlatform::new(&machine);
    let bench = Bench { device: at.into(), options: &Options::default(), rounds: 0 };
    let error = bench.throughput(&mut platform, &mut Count::new(&machine), 1 << 20, 1).err();
    assert!(matches!(error, Some(BenchError::Memory(_) | BenchError::Frames { .. })), "{error:?}");
    left_as_found(&machine, &platform);
}

#[test]
fn a_device_that_takes_frames_silently_ends_the_measurement() {
    let (machine, at) = Machine::with_balloon(16, Behaviour { stalls_after: Some(2), ..Behaviour::conforming() });
    let mut platform = ModelPlatform::new(&machine);
    let bench = Bench { device: at.into(), options: &Options::default(), rounds: 0 };
    let error = bench.throughput(&mut platform, &mut Count::new(&machine), 1024, 1).err();
    assert!(matches!(error, Some(BenchError::Silence { waited_ms: 5000.. })), "{error:?}");
    machine.expect_no_missteps();
    assert_eq!(machine.allocated(), Allocated::default());
    assert_eq!(platform.frames.ballooned_frames(), 1024, "the host may have any of them");
}
