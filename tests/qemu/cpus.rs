//! Machines with several CPUs: all run, each interrupt arrives at the chosen CPU, and all stop when one fails.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Event, MIB, Outcome, Qemu, Trial, Version, Vm, ensure, image};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in [Version::V7_2, Version::V10_0] {
        let name = |case: &str| format!("cpus::{version}::{case}");
        let qemu = |cpus| Qemu::new(version).cpus(cpus);
        for cpus in [1, 2, 4, 8] {
            trials.push(trial(name(&format!("{cpus}_run")), qemu(cpus), move |vm| all_run(vm, cpus)));
        }
        let many = qemu(64).memory(256 * MIB).patience(Duration::from_secs(180));
        trials.push(trial(name("64_run"), many, |vm| all_run(vm, 64)));
        for machine in ["pc", "microvm,pcie=on"] {
            let case = format!("3_run_on_{}", machine.trim_end_matches(",pcie=on"));
            trials.push(trial(name(&case), qemu(3).machine(machine), |vm| all_run(vm, 3)));
        }
        trials.push(trial(name("xapic_2_run"), qemu(2).cpu("max,x2apic=off"), |vm| all_run(vm, 2)));
        // Without memory for more stacks, the remaining CPUs do not run; the balloon works all the same.
        trials.push(trial(name("64_in_16_mib"), qemu(64).memory(16 * MIB), some_run));
        let limited = qemu(4).command_line("log=json cpus=2");
        trials.push(trial(name("as_many_as_asked_for"), limited, |vm| all_run(vm, 2)));
        trials.push(trial(name("a_failing_cpu_stops_all"), qemu(4), |vm| fails(vm, 2)));
        trials.push(trial(name("the_first_failing_cpu_stops_all"), qemu(4), |vm| fails(vm, 0)));
        for cpus in [1, 4] {
            trials.push(trial(name(&format!("nmis_leave_the_report_whole_on_{cpus}")), qemu(cpus), fails_under_nmis));
        }
    }
    let bench = Qemu::new(Version::V10_0).cpus(3).command_line("log=json mode=bench");
    trials.push(trial("cpus::qemu-10.0::page_frames_are_measured_on_several", bench, measures));
    let moving = Qemu::new(Version::V10_0).cpus(4).balloon("vectors=6");
    trials.push(trial("cpus::qemu-10.0::queues_interrupt_the_chosen_cpu", moving.clone(), moves));
    let boot = moving.command_line("log=json affinity=boot");
    trials.push(trial("cpus::qemu-10.0::all_interrupts_to_the_boot_cpu", boot, stays));
    trials
}

/// The numbers and APIC IDs of the CPUs that run.
fn processors(vm: &mut Vm) -> Outcome<BTreeMap<u64, u64>> {
    let mut found = BTreeMap::new();
    vm.serial.type_line("cpus")?;
    vm.serial.type_line("cpu")?;
    loop {
        let told = vm.event_where("processor or cpu", |event| matches!(event.name(), "processor" | "cpu"))?;
        if told.name() == "cpu" {
            return Ok(found);
        }
        found.insert(told.count("number")?, told.count("apic_id")?);
    }
}

/// The expected number of CPUs run, each with its own APIC ID, and the balloon follows.
fn all_run(vm: &mut Vm, count: u32) -> Outcome {
    if count > 1 {
        let line = format!("{count} CPUs run");
        vm.event_where(&line, |event| event.text("message").is_ok_and(|text| text == line))?;
    }
    vm.event("ready")?;
    let found = processors(vm)?;
    ensure!(found.keys().copied().eq(0..u64::from(count)), "numbers and APIC IDs: {found:?}");
    let mut ids: Vec<_> = found.values().collect();
    ids.sort_unstable();
    ids.dedup();
    ensure!(ids.len() == found.len(), "numbers and APIC IDs: {found:?}");
    vm.ask("mem hold 16M", "held")?;
    follow(vm)?;
    let verified = vm.ask("mem verify", "verify")?;
    ensure!(verified.flag("ok")?, "the memory held has changed: {verified}");
    Ok(())
}

fn follow(vm: &mut Vm) -> Outcome {
    vm.balloon_to(vm.memory / 2)?;
    vm.balloon_to(vm.memory)
}

/// Fewer CPUs run than there are, for lack of memory for stacks.
fn some_run(vm: &mut Vm) -> Outcome {
    vm.event_where("a warning of the stacks", |event| {
        event.text("message").is_ok_and(|text| text.ends_with("of 64 CPUs: there is no memory for more stacks"))
    })?;
    vm.event("ready")?;
    vm.balloon_to(vm.memory - 4 * MIB)?;
    vm.balloon_to(vm.memory)
}

