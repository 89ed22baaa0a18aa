//! Real QEMUs.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use super::{Folder, Outcome, count, program, project, report, verdict};

fn printed(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// A QEMU of this version, or why there is none.
pub(super) fn qemu(version: &str) -> Result<String, String> {
    static FOUND: [OnceLock<Result<String, String>>; 2] = [const { OnceLock::new() }; 2];
    let find = || printed(Command::new(project("scripts/qemu.sh")).arg(version));
    FOUND[usize::from(version == "10.0")].get_or_init(find).clone()
}

/// The kernel, built by cargo unless `BALLONET_KERNEL` names one.
pub(super) fn kernel() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let build = || {
        if let Some(kernel) = std::env::var_os("BALLONET_KERNEL") {
            return Ok(kernel.into());
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(project("")).args(["build", "--package", "ballonet-kernel", "--bin", "ballonet"]);
        let messages = printed(cargo.args(["--message-format", "json"]))?;
        let made = |line: &str| serde_json::from_str::<Value>(line).ok()?["executable"].as_str().map(PathBuf::from);
        messages.lines().find_map(made).ok_or_else(|| "cargo built no kernel".into())
    };
    FOUND.get_or_init(build).clone()
}

/// Runs `test` on each version that is available here.
pub(super) fn on_each(test: impl Fn(&str, &str) -> Outcome) -> Outcome {
    for version in ["7.2", "10.0"] {
        match qemu(version) {
            Ok(program) => test(version, &program).map_err(|error| format!("QEMU {version}: {error}"))?,
            Err(reason) => eprintln!("skipped on QEMU {version}: {reason}"),
        }
    }
    Ok(())
}

pub(super) fn checker(options: &[&str]) -> Outcome<Command> {
    let mut command = program();
    command.arg("--kernel").arg(kernel()?).args(["--format", "json", "--boot-timeout", "60"]).args(options);
    Ok(command)
}

/// The whole suite in one start, and another for hot-plug. Its two failures are those of docs/checks.md.
#[test]
fn all_checks_take_two_starts() -> Outcome {
    on_each(|version, qemu| {
        let (status, report) = report(&checker(&["--vmm", "qemu", "--program", qemu])?.output()?)?;
        assert_eq!((status, report["starts"].as_u64()), (1, Some(2)), "{report}");
        for name in ["features-ok-refuses-unoffered", "kicks-before-driver-ok-are-ignored"] {
            assert_eq!(verdict(&report, name)?.0, "failed", "{version}");
        }
        assert!(count(&report, "ok") > 90 && count(&report, "lost") == 0 && count(&report, "died") == 0, "{report}");
        assert!(report["peak_rss_bytes"].as_u64() > Some(1 << 20), "{report}");
        Ok(())
    })
}

#[test]
fn isolated_checks_have_the_same_verdicts() -> Outcome {
    on_each(|_, qemu| {
        let checks = "inflate-completes,features-ok-refuses-unoffered,isr-is-0-while-idle";
        let options = ["--vmm", "qemu", "--program", qemu, "--isolate", "-j", "2", "--checks", checks];
        let (status, report) = report(&checker(&options)?.output()?)?;
        assert_eq!((status, report["starts"].as_u64()), (1, Some(3)), "{report}");
        assert_eq!((count(&report, "ok"), count(&report, "failed")), (2, 1), "{report}");
        Ok(())
    })
}

/// The profile attaches a device of each type, and its own chapter runs on it.
#[test]
fn each_type_of_device_is_attached_and_tested() -> Outcome {
    on_each(|version, qemu| {
        for (name, own) in [("rng", 8), ("blk", 12), ("console", 8), ("net", 8)] {
            let checks = format!("requests-complete,inflate-completes,{name},-blk-identification-has-the-used-length");
            let options = ["--vmm", "qemu", "--program", qemu, "--device-type", name, "--checks", &checks];
            let (status, report) = report(&checker(&options)?.output()?)?;
            assert_eq!((status, verdict(&report, "requests-complete")?.0), (0, "ok"), "{version} {name}: {report}");
            assert_eq!(verdict(&report, "inflate-completes")?.0, "skipped", "{version} {name}: {report}");
            assert!(count(&report, "ok") >= own, "{version} {name}: {report}");
        }
        Ok(())
    })
}

/// A QEMU that gets `signal` once it has announced `chains-work`: a wrapper reads the serial line along.
fn struck(qemu: &str, signal: &str, options: &[&str]) -> Outcome<(i32, Value)> {
    let folder = Folder::new(&format!("strike-{signal}"))?;
    let wrapper = folder.0.join("wrapper");
    let script = format!(
        r#"#!/bin/bash
# QEMU is this process; the reader strikes it from outside.
exec > >(while IFS= read -r line; do
  printf '%s\n' "$line"
  case $line in *'"check-started"'*'"chains-work"'*) kill -{signal} $$ ;; esac
done)
exec {qemu} "$@"
"#
    );
    fs::write(&wrapper, script)?;
    // Enough checks follow for the signal to come in time, and each is short: a busy machine must not pass for a VMM that hangs.
    let command = format!(
        "bash {} -machine q35 -accel tcg -cpu max -m 256M -display none -nic none -serial stdio -monitor none -no-reboot \
         -device isa-debug-exit,iobase=0xf4,iosize=4 -device virtio-balloon-pci -kernel {{kernel}} -append {{cmdline}}",
        wrapper.display()
    );
    let checks = "reset-clears-status,inflate-completes,chains-work,feature-sets,balloon,resets";
    let mut command = checker(&["--vmm", &command, "--checks", checks])?;
    report(&command.args(options).output()?)
}

