//! The picture of one guest: each figure compared with QMP and `/proc`.

use rustix::process::Signal;
use serde_json::Value;

use super::machine::{Kind, Machine, RAM};
use super::terminal::{Terminal, number_after};
use super::{MIB, Outcome, program, until};

/// How far a memory figure may be from what the test reads, in MiB. The picture rounds to a MiB, and QEMU's own
/// memory changes a little between the sample and the test's reading while the guest is idle. A comparison that is
/// further off is repeated, since the sample may be older than the last change: only a figure that stays wrong fails.
const TOLERANCE: u64 = 2;

#[test]
fn of_a_ballonet_in_qemu_7_2() -> Outcome {
    one("7.2", Kind::Ballonet)
}

#[test]
fn of_a_ballonet_in_qemu_10_0() -> Outcome {
    one("10.0", Kind::Ballonet)
}

#[test]
fn of_linux_in_qemu_7_2() -> Outcome {
    one("7.2", Kind::Linux)
}

#[test]
fn of_linux_in_qemu_10_0() -> Outcome {
    one("10.0", Kind::Linux)
}

fn one(version: &str, kind: Kind) -> Outcome {
    let Some(mut machine) = Machine::start(version, kind, "deflate-on-oom=on,free-page-reporting=on")? else {
        return Ok(());
    };
    machine.wait_for_driver()?;
    let mut command = program();
    command.arg("attach").arg(machine.socket()).args(["--interval", "250ms"]);
    if kind == Kind::Ballonet {
        command.arg("--serial").arg(machine.serial());
    }
    let mut terminal = Terminal::start(command, 80, 24)?;
    terminal.wait_for("running")?;
    let pid = machine.pid();
    assert_eq!(number_after(&terminal.screen(), "PID"), Some(u64::from(pid)), "by the socket's peer");
    host_figures(&terminal, &machine)?;
    balloon_figures(&terminal, &mut machine)?;
    chart(&terminal, &machine)?;
    statistics(&terminal, &mut machine)?;
    if kind == Kind::Ballonet {
        kernel_figures(&terminal, &mut machine)?;
    }
    targets(&mut terminal, &mut machine)?;
    pause(&mut terminal)?;
    assert!(terminal.has_colours() && terminal.screen().lines().all(|line| line.chars().count() <= 80));
    leaves(&mut terminal, &mut machine)
}

/// RSS, PSS and RAM, within the tolerance of `/proc` before or after the comparison.
fn host_figures(terminal: &Terminal, machine: &Machine) -> Outcome {
    let mut last = String::new();
    until("the host's figures to be /proc's", || {
        let before = machine.memory()?;
        let screen = terminal.screen();
        let after = machine.memory()?;
        let shown = ["RSS ", "PSS ", "RAM "].map(|word| {
            let line = screen.lines().find(|line| line.starts_with("host")).unwrap_or_default();
            number_after(line, word)
        });
        last = format!("{shown:?}, not {before:?} to {after:?}");
        let fits = shown.iter().zip(before.iter().zip(after)).all(|(shown, (before, after))| {
            let (least, most) = ((*before).min(after) / MIB, (*before).max(after) / MIB);
            shown.is_some_and(|shown| shown + TOLERANCE >= least && shown <= most + TOLERANCE)
        });
        Ok(fits.then_some(()))
    })
    .map_err(|error| format!("{error}: {last}").into())
}

/// What the balloon leaves the guest, exactly.
fn balloon_figures(terminal: &Terminal, machine: &mut Machine) -> Outcome {
    let (actual, size) = (machine.actual()? / MIB, RAM / MIB);
    terminal.wait_for(&format!("leaves {actual} of {size} MiB")).map(drop)
}

