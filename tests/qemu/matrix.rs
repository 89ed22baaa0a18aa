//! Every machine, with each version of QEMU and at each step of the interrupt ladder: the whole job in every cell.
//!
//! The job: come up on the step that was to be expected; give half of the memory and take it back, exactly, with the
//! host's resident memory falling accordingly; report true statistics; follow a host that changes its mind a hundred
//! times; and leave alone the memory that the guest uses.

use std::time::{Duration, SystemTime};

use libtest_mimic::Trial;

use crate::support::event::Event;
use crate::support::qmp::TAGS;
use crate::support::random::Random;
use crate::support::{MIB, Outcome, Qemu, Version, Vm, ensure};
use crate::trial;

/// The machine types, each with PCI.
const MACHINES: [(&str, &str); 3] = [("q35", "q35"), ("pc", "pc"), ("microvm", "microvm,pcie=on")];

/// A step of the ladder: what the device offers, what the kernel is told, and what must come of it.
struct Step {
    name: &'static str,
    version: Version,
    /// Properties of the device.
    balloon: &'static str,
    /// The kernel's `irq=`.
    irq: &'static str,
    /// The step that the kernel must report.
    expected: &'static str,
    /// The queue format that the kernel must report, and QEMU confirm.
    ring: &'static str,
    /// The kernel's `transport=`.
    choice: &'static str,
    /// The transport that the kernel must report, and QEMU confirm.
    transport: &'static str,
}

/// One line a step: it is read as a table.
#[rustfmt::skip]
const STEPS: [Step; 22] = [
    Step { name: "six_vectors",            version: Version::V10_0, balloon: "vectors=6",                   irq: "auto",        expected: "msix",        ring: "split",  choice: "auto",   transport: "modern" },
    Step { name: "two_vectors",            version: Version::V10_0, balloon: "vectors=2",                   irq: "auto",        expected: "msix-shared", ring: "split",  choice: "auto",   transport: "modern" },
    Step { name: "no_vectors",             version: Version::V10_0, balloon: "vectors=0",                   irq: "auto",        expected: "intx",        ring: "split",  choice: "auto",   transport: "modern" },
    Step { name: "forced_msix",            version: Version::V10_0, balloon: "vectors=6",                   irq: "msix",        expected: "msix",        ring: "split",  choice: "auto",   transport: "modern" },
    Step { name: "forced_msix_shared",     version: Version::V10_0, balloon: "vectors=6",                   irq: "msix-shared", expected: "msix-shared", ring: "split",  choice: "auto",   transport: "modern" },
    Step { name: "forced_intx",            version: Version::V10_0, balloon: "vectors=6",                   irq: "intx",        expected: "intx",        ring: "split",  choice: "auto",   transport: "modern" },
    Step { name: "forced_poll",            version: Version::V10_0, balloon: "vectors=6",                   irq: "poll",        expected: "poll",        ring: "split",  choice: "auto",   transport: "modern" },
    Step { name: "no_msix",                version: Version::V7_2,  balloon: "",                            irq: "auto",        expected: "intx",        ring: "split",  choice: "auto",   transport: "modern" },
    Step { name: "forced_intx",            version: Version::V7_2,  balloon: "",                            irq: "intx",        expected: "intx",        ring: "split",  choice: "auto",   transport: "modern" },
    Step { name: "forced_poll",            version: Version::V7_2,  balloon: "",                            irq: "poll",        expected: "poll",        ring: "split",  choice: "auto",   transport: "modern" },
    Step { name: "packed_six_vectors",     version: Version::V10_0, balloon: "vectors=6,packed=on",         irq: "auto",        expected: "msix",        ring: "packed", choice: "auto",   transport: "modern" },
    Step { name: "packed_no_vectors",      version: Version::V10_0, balloon: "vectors=0,packed=on",         irq: "auto",        expected: "intx",        ring: "packed", choice: "auto",   transport: "modern" },
    Step { name: "packed",                 version: Version::V7_2,  balloon: "packed=on",                   irq: "auto",        expected: "intx",        ring: "packed", choice: "auto",   transport: "modern" },
    Step { name: "legacy_six_vectors",     version: Version::V10_0, balloon: "vectors=6,disable-modern=on", irq: "auto",        expected: "msix",        ring: "split",  choice: "auto",   transport: "legacy" },
    Step { name: "legacy_two_vectors",     version: Version::V10_0, balloon: "vectors=2,disable-modern=on", irq: "auto",        expected: "msix-shared", ring: "split",  choice: "auto",   transport: "legacy" },
    Step { name: "legacy_no_vectors",      version: Version::V10_0, balloon: "vectors=0,disable-modern=on", irq: "auto",        expected: "intx",        ring: "split",  choice: "auto",   transport: "legacy" },
    Step { name: "transitional_as_legacy", version: Version::V10_0, balloon: "vectors=6",                   irq: "auto",        expected: "msix",        ring: "split",  choice: "legacy", transport: "legacy" },
    Step { name: "legacy_forced_intx",     version: Version::V10_0, balloon: "vectors=6,disable-modern=on", irq: "intx",        expected: "intx",        ring: "split",  choice: "legacy", transport: "legacy" },
    Step { name: "modern_only",            version: Version::V10_0, balloon: "vectors=6,disable-legacy=on", irq: "auto",        expected: "msix",        ring: "split",  choice: "auto",   transport: "modern" },
    Step { name: "legacy",                 version: Version::V7_2,  balloon: "disable-modern=on",           irq: "auto",        expected: "intx",        ring: "split",  choice: "auto",   transport: "legacy" },
    Step { name: "transitional_as_legacy", version: Version::V7_2,  balloon: "",                            irq: "auto",        expected: "intx",        ring: "split",  choice: "legacy", transport: "legacy" },
    Step { name: "modern_only",            version: Version::V7_2,  balloon: "disable-legacy=on",           irq: "auto",        expected: "intx",        ring: "split",  choice: "modern", transport: "modern" },
];

