//! Counts accesses that would exit the guest under KVM: under TCG their cost is not visible.
//!
//! The log is on the serial line, as text on a terminal, and on VGA text, as `cargo run` starts the kernel.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::trace::Trace;
use crate::support::{Outcome, Qemu, Trial, Version, Vm, ensure, ensure_or_doubt};
use crate::trial;

/// The most accesses from the first byte on the serial line to the balloon's *ready* line.
const START: usize = 2000;
/// The most accesses to VGA text memory for the first picture.
const FIRST_PICTURE: usize = 1700;
/// The most accesses a GiB inflated or deflated, with all progress shown.
const A_GIB: usize = 100;

/// Memory of the guest, and how much of it moves. The host does not have it.
const MEMORY: u64 = 18 << 30;
const GIBS: u64 = 16;
/// A movement that takes longer is on a slow or busy machine.
const QUICK: Duration = Duration::from_secs(5);
/// Within this time after a movement its last picture is on the screen.
const SETTLE: Duration = Duration::from_millis(700);

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in [Version::V7_2, Version::V10_0] {
        let qemu = || Qemu::new(version).command_line("term=ansi").traced();
        // On pc each access to configuration space is two, by ports.
        for machine in ["q35", "pc"] {
            trials.push(trial(format!("exits::{version}::{machine}::start"), qemu().machine(machine), start));
        }
        let roomy = qemu().memory(MEMORY).sparse();
        trials.push(trial(format!("exits::{version}::q35::movements"), roomy, movements));
    }
    trials
}

fn start(vm: &mut Vm) -> Outcome {
    vm.line_with(" ready: ")?;
    let trace = vm.trace()?;
    let until_ready = trace.of_log_until(" ready: ")?;
    let sources = until_ready.sources();
    ensure!(until_ready.len() <= START, "{} accesses until the balloon is ready: {sources:?}", until_ready.len());
    let measuring = sources.get("PM timer").copied().unwrap_or(0);
    ensure!(measuring <= 40, "the PM timer is read {measuring} times");
    // No wait writes to a port that VMMs log.
    ensure!(!sources.contains_key("ioport80"), "{sources:?}");
    vm.line_with("`help` lists")?;
    vm.wait_for("the first picture", |vm| Ok((vgas(&vm.trace()?) > 0).then_some(())))?;
    thread::sleep(SETTLE);
    let drawn = vgas(&vm.trace()?);
    ensure!((400..=FIRST_PICTURE).contains(&drawn), "the first picture takes {drawn} accesses");
    Ok(())
}

/// The kernel's accesses to VGA text memory: the firmware's came before its log.
fn vgas(trace: &Trace) -> usize {
    let begins = trace.0.iter().position(|access| access.sent() == Some(b'['));
    let ours = trace.after(begins.unwrap_or(trace.len()));
    ours.sources().get("VGA text").copied().unwrap_or(0)
}

fn movements(vm: &mut Vm) -> Outcome {
    vm.line_with("`help` lists")?;
    thread::sleep(SETTLE);
    for (target, way) in [(MEMORY - (GIBS << 30), "inflating"), (MEMORY, "deflating")] {
        let before = vm.trace()?.len();
        let begun = Instant::now();
        vm.balloon_to(target)?;
        let taken = begun.elapsed();
        vm.line_with("100 %")?;
        thread::sleep(SETTLE);
        let moved = vm.trace()?.after(before);
        let (sources, gibs) = (moved.sources(), GIBS as usize);
        ensure!(sources.get("serial port").is_some_and(|&count| count >= 80), "progress is shown: {sources:?}");
        ensure!(sources.get("VGA text").is_some_and(|&count| count >= 30), "progress is shown: {sources:?}");
        // Progress is shown every second: a slow machine has more of it for a GiB.
        let figure = format!("{} accesses for {GIBS} GiB {way} in {taken:.1?}: {sources:?}", moved.len());
        ensure_or_doubt!(taken.as_secs() < GIBS, "{figure}");
        if taken <= QUICK {
            ensure!(moved.len() <= A_GIB * gibs, "{figure}");
            continue;
        }
        // A kick that the device serves at once covers 4 ms of its work or more: less of it on a slow machine.
        let own = sources.get("balloon").copied().unwrap_or(0);
        ensure!(own as u128 <= taken.as_millis() / 4 + taken.as_millis() / 20 + 64, "{figure}");
        ensure!(moved.len() - own <= A_GIB * gibs, "{figure}");
    }
    Ok(())
}
