//! A random soak: a program allocates and frees memory while the host's target conflicts with it.
//!
//! It takes `SOAK_SECONDS`: a few in a test run, ten minutes by `scripts/soak.sh`. `SOAK_SEED` repeats a run.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::event::Event;
use crate::support::failure::doubtful;
use crate::support::random::Random;
use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure, note};
use crate::trial;

/// The duration in a test run, in seconds.
const SECONDS: u64 = 6;
const MEMORY: u64 = 256 * MIB;
/// The most memory that the program takes, and the memory held beside it. With the kernel's own it always fits, so no
/// allocation may fail.
const PROGRAM: u64 = 160 * MIB;
const HELD: u64 = 16 * MIB;
/// The longest time between two targets, in milliseconds.
const STANDS: u64 = 120;

pub(crate) fn trials() -> Vec<Trial> {
    let seconds = setting("SOAK_SECONDS", SECONDS);
    [(Version::V7_2, ""), (Version::V10_0, ",vectors=6,packed=on")]
        .into_iter()
        .map(|(version, properties)| {
            let qemu = Qemu::new(version)
                .memory(MEMORY)
                .balloon(&format!("deflate-on-oom=on,free-page-reporting=on{properties}"))
                .command_line(&format!(
                    "log=json oom-cooldown=40 report-age=20 report-threshold=2M work=churn:{}M",
                    PROGRAM / MIB
                ))
                .patience(Duration::from_secs(seconds + 120));
            trial(format!("soak::{version}"), qemu, move |vm| soak(vm, Duration::from_secs(seconds)))
        })
        .collect()
}

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn soak(vm: &mut Vm, length: Duration) -> Outcome {
    let seed = setting("SOAK_SEED", u64::from(std::process::id()));
    note(&format!("SOAK_SEED={seed}"));
    run(vm, length, seed).map_err(|error| format!("SOAK_SEED={seed}: {error}").into())
}

fn run(vm: &mut Vm, length: Duration, seed: u64) -> Outcome {
    let mut random = Random::seeded_by(&seed.to_string());
    vm.event("ready")?;
    vm.ask(&format!("mem hold {}M", HELD / MIB), "held")?;
    let end = Instant::now() + length;
    let mut targets = 0_u64;
    while Instant::now() < end {
        // Mostly more than the guest can spare.
        let kept = if random.within(0, 3) == 0 { random.within(1, MEMORY / MIB) } else { random.within(1, 64) };
        vm.qmp.set_target(kept * MIB)?;
        targets += 1;
        thread::sleep(Duration::from_millis(random.within(0, STANDS)));
        if targets.is_multiple_of(16) {
            look(vm)?;
        }
    }
    finish(vm, targets)
}

/// No allocation failed, no contents changed, and no frame is lost.
fn look(vm: &mut Vm) -> Outcome<Event> {
    let work = vm.ask("work", "work")?;
    ensure!(work.count("failures")? == 0, "an allocation failed that deflate-on-OOM could have served: {work}");
    ensure!(work.count("bad")? == 0, "what the program wrote has changed: {work}");
    let memory = vm.ask("mem", "memory")?;
    ensure!(memory.flag("sound")? && memory.count("refused")? == 0, "the allocator's records are wrong: {memory}");
    let states = ["free", "used", "ballooned", "reserved"].map(|state| memory.count(state).unwrap_or(0));
    ensure!(states.iter().sum::<u64>() == memory.count("total")?, "frames are lost: {memory}");
    let verified = vm.ask("mem verify", "verify")?;
    ensure!(verified.flag("ok")? && verified.count("bytes")? == HELD, "what is held has changed: {verified}");
    Ok(work)
}

fn finish(vm: &mut Vm, targets: u64) -> Outcome {
    let work = look(vm)?;
    vm.ask("work stop", "work")?;
    let reclaims = vm.serial.all().into_iter().rfind(|line| line.text.contains(r#"{"event":"oom-reclaim""#));
    let Some(reclaim) = reclaims else {
        return Err(doubtful("memory never ran out: the soak is too short or too weak"));
    };
    let reclaim = Event::parse(&reclaim.text)?;
    ensure!(reclaim.count("failed")? == 0, "a reclaim failed: {reclaim}");
    note(&format!("{targets} targets; {work}; {reclaim}"));
    // At the end the balloon reaches the target, then deflates completely.
    vm.balloon_to(64 * MIB)?;
    vm.balloon_to(MEMORY)?;
    let memory = vm.ask("mem", "memory")?;
    ensure!(memory.flag("sound")? && memory.count("ballooned")? == 0, "all has come back: {memory}");
    Ok(())
}
