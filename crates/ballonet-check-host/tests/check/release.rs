//! The archive that VMM projects download: what is in it, its sums, and that it works where it is unpacked.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use super::qemu::{kernel, qemu};
use super::{Folder, Outcome, project, report};

/// All that is in it.
const FILES: [&str; 13] = [
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "SHA256SUMS",
    "ballonet",
    "ballonet-check",
    "ballonet.bzimage",
    "checks.md",
    "events.md",
    "findings.md",
    "hostile.md",
    "options.md",
    "vmm-ci.md",
    "vmm-ci.yml",
];

fn run(command: &mut Command) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {} {errors}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Packed from the kernel and the program that the tests have built.
#[test]
fn the_archive_is_whole_and_works_where_it_is_unpacked() -> Outcome {
    let folder = Folder::new("release")?;
    let path = folder.0.display().to_string();
    let mut script = Command::new(project("scripts/release.sh"));
    script.args(["--output", &path]).env("BALLONET_KERNEL", kernel()?);
    script.env("BALLONET_CHECK", env!("CARGO_BIN_EXE_ballonet-check"));
    let archive = run(&mut script)?.trim().to_owned();
    run(Command::new("sha256sum").args(["--check", "--quiet", &format!("{archive}.sha256")]).current_dir(&folder.0))?;
    run(Command::new("tar").args(["-xzf", &archive, "-C", &path, "--strip-components=1"]))?;
    let archive_file = archive.rsplit('/').next().unwrap_or_default();
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(&folder.0)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with(archive_file) {
            files.insert(name);
        }
    }
    assert_eq!(files, FILES.map(String::from).into());
    run(Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&folder.0))?;
    let Ok(qemu) = qemu("10.0") else { return Ok(()) };
    let mut check = Command::new(folder.0.join("ballonet-check"));
    check.env_remove("BALLONET_KERNEL").args(["--vmm", "qemu", "--program", &qemu, "--format", "json"]);
    let (status, report) = report(&check.args(["--checks", "inflate-completes"]).stdin(Stdio::null()).output()?)?;
    assert_eq!((status, report["starts"].as_u64()), (0, Some(1)), "{report}");
    Ok(())
}
