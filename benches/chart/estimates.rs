//! Shared by the programs that measure with criterion.

use std::env;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use criterion::Criterion;
use serde_json::Value;

use super::chart::Failure;

/// Runs `measure` if it was selected, and reports why it failed.
pub(crate) fn main(name: &str, measure: impl FnOnce() -> Result<(), Failure>) -> ExitCode {
    // `cargo test --benches` only checks that this builds.
    if !is_told("--bench") {
        return ExitCode::SUCCESS;
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the command line has this word.
pub(crate) fn is_told(word: &str) -> bool {
    env::args().any(|argument| argument == word)
}

/// Whether `FAST` asks for a quick look.
pub(crate) fn is_fast() -> bool {
    env::var_os("FAST").is_some_and(|value| value != "0")
}

/// A criterion set up to write its estimates to `folder`.
pub(crate) fn criterion(folder: &Path) -> Criterion {
    let time = if is_fast() { 100 } else { 1500 };
    Criterion::default()
        .sample_size(if is_fast() { 10 } else { 50 })
        .warm_up_time(Duration::from_millis(time / 3))
        .measurement_time(Duration::from_millis(time))
        .output_directory(folder)
}

/// The median that criterion recorded for an operation, a case and a parameter, in nanoseconds.
pub(crate) fn median(folder: &Path, operation: &str, case: &str, parameter: &str) -> Result<f64, Failure> {
    let path = folder.join(operation).join(case).join(parameter).join("new/estimates.json");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let estimates: Value = serde_json::from_str(&text)?;
    Ok(estimates["median"]["point_estimate"].as_f64().ok_or("criterion gives no median")?)
}
