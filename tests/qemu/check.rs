//! `mode=check` on QEMU: the device passes all checks except known failures; reported in JSON and TAP.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use super::mmio;
use crate::support::{Outcome, Qemu, Trial, Version, Vm, ensure, note};
use crate::trial;

/// QEMU's known failures (docs/findings.md), in the order of the checks; those of some devices alone come before the
/// last.
const KNOWN: [&str; 2] = ["features-ok-refuses-unoffered", "kicks-before-driver-ok-are-ignored"];
const KNOWN_LAST: &str = "a-reset-queue-is-as-large-as-it-says";
/// Another failure of 7.2, on packed rings: it returns the ID of a chain's first descriptor, not of the last.
const KNOWN_PACKED: [&str; 4] = [
    "chains-work",
    "one-frame-number-a-descriptor-works",
    "frame-numbers-may-be-cut-in-two",
    "direct-and-indirect-may-mix",
];
/// QEMU aborts in this hostile check (docs/findings.md).
const FATAL: &str = "hostile-packed-table-of-0-bytes";
/// QEMU 7.2's network device aborts in this one, and in more (docs/findings.md).
const FATAL_TO_NET: &str = "hostile-split-two-chains-share-a-tail";
/// In this one the driver makes a queue larger than its memory, so that the device writes past it: a warning.
const HARMED: &str = "hostile-queue-grows-while-enabled";
/// QEMU fails these checks, which only warn.
const WARNED: [&str; 1] = ["the-first-interrupt-can-be-suppressed"];
/// The exit statuses for success and failure, by isa-debug-exit.
const SUCCESS: i32 = 33;
const FAILURE: i32 = 35;
/// The signal of a failed assertion.
const SIGABRT: i32 = 6;

