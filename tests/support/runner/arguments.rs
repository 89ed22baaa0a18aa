//! The command line of a test program: libtest's options as far as they apply, and the choice of the suite.

use std::env;
use std::ffi::OsStr;

/// The environment variable that chooses the suite.
pub(crate) const SUITE: &str = "BALLONET_SUITE";

pub(crate) const USAGE: &str = "\
Usage: cargo test --test PROGRAM -- [OPTIONS] [FILTER]...

Runs the tests whose names contain one of the FILTERs; without one, the short suite.

Options:
  --exact               a FILTER, or the word after --skip, is a whole name
  --skip FILTER         leave out tests whose names contain FILTER; may be repeated
  --ignored             run only the tests that are ignored otherwise
  --include-ignored     run these too
  --list                list the tests instead of running them
  --test-threads N      tests at a time (default: one a CPU, one a GiB of free memory)
  --nocapture           show notes of tests as they are written
  --show-output         show notes of tests that passed
  -q, --quiet           show only what did not pass
  -h, --help            show this

Environment:
  BALLONET_SUITE        `short` or `all`: which tests to run
  BALLONET_PATIENCE     a number from 1 to 100 by which every time limit is multiplied
  RUST_TEST_THREADS     as --test-threads
";

/// Which tests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    /// A selection that touches each area once.
    Short,
    /// All of them.
    All,
}

/// The parsed command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) filters: Vec<String>,
    pub(crate) skip: Vec<String>,
    pub(crate) exact: bool,
    pub(crate) ignored: bool,
    pub(crate) include_ignored: bool,
    pub(crate) list: bool,
    pub(crate) no_capture: bool,
    pub(crate) show_output: bool,
    pub(crate) quiet: bool,
    pub(crate) help: bool,
    pub(crate) threads: Option<usize>,
    pub(crate) suite: Option<Suite>,
}

impl Arguments {
    /// This process's command line and environment.
    pub(crate) fn of_process() -> Result<Self, String> {
        let mut arguments = Self::parse(env::args().skip(1))?;
        let variable = |name: &str| env::var_os(name).map(|value| lossy(&value));
        if let (None, Some(text)) = (arguments.threads, variable("RUST_TEST_THREADS")) {
            arguments.threads = Some(threads("RUST_TEST_THREADS", &text)?);
        }
        arguments.suite = variable(SUITE).map(|text| Suite::parse(&text)).transpose()?;
        Ok(arguments)
    }

    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let (name, attached) = match word.split_once('=') {
                Some((name, value)) if word.starts_with("--") => (name, Some(value.to_owned())),
                _ => (word.as_str(), None),
            };
            let mut value = || attached.clone().or_else(|| words.next()).ok_or_else(|| format!("{name} needs a value"));
            match name {
                "--skip" => arguments.skip.push(value()?),
                "--test-threads" => arguments.threads = Some(threads(name, &value()?)?),
                // Accepted as in libtest but without effect: there is one format, without colours.
                "--color" | "-Z" => drop(value()?),
                "--format" => match value()?.as_str() {
                    "pretty" => {}
                    "terse" => arguments.quiet = true,
                    other => return Err(format!("--format {other}: only `pretty` and `terse` are supported")),
                },
                _ if attached.is_some() => return Err(format!("unknown option {word}")),
                "--exact" => arguments.exact = true,
                "--ignored" => arguments.ignored = true,
                "--include-ignored" => arguments.include_ignored = true,
                "--list" => arguments.list = true,
                "--nocapture" | "--no-capture" => arguments.no_capture = true,
                "--show-output" => arguments.show_output = true,
                "-q" | "--quiet" => arguments.quiet = true,
                "-h" | "--help" => arguments.help = true,
                "--test" => {}
                _ if word.starts_with('-') => return Err(format!("unknown option {word}")),
                _ => arguments.filters.push(word),
            }
        }
        Ok(arguments)
    }

    /// Whether the command line selects a test of this name.
    pub(crate) fn choose(&self, name: &str) -> bool {
        let matches = |word: &String| if self.exact { name == word } else { name.contains(word.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(matches)) && !self.skip.iter().any(matches)
    }

    /// Whether only the short suite runs: by default if no test is named, unless the environment decides.
    pub(crate) fn is_short(&self) -> bool {
        let by_name = !self.filters.is_empty() || self.ignored || self.include_ignored || self.list;
        self.suite.map_or(!by_name, |suite| suite == Suite::Short)
    }
}

impl Suite {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "short" => Ok(Self::Short),
            "all" => Ok(Self::All),
            _ => Err(format!("{SUITE}={text}: only `short` and `all` are valid")),
        }
    }
}

fn threads(name: &str, text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{name} {text}: a whole number from 1 is needed"))
}

fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}
