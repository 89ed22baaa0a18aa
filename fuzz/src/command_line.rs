//! The kernel command line: words that are nearly right, and any bytes.

use arbitrary::Arbitrary;
use ballonet::balloon::wire::{FEATURES, feature_names};
use ballonet::boot::{
    AccessChoice, HotplugChoice, IrqChoice, Key, LogFormat, Mode, Options, PoweroffChoice, RingChoice, ScreenChoice,
    Terminal, TransportChoice, Warning, parse_size,
};
use ballonet::virtio::spec::Features;

/// A piece of the line.
#[derive(Debug, Arbitrary)]
pub enum Piece<'a> {
    /// A key, `=`, and a value that is one of some key's.
    Option {
        key: u8,
        of: u8,
        value: u8,
    },
    /// A key and any value.
    Value(u8, &'a [u8]),
    /// A list of features, or nearly.
    Features(Vec<(bool, u8)>),
    Space,
    Bytes(&'a [u8]),
}

/// Reads the line and checks what is made of it.
pub fn run(pieces: &[Piece<'_>]) {
    let line: Vec<u8> = pieces.iter().flat_map(Piece::bytes).collect();
    let (options, warnings) = parse(&line);
    // Each word is warned of at most twice, and each item of a list of features once.
    let most = 2 * line.split(u8::is_ascii_whitespace).count() + line.split(|byte| *byte == b',').count();
    assert!(warnings.len() <= most, "{} warnings", warnings.len());
    for warning in warnings {
        expect_printable(&warning.to_string());
    }
    // What was understood, written down in full, is understood in the same way and without a warning.
    let written = write(&options);
    let (again, warnings) = parse(written.as_bytes());
    assert_eq!((again, warnings.len()), (options, 0), "{written}");
    if let Ok(text) = str::from_utf8(&line) {
        let _ = parse_size(text).map_err(|error| expect_printable(&error.to_string()));
    }
}

fn parse(line: &[u8]) -> (Options<'_>, Vec<Warning<'_>>) {
    let mut warnings = Vec::new();
    let options = Options::parse(line, &mut |warning| warnings.push(warning));
    (options, warnings)
}

fn write(options: &Options<'_>) -> String {
    let switch = |on: bool| if on { "on" } else { "off" };
    let mut line = format!(
        "mode={} irq={} transport={} access={} ring={} hotplug={} poweroff={} log={} term={} screen={} verbose={} list={}",
        options.mode,
        options.irq,
        options.transport,
        options.access,
        options.ring,
        options.hotplug,
        options.poweroff,
        options.log,
        options.term,
        options.screen,
        switch(options.verbose),
        switch(options.list),
    );
    let declined = Features::from_bits_retain(options.declined_features);
    let names: Vec<_> = feature_names(declined).map(|name| format!("-{name}")).collect();
    line += &format!(" features={}", names.join(","));
    match options.request {
        Some(shape) => line += &format!(" request={}x{}", shape.frames(), shape.descriptors()),
        None => line += " request=auto",
    }
    line += &options.poison.map_or(String::new(), |byte| format!(" poison={byte:#04x}"));
    let size = options.queue_size.map(u64::from);
    for (key, value) in [
        ("queue-size", size),
        ("report-age", options.report_age),
        ("report-threshold", options.report_threshold),
        ("report-budget", options.report_budget),
        ("oom-cooldown", options.oom_cooldown),
    ] {
        line += &value.map_or(String::new(), |value| format!(" {key}={value}"));
    }
    line += &options.work.map_or(String::new(), |work| format!(" work={}:{}", work.kind.word(), work.size));
    for (key, value) in [("checks", options.checks), ("test", options.test)] {
        line += &value.map_or(String::new(), |value| format!(" {key}={value}"));
    }
    line
}

/// Nothing that goes to a terminal may hold what would command it.
fn expect_printable(text: &str) {
    assert!(!text.is_empty() && !text.contains(|c: char| c.is_ascii_control()), "{text:?}");
}

fn pick<T: Copy>(of: &[T], which: u8) -> T {
    of[usize::from(which) % of.len()]
}

impl Piece<'_> {
    fn bytes(&self) -> Vec<u8> {
        let key = |key: u8| format!(" {}=", pick(Key::WORDS, key)).into_bytes();
        match self {
            Self::Option { key: which, of, value } => {
                let words: [&[&str]; 12] = [
                    Mode::WORDS,
                    IrqChoice::WORDS,
                    TransportChoice::WORDS,
                    RingChoice::WORDS,
                    AccessChoice::WORDS,
                    HotplugChoice::WORDS,
                    LogFormat::WORDS,
                    Terminal::WORDS,
                    ScreenChoice::WORDS,
                    &["on", "off"],
                    Key::WORDS,
                    PoweroffChoice::WORDS,
                ];
                [key(*which), pick(pick(&words, *of), *value).into()].concat()
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
