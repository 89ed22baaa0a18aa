//! Without a terminal: lines, records, plots, and the Prometheus endpoint.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

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

/// The mappings are also found if RAM is shared, a file, or in several parts, and if memory is plugged in.
#[test]
fn ram_of_every_kind_is_counted() -> Outcome {
    let folder = std::env::temp_dir();
    let size = RAM / MIB;
    let shared = format!("memory-backend-memfd,id=ram,size={size}M,share=on");
    let file = format!("memory-backend-file,id=ram,size={size}M,share=on,mem-path={}", folder.display());
    let half = |id: &str| format!("memory-backend-ram,id={id},size={}M", size / 2);
    let (low, high) = (half("low"), half("high"));
    let one = |object| vec!["-object", object, "-machine", "memory-backend=ram"];
    let nodes = ["-object", &low, "-object", &high, "-numa", "node,memdev=low", "-numa", "node,memdev=high"];
    for (options, part) in [(one(&shared), RAM), (one(&file), RAM), (nodes.to_vec(), RAM / 2)] {
        let Some(mut machine) = Machine::with("7.2", Kind::Ballonet, "", &options)? else { return Ok(()) };
        machine.wait_for_driver()?;
        let [.., ram] = machine.memory_of(part)?;
        let text = once(&machine)?;
        let shown = number_after(&text, "RAM ").ok_or_else(|| format!("{options:?}: {text}"))?;
        assert!(ram > 0 && shown.abs_diff(ram / MIB) <= 2, "{options:?}: {ram}: {text}");
    }
    Ok(())
}

fn once(machine: &Machine) -> Outcome<String> {
    let output = program().arg("attach").arg(machine.socket()).arg("--once").stdin(Stdio::null()).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn plugged_memory_is_part_of_the_guests_ram() -> Outcome {
    let options = ["-m", "256M,slots=1,maxmem=1G"];
    let Some(mut machine) = Machine::with("10.0", Kind::Ballonet, "", &options)? else { return Ok(()) };
    machine.wait_for_driver()?;
    machine.qmp.run("object-add", &json!({ "qom-type": "memory-backend-ram", "id": "more", "size": 128 * MIB }))?;
    machine.qmp.run("device_add", &json!({ "driver": "pc-dimm", "id": "dimm", "memdev": "more" }))?;
    let text = once(&machine)?;
    assert!(text.contains("leaves 384 of 384 MiB"), "{text}");
    let parts = [machine.memory()?, machine.memory_of(128 * MIB)?].map(|[.., ram]| ram / MIB);
    let shown = number_after(&text, "RAM ").ok_or_else(|| format!("no RAM: {text}"))?;
    assert!(shown.abs_diff(parts.iter().sum()) <= 2, "{parts:?}: {text}");
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
    let answer = outcome?;
    let (head, page) = answer.split_once("\r\n\r\n").ok_or("no head")?;
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", page.len())), "{head}");
    let samples = exposition(page)?;
    let sample = |name: &str| samples.get(&format!("ballonet_watch_{name}{{guest=\"guest\"}}")).copied();
    assert_eq!(sample("up"), Some(1), "{page}");
    assert_eq!(sample("actual_bytes"), Some(RAM), "{page}");
    assert!(sample("stat_minor_faults_total").is_some_and(|count| count > 0), "{page}");
    // This checks which figure it is, not its accuracy: no other figure is near.
    let [now, ..] = machine.memory()?;
    assert!(sample("rss_bytes").is_some_and(|rss| rss.abs_diff(now) < 64 * MIB), "not {now}: {page}");
    Ok(())
}

/// The samples of a page in Prometheus' text format (version 0.0.4). The rules: a metric's HELP and TYPE come once, in this
/// order, before all of its samples; names and label values are of allowed characters; no sample is there twice; a
/// counter's name ends in `_total`, and only such; each line ends.
fn exposition(page: &str) -> Outcome<BTreeMap<String, u64>> {
    let is_name = |text: &str| {
        let first = text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_');
        first && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    let (mut samples, mut families, mut helped) = (BTreeMap::new(), Vec::<String>::new(), "");
    assert!(page.ends_with('\n'), "{page}");
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split_once(' ').ok_or("a HELP without words")?.0;
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').ok_or("a TYPE without a type")?;
            assert!(name == helped && is_name(name) && !families.iter().any(|known| known == name), "{line}");
            assert_eq!(kind, if name.ends_with("_total") { "counter" } else { "gauge" }, "{line}");
            families.push(name.into());
        } else {
            let (series, value) = line.rsplit_once(' ').ok_or("no value")?;
            let (name, labels) = series.split_once('{').ok_or("no labels")?;
            assert_eq!(Some(name), families.last().map(String::as_str), "{line}");
            assert!(labels.starts_with("guest=\"") && labels.ends_with("\"}"), "{line}");
            assert!(samples.insert(series.to_owned(), value.parse()?).is_none(), "{line}");
        }
    }
    Ok(samples)
}

