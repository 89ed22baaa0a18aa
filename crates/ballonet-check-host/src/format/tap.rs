//! TAP version 13. A failure that does not count is marked TODO, so that it does not fail the harness either.

use std::fmt::Write as _;

use super::first_line;
use crate::verdict::{Record, Report, Verdict};

/// The text.
pub(super) fn write(report: &Report) -> String {
    let mut text = format!("TAP version 13\n1..{}\n", report.records.len());
    for (place, record) in report.records.iter().enumerate() {
        let Record { check, verdict, detail, .. } = record;
        let number = place + 1;
        // A `#` begins a directive.
        let reason = first_line(detail.as_deref().unwrap_or_default()).replace('#', " ");
        let _ = match verdict {
            Verdict::Ok => writeln!(text, "ok {number} - {}", check.name),
            Verdict::Refused | Verdict::NeedsReset => writeln!(text, "ok {number} - {} # {verdict}", check.name),
            Verdict::Skipped => writeln!(text, "ok {number} - {} # SKIP {reason}", check.name),
            Verdict::Trouble => writeln!(text, "ok {number} - {} # SKIP the tester failed: {reason}", check.name),
            _ => {
                let counts = record.fails(report.least) && !record.known || *verdict == Verdict::Lost;
                let todo = match (counts, record.known) {
                    (true, _) => String::new(),
                    (false, true) => " # TODO known".into(),
                    (false, false) => format!(" # TODO {}", check.severity),
                };
                writeln!(text, "not ok {number} - {}{todo}", check.name)
            }
        };
        if *verdict >= Verdict::Lost {
            let _ = writeln!(
                text,
                "  ---\n  verdict: {verdict}\n  severity: {}\n  section: \"{}\"",
                check.severity, check.section
            );
            if let Some(breaks) = check.breaks {
                let _ = writeln!(text, "  breaks: {breaks:?}\n  tier: {}", verdict.tier().word());
            }
            let _ = writeln!(
                text,
                "  asks: {:?}\n  detail: {:?}\n  ...",
                check.asks,
                detail.as_deref().unwrap_or_default()
            );
        }
        if let Some(flaky) = &record.flaky {
            let _ = writeln!(text, "# {} is flaky: {flaky}", check.name);
        }
    }
    for name in &report.vanished {
        let _ = writeln!(text, "# {name} of the baseline no longer fails");
    }
    if report.untested {
        let _ = writeln!(text, "# the profile for {} is untested", report.vmm);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::tests::report;

    #[test]
    fn each_check_has_a_line() {
        let mut some = report(&[Verdict::Ok, Verdict::Failed, Verdict::Died, Verdict::Skipped]);
        some.records[2].known = true;
        let text = write(&some);
        let points: Vec<&str> =
            text.lines().filter(|line| line.starts_with("ok ") || line.starts_with("not ok ")).collect();
        assert_eq!(points.len(), 4, "{text}");
        assert!(
            !points[1].contains("TODO") && points[2].ends_with("# TODO known") && points[3].contains("# SKIP"),
            "{text}"
        );
    }
}
