//! Everything as one JSON object. The field `version` grows when a field changes its meaning.

use serde_json::{Value, json};

use crate::catalog::chapter;
use crate::failure::Outcome;
use crate::verdict::{Record, Report};

/// The version of the format.
pub(crate) const VERSION: u64 = 1;

/// The text.
pub(super) fn write(report: &Report) -> Outcome<String> {
    let counts: serde_json::Map<String, Value> =
        report.counts().iter().map(|(verdict, count)| (verdict.word().into(), json!(count))).collect();
    let value = json!({
        "version": VERSION,
        "vmm": report.vmm,
        "profile_untested": report.untested,
        "status": report.status(),
        "starts": report.starts,
        "seconds": report.took.as_secs_f64(),
        "cpu_seconds": report.cpu.as_secs_f64(),
        "peak_rss_bytes": report.peak_rss,
        "counts": counts,
        "vanished": report.vanished,
        "checks": report.records.iter().map(|record| check(record, report)).collect::<Vec<_>>(),
    });
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

fn check(record: &Record, report: &Report) -> Value {
    json!({
        "name": record.check.name,
        "chapter": chapter(record.check),
        "severity": record.check.severity.word(),
        "section": record.check.section,
        "asks": record.check.asks,
        "breaks": record.check.breaks,
        "verdict": record.verdict.word(),
        "tier": record.verdict.tier().word(),
        "detail": record.detail,
        "device": record.device,
        "seconds": record.took.as_secs_f64(),
        "flaky": record.flaky,
        "known": record.known,
        "fails": record.fails(report.least) && !record.known,
    })
}
