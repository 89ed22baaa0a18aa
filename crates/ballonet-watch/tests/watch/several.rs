//! Several guests side by side, one that ends, one that hangs, and one that the program starts.

use std::process::Stdio;

use rustix::process::Signal;

use super::machine::{Kind, Machine, RAM, kernel};
use super::terminal::{Terminal, number_after};
use super::{MIB, Outcome, program, until};

#[test]
fn side_by_side_with_their_sum() -> Outcome {
    let started = [("7.2", Kind::Ballonet), ("10.0", Kind::Linux), ("7.2", Kind::Ballonet)];
    let mut machines = Vec::new();
    for (version, kind) in started {
        let Some(machine) = Machine::start(version, kind, "")? else { return Ok(()) };
        machines.push(machine);
    }
    for machine in &mut machines {
        machine.wait_for_driver()?;
    }
    let mut command = program();
    command.arg("attach").args(machines.iter().map(Machine::socket)).args(["--interval", "250ms"]);
    let mut terminal = Terminal::start(command, 80, 40)?;
    terminal.wait_until("three guests that run", |screen| (screen.matches("  running").count() == 3).then_some(()))?;
    sum(&terminal, &machines)?;
    // Tab selects the second guest, which gets the target.
    terminal.type_keys("\t192\r")?;
    terminal.wait_for("leaves 192 of")?;
    until("QEMU to have the target", || Ok((machines[1].actual()? == 192 * MIB).then_some(())))?;
    terminal.wait_for("in balloons 64 MiB")?;
    assert_eq!(machines[0].actual()?, RAM, "the others have theirs still");
    machines[0].signal(Signal::STOP)?;
    terminal.wait_for("QEMU DOES NOT ANSWER")?;
    // A hanging guest does not delay the others.
    terminal.type_keys("200\r")?;
    terminal.wait_for("leaves 200 of")?;
    machines[0].signal(Signal::CONT)?;
    terminal.wait_until("it to answer again", |screen| (screen.matches("  running").count() == 3).then_some(()))?;
    machines[2].signal(Signal::KILL)?;
    terminal.wait_for("ENDED")?;
    terminal.wait_until("the others to run", |screen| (screen.matches("  running").count() == 2).then_some(()))?;
    listed(&mut terminal)?;
    terminal.type_keys("\x03")?;
    assert!(terminal.end()?.success(), "Ctrl-C ends it as q does");
    Ok(())
}

/// Guests that do not all fit with their charts are a list, with the chosen one below it.
fn listed(terminal: &mut Terminal) -> Outcome {
    terminal.resize(80, 24)?;
    let has = |screen: &str, name: &str, state: &str, end: &str| {
        screen.lines().any(|line| line.starts_with(name) && line.contains(state) && line.ends_with(end))
    };
    terminal.wait_until("the list", |screen| {
        let chosen = has(screen, "> guest-2 ", "running", "     200     256");
        let ended = has(screen, "  guest-3 ", "ENDED", "");
        (chosen && ended && screen.contains("leaves 200 of 256 MiB")).then_some(())
    })?;
    terminal.type_keys("\t")?;
    terminal.wait_until("the next guest", |screen| has(screen, "> guest-3 ", "ENDED", "").then_some(()))
}

#[test]
fn a_qemu_with_two_sockets_is_one_guest() -> Outcome {
    let Some(mut machine) = Machine::start("7.2", Kind::Ballonet, "")? else { return Ok(()) };
    let mut command = program();
    command.arg("attach").arg(machine.socket()).arg(machine.other_socket()).args(["--once", "--record", "-"]);
    let output = command.stdin(Stdio::null()).output()?;
    let (text, errors) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert!(output.status.success() && text.lines().count() == 2, "a head and a sample: {text}");
    let words =
        format!("{}: other is the QEMU of another socket, PID {}", machine.other_socket().display(), machine.pid());
    assert!(errors.contains(&words), "{errors}");
    assert_eq!(machine.property("guest-stats-polling-interval")?.as_u64(), Some(0), "as it was found");
    Ok(())
}

/// The sum in the header matches `/proc` over all guests.
fn sum(terminal: &Terminal, machines: &[Machine]) -> Outcome {
    let mut last = String::new();
    until("the sum to be that of the guests", || {
        let mut rss = 0;
        for machine in machines {
            rss += machine.memory()?[0];
        }
        let shown = number_after(&terminal.screen(), "sum: RSS ").unwrap_or_default();
        last = format!("{shown}, not {}", rss / MIB);
        // The tolerance of one guest, times the number of guests.
        Ok((shown.abs_diff(rss / MIB) <= 6).then_some(()))
    })
    .map_err(|error| format!("{error}: {last}").into())
}

#[test]
fn lines_end_when_every_qemu_has() -> Outcome {
    let Some(mut machine) = Machine::start("7.2", Kind::Ballonet, "")? else { return Ok(()) };
    let mut command = program();
    command.arg("attach").arg(machine.folder()).args(["--interval", "100ms"]);
    // The test holds one of the folder's sockets, one is another of the same QEMU, and one is not QMP.
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let statistics = || -> Outcome<Option<()>> {
        let interval = machine.property("guest-stats-polling-interval")?;
        Ok((interval.as_u64() == Some(1)).then_some(()))
    };
    until("the program to attach", statistics)?;
    std::thread::sleep(std::time::Duration::from_secs(4));
    machine.signal(Signal::KILL)?;
    let output = child.wait_with_output()?;
    let (text, errors) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert!(output.status.success(), "{errors}");
    assert!(text.contains("ended"), "{text}");
    assert_eq!(errors.matches("left out").count(), 3, "{errors}");
    Ok(())
}

#[test]
fn a_guest_of_its_own_ends_with_it() -> Outcome {
    let kernel = kernel()?;
    let mut command = program();
    command.env("MEMORY", "128M").arg("run").arg("--kernel").arg(kernel).args(["--interval", "250ms"]);
    command.args(["--", "work=sawtooth:48M"]);
    let mut terminal = Terminal::start(command, 80, 24)?;
    terminal.wait_for("leaves 128 of 128 MiB")?;
    // A program in the guest uses memory, and the kernel reports that.
    terminal.wait_until("the program to have its memory", |screen| {
        let line = screen.lines().find(|line| line.starts_with("kernel"))?;
        number_after(line, "used ").filter(|used| (48..64).contains(used))
    })?;
    terminal.wait_until("what it freed to be reported", |screen| {
        let line = screen.lines().find(|line| line.starts_with("kernel"))?;
        number_after(line, "reported ").filter(|reported| *reported > 100 + 40)
    })?;
    terminal.type_keys("96\r")?;
    terminal.wait_for("leaves 96 of 128 MiB")?;
    let pid = number_after(&terminal.screen(), "PID ").ok_or("no PID")?;
    terminal.type_keys("q")?;
    assert!(terminal.end()?.success());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "QEMU has ended");
    Ok(())
}
