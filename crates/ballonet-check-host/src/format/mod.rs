//! Output formats: one report, written for people, for test harnesses and for code scanning.

mod json;
mod junit;
mod sarif;
mod table;
mod tap;

pub(crate) use json::VERSION;

use clap::ValueEnum;

use crate::failure::Outcome;
use crate::verdict::Report;
use ballonet_check::Check;

/// The name of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// TAP version 13
    Tap,
    /// Everything; what --baseline reads
    Json,
    /// XML of `JUnit`
    Junit,
    /// SARIF 2.1.0, for code scanning
    Sarif,
}

/// The text of a report.
pub(crate) fn write(report: &Report, format: Format) -> Outcome<String> {
    match format {
        Format::Table => Ok(table::write(report)),
        Format::Tap => Ok(tap::write(report)),
        Format::Json => json::write(report),
        Format::Junit => junit::write(report),
        Format::Sarif => sarif::write(report),
    }
}

/// The first line of a text.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// What a check requires, or what a hostile one does and which rule that breaks, with the section.
fn demand(check: &Check) -> String {
    let Check { asks, section, .. } = check;
    match check.breaks {
        Some(rule) => format!("does: {asks}; the rule for drivers: {rule} ({section})"),
        None => format!("requires: {asks} ({section})"),
    }
}