/// The signal may come when the check has ended: then the VMM goes down in a later one.
fn culprit(report: &Value, word: &str) -> Outcome<String> {
    let checks = report["checks"].as_array().ok_or("no checks")?;
    let names: Vec<&str> =
        checks.iter().filter(|check| check["verdict"] == word).filter_map(|check| check["name"].as_str()).collect();
    match names.as_slice() {
        [name] if !["reset-clears-status", "inflate-completes"].contains(name) => Ok((*name).to_owned()),
        other => Err(format!("{word}: {other:?} in {report}").into()),
    }
}

#[test]
fn a_qemu_that_is_killed_in_mid_check_costs_one_check() -> Outcome {
    on_each(|_, qemu| {
        let (status, report) = struck(qemu, "KILL", &[])?;
        let name = culprit(&report, "died")?;
        assert!(verdict(&report, &name)?.1.contains("SIGKILL"), "{report}");
        assert_eq!((status, count(&report, "lost")), (4, 0), "{report}");
        assert!(count(&report, "ok") >= 15, "{report}");
        Ok(())
    })
}

#[test]
fn a_qemu_that_is_stopped_in_mid_check_costs_one_check() -> Outcome {
    on_each(|_, qemu| {
        let (status, report) = struck(qemu, "STOP", &["--timeout", "10"])?;
        let name = culprit(&report, "hung")?;
        assert!(verdict(&report, &name)?.1.contains("stopped by a signal"), "{report}");
        assert_eq!((status, count(&report, "lost")), (4, 0), "{report}");
        assert!(count(&report, "ok") >= 15, "{report}");
        Ok(())
    })
}

/// QEMU aborts in one hostile check (docs/findings.md). The run goes on after it, and has a verdict for each other check.
#[test]
fn a_qemu_that_aborts_in_a_check_costs_one_start() -> Outcome {
    let fatal = "hostile-packed-table-of-0-bytes";
    let (before, after) = ("inflate-completes,hostile-packed-table-with-write", "hostile-packed-table-of-1-byte");
    let checks = format!("{before},{fatal},{after},hostile-bar-is-read-throughout");
    on_each(|_, qemu| {
        let device = "virtio-balloon-pci,packed=on";
        let options = ["--vmm", "qemu", "--program", qemu, "--device", device, "--checks", &checks];
        let (status, report) = report(&checker(&options)?.output()?)?;
        let (word, detail) = verdict(&report, fatal)?;
        assert_eq!((status, word, report["starts"].as_u64()), (4, "died", Some(2)), "{report}");
        let reason = detail.lines().next().unwrap_or_default();
        assert!(reason.contains("SIGABRT") && reason.contains("Assertion `len > 0' failed"), "{detail}");
        let fine: u64 = ["ok", "refused", "needs-reset"].iter().map(|word| count(&report, word)).sum();
        assert_eq!(fine, 4, "{report}");
        Ok(())
    })
}
