//! `mode=check` on QEMU's devices other than balloons, by every transport: they pass all checks but those known to
//! fail.

use std::time::Duration;
use std::{env, fs, process};

use crate::support::{Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

/// How a device is put into the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bus {
    /// Modern PCI, with these properties.
    Modern(&'static str),
    /// The legacy interface alone.
    Legacy,
    /// MMIO with registers of version 2 or 1.
    Mmio { legacy: bool },
}

/// A type of device: its name for `device=`, QEMU's name without the bus, and how many checks have to pass.
struct Type {
    name: &'static str,
    device: &'static str,
    /// Whether buffers that are kicked before `DRIVER_OK` are used.
    early: bool,
}

const RNG: Type = Type { name: "rng", device: "virtio-rng", early: false };
const BLK: Type = Type { name: "blk", device: "virtio-blk", early: true };
const CONSOLE: Type = Type { name: "console", device: "virtio-serial", early: true };
const NET: Type = Type { name: "net", device: "virtio-net", early: false };
const BALLOON: Type = Type { name: "balloon", device: "virtio-balloon", early: true };

/// What is tried: version, bus, type.
const CELLS: &[(Version, Bus, &Type)] = &[
    (Version::V7_2, Bus::Modern(""), &RNG),
    (Version::V7_2, Bus::Modern(""), &BLK),
    (Version::V7_2, Bus::Modern(""), &CONSOLE),
    (Version::V7_2, Bus::Modern(""), &NET),
    (Version::V10_0, Bus::Modern("packed=on,in_order=on"), &RNG),
    (Version::V10_0, Bus::Modern("packed=on,in_order=on"), &BLK),
    (Version::V10_0, Bus::Modern("packed=on,in_order=on"), &CONSOLE),
    (Version::V10_0, Bus::Modern("packed=on,in_order=on"), &NET),
    (Version::V10_0, Bus::Legacy, &BALLOON),
    (Version::V10_0, Bus::Legacy, &RNG),
    (Version::V7_2, Bus::Legacy, &BLK),
    (Version::V10_0, Bus::Legacy, &CONSOLE),
    (Version::V7_2, Bus::Legacy, &NET),
    (Version::V7_2, Bus::Mmio { legacy: false }, &BALLOON),
    (Version::V10_0, Bus::Mmio { legacy: false }, &RNG),
    (Version::V10_0, Bus::Mmio { legacy: false }, &BLK),
    (Version::V10_0, Bus::Mmio { legacy: true }, &BALLOON),
    (Version::V7_2, Bus::Mmio { legacy: true }, &CONSOLE),
    (Version::V7_2, Bus::Mmio { legacy: true }, &NET),
];

/// Checks that may warn: whether they do depends on when QEMU's threads run.
const WARNED: [&str; 8] = [
    "the-first-interrupt-can-be-suppressed",
    "suppressed-interrupts-stay-away",
    "nothing-interrupts-while-idle",
    "isr-is-0-while-idle",
    "mmio-interrupt-status-is-0-while-idle",
    "mmio-absent-shared-memory-has-base-all-ones",
    "mmio-version-is-2",
    "blk-identification-is-padded",
];

/// The checks of a MUST that a device fails (docs/findings.md).
fn known(bus: Bus, of: &Type) -> Vec<&'static str> {
    let mut known = Vec::new();
    let is_legacy = matches!(bus, Bus::Legacy | Bus::Mmio { legacy: true });
    if !is_legacy {
        known.push("features-ok-refuses-unoffered");
    }
    if of.early {
        known.push("kicks-before-driver-ok-are-ignored");
    }
    if of.name == "blk" {
        known.push("blk-identification-has-the-used-length");
    }
    match bus {
        Bus::Modern(_) => known.push("a-reset-queue-is-as-large-as-it-says"),
        Bus::Mmio { legacy: false } => {
            known.extend(["feature-words-beyond-are-0", "queue-reset-ends", "nothing-is-written-after-a-queue-reset"]);
            known.extend(["a-reset-queue-works-again", "a-reset-queue-is-as-large-as-it-says"]);
            if of.name == "balloon" {
                known.push("queue-reset-leaves-other-queues-alone");
            }
        }
        _ => {}
    }
    known.sort_unstable();
    known
}

