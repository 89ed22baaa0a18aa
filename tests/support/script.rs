//! The project's scripts that tests call to find or make what they need.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// A script's exit status if this system cannot provide what it should.
const UNAVAILABLE: i32 = 3;

/// A script in `scripts/`.
pub(crate) fn script(name: &str) -> Command {
    Command::new(format!("{}/scripts/{name}", env!("CARGO_MANIFEST_DIR")))
}

/// The output of a script; `None` if this system cannot provide it. The script's messages become part of the error;
/// with `is_heard` they also go to standard error at once.
pub(crate) fn printed(mut script: Command, is_heard: bool) -> Result<Option<String>, String> {
    let failed = |error: &dyn std::fmt::Display, script: &Command| format!("{script:?}: {error}");
    script.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = script.spawn().map_err(|error| failed(&error, &script))?;
    let mut said = String::new();
    // The script prints little, so it never waits for a reader.
    for line in child.stderr.take().into_iter().flat_map(|stderr| BufReader::new(stderr).lines()).map_while(Result::ok)
    {
        if is_heard {
            eprintln!("{line}");
        }
        said += &line;
        said.push('\n');
    }
    let output = child.wait_with_output().map_err(|error| failed(&error, &script))?;
    match output.status.code() {
        Some(0) => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        Some(UNAVAILABLE) => Ok(None),
        _ => Err(format!("{script:?}: {}\n{said}", output.status)),
    }
}
