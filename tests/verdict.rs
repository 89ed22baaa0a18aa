//! An unattended run that ends without a verdict counts as failed in `run.sh`. A script plays QEMU.

// A test program is an ordinary program of the host.
#![allow(clippy::std_instead_of_core)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The exit status and output of `run.sh` when QEMU exits with this status.
fn run(qemu_status: i32, arguments: &[&str]) -> (Option<i32>, String) {
    let qemu =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("qemu-that-ends-with-{qemu_status}-{}", arguments.len()));
    // The real QEMU answers run.sh's questions before the start.
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' -kernel '*) exit {qemu_status} ;; esac\nexec \"$({} system)\" \"$@\"\n",
        concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/qemu.sh")
    );
    fs::write(&qemu, script).expect("the folder is ours");
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).expect("the folder is ours");
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("run.sh"))
        .arg(env!("CARGO_BIN_EXE_ballonet"))
        .args(arguments)
        .env("QEMU", &qemu)
        .env("BALLOON", "none")
        .stdin(Stdio::null())
        .output()
        .expect("run.sh can be started");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_status_of_the_kernels_is_passed_on() {
    assert_eq!(run(33, &["mode=check"]).0, Some(0));
    assert_eq!(run(35, &["mode=check", "log=json"]).0, Some(1));
    assert_eq!(run(7, &["mode=check", "log=json", "verbose=on"]).0, Some(7));
}

#[test]
fn a_run_that_ends_without_a_verdict_has_failed() {
    for arguments in [&["mode=check"][..], &["log=json", "mode=bench"]] {
        let (status, said) = run(0, arguments);
        assert_eq!(status, Some(1), "{arguments:?}: {said}");
        assert!(said.contains("gave no verdict"), "{said}");
    }
}

#[test]
fn a_console_that_was_left_has_not() {
    assert_eq!(run(0, &["mode=serve", "log=json", "checks=mode=check"]).0, Some(0));
}
