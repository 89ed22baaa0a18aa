//! A guest migrates to another QEMU and hints which memory need not be copied (free page hinting). Memory in use
//! arrives unchanged, free memory is not sent, and the balloon works at the destination.
//!
//! `MIGRATION_RAM=2048` (in MiB) makes the guests larger than the 192 MiB that they have by default.

use std::env;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::mmio::{self, Registers};
use crate::support::failure::Failure;
use crate::support::runner::doubt;
use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure, note};
use crate::trial;

/// Bytes per second while a migration waits for hints: about a page now and then.
const SLOW: u64 = MIB;
/// Bytes per second otherwise: unlimited.
const FAST: u64 = 1 << 34;

/// The guests' RAM in bytes.
fn ram() -> u64 {
    static RAM: OnceLock<u64> = OnceLock::new();
    *RAM.get_or_init(|| env::var("MIGRATION_RAM").ok().and_then(|mib| mib.parse().ok()).unwrap_or(192) * MIB)
}

/// Memory that a program uses first, so that free memory later has old contents.
fn dirtied() -> u64 {
    ram() / 8 * 5
}

/// Memory that it keeps.
fn held() -> u64 {
    ram() / 8
}

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    // Not packed rings on QEMU 7.2: there the host's DONE does not reach the guest in two of three migrations, for an
    // unknown reason. The driver then keeps hinted memory until it is needed or the next migration ends.
    for (name, version, properties) in [
        ("modern", Version::V7_2, ""),
        ("legacy", Version::V7_2, ",disable-modern=on"),
        ("modern", Version::V10_0, ",vectors=6"),
        ("packed", Version::V10_0, ",vectors=2,packed=on"),
        ("legacy", Version::V10_0, ",vectors=0,disable-modern=on"),
    ] {
        let qemu = guest(version, properties);
        let case = move |vm: &mut Vm| believe(version, spares_what_is_free(vm, &guest(version, properties)));
        trials.push(trial(format!("migration::{version}::{name}::free_memory_is_not_sent"), qemu, case));
    }
    for (version, registers) in [(Version::V7_2, Registers::Legacy), (Version::V10_0, Registers::Modern)] {
        let on_mmio = move || {
            let guest = mmio::guest(version, "microvm,acpi=on", registers, "free-page-hint=on,iothread=hints");
            guest.memory(ram()).object("iothread,id=hints").patience(Duration::from_secs(60 + ram() / (8 * MIB)))
        };
        let case = move |vm: &mut Vm| believe(version, spares_what_is_free(vm, &on_mmio()));
        trials.push(trial(format!("migration::{version}::mmio_{registers}::free_memory_is_not_sent"), on_mmio(), case));
    }
    for version in [Version::V7_2, Version::V10_0] {
        type Case = fn(&mut Vm, &Qemu) -> Outcome;
        let cases: [(&str, Qemu, Case); 4] = [
            ("twice", guest(version, ""), moves_twice),
            ("cancelled_and_done_again", guest(version, ""), is_cancelled),
            ("with_reports_and_a_balloon", guest(version, ",free-page-reporting=on"), with_a_balloon),
            ("under_memory_pressure", guest(version, ""), under_pressure),
        ];
        // Under pressure, the guest writes too much during the migration: see `believe`.
        let cases = cases.into_iter().take(if version == Version::V7_2 { 3 } else { 4 });
        for (name, qemu, case) in cases {
            let made_of = qemu.clone();
            let test = move |vm: &mut Vm| believe(version, case(vm, &made_of));
            trials.push(trial(format!("migration::{version}::{name}"), qemu, test));
        }
    }
    trials
}

/// From QEMU 7.2 under TCG, pages that a guest writes during the migration sometimes arrive with old contents, such as a
/// stack: the guest then jumps to a wrong address, or misses the end of the hints. This looks like the dirty bits that
/// QEMU lost before 9.0; 10.0 never showed it. So a failure on 7.2 counts only if it comes twice.
fn believe(version: Version, outcome: Outcome) -> Outcome {
    if outcome.is_err() && version == Version::V7_2 {
        doubt("QEMU 7.2 loses what a guest writes during a migration");
    }
    outcome
}

/// A guest whose host asks for hints during migration.
fn guest(version: Version, properties: &str) -> Qemu {
    Qemu::new(version)
        .memory(ram())
        .object("iothread,id=hints")
        .balloon(&format!("free-page-hint=on,iothread=hints{properties}"))
        .patience(Duration::from_secs(60 + ram() / (8 * MIB)))
}