/// Memory that the guest fills with a pattern and keeps all the while.
const HELD: u64 = 32 * MIB;

/// How often the host changes its mind.
const CHANGES: usize = 100;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for step in &STEPS {
        for (machine, properties) in MACHINES {
            // The legacy interface is in I/O ports, of which microvm gives none to PCI.
            if machine == "microvm" && step.transport == "legacy" {
                continue;
            }
            let name = format!("matrix::{}::{machine}::{}", step.version, step.name);
            let qemu = Qemu::new(step.version)
                .machine(properties)
                .preallocated()
                .balloon(step.balloon)
                .command_line(&format!("log=json irq={} transport={}", step.irq, step.choice))
                .patience(Duration::from_secs(120));
            let seed = name.clone();
            trials.push(trial(name, qemu, move |vm| job(vm, step, &seed)));
        }
    }
    trials.push(trial(
        "matrix::qemu-10.0::microvm::legacy_refused",
        Qemu::new(Version::V10_0)
            .machine("microvm,pcie=on")
            .balloon("disable-modern=on")
            .command_line("log=json transport=legacy"),
        refused_without_ports,
    ));
    trials
}

/// A legacy interface that the machine gives no ports to is named as what is wrong.
fn refused_without_ports(vm: &mut Vm) -> Outcome {
    let wanted = "legacy interface needs I/O ports";
    let told = |event: &Event| event.text("message").is_ok_and(|message| message.contains(wanted));
    vm.event_where("a log event about ports", told)?;
    vm.event("no-device").map(drop)
}

fn job(vm: &mut Vm, step: &Step, seed: &str) -> Outcome {
    let ready = vm.event("ready")?;
    ensure!(ready.text("irq")? == step.expected, "the interrupts should be {}: {ready}", step.expected);
    ensure!(ready.text("transport")? == step.transport, "the transport should be {}: {ready}", step.transport);
    ensure!(ready.text("ring")? == step.ring, "the ring should be {}: {ready}", step.ring);
    let negotiated = vm.qmp.virtio_status()?["guest-features"].to_string();
    ensure!(negotiated.contains("RING_PACKED") == (step.ring == "packed"), "QEMU sees {negotiated}");
    ensure!(negotiated.contains("VERSION_1") == (step.transport == "modern"), "QEMU sees {negotiated}");
    let held = vm.ask(&format!("mem hold {}M", HELD / MIB), "held")?;
    ensure!(held.count("bytes")? == HELD, "{HELD} bytes should be held: {held}");
    half_and_back(vm)?;
    statistics(vm)?;
    changes(vm, seed)?;
    verify(vm)?;
    interrupts(vm, step.expected)
}

