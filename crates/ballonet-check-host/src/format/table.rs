//! The table for people: all that is not `ok` or skipped, and the counts.

use std::fmt::Write as _;

use super::{demand, first_line};
use crate::verdict::{Record, Report, Verdict};

/// The text.
pub(super) fn write(report: &Report) -> String {
    let mut text = String::new();
    let shown = |record: &&Record| {
        !(record.verdict.is_fine() || record.verdict == Verdict::Skipped) || record.flaky.is_some() || record.known
    };
    let width = report.records.iter().filter(shown).map(|record| record.check.name.len()).max().unwrap_or(0);
    for record in report.records.iter().filter(shown) {
        line(&mut text, record, width);
    }
    if !text.is_empty() {
        text.push('\n');
    }
    for name in &report.vanished {
        let _ = writeln!(text, "gone from the baseline: {name} no longer fails");
    }
    let counts: Vec<String> = report.counts().iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
    let known = report.records.iter().filter(|record| record.known).count();
    let known = if known == 0 { String::new() } else { format!(" ({known} known)") };
    let starts = if report.starts == 1 { "1 start".to_owned() } else { format!("{} starts", report.starts) };
    let _ = writeln!(
        text,
        "{}{}: {}{known}; {starts}, {:.1} s, {:.1} s of CPU time, {} MiB of memory at most",
        report.vmm,
        if report.untested { " (profile untested here)" } else { "" },
        counts.join(", "),
        report.took.as_secs_f64(),
        report.cpu.as_secs_f64(),
        report.peak_rss >> 20,
    );
    let failures = report.failures().count();
    let _ = match (report.status(), failures) {
        (0, _) => writeln!(text, "passed"),
        (_, 0) => writeln!(text, "no verdict for some checks"),
        (_, 1) => writeln!(text, "failed by 1 check"),
        _ => writeln!(text, "failed by {failures} checks"),
    };
    text
}

fn line(text: &mut String, record: &Record, width: usize) {
    let Record { check, verdict, detail, flaky, known, .. } = record;
    let mut words = Vec::new();
    if *known {
        words.push("known".to_owned());
    }
    if let Some(flaky) = flaky {
        words.push(format!("flaky: {flaky}"));
    }
    if let Some(detail) = detail {
        words.push(first_line(detail).to_owned());
    }
    let _ = writeln!(text, "{verdict:<9} {:<6} {:<width$}  {}", check.severity, check.name, words.join("; "));
    if check.is_hostile() || *verdict == Verdict::Failed {
        let _ = writeln!(text, "{:<17}{:<width$}  {}", "", "", demand(check));
    }
    if check.is_hostile() {
        let _ = writeln!(text, "{:<17}{:<width$}  harm: {}", "", "", verdict.tier().word());
    }
    for more in detail.iter().flat_map(|detail| detail.lines().skip(1)) {
        let _ = writeln!(text, "{:<17}| {more}", "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::tests::report;

    #[test]
    fn only_what_matters_is_listed() {
        let mut some = report(&[Verdict::Ok, Verdict::Died, Verdict::Failed]);
        some.records[1].detail = Some("killed\nlast words".into());
        let text = write(&some);
        assert!(!text.contains(some.records[0].check.name), "{text}");
        assert!(text.contains(some.records[1].check.name) && text.contains("| last words"), "{text}");
        assert!(text.contains("1 ok, 1 failed, 1 died") && text.ends_with("failed by 2 checks\n"), "{text}");
        assert!(write(&report(&[Verdict::Ok])).ends_with("passed\n"));
    }
}