/// Prepares old contents in free memory, and a pattern in memory in use.
fn prepare(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.ask(&format!("mem hold {}M", dirtied() / MIB), "held")?;
    vm.ask("mem release", "console")?;
    vm.ask(&format!("mem hold {}M", held() / MIB), "held").map(drop)
}

/// What a migration sent, in pages of 4 KiB.
#[derive(Debug, Clone, Copy)]
struct Sent {
    /// Nonzero pages, sent whole.
    normal: u64,
    /// Zero pages; only their address is sent.
    zero: u64,
}

impl Sent {
    fn of(figures: &Value) -> Outcome<Self> {
        let count = |name: &str| figures["ram"][name].as_u64().ok_or_else(|| format!("no `{name}` in {figures}"));
        Ok(Self { normal: count("normal")?, zero: count("duplicate")? })
    }
}

/// Waits for a migration to end.
fn complete(vm: &mut Vm) -> Outcome<Sent> {
    let figures = vm.wait_for("the guest to arrive", |vm| {
        let (status, figures) = vm.qmp.migration()?;
        ensure!(status != "failed" && status != "cancelled", "the migration has {status}: {figures}");
        Ok((status == "completed").then_some(figures))
    })?;
    Sent::of(&figures)
}

/// Starts to migrate the guest to a new machine, and lets it hint before much is sent.
fn begin(vm: &mut Vm, qemu: &Qemu) -> Outcome<Vm> {
    let (destination, address) = vm.destination(qemu)?;
    vm.qmp.limit_migration(SLOW)?;
    vm.qmp.migrate(&address)?;
    let round = vm.event("hint")?;
    ensure!(round.text("outcome")? == "complete" && round.count("id")? >= 2, "a round should end by itself: {round}");
    Ok(destination)
}

/// Migrates the guest to a new machine.
fn carry(vm: &mut Vm, qemu: &Qemu) -> Outcome<(Vm, Sent)> {
    let destination = begin(vm, qemu)?;
    arrive(vm, destination)
}

/// Lets a migration run to its end.
fn arrive(vm: &mut Vm, mut destination: Vm) -> Outcome<(Vm, Sent)> {
    vm.qmp.limit_migration(FAST)?;
    let sent = complete(vm)?;
    destination.qmp.cont()?;
    // The kernel has taken back hinted memory, and memory in use is unchanged.
    let arrived = destination.event("unhint").and_then(|_| whole(&mut destination));
    match arrived {
        Ok(()) => Ok((destination, sent)),
        Err(failure) => Err(Failure::from(format!("in the destination: {}", destination.explain(&failure)))),
    }
}

/// The memory in use is unchanged, and every frame is accounted for.
fn whole(vm: &mut Vm) -> Outcome {
    let verified = vm.ask("mem verify", "verify")?;
    ensure!(verified.flag("ok")? && verified.count("bytes")? >= held(), "the memory held has changed: {verified}");
    // While the balloon moves, frames in flight count as used too.
    let most = verified.count("bytes")? + 8 * MIB;
    vm.wait_for("nothing hinted to be left in use", |vm| {
        let memory = vm.ask("mem", "memory")?;
        ensure!(memory.flag("sound")? && memory.count("refused")? == 0, "the records are wrong: {memory}");
        Ok((memory.count("used")? * 4096 < most).then_some(()))
    })
}

/// Two guests do the same work; the one that hints sends less, by about its free memory. Both arrive intact.
fn spares_what_is_free(vm: &mut Vm, qemu: &Qemu) -> Outcome {
    prepare(vm)?;
    let declining = qemu.clone().command_line("log=json features=-free_page_hint");
    let mut silent = vm.beside(&declining)?;
    prepare(&mut silent)?;
    let (mut destination, address) = silent.destination(&declining)?;
    silent.qmp.limit_migration(FAST)?;
    silent.qmp.migrate(&address)?;
    let all = complete(&mut silent)?;
    destination.qmp.cont()?;
    whole(&mut destination)?;
    drop((silent, destination));

    let ready = vm.qmp.virtio_status()?["guest-features"].to_string();
    ensure!(ready.contains("FREE_PAGE_HINT"), "QEMU sees {ready}");
    let (mut moved, sent) = carry(vm, qemu)?;
    let (free, spared) = ((dirtied() - held()) / 4096, all.normal.saturating_sub(sent.normal));
    note(&format!("{free} free pages with contents; sent without hints {all:?}, with hints {sent:?}"));
    ensure!(spared >= free / 100 * 85, "only {spared} of {free} free pages were spared: {all:?}, {sent:?}");
    ensure!(
        all.zero - sent.zero.min(all.zero) > 0,
        "hints should also save the search for zero pages: {all:?}, {sent:?}"
    );
    ensure!(sent.normal >= held() / 4096, "memory in use must be sent: {sent:?}");
    // The destination backs no page that was not sent.
    moved.balloon_to(ram() / 2)?;
    moved.balloon_to(ram())?;
    whole(&mut moved)
}

