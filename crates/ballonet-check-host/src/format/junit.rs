//! `JUnit` XML: a suite for each chapter. A failure that does not count is reported as skipped.

use quick_junit::{NonSuccessKind, Report as Document, TestCase, TestCaseStatus, TestSuite};

use super::{demand, first_line};
use crate::catalog::chapter;
use crate::failure::Outcome;
use crate::verdict::{Record, Report, Verdict};

/// The text.
pub(super) fn write(report: &Report) -> Outcome<String> {
    let mut document = Document::new(format!("ballonet-check {}", report.vmm));
    document.set_time(report.took);
    let mut suites: Vec<TestSuite> = Vec::new();
    for record in &report.records {
        let name = chapter(record.check);
        if suites.last().is_none_or(|suite| suite.name.as_str() != name) {
            suites.push(TestSuite::new(name));
        }
        if let Some(suite) = suites.last_mut() {
            suite.add_test_case(case(record, name, report));
        }
    }
    document.add_test_suites(suites);
    Ok(document.to_string()?)
}

fn case(record: &Record, chapter: &str, report: &Report) -> TestCase {
    let detail = record.detail.as_deref().unwrap_or_default();
    let counts = record.fails(report.least) && !record.known;
    let mut status = match record.verdict {
        verdict if verdict.is_fine() => TestCaseStatus::success(),
        Verdict::Lost => TestCaseStatus::non_success(NonSuccessKind::Error),
        verdict if verdict.is_down() && counts => TestCaseStatus::non_success(NonSuccessKind::Error),
        _ if counts => TestCaseStatus::non_success(NonSuccessKind::Failure),
        _ => TestCaseStatus::skipped(),
    };
    let known = if record.known { "known: " } else { "" };
    status.set_message(format!("{known}{}: {}", record.verdict, first_line(detail)));
    status.set_type(record.check.severity.word());
    if record.verdict >= Verdict::Lost {
        let harm =
            if record.check.is_hostile() { format!("harm: {}\n", record.verdict.tier().word()) } else { String::new() };
        status.set_description(format!("{}\n{harm}{detail}", demand(record.check)));
    }
    let mut case = TestCase::new(record.check.name, status);
    case.set_classname(format!("virtio.{chapter}")).set_time(record.took);
    if let Some(flaky) = &record.flaky {
        case.set_system_out(format!("flaky: {flaky}"));
    }
    case
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::tests::report;

    #[test]
    fn verdicts_become_failures_and_errors() {
        let mut some = report(&[Verdict::Ok, Verdict::Failed, Verdict::Died, Verdict::Skipped]);
        some.records[1].detail = Some("<&\u{1}> is 3".into());
        let text = write(&some).expect("it is written");
        assert!(text.contains(r#"tests="4" failures="1" errors="1""#), "{text}");
        assert!(text.contains("&lt;&amp;") && !text.contains('\u{1}'), "{text}");
    }
}
