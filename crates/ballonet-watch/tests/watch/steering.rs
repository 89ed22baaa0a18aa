//! The policy on running guests.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use super::machine::{Kind, Machine, RAM};
use super::{MIB, Outcome, program};

#[test]
fn a_dry_run_sets_nothing_and_a_real_one_keeps_the_budget() -> Outcome {
    let mut machines = Vec::new();
    for (version, kind) in [("7.2", Kind::Ballonet), ("10.0", Kind::Linux)] {
        let Some(mut machine) = Machine::start(version, kind, "deflate-on-oom=on")? else { return Ok(()) };
        machine.wait_for_driver()?;
        machines.push(machine);
    }
    // Linux needs some 100 MiB of the budget.
    let budget = RAM + 64 * MIB;
    let command = || {
        let mut command = program();
        command.arg("policy").args(machines.iter().map(Machine::socket)).args(["--floor", "48M", "--duration", "10"]);
        command.args(["--budget", &format!("{}M", budget / MIB)]).stdin(Stdio::null());
        command
    };
    let output = command().arg("--dry-run").output()?;
    let text = String::from_utf8(output.stdout)?;
    assert!(output.status.success() && text.contains("would go from 256 to"), "{text}");
    let output = command().args(["--record", "-"]).output()?;
    let (record, text) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert!(output.status.success() && text.contains("goes from 256 to"), "{text}");
    let columns = |line: &str| line.split(',').count();
    let first = record.lines().next().map(columns);
    assert!(record.starts_with("time,guest,") && record.lines().all(|line| Some(columns(line)) == first), "{record}");
    assert!(record.lines().any(|line| line.contains(",target,target ")), "{record}");
    for machine in &mut machines {
        let interval = machine.property("guest-stats-polling-interval")?;
        assert_eq!(interval.as_u64(), Some(0), "as it was found");
    }
    // The targets stay set, and the balloons reach them.
    super::until("the budget to be kept", || {
        let left = machines.iter_mut().map(Machine::actual).sum::<Outcome<u64>>()?;
        Ok((left <= budget).then_some(()))
    })
}

#[test]
fn it_ends_when_nobody_reads_on() -> Outcome {
    let Some(machine) = Machine::start("7.2", Kind::Ballonet, "")? else { return Ok(()) };
    let mut command = program();
    command.arg("policy").arg(machine.socket()).args(["--budget", "200M", "--interval", "100ms"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut String::new())?;
    let status = super::until("it to end", || Ok(child.try_wait()?)).inspect_err(|_| drop(child.kill()))?;
    let mut errors = String::new();
    child.stderr.take().ok_or("no stderr")?.read_to_string(&mut errors)?;
    assert!(status.success() && errors.is_empty(), "{errors}");
    Ok(())
}

#[test]
fn invalid_budgets_and_names() -> Outcome {
    let Some(machine) = Machine::start("7.2", Kind::Ballonet, "")? else { return Ok(()) };
    for (options, words) in [
        (["--budget", "32M", "--floor", "64M"], "--budget 32 MiB"),
        (["--budget", "128M", "--guest", "web=1M:2M"], "--guest web: no such guest; there are guest"),
    ] {
        let output = program().arg("policy").arg(machine.socket()).args(options).stdin(Stdio::null()).output()?;
        let text = String::from_utf8(output.stderr)?;
        assert!(!output.status.success() && text.contains(words), "{text}");
    }
    Ok(())
}
