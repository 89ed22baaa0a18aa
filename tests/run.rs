//! The options that `run.sh` accepts and refuses. It refuses before it builds.

#![forbid(unsafe_code)]
// A test program is an ordinary program of the host.
#![allow(clippy::std_instead_of_core)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const KERNEL: &str = env!("CARGO_BIN_EXE_ballonet");

/// Status of an invalid option.
const INVALID: i32 = 2;

/// `run.sh` with no environment but the test's variables.
fn run_sh(environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new("timeout");
    command.arg("300").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/run.sh")).stdin(Stdio::null());
    for name in ["MACHINE", "MEMORY", "CPUS", "CPU", "ACCEL", "BALLOON", "QMP", "QEMU", "QEMU_ARGS", "DRY_RUN"] {
        command.env_remove(name);
    }
    // KVM would accept CPUs that TCG cannot run, and has no -icount.
    command.env("ACCEL", "tcg").envs(environment.iter().copied());
    command
}

fn output(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().expect("`timeout` starts");
    (status.code(), [String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)].concat())
}

/// The QEMU command line with which `run.sh` would start the kernel.
fn dry_run(environment: &[(&str, &str)]) -> (Option<i32>, String) {
    output(run_sh(environment).env("DRY_RUN", "1").arg(KERNEL))
}

#[track_caller]
fn refuses(environment: &[(&str, &str)], words: &str) {
    let (status, said) = dry_run(environment);
    assert!(
        status == Some(INVALID) && said.contains(words),
        "{environment:?}: {words:?} is not in ({status:?}): {said}"
    );
}

#[track_caller]
fn composes(environment: &[(&str, &str)], words: &str) {
    let (status, said) = dry_run(environment);
    assert!(status == Some(0) && said.contains(words), "{environment:?}: {words:?} is not in ({status:?}): {said}");
}

/// A folder with a fake `cargo`, which records its arguments and builds nothing.
fn fake_cargo(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("run-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the folder is ours");
    let cargo = folder.join("cargo");
    fs::write(&cargo, format!("#!/bin/sh\necho \"$@\" >'{}'\n", folder.join("called").display()))
        .expect("the folder is ours");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("the folder is ours");
    folder
}

/// Runs `run.sh` without a kernel. Returns its status, its output, and the arguments that it passes to cargo, if it
/// gets that far.
fn build(name: &str, environment: &[(&str, &str)]) -> (Option<i32>, String, Option<String>) {
    let folder = fake_cargo(name);
    let path = std::env::var("PATH").expect("there is a PATH");
    let (status, said) = output(run_sh(environment).env("PATH", format!("{}:{path}", folder.display())));
    (status, said, fs::read_to_string(folder.join("called")).ok())
}

#[test]
fn invalid_options_are_refused_before_the_kernel_is_built() {
    for (name, environment, words) in [
        ("memory", ("MEMORY", "lots"), "MEMORY=lots"),
        ("cpus", ("CPUS", "99999"), "99999"),
        ("machine", ("MACHINE", "pdp11"), "MACHINE=pdp11"),
        ("property", ("MACHINE", "q35,nosuch=on"), "nosuch"),
        ("cpu", ("CPU", "nosuch"), "nosuch"),
        ("old-cpu", ("CPU", "athlon"), "CPU=athlon: has no 64-bit mode"),
        ("accel", ("ACCEL", "nosuch"), "ACCEL=nosuch"),
        ("balloon", ("BALLOON", "e1000"), "BALLOON=e1000"),
        ("balloon-property", ("BALLOON", "nosuch=on"), "nosuch"),
        ("qmp", ("QMP", "/nosuch/socket"), "QMP=/nosuch/socket"),
        ("qemu", ("QEMU", "/nosuch/qemu"), "QEMU=/nosuch/qemu"),
        ("display", ("QEMU_ARGS", "-display nosuch"), "display nosuch"),
    ] {
        let (status, said, cargo) = build(name, &[environment]);
        assert!(status == Some(INVALID) && said.contains(words), "{words:?} is not in ({status:?}): {said}");
        assert_eq!(cargo, None, "cargo was called in spite of {environment:?}");
    }
}

