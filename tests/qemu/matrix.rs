//! Every kind of balloon in QEMU: version, machine, interface, queue format, vectors, ring features.
//!
//! In each cell of the matrix, the balloon starts as expected, with exactly the features that the device offers and
//! the kernel implements; QEMU confirms that from its side. It inflates by half of the memory, reports that
//! truthfully, and deflates, using the interrupts that it claims. A test run covers every possible pair and triple of
//! values; `scripts/matrix.sh` runs all cells, by `cargo test --test qemu -- --ignored full::`.

#[path = "matrix/cell.rs"]
mod cell;
#[path = "matrix/cover.rs"]
pub(crate) mod cover;
#[path = "matrix/job.rs"]
pub(crate) mod job;
#[path = "matrix/steps.rs"]
mod steps;

use std::collections::BTreeSet;

use crate::support::event::Event;
use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure, note};
use crate::trial;
use cell::Cell;
pub(crate) use cell::Feature;

/// Number of axes combined: every pair of values occurs, and every triple, which costs little more.
const STRENGTH: u32 = 3;
/// In the short suite.
const SHORT_STRENGTH: u32 = 2;

/// The cells of a test run.
pub(crate) fn trials() -> Vec<Trial> {
    let cells: Vec<_> = Cell::all().collect();
    let chosen = cover::covering(&cells, STRENGTH);
    let short = cover::covering(&chosen, SHORT_STRENGTH);
    let trial_of = |cell: &Cell| {
        let trial = in_cell("matrix", *cell);
        if short.contains(cell) { trial.in_short_suite() } else { trial }
    };
    let mut trials: Vec<_> = chosen.iter().map(trial_of).collect();
    let covered = move || {
        note(&format!("{} of {} cells, {} in the short suite", chosen.len(), cells.len(), short.len()));
        Ok(every_triple_is_covered(&cells, &chosen)?)
    };
    trials.push(Trial::test("matrix::every_triple_of_values_is_in_a_cell", covered).in_short_suite());
    trials.extend(steps::trials());
    trials.push(trial(
        "matrix::qemu-10.0::microvm::legacy_refused",
        Qemu::new(Version::V10_0)
            .machine("microvm,pcie=on")
            .balloon("disable-modern=on")
            .command_line("log=json transport=legacy"),
        refused_without_ports,
    ));
    trials
}

/// The whole matrix: many minutes, so only on request.
pub(crate) fn full() -> Vec<Trial> {
    Cell::all().map(|cell| in_cell("full", cell).with_ignored_flag(true)).collect()
}

fn in_cell(prefix: &str, cell: Cell) -> Trial {
    let qemu =
        Qemu::new(cell.version).machine(cell.machine.1).memory(256 * MIB).preallocated().balloon(&cell.properties());
    trial(format!("{prefix}::{cell}"), qemu, move |vm| work(vm, &cell))
}

fn work(vm: &mut Vm, cell: &Cell) -> Outcome {
    let ready = job::ready(vm, cell.irq(), cell.transport(), cell.ring())?;
    job::features(vm, &ready, &cell.features())?;
    job::give_half(vm)?;
    job::statistics_of_half(vm)?;
    vm.balloon_to(vm.memory)?;
    job::interrupts(vm, cell.irq())
}

/// Checks the generator triple by triple, independently of its own bookkeeping. A triple that repeats an axis is a
/// pair.
fn every_triple_is_covered(cells: &[Cell], chosen: &[Cell]) -> Outcome {
    let triples = |cells: &[Cell]| -> BTreeSet<_> {
        let of = |cell: &Cell| {
            let values: Vec<_> = cell.position.into_iter().enumerate().collect();
            let pairs = values.iter().flat_map(|a| values.iter().map(move |b| (*a, *b)));
            pairs.flat_map(|pair| values.iter().map(move |c| (pair, *c))).collect::<Vec<_>>()
        };
        cells.iter().flat_map(of).collect()
    };
    let (can_be, there) = (triples(cells), triples(chosen));
    let missing = can_be.difference(&there).next();
    ensure!(missing.is_none(), "no cell has the values {missing:?} (axis, value)");
    ensure!(there.len() == can_be.len(), "{} triples are possible, {} occur", can_be.len(), there.len());
    Ok(())
}

/// A legacy interface on a machine without I/O ports for it: the log names the cause.
fn refused_without_ports(vm: &mut Vm) -> Outcome {
    let wanted = "legacy interface needs I/O ports";
    let told = |event: &Event| event.text("message").is_ok_and(|message| message.contains(wanted));
    vm.event_where("a log event about ports", told)?;
    vm.event("no-device").map(drop)
}
