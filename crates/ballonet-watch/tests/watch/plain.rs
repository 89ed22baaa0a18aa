//! Without a terminal: lines, records, plots, and the Prometheus endpoint.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::json;

use super::machine::{Kind, Machine, RAM};
use super::terminal::number_after;
use super::{MIB, Outcome, program};

#[test]
fn once_prints_a_line_and_records_a_sample() -> Outcome {
    let Some(mut machine) = Machine::start("7.2", Kind::Ballonet, "")? else { return Ok(()) };
    machine.wait_for_driver()?;
    let file = |name: &str| machine.folder().join(name);
    let mut command = program();
    command.arg("attach").arg(machine.socket()).arg("--once").arg("--record").arg(file("one.jsonl"));
    command.arg("--svg").arg(file("one.svg")).arg("--png").arg(file("one.png"));
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains('\x1b') && text.lines().count() == 1, "{text}");
    let [rss, ..] = machine.memory()?;
    let shown = number_after(&text, "RSS ").ok_or("no RSS")?;
    assert!(shown.abs_diff(rss / MIB) <= 8, "{text}: {rss}");
    assert!(text.contains(&format!("leaves {0} of {0} MiB", RAM / MIB)), "{text}");
    let sample: serde_json::Value = serde_json::from_str(fs::read_to_string(file("one.jsonl"))?.trim())?;
    assert_eq!(sample["actual"].as_u64(), Some(RAM), "{sample}");
    assert!(sample["rss"].as_u64().is_some_and(|bytes| bytes / MIB <= shown + 1), "{sample}");
    assert!(fs::read_to_string(file("one.svg"))?.contains("host memory"));
    assert!(fs::read(file("one.png"))?.starts_with(b"\x89PNG"));
    Ok(())
}

/// The mapping is also found if RAM is a file in memory.
#[test]
fn shared_ram_is_counted() -> Outcome {
    let Some(mut machine) = Machine::start_shared("7.2", Kind::Ballonet)? else { return Ok(()) };
    machine.wait_for_driver()?;
    let look = |machine: &Machine| -> Outcome<u64> {
        let output = program().arg("attach").arg(machine.socket()).arg("--once").stdin(Stdio::null()).output()?;
        let text = String::from_utf8(output.stdout)?;
        number_after(&text, "RAM ").ok_or_else(|| format!("no RAM: {text}").into())
    };
    let [.., ram] = machine.memory()?;
    assert!(ram > 0 && look(&machine)?.abs_diff(ram / MIB) <= 2, "{ram}");
    Ok(())
}

#[test]
fn a_record_on_standard_output_is_only_that_and_can_be_plotted() -> Outcome {
    let Some(mut machine) = Machine::start("10.0", Kind::Ballonet, "")? else { return Ok(()) };
    machine.wait_for_driver()?;
    let mut command = program();
    command.arg("attach").arg(machine.socket()).args(["--record", "-", "--interval", "200ms", "--duration", "2"]);
    let output = command.stdin(Stdio::null()).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    assert!(text.starts_with("time,guest,rss,pss,"), "{text}");
    assert!(text.lines().skip(1).count() >= 2 && text.lines().skip(1).all(|line| line.contains(",guest,")), "{text}");
    let record = machine.folder().join("record.csv");
    fs::write(&record, text)?;
    assert!(program().arg("plot").arg(&record).stderr(Stdio::null()).status()?.success());
    assert!(fs::read_to_string(record.with_extension("svg"))?.starts_with("<svg"), "beside the record");
    Ok(())
}

#[test]
fn prometheus_gets_the_newest_sample() -> Outcome {
    let Some(mut machine) = Machine::start("7.2", Kind::Linux, "")? else { return Ok(()) };
    machine.wait_for_driver()?;
    let mut command = program();
    command.arg("attach").arg(machine.socket()).args(["--listen", "127.0.0.1:0", "--interval", "200ms"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let outcome = scraped(&mut child);
    child.kill()?;
    child.wait()?;
    let page = outcome?;
    assert!(page.contains("ballonet_watch_up{guest=\"guest\"} 1"), "{page}");
    assert!(page.contains(&format!("ballonet_watch_actual_bytes{{guest=\"guest\"}} {RAM}")), "{page}");
    let rss = number_after(&page, "ballonet_watch_rss_bytes{guest=\"guest\"}").ok_or("no RSS")?;
    // This checks which figure it is, not its accuracy: no other figure is near.
    let [now, ..] = machine.memory()?;
    assert!(rss.abs_diff(now) < 64 * MIB, "{rss}, not {now}");
    Ok(())
}

/// The page after the first line; by then there is a sample.
fn scraped(child: &mut std::process::Child) -> Outcome<String> {
    let mut line = String::new();
    BufReader::new(child.stderr.take().ok_or("no stderr")?).read_line(&mut line)?;
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).ok_or("no address")?.to_owned();
    BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut String::new())?;
    super::until("a page with the sample", || {
        let mut client = TcpStream::connect(&address)?;
        write!(client, "GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        client.read_to_string(&mut page)?;
        Ok(page.contains("rss_bytes").then_some(page))
    })
}

#[test]
fn events_are_recorded() -> Outcome {
    let Some(mut machine) = Machine::start("10.0", Kind::Ballonet, "")? else { return Ok(()) };
    machine.wait_for_driver()?;
    let record = machine.folder().join("events.jsonl");
    let mut command = program();
    command.arg("attach").arg(machine.socket()).arg("--serial").arg(machine.serial()).arg("--record").arg(&record);
    let mut child = command.args(["--interval", "100ms"]).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let outcome = happen(&mut machine, &record);
    child.kill()?;
    child.wait()?;
    outcome
}

/// Causes events, and waits until each is in the record.
fn happen(machine: &mut Machine, record: &Path) -> Outcome {
    let wait_for = |event: &str| {
        super::until(event, || {
            let text = fs::read_to_string(record).unwrap_or_default();
            Ok(text.lines().any(|line| line.contains(&format!("\"event\":\"{event}\""))).then_some(()))
        })
    };
    super::until("a sample with the kernel's own word", || {
        Ok(fs::read_to_string(record).unwrap_or_default().contains("\"kicks\":").then_some(()))
    })?;
    // The test sets this target, not the program: the kernel reports it.
    machine.qmp.run("balloon", &json!({ "value": 200 * MIB }))?;
    wait_for("target")?;
    machine.qmp.run("system_reset", &json!({}))?;
    wait_for("reset")?;
    machine.qmp.run("migrate", &json!({ "uri": "exec:cat >/dev/null" }))?;
    wait_for("migration")?;
    machine.signal(Signal::KILL)?;
    wait_for("ended")
}
