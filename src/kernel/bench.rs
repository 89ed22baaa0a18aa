//! `mode=bench`: measures the machine's balloons, then ends.

use alloc::format;
use alloc::vec::Vec;

use crate::console::events::{self, Decimal};
use crate::machine::block::Block;
use crate::machine::power::ExitStatus;
use crate::machine::{Machine, clock, frames, idle_unless, log as serial, timer};
use ballonet::balloon::Options;
use ballonet::memory::FRAME_SIZE;
use ballonet::memory::PageFrames;
use ballonet::pci::Tree;
use ballonet::platform::Platform;
use ballonet::virtio::DeviceHandle;
use ballonet::virtio::spec::DeviceType;
use ballonet_check::bench::{Bench, BenchError, Case, Figures, Stopwatch, Surroundings, Throughput};
use log::{error, info};
use x86_64::instructions::{interrupts, nop};

use super::balloons::driver_options;
use super::mmio_devices::MmioFound;
use super::scaling;

/// Requests timed in each direction.
const ROUNDS: usize = 256;

/// The most page frames inflated and deflated: 1 GiB, and at most half of free memory.
const FRAMES_MAX: u64 = 1 << 18;
/// Number of repetitions.
const PASSES: usize = 3;

/// The CPU's own clock, and its interrupt flag.
struct Tsc;

/// The kernel's services for a measurement.
struct Kernel;

impl Surroundings for Kernel {
    fn idle(&mut self, longest: u64, is_pending: &dyn Fn() -> bool) {
        timer::take_fired();
        timer::arm_at(clock::nanoseconds().saturating_add(longest));
        idle_unless(|| is_pending() || timer::has_fired());
        timer::disarm();
    }

    fn touch_free_memory(&mut self, _: &mut impl PageFrames) {
        let mut blocks = Vec::with_capacity(frames::counts().free_regions as usize + SMALL_BLOCKS);
        while blocks.len() < blocks.capacity() {
            let Some(mut block) = Block::allocate(u32::MAX) else { break };
            block.words_mut().chunks_mut(WORDS).for_each(|frame| frame[0] = 1);
            blocks.push(block);
        }
    }
}

/// 64-bit words in a page frame.
const WORDS: usize = FRAME_SIZE as usize / 8;
/// Room for blocks below the size of a region: the free parts of a few partly used regions.
const SMALL_BLOCKS: usize = 4096;

impl Stopwatch for Tsc {
    fn ticks(&self) -> u64 {
        clock::tsc_in_order()
    }

    fn hold_interrupts(&mut self) {
        interrupts::disable();
    }

    fn admit_interrupts(&mut self) {
        interrupts::enable();
        // `sti` takes effect after the next instruction.
        nop();
        interrupts::disable();
    }

    fn release_interrupts(&mut self) {
        interrupts::enable();
    }
}

/// Measures every balloon of the machine. Fails if there is none or a measurement fails.
pub(super) fn run(machine: &mut Machine, tree: &Tree, mmio: &[MmioFound]) -> ExitStatus {
    let mut devices: Vec<DeviceHandle> = Vec::new();
    for node in tree.nodes() {
        let function = node.function;
        if !DeviceType::BALLOON.is_function(function.vendor, function.device) {
            continue;
        }
        tree.open_path(machine.config(), function.bdf);
        devices.push(function.bdf.into());
    }
    devices.extend(mmio.iter().filter(|found| found.is(DeviceType::BALLOON)).map(MmioFound::handle));
    for (count, device) in devices.iter().enumerate() {
        let mut options = driver_options(machine.options());
        options.name = format!("virtio{count}").as_str().into();
        if let Err(error) = bench(machine, *device, &options) {
            error!("{}: balloon at {}: {error}", options.name, device.address());
            return ExitStatus::Failure;
        }
    }
    scaling::run();
    if devices.is_empty() {
        error!("no virtio balloon was found on PCI or MMIO; there is nothing to measure");
        return ExitStatus::Failure;
    }
    ExitStatus::Success
}