/// A CPU fails: only it reports, and the machine ends.
fn fails(vm: &mut Vm, cpu: u64) -> Outcome {
    vm.event("ready")?;
    let command = if cpu == 0 { "fault panic".into() } else { format!("fault panic {cpu}") };
    vm.serial.type_line(&command)?;
    let told = vm.event("panic")?;
    ensure!(told.count("cpu")? == cpu, "CPU {cpu} should fail: {told}");
    let way = way(&told)?;
    let place = format!("{}:{}", told.text("file")?, told.count("line")?);
    ensure!(way.lines().any(|line| line.ends_with(&place)), "{place} should be in the backtrace: {way}");
    let outermost = if cpu == 0 { "src/kernel/mod.rs:" } else { "src/machine/smp/start.rs:" };
    ensure!(way.contains(outermost), "{outermost} should be in the backtrace: {way}");
    ends_in_failure(vm)?;
    let reports = vm.serial.all().iter().filter(|line| line.text.contains(r#""event":"panic""#)).count();
    ensure!(reports == 1, "{reports} reports");
    Ok(())
}

/// The kernel reports its end, and QEMU ends with the status of a failure.
fn ends_in_failure(vm: &mut Vm) -> Outcome {
    vm.event("exit")?;
    let status = vm.end()?;
    ensure!(status.code() == Some(35), "QEMU should end with status 35: {status}");
    Ok(())
}

/// The source lines of a backtrace, by the command from docs/troubleshooting.md.
fn way(told: &Event) -> Outcome<String> {
    let addresses = told.get("backtrace").and_then(Value::as_array).ok_or_else(|| format!("no backtrace: {told}"))?;
    let addresses = addresses.iter().filter_map(Value::as_str);
    let found = Command::new("addr2line").arg("-Cfpie").arg(image::kernel()).args(addresses).output()?;
    ensure!(found.status.success(), "addr2line: {}", String::from_utf8_lossy(&found.stderr));
    Ok(String::from_utf8(found.stdout)?)
}

/// NMIs to the CPU that reports a failure, as from a button pressed meanwhile, do not disturb the report.
fn fails_under_nmis(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.serial.type_line("fault nmi")?;
    let told = vm.event("panic")?;
    ensure!(told.text("message")?.ends_with("in the middle"), "the message should be whole: {told}");
    ensure!(told.get("backtrace").is_some(), "the backtrace should be shown: {told}");
    ends_in_failure(vm)
}

/// The count of each vector, by its name and CPU.
fn interrupts(vm: &mut Vm) -> Outcome<BTreeMap<(String, u64), u64>> {
    let mut counts = BTreeMap::new();
    vm.serial.type_line("irq")?;
    vm.serial.type_line("cpu")?;
    loop {
        let told = vm.event_where("irq-cpu or cpu", |event| matches!(event.name(), "irq-cpu" | "cpu"))?;
        if told.name() == "cpu" {
            return Ok(counts);
        }
        counts.insert((told.text("name")?.to_owned(), told.count("cpu")?), told.count("count")?);
    }
}

/// Where a queue's interrupts arrived between two counts, by CPU.
fn came(before: &BTreeMap<(String, u64), u64>, after: &BTreeMap<(String, u64), u64>, name: &str) -> BTreeMap<u64, u64> {
    let counted = |counts: &BTreeMap<(String, u64), u64>, cpu| counts.get(&(name.into(), cpu)).copied().unwrap_or(0);
    let gained = |cpu| (cpu, counted(after, cpu) - counted(before, cpu));
    (0..8).map(gained).filter(|&(_, count)| count > 0).collect()
}

const INFLATE: &str = "virtio0-inflate";
const DEFLATE: &str = "virtio0-deflate";

/// Each queue interrupts its own CPU from the start, later the one that it is moved to, and no other.
fn moves(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    let start = interrupts(vm)?;
    follow(vm)?;
    let mut before = interrupts(vm)?;
    let (inflate, deflate) = (came(&start, &before, INFLATE), came(&start, &before, DEFLATE));
    ensure!(inflate.len() == 1 && deflate.len() == 1, "one CPU each: {inflate:?}, {deflate:?}");
    ensure!(inflate.keys().ne(deflate.keys()), "not the same CPU: {inflate:?}, {deflate:?}");
    for cpu in [3, 1, 0, 2] {
        let told = vm.ask(&format!("affinity inflate {cpu}"), "affinity")?;
        ensure!(told.count("cpu")? == cpu, "{told}");
        follow(vm)?;
        let after = interrupts(vm)?;
        let counts = came(&before, &after, INFLATE);
        ensure!(counts.keys().copied().eq([cpu]), "interrupts by CPU, all of which should be {cpu}: {counts:?}");
        ensure!(came(&before, &after, DEFLATE).keys().eq(deflate.keys()), "the other queue has moved");
        before = after;
    }
    let refused = vm.ask("affinity inflate 4", "console")?;
    ensure!(refused.text("text")?.contains("there is no CPU 4 to interrupt"), "{refused}");
    // A reset of the device keeps the assignment.
    vm.ask("reset", "reset")?;
    let before = interrupts(vm)?;
    follow(vm)?;
    let after = interrupts(vm)?;
    let counts = came(&before, &after, INFLATE);
    ensure!(counts.keys().copied().eq([2]), "interrupts by CPU after a reset: {counts:?}");
    Ok(())
}

/// With `affinity=boot` other CPUs are left alone.
fn stays(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    follow(vm)?;
    let counts = interrupts(vm)?;
    let devices = |(name, _): &&(String, u64)| name.starts_with("virtio0");
    ensure!(counts.keys().filter(devices).all(|(_, cpu)| *cpu == 0), "{counts:?}");
    ensure!(came(&BTreeMap::new(), &counts, INFLATE).contains_key(&0), "{counts:?}");
    Ok(())
}

/// `mode=bench` measures how fast one CPU, and two, allocate page frames, behind one lock and with magazines.
fn measures(vm: &mut Vm) -> Outcome {
    for through in ["lock", "magazines"] {
        for what in ["single", "region"] {
            for cpus in [1, 2] {
                let told = vm.event_where("a figure of page frames", |event| {
                    event.text("device").is_ok_and(|device| device == "frames")
                })?;
                ensure!(told.text("name")? == format!("{through}.{what}.{cpus}"), "{told}");
                ensure!(told.count("value")? > 0, "{told}");
            }
        }
    }
    vm.event("exit")?;
    let status = vm.end()?;
    ensure!(status.code() == Some(33), "QEMU should end with status 33: {status}");
    Ok(())
}