/// The newest column of the chart has the height of the host's memory behind the guest's RAM, to the nearest cell, and a
/// line at the size of the balloon.
fn chart(terminal: &Terminal, machine: &Machine) -> Outcome {
    let read = |screen: &str| -> Option<(usize, usize, bool)> {
        let lines: Vec<_> = screen.lines().collect();
        let top = lines.iter().position(|line| line.starts_with("  256 "))?;
        let bottom = top + lines[top..].iter().position(|line| line.starts_with("    0 "))?;
        let column: Vec<_> = lines[top..=bottom].iter().map(|line| line.chars().nth(79).unwrap_or(' ')).collect();
        let filled = column.iter().filter(|cell| matches!(cell, '█' | '░')).count();
        Some((filled, column.len(), column[0] == '─'))
    };
    let mut last = String::new();
    until("the chart to show the host's memory", || {
        let screen = terminal.screen();
        let [.., ram] = machine.memory()?;
        let (filled, height, sized) = read(&screen).unwrap_or_default();
        last = format!("{filled} of {height} cells for {ram} bytes:\n{screen}");
        let exact = ram as f64 / RAM as f64 * height as f64;
        Ok((sized && filled > 0 && (filled as f64 - exact).abs() < 1.0).then_some(()))
    })
    .map_err(|error| format!("{error}: {last}").into())
}

/// The guest's statistics, within the tolerance of QEMU's before or after the comparison.
fn statistics(terminal: &Terminal, machine: &mut Machine) -> Outcome {
    let mut last = String::new();
    until("the statistics to be QEMU's", || {
        let screen = terminal.screen();
        let stats = machine.property("guest-stats")?["stats"].clone();
        let says = screen.lines().find(|line| line.starts_with("says")).unwrap_or_default().to_owned();
        last = format!("{says:?}, not {stats}");
        let near = |(word, name): (&str, &str)| match (number_after(&says, word), value(&stats, name)) {
            (Some(shown), Some(bytes)) => shown.abs_diff(bytes / MIB) <= TOLERANCE,
            (shown, bytes) => shown.is_none() && bytes.is_none(),
        };
        let all = [
            ("free ", "stat-free-memory"),
            ("available ", "stat-available-memory"),
            ("total ", "stat-total-memory"),
            ("caches ", "stat-disk-caches"),
            ("swap in ", "stat-swap-in"),
            ("out ", "stat-swap-out"),
        ]
        .into_iter()
        .all(near);
        Ok((all && number_after(&says, "total ").is_some()).then_some(()))
    })
    .map_err(|error| format!("{error}: {last}").into())
}

fn value(stats: &Value, name: &str) -> Option<u64> {
    stats[name].as_u64().filter(|value| *value != u64::MAX)
}

/// What of the total is neither free nor used at most, in MiB: the kernel's image and the allocator's records.
const IMAGE: u64 = 8;

/// The figures from the kernel's console, compared with the statistics that the kernel sends through its device.
fn kernel_figures(terminal: &Terminal, machine: &mut Machine) -> Outcome {
    until("the kernel's figures to be those of its statistics", || {
        let stats = machine.property("guest-stats")?["stats"].clone();
        let (Some(free), Some(total)) = (value(&stats, "stat-free-memory"), value(&stats, "stat-total-memory")) else {
            return Ok(None);
        };
        let screen = terminal.screen();
        let line = screen.lines().find(|line| line.starts_with("kernel")).unwrap_or_default();
        let near = |word: &str, bytes: u64, tolerance: u64| {
            number_after(line, word).is_some_and(|shown| shown.abs_diff(bytes / MIB) <= tolerance)
        };
        // The statistics alone cause kicks and interrupts.
        let counts = ["kicks ", "irqs "].map(|word| number_after(line, word).unwrap_or_default());
        let fits = near("free ", free, TOLERANCE)
            && near("used ", total - free, IMAGE)
            && counts.iter().all(|count| *count > 0);
        Ok(fits.then_some(()))
    })
    .map_err(|error| format!("{error}:\n{}", terminal.screen()).into())
}