/// The answer after the first line; by then there is a sample.
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
        Ok(page.contains("minor_faults").then_some(page))
    })
}

#[test]
fn events_are_recorded_in_qemu_7_2() -> Outcome {
    events("7.2")
}

#[test]
fn events_are_recorded_in_qemu_10_0() -> Outcome {
    events("10.0")
}

/// A program in the guest takes 96 MiB and frees them, time and again.
fn events(version: &str) -> Outcome {
    let balloon = "deflate-on-oom=on,free-page-reporting=on,free-page-hint=on,iothread=hints";
    let options = ["-object", "iothread,id=hints", "-append", "log=json work=sawtooth:96M"];
    let Some(mut machine) = Machine::with(version, Kind::Ballonet, balloon, &options)? else { return Ok(()) };
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

/// The lines of a record; the last one may be written at this moment.
fn lines(record: &Path) -> Vec<Value> {
    let text = fs::read_to_string(record).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Causes events, and waits until each is in the record.
fn happen(machine: &mut Machine, record: &Path) -> Outcome {
    let wait_for = |event: &str, words: &str| {
        super::until(words, || {
            let has =
                |line: &Value| line["event"] == event && line["text"].as_str().is_some_and(|text| text.contains(words));
            Ok(lines(record).iter().any(has).then_some(()))
        })
    };
    super::until("a sample with the kernel's own word", || {
        Ok(lines(record).iter().any(|line| line["kicks"].is_u64()).then_some(()))
    })?;
    wait_for("report", "MiB reported as free")?;
    // The test sets these targets, not the program: the kernel reports them.
    machine.qmp.run("balloon", &json!({ "value": 200 * MIB }))?;
    wait_for("target", "target 200 MiB")?;
    super::until("the balloon to inflate", || Ok((machine.actual()? == 200 * MIB).then_some(())))?;
    super::until("a sample of it", || Ok((last(record, "actual") == Some(200 * MIB)).then_some(())))?;
    rates(&lines(record), RAM - 200 * MIB);
    machine.qmp.run("migrate", &json!({ "uri": "exec:cat >/dev/null" }))?;
    wait_for("hint", "MiB hinted as free")?;
    wait_for("migration", "migration: completed")?;
    // A guest that has migrated rests.
    machine.qmp.run("cont", &json!({}))?;
    // Less than the program takes: the balloon gives memory back.
    machine.qmp.run("balloon", &json!({ "value": 64 * MIB }))?;
    wait_for("target", "target 64 MiB")?;
    wait_for("reclaim", "memory ran out: the balloon leaves")?;
    machine.qmp.run("system_reset", &json!({}))?;
    wait_for("reset", "reset")?;
    machine.signal(Signal::KILL)?;
    wait_for("ended", "QEMU")
}

/// The newest value of a figure.
fn last(record: &Path, figure: &str) -> Option<u64> {
    lines(record).iter().rev().find_map(|line| line[figure].as_u64())
}

/// Rates times the time between samples are what the balloon has taken, to a MiB.
fn rates(lines: &[Value], taken: u64) {
    let samples: Vec<_> = lines.iter().filter(|line| line["actual"].is_u64()).collect();
    let moved = |pair: &[&Value]| {
        let (before, after) =
            (pair[0]["time"].as_f64().unwrap_or_default(), pair[1]["time"].as_f64().unwrap_or_default());
        let rate = |name: &str| pair[1][name].as_f64().unwrap_or_default();
        (rate("inflate_rate") - rate("deflate_rate")) * (after - before)
    };
    let sum: f64 = samples.windows(2).map(moved).sum();
    assert!((sum - taken as f64).abs() < taken as f64 / 50.0, "{sum}, not {taken}");
}
