//! SARIF 2.1.0: a rule for each check, a result for each that is neither ok nor skipped.

use serde_json::{Value, json};

use super::demand;
use crate::failure::Outcome;
use crate::verdict::{Record, Report, Verdict};

/// The text.
pub(super) fn write(report: &Report) -> Outcome<String> {
    let told = |record: &&Record| record.verdict >= Verdict::Lost;
    let results: Vec<Value> = report.records.iter().filter(told).map(|record| result(record, report)).collect();
    let rules: Vec<Value> = report.records.iter().map(rule).collect();
    let value = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "ballonet-check",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "results": results,
            "invocations": [{ "executionSuccessful": report.status() != crate::verdict::status::NO_VERDICT }],
            "properties": { "vmm": report.vmm, "profileUntested": report.untested },
        }],
    });
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

fn rule(record: &Record) -> Value {
    json!({
        "id": record.check.name,
        "shortDescription": { "text": record.check.asks },
        "help": { "text": format!("virtio 1.4: {}", demand(record.check)) },
        "properties": { "severity": record.check.severity.word() },
    })
}

fn result(record: &Record, report: &Report) -> Value {
    let level = match (record.fails(report.least) || record.verdict == Verdict::Lost, record.known) {
        (_, true) => "note",
        (true, false) => "error",
        (false, false) => "warning",
    };
    let detail = record.detail.as_deref().unwrap_or_default();
    json!({
        "ruleId": record.check.name,
        "level": level,
        "message": { "text": format!("{}: {detail}", record.verdict) },
        // A device has no source file here, and code scanning requires a location.
        "locations": [{
            "physicalLocation": { "artifactLocation": { "uri": format!("vmm/{}", report.vmm) }, "region": { "startLine": 1 } },
            "logicalLocations": [{ "name": record.check.name, "kind": "function" }],
        }],
        "properties": { "verdict": record.verdict.word(), "tier": record.verdict.tier().word() },
        "partialFingerprints": { "check": record.check.name },
        "baselineState": if record.known { "unchanged" } else { "new" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::tests::report;

    #[test]
    fn failures_become_results() {
        let mut some = report(&[Verdict::Ok, Verdict::Failed, Verdict::Died]);
        some.records[2].known = true;
        let value: Value = serde_json::from_str(&write(&some).expect("it is written")).expect("JSON");
        let run = &value["runs"][0];
        assert_eq!(run["tool"]["driver"]["rules"].as_array().map(Vec::len), Some(3));
        let levels: Vec<_> =
            run["results"].as_array().expect("a list").iter().map(|result| result["level"].clone()).collect();
        assert_eq!(levels, ["error", "note"]);
    }
}
