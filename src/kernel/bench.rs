//! `mode=bench`: measures the balloons of the machine, and ends.

use alloc::format;

use ballonet::balloon::{Balloon, Options};
use ballonet::bench::{Bench, BenchError, Case, Figures, Stopwatch};
use ballonet::machine::power::ExitStatus;
use ballonet::machine::{Machine, clock, log as serial};
use ballonet::pci::{Bdf, Tree};
use ballonet::platform::Platform;
use log::{error, info};
use x86_64::instructions::{interrupts, nop};

use crate::balloons::driver_options;

/// Requests timed in each direction.
const ROUNDS: usize = 256;

/// The CPU's own clock, and its interrupt flag.
struct Tsc;

impl Stopwatch for Tsc {
    fn ticks(&self) -> u64 {
        clock::tsc_in_order()
    }

    fn hold_interrupts(&mut self) {
        interrupts::disable();
    }

    fn admit_interrupts(&mut self) {
        interrupts::enable();
        // Interrupts come after the instruction that follows `sti`.
        nop();
        interrupts::disable();
    }

    fn release_interrupts(&mut self) {
        interrupts::enable();
    }
}

/// Measures every balloon of the machine; fails where there is none, or one does not do its part.
pub fn run(machine: &mut Machine, tree: &Tree) -> ExitStatus {
    let mut count = 0;
    for node in tree.nodes() {
        let function = node.function();
        if !Balloon::<Machine>::matches(function.vendor(), function.device()) {
            continue;
        }
        tree.open_path(machine.config(), function.bdf());
        let mut options = driver_options(&machine.options());
        options.name = format!("virtio{count}");
        count += 1;
        if let Err(error) = bench(machine, function.bdf(), &options) {
            error!("{}: balloon at {}: {error}", options.name, function.bdf());
            return ExitStatus::Failure;
        }
    }
    if count == 0 {
        error!("no virtio balloon was found on PCI; there is nothing to measure");
        return ExitStatus::Failure;
    }
    ExitStatus::Success
}

/// Measures one balloon in every case that it offers.
fn bench(machine: &mut Machine, function: Bdf, options: &Options) -> Result<(), BenchError> {
    let hz = clock::rate().map_or(0, |rate| rate.tsc_hz);
    emit(&options.name, "tsc", hz, "Hz");
    info!(
        "{}: balloon at {function}; in cycles at {} MHz, minimum / median of a request",
        options.name,
        hz / 1_000_000
    );
    info!(
        "{:<16}{:<10}{:<11}{:<8}{:>17}{:>17}{:>21}",
        "ring", "layout", "notify by", "irq", "add + kick", "interrupt + pop", "round trip"
    );
    let bench = Bench { function, options, rounds: ROUNDS };
    for case in bench.cases(machine)? {
        let (mode, figures) = bench.measure(machine, &mut Tsc, case)?;
        tell(&options.name, case, &figures);
        let [add, pop, trip] = figures.legs().map(|(_, leg)| format!("{} / {}", leg.minimum(), leg.median()));
        let (ring, shape, by) = (case.format(), case.shape.word(), case.notification());
        info!("{ring:<16}{shape:<10}{by:<11}{mode:<8}{add:>17}{pop:>17}{trip:>21}");
    }
    Ok(())
}

fn tell(device: &str, case: Case, figures: &Figures) {
    for (leg, series) in figures.legs() {
        emit(device, &format!("{case}.{leg}.min"), series.minimum(), "cycles");
        emit(device, &format!("{case}.{leg}.median"), series.median(), "cycles");
    }
}

fn emit(device: &str, name: &str, value: u64, unit: &str) {
    serial::emit("bench", |line| {
        line.text("device", device).text("name", name).number("value", value).text("unit", unit);
    });
}
