//! Boots the example kernels in QEMU: the host sets a target, and the kernel reports the balloon's size.
//!
//! They are a workspace of their own, in `examples/`, and depend on the library like any other kernel.

// A test program is an ordinary program of the host.
#![allow(clippy::std_instead_of_core)]

#[path = "support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;

use support::runner::{self, Arguments, Completion, Failed, Trial};
use support::{MIB, Outcome, Qemu, Version, Vm, ensure, on};

/// Memory of each machine.
const MEMORY: u64 = 256 * MIB;

fn main() -> ExitCode {
    runner::main("examples", trials)
}

fn trials(arguments: &Arguments) -> Vec<Trial> {
    support::version::prepare();
    // Build before the first test's clock starts. Each test reports a failed build.
    let _ = (!arguments.list).then(images);
    let mut trials = Vec::new();
    for version in [Version::V10_0, Version::V7_2] {
        let mut add = |name: &str, test: fn(Version) -> Result<Completion, Failed>| {
            let trial = Trial::ignorable_test(format!("examples::{version}::{name}"), move || test(version));
            trials.push(trial.in_short_suite());
        };
        add("a_polled_kernel_follows_the_target", |version| {
            on(&qemu(version, "polled-kernel")?, |vm| {
                let heap = heap_of(&vm.line_with("balloon: 0 MiB")?)?;
                follow(vm, |line| {
                    let now = heap_of(line)?;
                    ensure!(now == heap, "polling has allocated: {now} bytes of heap, {heap} after the start");
                    Ok(())
                })
            })
        });
        add("a_kernel_with_msix_sleeps_and_follows_the_target", with_msix);
        add("a_kernel_with_virtio_drivers_hal_follows_the_target", |version| {
            on(&qemu(version, "virtio-drivers-kernel")?, |vm| follow(vm, |_| Ok(())))
        });
        add("a_kernel_with_virtio_drivers_transport_follows_the_target", |version| {
            on(&qemu(version, "virtio-drivers-kernel")?.command_line("transport"), |vm| {
                vm.line_with("balloon: 0 MiB, mmio")?;
                follow(vm, |_| Ok(()))
            })
        });
        add("small_options_take_little_memory", |version| {
            on(&qemu(version, "polled-kernel")?.command_line("small"), |vm| {
                let probe = vm.line_with("probe: heap ")?;
                let figures: Vec<u64> = probe.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
                ensure!(matches!(figures[..], [..16384, ..=3]), "that is much: {probe}");
                follow(vm, |_| Ok(()))
            })
        });
        add("no_balloon_is_found_where_there_is_none", |version| {
            let qemu = qemu(version, "polled-kernel")?.without_balloon();
            on(&qemu, |vm| vm.line_with("there is no balloon").map(drop))
        });
    }
    trials
}

/// QEMU 7.2's balloon has no MSI-X: there the same kernel polls.
fn with_msix(version: Version) -> Result<Completion, Failed> {
    let qemu = qemu(version, "msix-kernel")?;
    if version == Version::V7_2 {
        return on(&qemu, |vm| vm.line_with("balloon: 0 MiB, poll").and_then(|_| follow(vm, |_| Ok(()))));
    }
    on(&qemu.balloon("vectors=4"), |vm| {
        vm.line_with("balloon: 0 MiB, msix")?;
        follow(vm, interrupted)
    })
}

/// The target goes up, down and away; the kernel reports each size, and QEMU agrees.
fn follow(vm: &mut Vm, check: impl Fn(&str) -> Outcome) -> Outcome {
    for target in [100, 37, 0] {
        vm.balloon_to(MEMORY - target * MIB)?;
        let line = vm.line_with(&format!("balloon: {target} MiB"))?;
        check(&line)?;
    }
    Ok(())
}

/// Bytes of heap ever allocated, according to this line.
fn heap_of(line: &str) -> Outcome<u64> {
    let bytes = line.rsplit(' ').next().and_then(|word| word.parse().ok());
    bytes.ok_or_else(|| format!("no figure: {line}").into())
}

/// The line reports interrupts.
fn interrupted(line: &str) -> Outcome {
    let count = line.split_whitespace().rev().nth(1).and_then(|word| word.parse::<u64>().ok());
    ensure!(count.is_some_and(|count| count > 0), "no interrupt came: {line}");
    Ok(())
}

fn qemu(version: Version, kernel: &str) -> Result<Qemu, Failed> {
    Ok(Qemu::new(version).image(images()?.join(kernel)).memory(MEMORY).command_line(""))
}

/// The folder of the kernels, built once.
fn images() -> Result<&'static Path, Failed> {
    static IMAGES: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    Ok(IMAGES.get_or_init(build).as_deref()?)
}

fn build() -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/Cargo.toml");
    let cargo = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--quiet", "--manifest-path", manifest, "--target-dir"])
        .arg(&target)
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !cargo.status.success() {
        return Err(format!("the examples do not build:\n{}", String::from_utf8_lossy(&cargo.stderr)));
    }
    Ok(target.join("debug"))
}