pub(crate) fn trials() -> Vec<Trial> {
    let cell = |version, balloon: &str, line: &str| {
        let line = format!("mode=check {line}");
        Qemu::new(version).balloon(balloon).command_line(&line).patience(Duration::from_secs(150))
    };
    let all = "packed=on,in_order=on,queue_reset=on,free-page-reporting=on,deflate-on-oom=on";
    let mut trials = Vec::new();
    for (name, version, balloon) in [
        ("qemu-7.2::transitional", Version::V7_2, String::new()),
        ("qemu-7.2::packed", Version::V7_2, "packed=on,disable-legacy=on,free-page-reporting=on".into()),
        ("qemu-10.0::no_vectors", Version::V10_0, "vectors=0".into()),
        ("qemu-10.0::two_vectors", Version::V10_0, "vectors=2,in_order=on".into()),
        ("qemu-10.0::all", Version::V10_0, format!("vectors=6,disable-legacy=on,iommu_platform=on,{all}")),
    ] {
        let more: &[_] = if name == "qemu-7.2::packed" { &KNOWN_PACKED } else { &[] };
        let qemu = cell(version, &balloon, "log=json");
        trials.push(trial(format!("check::{name}"), qemu, |vm| known_only(vm, more)));
    }
    // Counts apply to the CPU that runs the checks, whatever the number of CPUs.
    let four = cell(Version::V10_0, "vectors=6", "log=json").cpus(4);
    trials.push(trial("check::qemu-10.0::on_four_cpus", four, |vm| known_only(vm, &[])));
    let newest = |line: &str| cell(Version::Newest, "", line);
    let choice = "checks=reset-*,isr-*,features-ok-refuses-unoffered,the-first-interrupt-can-be-suppressed";
    trials.push(trial("check::tap", newest(choice), |vm| tap(vm, 13)));
    trials.push(trial("check::tap_14", newest(&format!("{choice} tap=14")), |vm| tap(vm, 14)));
    trials.push(trial("check::prove_reads_it", newest(choice), prove_reads_it));
    trials.push(trial(
        "check::tap_of_what_is_fine",
        newest("checks=reset-*,inflate-completes,deflate-completes"),
        tap_of_what_is_fine,
    ));
    for (name, line, reason) in [
        (
            "an_unknown_check",
            "mode=check checks=reset-*,nonsense",
            "there is no check `nonsense` (docs/checks.md lists them)",
        ),
        (
            "a_misspelt_check",
            "mode=check checks=isr-is-0",
            "there is no check `isr-is-0`; did you mean isr-is-0-while-idle?",
        ),
        (
            "a_misspelt_mode",
            "mode=chekc",
            "command line: option `mode`: invalid value `chekc`; valid: check, serve, bench",
        ),
        ("a_mode_without_its_key", "check", "command line: `check` is not `key=value`; valid keys: "),
        ("a_misspelt_key_of_a_mode", "mdoe=check", "command line: unknown option `mdoe`; valid: mode, "),
        (
            "a_bad_option_of_a_check",
            "mode=check irq=psychic",
            "command line: option `irq`: invalid value `psychic`; valid: ",
        ),
        (
            "a_bad_option_of_a_bench",
            "mode=bench irq=psychic",
            "command line: option `irq`: invalid value `psychic`; valid: ",
        ),
    ] {
        let text = Qemu::new(Version::Newest).command_line(line);
        trials.push(trial(format!("check::{name}_bails_out"), text, move |vm| bails_out(vm, reason)));
        let json = Qemu::new(Version::Newest).command_line(&format!("log=json {line}"));
        trials.push(trial(format!("check::{name}_ends_the_run"), json, move |vm| ends_early(vm, reason)));
    }
    let nothing = |line| Qemu::new(Version::Newest).without_balloon().command_line(line);
    let reason = "no virtio balloon was found on PCI or MMIO; there is nothing to check";
    trials.push(trial("check::nothing_to_check_bails_out", nothing("mode=check"), move |vm| bails_out(vm, reason)));
    trials.push(trial("check::nothing_to_check_ends_the_run", nothing("mode=check log=json"), move |vm| {
        ends_early(vm, reason)
    }));
    let unheard = newest("checks=features-ok-refuses-unoffered").without_debug_exit();
    trials.push(trial("check::a_failure_without_an_exit_status_is_logged", unheard, |vm| {
        vm.line_with("# 0 ok, 1 failed")?;
        vm.line_with("there is no isa-debug-exit at port 0xf4 to take a status")?;
        ends_with(vm, 0)
    }));
    for version in [Version::V7_2, Version::V10_0] {
        for (ring, balloon) in [("split", "free-page-reporting=on"), ("packed", "packed=on,free-page-reporting=on")] {
            let hostile = cell(version, balloon, &format!("log=json checks=hostile,-{FATAL}"));
            trials.push(trial(format!("check::{version}::hostile_{ring}"), hostile, |vm| survives(vm, 400)));
        }
        for (name, machine) in hostile_machines(version) {
            if name == "net" && version == Version::V7_2 {
                let line = format!("mode=check log=json checks={FATAL_TO_NET} device=net");
                let name = format!("check::{version}::chains_that_share_a_tail_end_qemus_net");
                trials.push(trial(name, machine.command_line(&line), |vm| ends_in_check(vm, FATAL_TO_NET)));
                continue;
            }
            let line = if name == "legacy" { " transport=legacy" } else { "" };
            let device = name.split('_').next().filter(|name| ["rng", "net"].contains(name)).unwrap_or("balloon");
            let line = format!("mode=check log=json checks=hostile,-{FATAL} device={device}{line}");
            let machine = machine.command_line(&line).patience(Duration::from_secs(150));
            trials.push(trial(format!("check::{version}::hostile_{name}"), machine, |vm| survives(vm, 200)));
        }
        let fatal = cell(version, "packed=on", &format!("log=json checks={FATAL}"));
        trials.push(trial(format!("check::{version}::a_packed_table_of_0_bytes_ends_qemu"), fatal, |vm| {
            ends_in_check(vm, FATAL)
        }));
    }
    for milliseconds in [20, 2] {
        for (version, balloon) in [(Version::V7_2, ""), (Version::V10_0, "vectors=6,packed=on,in_order=on")] {
            let moved = cell(version, balloon, "log=json checks=-ring-indices-wrap");
            let name = format!("check::{version}::a_target_moved_every_{milliseconds}_ms");
            trials.push(trial(name, moved, move |vm| moved_host(vm, Duration::from_millis(milliseconds))));
        }
    }
    trials
}

