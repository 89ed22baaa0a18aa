//! The demonstrations. Their records must show what their pictures claim.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use super::machine::kernel;
use super::{MIB, Outcome, program};

/// Samples of a guest, in MiB: host memory behind its RAM, and used memory as its kernel reports it.
type Samples = BTreeMap<String, Vec<(u64, u64)>>;

/// Runs a demonstration in a folder of its own and reads its record.
fn demo(name: &str, options: &[&str]) -> Outcome<(Samples, String, PathBuf)> {
    let folder = std::env::temp_dir().join(format!("watch-test-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let mut command = program();
    command.arg("demo").args(options).arg("--kernel").arg(kernel()?).current_dir(&folder);
    command.args(["--record", "demo.csv", "--svg", "demo.svg", "--png", "demo.png"]);
    let output = command.stdin(Stdio::null()).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let record = fs::read_to_string(folder.join("demo.csv"))?;
    Ok((samples(&record)?, String::from_utf8(output.stdout)?, folder))
}

fn samples(record: &str) -> Outcome<Samples> {
    let mut lines = record.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().ok_or("an empty record")?;
    let column = |word: &str| header.iter().position(|name| *name == word).ok_or("no such column");
    let (guest, ram, used) = (column("guest")?, column("ram")?, column("used")?);
    let mut samples = Samples::new();
    for line in lines {
        if let (Ok(ram), Ok(used)) = (line[ram].parse::<u64>(), line[used].parse::<u64>()) {
            samples.entry(line[guest].to_owned()).or_default().push((ram / MIB, used / MIB));
        }
    }
    Ok(samples)
}

#[test]
fn the_hosts_memory_follows_a_program_with_a_balloon_and_stays_without() -> Outcome {
    let (samples, text, folder) = demo("demo", &["--duration", "15"])?;
    let (with, without) = (&samples["with-balloon"], &samples["without-balloon"]);
    let peak = |samples: &[(u64, u64)]| samples.iter().map(|sample| sample.1).max().unwrap_or_default();
    assert!(peak(with) > 100 && peak(without) > 100, "both programs used memory: {text}");
    // An idle program holds nothing, so what the host then holds shows reporting.
    assert!(without.last().is_some_and(|sample| sample.0 >= peak(without)), "it stays: {without:?}");
    // On any machine, one sample in the pauses of the last teeth comes after the report.
    let least = with[with.len() / 2..].iter().map(|sample| sample.0).min().unwrap_or_default();
    assert!(least < peak(with) / 2, "it goes: {with:?}");
    assert!(without.is_sorted_by(|one, other| one.0 <= other.0 + 2), "it only climbs: {without:?}");
    let svg = fs::read_to_string(folder.join("demo.svg"))?;
    assert!(svg.contains("goes back to the host") && svg.contains("host holds") && svg.len() < 60_000, "{}", svg.len());
    assert!(fs::read(folder.join("demo.png"))?.starts_with(b"\x89PNG"));
    Ok(fs::remove_dir_all(folder)?)
}

#[test]
fn four_guests_keep_half_their_memory_with_the_policy() -> Outcome {
    const BUDGET: u64 = 512;
    let (samples, text, folder) = demo("density", &["--density"])?;
    let rounds = samples.values().map(Vec::len).min().unwrap_or_default();
    let sum = |word: &str, round: usize| -> u64 {
        samples.iter().filter(|(name, _)| name.starts_with(word)).map(|(_, samples)| samples[round].0).sum()
    };
    assert_eq!(samples.len(), 8, "{text}");
    let most = |word: &str| (0..rounds).map(|round| sum(word, round)).max().unwrap_or_default();
    assert!(most("with-") <= BUDGET, "the budget is kept: {} MiB; {text}", most("with-"));
    assert!(most("without-") > BUDGET, "and would not be without: {} MiB; {text}", most("without-"));
    assert_eq!(text.matches("allocations, 0 failed").count(), 2, "{text}");
    Ok(fs::remove_dir_all(folder)?)
}