/// A guest that has migrated migrates again.
fn moves_twice(vm: &mut Vm, qemu: &Qemu) -> Outcome {
    prepare(vm)?;
    let (mut second, first_sent) = carry(vm, qemu)?;
    second.ask(&format!("mem hold {}M", held() / MIB), "held")?;
    let (mut third, second_sent) = carry(&mut second, qemu)?;
    note(&format!("{first_sent:?}, then {second_sent:?}"));
    ensure!(second_sent.normal < ram() / 2 / 4096, "the second migration should skip free memory: {second_sent:?}");
    third.balloon_to(ram() / 2)?;
    third.balloon_to(ram())?;
    whole(&mut third)
}

/// A migration that is cancelled during a round leaves the guest unchanged; the next one works.
fn is_cancelled(vm: &mut Vm, qemu: &Qemu) -> Outcome {
    prepare(vm)?;
    for _ in 0..3 {
        let destination = begin(vm, qemu)?;
        let used = vm.ask("mem", "memory")?.count("used")? * 4096;
        ensure!(used > held() + dirtied() / 2, "the driver should hold hinted memory: {used} bytes");
        vm.qmp.cancel_migration()?;
        vm.event("unhint")?;
        vm.wait_for("the move to be given up", |vm| Ok((vm.qmp.migration()?.0 == "cancelled").then_some(())))?;
        drop(destination);
        whole(vm)?;
    }
    let (mut moved, sent) = carry(vm, qemu)?;
    ensure!(sent.normal < ram() / 2 / 4096, "free memory should be skipped: {sent:?}");
    moved.balloon_to(ram() / 2)?;
    whole(&mut moved)
}

/// A program that needs more memory than is free gets hinted memory during the migration; what it writes there
/// arrives.
fn under_pressure(vm: &mut Vm, qemu: &Qemu) -> Outcome {
    prepare(vm)?;
    let destination = begin(vm, qemu)?;
    let more = ram() / 2;
    let got = vm.ask(&format!("mem hold {}M", more / MIB), "held")?;
    ensure!(got.count("bytes")? == held() + more, "the program wanted {more} bytes more: {got}");
    let (mut moved, sent) = arrive(vm, destination)?;
    ensure!(sent.normal >= (held() + more) / 4096, "memory in use must be sent: {sent:?}");
    let verified = moved.ask("mem verify", "verify")?;
    ensure!(verified.count("bytes")? == held() + more, "all of it should be there: {verified}");
    moved.ask("mem release", "console")?;
    moved.balloon_to(ram() / 4)
}

/// Reports, a half-full balloon and hints do not disturb each other.
fn with_a_balloon(vm: &mut Vm, qemu: &Qemu) -> Outcome {
    prepare(vm)?;
    vm.ask("report", "report")?;
    let target = ram() / 4 * 3;
    vm.balloon_to(target)?;
    let destination = begin(vm, qemu)?;
    // A target set during the migration is reached at the destination. Not from QEMU 7.2: the guest writes for it.
    let early = qemu.version != Version::V7_2;
    if early {
        vm.qmp.set_target(ram() / 2)?;
    }
    let (mut moved, sent) = arrive(vm, destination)?;
    if !early {
        moved.qmp.set_target(ram() / 2)?;
    }
    note(&format!("{sent:?}"));
    moved.wait_for("the balloon to follow", |vm| Ok((vm.qmp.actual()? == ram() / 2).then_some(())))?;
    moved.ask("report", "report")?;
    moved.balloon_to(ram())?;
    moved.ask("report", "report")?;
    whole(&mut moved)
}