/// Devices by other transports and of other types.
fn hostile_machines(version: Version) -> [(&'static str, Qemu); 5] {
    let guest = |registers, properties| mmio::guest(version, "microvm,acpi=on", registers, properties);
    let other = || Qemu::new(version).without_balloon();
    [
        ("legacy", Qemu::new(version).balloon("disable-modern=on,disable-legacy=off")),
        ("mmio_packed", guest(mmio::Registers::Modern, "packed=on,free-page-reporting=on")),
        ("mmio_legacy", guest(mmio::Registers::Legacy, "")),
        // Without a limit this device allocates what a descriptor claims: 4 GiB (docs/findings.md).
        ("rng", other().device("virtio-rng-pci,max-bytes=65536,period=100")),
        ("net", other().device("virtio-net-pci,packed=on,disable-legacy=on")),
    ]
}

/// The device survives each hostile check, works afterwards, and writes nowhere it must not. At least so many apply.
fn survives(vm: &mut Vm, applying: u64) -> Outcome {
    loop {
        let event = vm.event_where("check or checks", |event| ["check", "checks"].contains(&event.name()))?;
        if event.name() == "checks" {
            ensure!(event.flag("ok")? && event.get("ended").is_none(), "{event}");
            ensure!(
                event.count("passed")? > applying && event.count("troubled")? == 0,
                "most checks should apply: {event}"
            );
            return ends_with(vm, SUCCESS);
        }
        ensure!(event.flag("ok")? || event.text("name")? == HARMED, "{event}");
    }
}

/// The last words name the check in which QEMU dies.
fn ends_in_check(vm: &mut Vm, check: &'static str) -> Outcome {
    vm.event_where("check-started", |event| {
        event.name() == "check-started" && event.text("name").is_ok_and(|name| name == check)
    })?;
    let status = vm.end()?;
    ensure!(status.signal() == Some(SIGABRT), "QEMU should abort: {status}");
    Ok(())
}

fn ends_with(vm: &mut Vm, code: i32) -> Outcome {
    let status = vm.end()?;
    ensure!(status.code() == Some(code), "QEMU should end with status {code}: {status}");
    Ok(())
}

/// All checks run; only known ones fail.
fn known_only(vm: &mut Vm, more: &[&str]) -> Outcome {
    let (mut failed, mut warned, mut count) = (Vec::new(), Vec::new(), 0);
    loop {
        let event = vm.event_where("check or checks", |event| ["check", "checks"].contains(&event.name()))?;
        let ok =
            event.get("ok").and_then(serde_json::Value::as_bool).ok_or_else(|| format!("no truth value: {event}"))?;
        if event.name() == "checks" {
            ensure!(!ok && event.get("ended").is_none(), "the run should go to its end and fail: {event}");
            ensure!(event.count("failed")? == failed.len() as u64, "{failed:?} failed: {event}");
            ensure!(event.count("warned")? == warned.len() as u64, "{warned:?} warned: {event}");
            ensure!(event.count("troubled")? == 0, "the tester itself should have no trouble: {event}");
            let all: u64 =
                ["passed", "failed", "warned", "skipped"].iter().map(|key| event.count(key)).sum::<Result<_, _>>()?;
            ensure!(all == count, "{count} checks were reported: {event}");
            ensure!(event.count("passed")? > 80, "most checks should apply: {event}");
            break;
        }
        count += 1;
        ensure!(!event.text("section")?.is_empty(), "each check cites the specification: {event}");
        if !ok {
            ensure!(!event.text("detail")?.is_empty(), "a check that failed says how: {event}");
            let list = if event.text("severity")? == "must" { &mut failed } else { &mut warned };
            list.push(event.text("name")?.to_owned());
        }
    }
    let known: Vec<_> = KNOWN.iter().chain(more).chain([&KNOWN_LAST]).collect();
    ensure!(failed.iter().eq(known.iter().copied()), "known to fail: {known:?}, but failed: {failed:?}");
    ensure!(warned == WARNED, "known to warn: {WARNED:?}, but warned: {warned:?}");
    vm.event("exit")?;
    ends_with(vm, FAILURE)
}

/// The result lines of TAP: ok, number, name, directive.
fn results(vm: &Vm) -> Vec<(bool, usize, String, String)> {
    let parse = |text: &str| {
        let (ok, rest) = match text.strip_prefix("not ok ") {
            Some(rest) => (false, rest),
            None => (true, text.strip_prefix("ok ")?),
        };
        let (number, rest) = rest.split_once(" - ")?;
        let (name, directive) = rest.split_once(" # ").unwrap_or((rest, ""));
        Some((ok, number.parse().ok()?, name.to_owned(), directive.to_owned()))
    };
    vm.serial.all().iter().filter_map(|line| parse(&line.text)).collect()
}

fn tap(vm: &mut Vm, version: u32) -> Outcome {
    vm.line_with(&format!("TAP version {version}"))?;
    let plan = vm.line_with("1..")?;
    vm.line_with(" failed, ")?;
    ends_with(vm, FAILURE)?;
    let results = results(vm);
    ensure!(plan == format!("1..{}", results.len()), "{plan} was planned, {} came", results.len());
    for (place, (ok, number, name, directive)) in results.iter().enumerate() {
        ensure!(*number == place + 1, "number {number} at place {place}");
        match name.as_str() {
            "features-ok-refuses-unoffered" => ensure!(!ok && directive.is_empty(), "{name}: {ok} {directive:?}"),
            "the-first-interrupt-can-be-suppressed" => {
                ensure!(!ok && directive == "TODO should", "{name}: {ok} {directive:?}");
            }
            _ => ensure!(*ok, "{name} failed"),
        }
    }
    // A YAML block explains a failure.
    let lines = vm.serial.all();
    let failed = lines.iter().position(|line| line.text.starts_with("not ok")).ok_or("nothing failed")?;
    let block: Vec<_> = lines[failed + 1..].iter().map(|line| line.text.as_str()).take(7).collect();
    ensure!(block[0] == "  ---" && block[6] == "  ...", "no YAML: {block:?}");
    for key in ["asks", "severity", "section", "device", "detail"] {
        ensure!(block.iter().any(|line| line.starts_with(&format!("  {key}: "))), "no {key}: {block:?}");
    }
    Ok(())
}

fn tap_of_what_is_fine(vm: &mut Vm) -> Outcome {
    vm.line_with(" 0 failed, 0 warned, ")?;
    ends_with(vm, SUCCESS)?;
    let results = results(vm);
    ensure!(results.len() > 4 && results.iter().all(|(ok, ..)| *ok), "all should pass: {results:?}");
    Ok(())
}

/// Perl's `prove` reads the output, boot log included, and reaches the same verdict.
fn prove_reads_it(vm: &mut Vm) -> Outcome {
    vm.line_with(" failed, ")?;
    ends_with(vm, FAILURE)?;
    let (lines, count) = (vm.serial.all(), results(vm).len());
    let text: String = lines.iter().map(|line| format!("{}\n", line.text)).collect();
    let file = env::temp_dir().join(format!("ballonet-{}.tap", process::id()));
    fs::write(&file, text)?;
    let output = Command::new("prove").arg("--source").arg("File").arg("--failures").arg(&file).output();
    fs::remove_file(&file)?;
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            note(&format!("not read: there is no `prove` here ({error}); Debian's perl has it"));
            return Ok(());
        }
    };
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(!said.contains("Parse errors"), "{said}");
    ensure!(
        said.contains(&format!("Tests={count}")) && said.contains("Result: FAIL"),
        "{count} checks were made: {said}"
    );
    ensure!(said.contains(&format!("Failed 1/{count} subtests")), "one check fails: {said}");
    Ok(())
}