#[test]
fn a_build_shows_its_progress() {
    let (status, said, cargo) = build("progress", &[]);
    assert_eq!(status, Some(0), "{said}");
    let arguments = cargo.expect("cargo is called");
    assert!(arguments.starts_with("run ") && !arguments.contains("--quiet"), "{arguments}");
}

#[test]
fn cpus_without_64_bit_mode_are_refused() {
    for cpu in
        ["athlon", "qemu32", "pentium", "pentium3", "486", "n270", "coreduo", "kvm32", "max,-lm", "qemu64,lm=off"]
    {
        refuses(&[("CPU", cpu)], &format!("CPU={cpu}: has no 64-bit mode"));
    }
    for cpu in ["qemu64", "max", "max,-avx", "Opteron_G1", "Conroe"] {
        composes(&[("CPU", cpu)], &format!("-cpu {}", cpu.replace(',', "\\,")));
    }
    refuses(&[("CPU", "qemu32"), ("MACHINE", "microvm")], "has no 64-bit mode");
    refuses(&[("QEMU_ARGS", "-cpu qemu32")], "CPU=qemu32");
}

#[test]
fn machines_that_start_no_kernel_by_pvh_are_refused_with_what_does() {
    for machine in ["pc-q35-3.1", "pc-i440fx-3.1", "pc-i440fx-2.12,hpet=off", "type=pc-q35-2.10"] {
        refuses(&[("MACHINE", machine)], "./run.sh image && ");
    }
    for machine in ["pc-q35-4.0", "pc-i440fx-4.0", "pc-q35-4.0.1", "pc", "q35"] {
        composes(&[("MACHINE", machine)], &format!("-machine {machine} "));
    }
    refuses(&[("MACHINE", "none")], "MACHINE=none");
    refuses(&[("MACHINE", "isapc")], "BALLOON=none");
    composes(&[("MACHINE", "isapc"), ("BALLOON", "none")], "-machine isapc");
    refuses(&[("QEMU_ARGS", "-bios /usr/share/ovmf/OVMF.fd")], "the image");
    refuses(&[("QEMU_ARGS", "-drive if=pflash,format=raw,file=OVMF_CODE.fd")], "the image");
    refuses(&[("QEMU_ARGS", "-kernel other")], "./run.sh KERNEL");
}

#[test]
fn a_balloon_can_be_given_by_its_properties_alone() {
    composes(
        &[("BALLOON", "packed=on,iommu_platform=on")],
        "-device virtio-balloon-pci\\,packed=on\\,iommu_platform=on",
    );
    composes(&[("BALLOON", "virtio-balloon-pci,packed=on")], "-device virtio-balloon-pci\\,packed=on");
    let (_, said) = dry_run(&[("BALLOON", "none")]);
    assert!(!said.contains("virtio-balloon"), "{said}");
}

#[test]
fn help_is_given_by_name_and_by_option() {
    let usage = output(run_sh(&[]).arg("--help"));
    assert!(usage.0 == Some(0) && usage.1.starts_with("Usage: "), "{usage:?}");
    assert_eq!(output(run_sh(&[]).arg("help")), usage);
    let (status, said) = output(run_sh(&[]).arg("nosuch"));
    assert!(status == Some(INVALID) && said.contains("nosuch: neither"), "{said}");
}

/// QEMU 10 aborts when x2APIC registers are read while it counts instructions.
#[test]
fn the_kernel_runs_while_instructions_are_counted() {
    let found = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/qemu.sh")).arg("10.0").output();
    let Output { status, stdout, stderr } = found.expect("the script starts");
    // Without 10.0, use the system's QEMU.
    assert!(matches!(status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&stderr));
    let qemu = String::from_utf8(stdout).expect("a path of ASCII");
    let mut environment = vec![("QEMU_ARGS", "-icount shift=0,sleep=off"), ("CPUS", "2")];
    if !qemu.is_empty() {
        environment.push(("QEMU", qemu.trim_end()));
    }
    let (status, said) =
        output(run_sh(&environment).arg(KERNEL).arg("mode=check").arg("checks=reset-forgets-features"));
    assert!(
        said.contains("# ") && matches!(status, Some(0 | 1)),
        "the kernel did not end by itself ({status:?}): {said}"
    );
}

