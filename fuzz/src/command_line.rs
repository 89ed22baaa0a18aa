//! The kernel's command line as a fuzz input: nearly correct words, and arbitrary bytes.

use arbitrary::Arbitrary;
use ballonet::balloon::wire::FEATURES;
use ballonet_kernel::boot::{KernelOptions, Key, Warning, parse_size};

/// A piece of the command line.
#[derive(Debug, Arbitrary)]
pub enum Piece<'a> {
    /// A key, `=`, and a valid value of some key.
    Option {
        key: u8,
        of: u8,
        value: u8,
    },
    /// A key and any value.
    Value(u8, &'a [u8]),
    /// A nearly correct list of features.
    Features(Vec<(bool, u8)>),
    Space,
    Bytes(&'a [u8]),
}

/// Parses the line and checks options and warnings.
pub fn run(pieces: &[Piece<'_>]) {
    let line: Vec<u8> = pieces.iter().flat_map(Piece::bytes).collect();
    let (options, warnings) = parse(&line);
    // At most two warnings per word, and one per item of a feature list.
    let most = 2 * line.split(u8::is_ascii_whitespace).count() + line.split(|byte| *byte == b',').count();
    assert!(warnings.len() <= most, "{} warnings", warnings.len());
    for warning in warnings {
        expect_printable(&warning.to_string());
    }
    // Printed options parse to themselves without a warning.
    let written = options.to_string();
    let (again, warnings) = parse(written.as_bytes());
    assert_eq!((again, warnings.len()), (options, 0), "{written}");
    if let Ok(text) = str::from_utf8(&line) {
        let _ = parse_size(text).map_err(|error| expect_printable(&error.to_string()));
    }
}

fn parse(line: &[u8]) -> (KernelOptions<'_>, Vec<Warning<'_>>) {
    let mut warnings = Vec::new();
    let options = KernelOptions::parse(line, &mut |warning| warnings.push(warning));
    (options, warnings)
}

/// Text that goes to a terminal must hold no control characters.
fn expect_printable(text: &str) {
    assert!(!text.is_empty() && !text.contains(|c: char| c.is_ascii_control()), "{text:?}");
}

fn pick<T: Copy>(of: &[T], which: u8) -> T {
    of[usize::from(which) % of.len()]
}

impl Piece<'_> {
    fn bytes(&self) -> Vec<u8> {
        let key = |key: u8| format!(" {}=", pick(Key::ALL, key)).into_bytes();
        match self {
            Self::Option { key: which, of, value } => {
                let words: Vec<_> = pick(Key::ALL, *of).valid().choices().collect();
                // An option without fixed words takes some option's name as its value.
                let word = if words.is_empty() { pick(Key::ALL, *value).word() } else { pick(&words, *value) };
                [key(*which), word.into()].concat()
            }
            Self::Value(which, value) => [&key(*which), *value].concat(),
            Self::Features(list) => {
                let item = |(minus, which): &(bool, u8)| {
                    format!("{}{}", if *minus { "-" } else { "" }, pick(&FEATURES, *which).0)
                };
                let items: Vec<_> = list.iter().map(item).collect();
                format!(" features={}", items.join(",")).into_bytes()
            }
            Self::Space => b" ".to_vec(),
            Self::Bytes(bytes) => bytes.to_vec(),
        }
    }
}