/// The run ends before the first check, and TAP says why.
fn bails_out(vm: &mut Vm, reason: &str) -> Outcome {
    vm.line_with("TAP version 13")?;
    let line = vm.line_with("Bail out! ")?;
    ensure!(line.starts_with(&format!("Bail out! {reason}")), "it should be because {reason}: {line}");
    ends_with(vm, FAILURE)
}

/// The same in JSON.
fn ends_early(vm: &mut Vm, reason: &str) -> Outcome {
    let event = vm.event("checks")?;
    ensure!(event.text("ended")?.starts_with(reason), "it should be because {reason}: {event}");
    ensure!(event.get("ok").and_then(serde_json::Value::as_bool) == Some(false), "{event}");
    ends_with(vm, FAILURE)
}

/// How long the host keeps setting the target.
const MOVED_MOST: Duration = Duration::from_secs(180);

/// The host keeps setting the target, to a new value or the same: still only known failures fail.
fn moved_host(vm: &mut Vm, period: Duration) -> Outcome {
    let mut targets = [vm.memory, vm.memory / 2, vm.memory / 2].into_iter().cycle();
    let is_over = |vm: &Vm| vm.serial.tail(20).iter().any(|line| line.text.contains("\"checks\""));
    let mut words = 0;
    // The wait for events below reports a guest that has not ended by then.
    let begin = Instant::now();
    while !is_over(vm) && begin.elapsed() < MOVED_MOST {
        // QEMU may have ended since.
        if targets.next().is_some_and(|target| vm.qmp.set_target(target).is_err()) {
            break;
        }
        words += 1;
        thread::sleep(period);
    }
    ensure!(words > 10, "the host set the target only {words} times");
    let mut failed = Vec::new();
    loop {
        let event = vm.event_where("check or checks", |event| ["check", "checks"].contains(&event.name()))?;
        if event.name() == "checks" {
            ensure!(event.get("ended").is_none() && event.count("passed")? > 80, "{event}");
            break;
        }
        let (name, ok) = (event.text("name")?, event.get("ok").and_then(serde_json::Value::as_bool));
        ensure!(ok == Some(true) || name == KNOWN_LAST || KNOWN.contains(&name) || WARNED.contains(&name), "{event}");
        if ok == Some(false) && event.text("severity")? == "must" {
            failed.push(name.to_owned());
        }
    }
    let known: Vec<_> = KNOWN.iter().chain([&KNOWN_LAST]).collect();
    ensure!(failed.iter().eq(known.iter().copied()), "known to fail: {known:?}, but failed: {failed:?}");
    // QEMU is not waited for: a QMP command that arrives as it ends can hang it (`monitor_cleanup` waits for the command's
    // dispatcher, which is never run again).
    let exit = vm.event("exit")?;
    ensure!(exit.count("status")? == u64::from(FAILURE.unsigned_abs()), "{exit}");
    Ok(())
}
