//! A baseline: the JSON report of an earlier run. Its failures are known; those that are gone are reported.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::failure::{Context as _, Outcome};
use crate::format::VERSION;
use crate::verdict::{Report, Verdict};

/// The verdicts of a baseline by check.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Baseline(BTreeMap<String, Verdict>);

impl Baseline {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let text = fs::read_to_string(path).of(format_args!("--baseline {}", path.display()))?;
        Self::parse(&text).map_err(|error| format!("--baseline {}: {error}", path.display()).into())
    }

    fn parse(text: &str) -> Outcome<Self> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        match value["version"].as_u64() {
            Some(VERSION) => {}
            Some(other) => return Err(format!("version {other}; this program reads {VERSION}").into()),
            None => return Err("not a report of ballonet-check --format json: it has no `version`".into()),
        }
        let checks = value["checks"].as_array().ok_or("it has no list `checks`")?;
        let mut verdicts = BTreeMap::new();
        for check in checks {
            let name = check["name"].as_str().ok_or_else(|| format!("a check has no name: {check}"))?;
            let word = check["verdict"].as_str().unwrap_or_default();
            let verdict = Verdict::from_word(word).ok_or_else(|| format!("`{word}` of {name} is no verdict"))?;
            verdicts.insert(name.to_owned(), verdict);
        }
        Ok(Self(verdicts))
    }

    /// Marks the failures of a report that are known, and lists those that are gone. A verdict that is worse than the
    /// baseline's is new.
    pub(crate) fn apply(&self, report: &mut Report) {
        for record in &mut report.records {
            let before = self.0.get(record.check.name).copied().unwrap_or(Verdict::Ok);
            let failed = |verdict: Verdict| verdict >= Verdict::Failed;
            record.known = failed(record.verdict) && failed(before) && record.verdict <= before;
            if failed(before) && record.verdict.is_fine() {
                report.vanished.push(record.check.name.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Format, write};
    use crate::verdict::status;
    use crate::verdict::tests::report;

    fn baseline(verdicts: &[Verdict]) -> Baseline {
        Baseline::parse(&write(&report(verdicts), Format::Json).expect("written")).expect("read")
    }

    #[test]
    fn only_new_failures_count() {
        use Verdict::{Died, Failed, Ok, Skipped};
        for (before, now, status, vanished) in [
            (&[Failed, Ok][..], &[Failed, Ok][..], status::FINE, 0),
            (&[Failed, Ok], &[Failed, Failed], status::FAILED, 0),
            (&[Failed, Ok], &[Ok, Ok], status::FINE, 1),
            (&[Failed, Died], &[Died, Failed], status::DOWN, 0),
            (&[Failed, Ok], &[Skipped, Ok], status::FINE, 0),
        ] {
            let mut report = report(now);
            baseline(before).apply(&mut report);
            assert_eq!((report.status(), report.vanished.len()), (status, vanished), "{before:?} {now:?}");
        }
    }

    #[test]
    fn bad_baselines_are_named() {
        for (text, words) in [
            ("TAP version 13", "not JSON"),
            ("{}", "no `version`"),
            (r#"{"version":9}"#, "version 9"),
            (r#"{"version":1}"#, "`checks`"),
            (r#"{"version":1,"checks":[{"name":"a","verdict":"fine"}]}"#, "`fine` of a"),
            (r#"{"version":1,"checks":[{"verdict":"ok"}]}"#, "no name"),
        ] {
            let error = Baseline::parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