/// Measures one balloon in every case that its device supports.
fn bench(machine: &mut Machine, device: DeviceHandle, options: &Options) -> Result<(), BenchError> {
    let hz = clock::rate().map_or(0, |rate| rate.tsc_hz);
    emit(&options.name, "tsc", hz, "Hz");
    info!(
        "{}: balloon at {}; in cycles at {} MHz, minimum / median of a request",
        options.name,
        device.address(),
        hz / 1_000_000
    );
    info!(
        "{:<16}{:<10}{:<11}{:<8}{:>17}{:>17}{:>21}",
        "ring", "layout", "notify by", "irq", "add + kick", "interrupt + pop", "round trip"
    );
    let bench = Bench { device, options, rounds: ROUNDS };
    for case in bench.cases(machine)? {
        let (mode, figures) = bench.measure(machine, &mut Tsc, case)?;
        report(&options.name, case, &figures);
        let [add, pop, trip] = figures.legs().map(|(_, leg)| format!("{} / {}", leg.minimum(), leg.median()));
        let (ring, shape, by) = (case.format(), case.shape.word(), case.notification());
        info!("{ring:<16}{shape:<10}{by:<11}{mode:<8}{add:>17}{pop:>17}{trip:>21}");
    }
    throughput(machine, &bench)
}

/// Measures how fast memory moves, with pre-filled rings and with the driver.
fn throughput(machine: &mut Machine, bench: &Bench<'_>) -> Result<(), BenchError> {
    let free = frames::counts().free;
    let moved = (free / 2).min(FRAMES_MAX) as u32;
    let throughput = bench.throughput(machine, &mut Kernel, moved, PASSES)?;
    let device = &bench.options.name;
    let mib = (u64::from(moved) * FRAME_SIZE) >> 20;
    info!("{device}: {mib} MiB of touched memory to the host and back, median of {PASSES}; ceiling: the best of all");
    emit(device, "throughput.size", mib, "MiB");
    for (place, direction) in ["inflate", "deflate"].into_iter().enumerate() {
        report_direction(device, direction, place, &throughput);
    }
    let away = frames::counts().ballooned;
    emit(device, "throughput.away", away, "frames");
    Ok(())
}

/// One direction: each rate, the driver's share of the best, and the cost to the guest.
fn report_direction(device: &str, direction: &str, place: usize, throughput: &Throughput) {
    let ceiling = throughput.ceiling()[place];
    let driver = throughput.driver[place];
    let indirect = throughput.indirect.map(|rates| ("ceiling.indirect", rates[place]));
    let reported = throughput.reported.map(|rates| ("ceiling.reported", rates[place]));
    let direct = ("ceiling.direct", throughput.direct[place]);
    let rates = [Some(direct), indirect, reported, Some(("ceiling", ceiling)), Some(("driver", driver.rate))];
    for (name, rate) in rates.into_iter().flatten() {
        report_thousandths(device, name, direction, rate.milli_gib_per_second(), "GiB/s");
    }
    report_thousandths(device, "share", direction, driver.rate.milli_percent_of(ceiling), "%");
    report_thousandths(device, "awake", direction, driver.awake.saturating_mul(100_000) / driver.rate.time.max(1), "%");
    let per_gib = |count: u64| (u128::from(count) * (1000 << 30) / u128::from(driver.rate.bytes.max(1))) as u64;
    report_thousandths(device, "kicks", direction, per_gib(driver.kicks), "1/GiB");
    report_thousandths(device, "interrupts", direction, per_gib(driver.interrupts), "1/GiB");
}

/// A figure in thousandths.
fn report_thousandths(device: &str, name: &str, direction: &str, value: u64, unit: &str) {
    info!("  {direction} {name:<18}{:>8}.{:02} {unit}", value / 1000, value % 1000 / 10);
    let name = format!("{name}.{direction}");
    serial::emit(&events::Bench { device, name: &name, value: Decimal::Thousandths(value), unit });
}

fn report(device: &str, case: Case, figures: &Figures) {
    for (leg, series) in figures.legs() {
        emit(device, &format!("{case}.{leg}.min"), series.minimum(), "cycles");
        emit(device, &format!("{case}.{leg}.median"), series.median(), "cycles");
    }
}

fn emit(device: &str, name: &str, value: u64, unit: &str) {
    serial::emit(&events::Bench { device, name, value: Decimal::Whole(value), unit });
}