/// The scripts meant for people: executable files of `scripts/`.
fn scripts() -> Vec<PathBuf> {
    let folder = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts")).expect("the folder is there");
    let mut scripts: Vec<_> = folder.map(|entry| entry.expect("it can be read").path()).collect();
    scripts.retain(|script| script.metadata().expect("it can be read").permissions().mode() & 0o111 != 0);
    assert!(scripts.len() > 10, "{scripts:?}");
    scripts
}

#[test]
fn every_script_has_help_and_refuses_options_that_it_does_not_have() {
    let folder = fake_cargo("scripts");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").expect("there is a PATH"));
    for script in scripts() {
        let ask = |option| output(Command::new("timeout").arg("60").arg(&script).arg(option).env("PATH", &path));
        let (status, said) = ask("--help");
        assert!(status == Some(0) && said.len() > 80, "{} --help ({status:?}): {said}", script.display());
        // bare-target.sh passes its arguments to cargo.
        if !script.ends_with("bare-target.sh") {
            let (status, said) = ask("--nosuch");
            assert!(
                matches!(status, Some(1 | 2)) && said.contains("--nosuch"),
                "{} ({status:?}): {said}",
                script.display()
            );
        }
    }
    assert!(!folder.join("called").exists(), "a script had cargo work for its help");
}

/// A folder with all programs of this system except `missing`, and without apt, which would install it.
fn programs_without(missing: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("run-without-{missing}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the folder is ours");
    for entry in ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().filter_map(|it| fs::read_dir(it).ok()).flatten() {
        let program = entry.expect("it can be read").path();
        let name = program.file_name().expect("it has a name");
        if name != missing && name != "apt-get" {
            // The first match counts, as on a PATH.
            let _ = std::os::unix::fs::symlink(&program, folder.join(name));
        }
    }
    folder
}

#[test]
fn a_bzimage_is_made_of_this_kernel_only_and_started_like_it() {
    let bzimage = Path::new(env!("CARGO_TARGET_TMPDIR")).join("run.bzimage");
    // An earlier run leaves one.
    let _ = fs::remove_file(&bzimage);
    let make = |kernel: &str| output(run_sh(&[]).args(["bzimage", "--kernel", kernel, "--output"]).arg(&bzimage));
    for (kernel, status, words) in [
        ("/nonexistent", INVALID, "/nonexistent: no such kernel"),
        ("/bin/true", 1, "not this project's kernel"),
        ("/etc/passwd", 1, "/etc/passwd"),
    ] {
        let (found, said) = make(kernel);
        assert!(found == Some(status) && said.contains(words), "{kernel} ({found:?}): {said}");
        assert!(!bzimage.exists(), "a bzImage of {kernel}");
    }
    let (status, said) = make(KERNEL);
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = output(run_sh(&[]).env("DRY_RUN", "1").arg(&bzimage).arg("log=json"));
    let words = format!("-kernel {} -append log=json", bzimage.display());
    assert!(status == Some(0) && said.contains(&words), "{status:?}: {said}");
}

#[test]
fn an_image_names_each_program_that_it_lacks() {
    for (program, package) in [
        ("xz", "xz-utils"),
        ("xorriso", "xorriso"),
        ("mformat", "mtools"),
        ("mcopy", "mtools"),
        ("strip", "binutils"),
        ("grub-mkrescue", "grub-common"),
    ] {
        let path = programs_without(program);
        let image = path.join("ballonet.img");
        let (status, said) =
            output(run_sh(&[]).env("PATH", &path).args(["image", "--kernel", KERNEL, "--output"]).arg(&image));
        assert!(status == Some(3) && said.contains(package), "without {program} ({status:?}): {said}");
        assert!(!image.exists(), "an image without {program}");
    }
}
