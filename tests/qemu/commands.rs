//! Command line, console, log, and features as QEMU sees them.

use crate::support::event::Event;
use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let newest = || Qemu::new(Version::Newest);
    let mut trials = vec![
        trial(
            "commands::unknown_keys_and_values_are_warned_of",
            newest().command_line("log=json bogus=1 irq=never"),
            warned,
        ),
        trial("commands::text_log_reads_as_text", newest().command_line("log=text"), text_log),
        trial("commands::every_json_line_is_an_event", newest(), every_line),
        trial("commands::every_console_command_answers", newest(), console),
        trial("commands::allocations_are_timed_while_the_balloon_works", newest(), latency),
        trial("commands::work_and_sleep_are_counted", newest(), counted),
        trial("commands::unknown_console_command_is_named", newest(), unknown_command),
        trial("commands::logged_features_are_the_negotiated_ones", newest(), features),
    ];
    for (name, machine) in
        [("q35", "q35"), ("pc", "pc"), ("microvm", "microvm,pcie=on"), ("microvm_without_pci", "microvm")]
    {
        let qemu = newest().machine(machine).without_balloon();
        trials.push(trial(format!("commands::no_balloon::{name}"), qemu, no_balloon));
    }
    trials
}

/// Each invalid word causes a warning, and the boot continues.
fn warned(vm: &mut Vm) -> Outcome {
    for word in ["bogus", "never"] {
        vm.event_where(&format!("warning of {word:?}"), |event| {
            event.name() == "log"
                && event.text("level").is_ok_and(|level| level == "warning")
                && event.text("message").is_ok_and(|message| message.contains(word))
        })?;
    }
    vm.event("ready").map(drop)
}

fn text_log(vm: &mut Vm) -> Outcome {
    vm.line_with("ballonet")?;
    vm.line_with("1af4:1002")?;
    vm.line_with("balloon")?;
    vm.serial.type_line("help")?;
    vm.line_with("poweroff")?;
    for line in vm.serial.all() {
        ensure!(!line.text.starts_with('{'), "a text log has no JSON: {:?}", line.text);
        // This is not a terminal: no backspaces, bells or escape sequences.
        ensure!(
            !line.text.contains(|c: char| c.is_control() && c != '\r' && c != '\t'),
            "control characters: {:?}",
            line.text
        );
    }
    Ok(())
}

fn every_line(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.balloon_to(vm.memory / 2)?;
    vm.balloon_to(vm.memory)?;
    vm.ask("help", "console")?;
    vm.ask("poweroff", "exit")?;
    vm.end()?;
    let mut before = 0.0;
    for line in vm.serial.all() {
        let ms = Event::parse(&line.text)?.number("ms")?;
        ensure!(ms >= before, "time goes back from {before} ms: {}", line.text);
        before = ms;
    }
    Ok(())
}

fn console(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.balloon_to(vm.memory - 64 * MIB)?;
    for command in ["help", "info", "pci", "virtio", "mem", "balloon", "stats"] {
        let answer = vm.ask(command, "console")?;
        ensure!(!answer.text("text")?.is_empty(), "{command:?} should be answered: {answer}");
    }
    vm.ask("irq", "irq").map(drop)
}

/// A program allocates while the balloon inflates and deflates; its latencies are in order.
fn latency(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    let none = vm.ask("latency stop", "console")?;
    ensure!(none.text("text")?.contains("latency start"), "there is nothing to stop: {none}");
    vm.ask("latency start", "console")?;
    vm.balloon_to(vm.memory / 4)?;
    vm.balloon_to(vm.memory)?;
    let told = vm.ask("latency stop", "latency")?;
    ensure!(told.count("count")? >= 64 && told.count("failed")? == 0, "a round at least, and no failure: {told}");
    let order = ["p50", "p99", "p999", "max"].map(|name| told.count(name));
    let [p50, p99, p999, max] = order;
    let (p50, p99, p999, max) = (p50?, p99?, p999?, max?);
    ensure!(0 < p50 && p50 <= p99 && p99 <= p999 && p999 <= max, "each covers the one before: {told}");
    vm.ask("latency stop", "console").map(drop)
}

/// The driver's counters match the frames that moved, and the CPU sleeps while none moves.
fn counted(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    // At first the driver probes how the device reads requests; that inflates and deflates frames.
    vm.balloon_to(vm.memory - 64 * MIB)?;
    vm.balloon_to(vm.memory)?;
    let before = vm.ask("stats", "stats")?;
    vm.balloon_to(vm.memory - 64 * MIB)?;
    vm.balloon_to(vm.memory)?;
    let after = vm.ask("stats", "stats")?;
    for name in ["inflated", "deflated"] {
        let frames = after.count(name)? - before.count(name)?;
        ensure!(frames == 64 * MIB / 4096, "{name} {frames} frames: {after}");
    }
    for name in ["kicks", "interrupts"] {
        ensure!(after.count(name)? > before.count(name)?, "{name} should have been counted: {after}");
    }
    let first = vm.ask("cpu", "cpu")?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    let second = vm.ask("cpu", "cpu")?;
    let passed = |name: &str| -> Outcome<u64> { Ok(second.count(name)? - first.count(name)?) };
    let (up, awake) = (passed("up")?, passed("awake")?);
    ensure!(0 < awake && awake < up, "awake for {awake} of {up} ns in which there was little to do");
    Ok(())
}

fn unknown_command(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    let answer = vm.ask("frobnicate", "console")?;
    ensure!(answer.text("text")?.contains("frobnicate"), "the command should be named: {answer}");
    vm.ask("info", "console").map(drop)
}

/// The kernel and QEMU agree on the accepted features, and the device sees each step of the initialization.
fn features(vm: &mut Vm) -> Outcome {
    let ready = vm.event("ready")?;
    let told = ready.get("features").and_then(|value| value.as_array()).ok_or("no features in the ready event")?;
    let told = told.iter().filter_map(|name| name.as_str()).map(str::to_lowercase).collect::<Vec<_>>();
    let status = vm.qmp.virtio_status()?;
    let steps = status["status"]["statuses"].to_string();
    for step in ["ACKNOWLEDGE", "DRIVER", "FEATURES_OK", "DRIVER_OK"] {
        ensure!(steps.contains(&format!("VIRTIO_CONFIG_S_{step}")), "QEMU sees no {step}: {steps}");
    }
    let negotiated = status["guest-features"].to_string();
    for (ours, qemus) in [("stats_vq", "STATS_VQ"), ("event_idx", "EVENT_IDX"), ("version_1", "VERSION_1")] {
        let told = told.iter().any(|name| name == ours);
        ensure!(told == negotiated.contains(qemus), "{ours} is told {told}, against QEMU's {negotiated}");
    }
    Ok(())
}

/// The kernel says that there is no balloon, and its console works.
fn no_balloon(vm: &mut Vm) -> Outcome {
    let event = vm.event("no-device")?;
    ensure!(event.text("message")?.contains("balloon"), "the message should name what is missing: {event}");
    vm.ask("info", "console")?;
    vm.ask("poweroff", "exit")?;
    vm.end().map(drop)
}