/// Keys set targets: a typed number, and steps of a 32nd.
fn targets(terminal: &mut Terminal, machine: &mut Machine) -> Outcome {
    for (keys, wanted) in [("200\r", 200), ("\x1b[B", 192), ("\x1b[B\x1b[B", 176), ("\x1b[A\x1b[A\x1b[A", 200)] {
        terminal.type_keys(keys)?;
        terminal.wait_for(&format!("target {wanted}  leaves {wanted} of"))?;
        until("QEMU to have the target", || Ok((machine.actual()? == wanted * MIB).then_some(())))?;
    }
    terminal.wait_for(" T guest: target 192 MiB")?;
    terminal.wait_until("the targets below the chart", |screen| screen.contains("TT").then_some(()))
}

/// A paused picture is frozen while the guest changes.
fn pause(terminal: &mut Terminal) -> Outcome {
    terminal.type_keys("p")?;
    terminal.wait_for("PAUSED")?;
    terminal.type_keys("180\r")?;
    terminal.wait_for("target 180 MiB")?;
    assert!(terminal.screen().contains("leaves 200 of"), "{}", terminal.screen());
    terminal.type_keys("p")?;
    terminal.wait_for("leaves 180 of").map(drop)
}

/// Quitting restores the terminal and the statistics interval, and leaves the guest unchanged.
fn leaves(terminal: &mut Terminal, machine: &mut Machine) -> Outcome {
    terminal.type_keys("s")?;
    terminal.wait_for("statistics every 2 s")?;
    until("QEMU to have the interval", || {
        Ok((machine.property("guest-stats-polling-interval")?.as_u64() == Some(2)).then_some(()))
    })?;
    assert!(terminal.is_alternate());
    terminal.type_keys("q")?;
    assert!(terminal.end()?.success());
    until("the screen to be left", || Ok((!terminal.is_alternate()).then_some(())))?;
    assert_eq!(machine.property("guest-stats-polling-interval")?.as_u64(), Some(0));
    assert_eq!(machine.qmp.run("query-status", &serde_json::json!({}))?["status"], "running");
    assert_eq!(machine.actual()?, 180 * MIB);
    Ok(())
}

/// A lost terminal and SIGTERM end the program like `q`: QEMU's socket is free again, and the interval is restored.
#[test]
fn a_lost_terminal_or_a_signal_ends_it() -> Outcome {
    let Some(mut machine) = Machine::start("7.2", Kind::Ballonet, "")? else { return Ok(()) };
    // A lost connection brings SIGHUP to the program if the terminal controls it.
    for (lost, signal) in [(true, None), (true, Some(Signal::HUP)), (false, Some(Signal::TERM))] {
        let mut command = program();
        command.arg("attach").arg(machine.socket()).args(["--interval", "100ms"]);
        let mut terminal = Terminal::start(command, 80, 24)?;
        terminal.wait_for("running")?;
        if let Some(signal) = signal {
            terminal.signal(signal)?;
        }
        if lost {
            terminal.hang_up()?;
            terminal.end()?;
        } else {
            assert!(terminal.end()?.success());
            until("the screen to be left", || Ok((!terminal.is_alternate()).then_some(())))?;
        }
        let interval = machine.property("guest-stats-polling-interval")?;
        assert_eq!(interval.as_u64(), Some(0), "lost: {lost}, {signal:?}");
    }
    Ok(())
}

#[test]
fn without_colours_and_in_ascii() -> Outcome {
    let Some(mut machine) = Machine::start("7.2", Kind::Ballonet, "")? else { return Ok(()) };
    machine.wait_for_driver()?;
    let mut command = program();
    command.arg("attach").arg(machine.socket()).args(["--interval", "250ms"]);
    command.env("NO_COLOR", "1").env("LC_ALL", "C");
    let mut terminal = Terminal::start(command, 80, 24)?;
    terminal.wait_until("the chart in ASCII", |screen| screen.contains("::::::::").then_some(()))?;
    assert!(!terminal.has_colours());
    terminal.type_keys("q")?;
    terminal.end()?;
    assert!(terminal.bytes().is_ascii());
    Ok(())
}