pub(crate) fn trials() -> Vec<Trial> {
    let each = CELLS.iter().map(|&(version, bus, of)| {
        let (suffix, properties, machine, word) = match bus {
            Bus::Modern(properties) => ("pci", format!("disable-legacy=on,{properties}"), "q35", "modern"),
            Bus::Legacy => ("pci", "disable-modern=on,disable-legacy=off".to_owned(), "pc", "legacy"),
            Bus::Mmio { legacy: true } => ("device", String::new(), "microvm,acpi=on", "mmio-legacy"),
            Bus::Mmio { legacy: false } => ("device", String::new(), "microvm,acpi=on", "mmio"),
        };
        let line = format!("mode=check log=json device={} writes=on checks=-ring-indices-wrap", of.name);
        let qemu = Qemu::new(version).machine(machine).without_balloon().command_line(&line);
        let force = if matches!(bus, Bus::Mmio { legacy: true }) { "on" } else { "off" };
        let qemu = if suffix == "device" { qemu.global(&format!("virtio-mmio.force-legacy={force}")) } else { qemu };
        let backend = backend(of);
        let qemu = backend.iter().fold(qemu, |qemu, (option, value)| qemu.option(option, value));
        let properties = properties.trim_end_matches(',');
        let mut device = format!("{}-{suffix}{}{properties}", of.device, if properties.is_empty() { "" } else { "," });
        device += match of.name {
            "blk" => ",drive=d,serial=abcdef",
            "net" => ",netdev=n",
            _ => "",
        };
        let mut qemu = qemu.device(&device).patience(Duration::from_secs(150));
        if of.name == "console" {
            qemu = qemu.device("virtconsole,chardev=c");
        }
        trial(format!("devices::{version}::{word}::{}", of.name), qemu, move |vm| passes(vm, &known(bus, of)))
    });
    each.collect()
}

/// The host's side of a device.
fn backend(of: &Type) -> Vec<(&'static str, String)> {
    match of.name {
        "blk" => vec![("-drive", format!("if=none,id=d,format=raw,snapshot=on,file={}", disk()))],
        "net" => vec![("-netdev", "user,id=n,restrict=on".to_owned())],
        "console" => vec![("-chardev", "null,id=c".to_owned())],
        _ => Vec::new(),
    }
}

/// A disk of 1 MiB, each sector of which has bytes of its own.
fn disk() -> String {
    let file = env::temp_dir().join(format!("ballonet-disk-{}", process::id()));
    if !file.exists() {
        let bytes: Vec<u8> = (0..1_u32 << 20).map(|at| (at / 512 * 7 + at) as u8).collect();
        fs::write(&file, bytes).expect("a file for a disk");
    }
    file.display().to_string()
}

/// The run goes to its end, and what fails is known.
fn passes(vm: &mut Vm, known: &[&str]) -> Outcome {
    let (mut failed, mut warned) = (Vec::new(), Vec::new());
    loop {
        let event = vm.event_where("check or checks", |event| ["check", "checks"].contains(&event.name()))?;
        if event.name() == "checks" {
            ensure!(event.get("ended").is_none() && event.count("troubled")? == 0, "it should go to its end: {event}");
            ensure!(event.count("passed")? > 80, "most checks should apply: {event}");
            break;
        }
        if !event.flag("ok")? {
            let list = if event.text("severity")? == "must" { &mut failed } else { &mut warned };
            list.push((event.text("name")?.to_owned(), event.text("detail")?.to_owned()));
        }
    }
    failed.sort_unstable();
    ensure!(failed.iter().map(|(name, _)| name).eq(known), "known to fail: {known:?}, but failed: {failed:?}");
    let unknown: Vec<_> = warned.iter().filter(|(name, _)| !WARNED.contains(&name.as_str())).collect();
    ensure!(unknown.is_empty(), "not known to warn: {unknown:?}");
    vm.event("exit").map(drop)
}