/// Half of the memory goes to the host, which really has it then, and comes back.
fn half_and_back(vm: &mut Vm) -> Outcome {
    let given = vm.memory / 2;
    let before = vm.resident()?;
    vm.balloon_to(vm.memory - given)?;
    let mut fell = 0;
    vm.wait_for("the resident memory to fall by 95 % of what was given", |vm| {
        fell = before.saturating_sub(vm.resident()?);
        Ok((fell >= given / 100 * 95).then_some(()))
    })
    .map_err(|error| format!("{error}: it fell by {} of {} MiB", fell / MIB, given / MIB))?;
    vm.balloon_to(vm.memory)
}

/// The first answer to QEMU's poll has every statistic, and each is true; a later one shows what has changed.
fn statistics(vm: &mut Vm) -> Outcome {
    // What the driver offered when it came up does not count. QEMU tells answers apart by the second that they came in.
    let offered = vm.qmp.statistics()?.last_update;
    vm.wait_for("the second after the first statistics", |_| Ok((now()? > offered).then_some(())))?;
    vm.qmp.poll_statistics(1)?;
    let first =
        vm.wait_for("statistics", |vm| Ok(Some(vm.qmp.statistics()?).filter(|it| it.last_update != offered)))?;
    for tag in TAGS {
        first.need(tag)?;
    }
    let total = first.need("stat-total-memory")?;
    let free = first.need("stat-free-memory")?;
    let available = first.need("stat-available-memory")?;
    ensure!(total <= vm.memory && total >= vm.memory / 10 * 9, "the total is {total} of {}", vm.memory);
    ensure!(free <= total - HELD, "{free} of {total} bytes are free, with {HELD} held");
    ensure!(free >= total / 10 * 8, "only {free} of {total} bytes are free");
    ensure!(available <= total, "{available} of {total} bytes are available");
    ensure!(first.need("stat-disk-caches")? == 0, "there is no disk to cache");
    ensure!(first.need("stat-swap-in")? == 0 && first.need("stat-swap-out")? == 0, "there is nowhere to swap");

    let given = vm.memory / 4;
    vm.balloon_to(vm.memory - given)?;
    // The answer to a poll may have been on its way when the balloon came to rest; the one after it was not.
    let mut updates = 0;
    let mut last = vm.qmp.statistics()?.last_update;
    let second = vm.wait_for("two more updates of the statistics", |vm| {
        let statistics = vm.qmp.statistics()?;
        updates += u32::from(statistics.last_update != last);
        last = statistics.last_update;
        Ok((updates == 2).then_some(statistics))
    })?;
    let less = free.saturating_sub(second.need("stat-free-memory")?);
    ensure!(less.abs_diff(given) < MIB, "{given} bytes were given, and {less} fewer are free");
    vm.qmp.poll_statistics(0)?;
    vm.balloon_to(vm.memory)
}

/// The time, in seconds since 1970.
fn now() -> Outcome<u64> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs())
}

/// The host changes its mind: sometimes after the guest is done, mostly in the middle of it.
fn changes(vm: &mut Vm, seed: &str) -> Outcome {
    let mut random = Random::seeded_by(seed);
    for change in 0..CHANGES {
        let target = random.within(vm.memory / 4, vm.memory) / 4096 * 4096;
        if change % 20 == 0 {
            vm.balloon_to(target)?;
        } else {
            vm.qmp.set_target(target)?;
            std::thread::sleep(Duration::from_millis(random.within(0, 40)));
        }
    }
    vm.balloon_to(vm.memory)
}

fn verify(vm: &mut Vm) -> Outcome {
    let verified = vm.ask("mem verify", "verify")?;
    ensure!(verified.flag("ok")? && verified.count("bytes")? == HELD, "the memory held has changed: {verified}");
    Ok(())
}

/// The work was done by the interrupts that the step has, and by no others.
fn interrupts(vm: &mut Vm, step: &str) -> Outcome {
    let expected: &[&str] = match step {
        "msix" => &["virtio0-config", "virtio0-inflate", "virtio0-deflate", "virtio0-stats"],
        "msix-shared" => &["virtio0-config", "virtio0-virtqueues"],
        "intx" => &["virtio0"],
        _ => return Ok(()),
    };
    vm.serial.type_line("irq")?;
    for name in expected {
        let vector = vm.event_where(&format!("irq event of {name}"), |event| {
            event.name() == "irq" && event.text("name").is_ok_and(|text| text == *name)
        })?;
        ensure!(vector.count("count")? > 0, "this vector has never fired: {vector}");
    }
    Ok(())
}
