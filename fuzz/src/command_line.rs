//! The kernel command line: words that are nearly right, and any bytes.

use arbitrary::Arbitrary;
use ballonet::balloon::wire::{FEATURES, feature_names};
use ballonet::virtio::spec::Features;
use ballonet_kernel::boot::{
    AccessChoice, AffinityChoice, HotplugChoice, IrqChoice, Key, LogFormat, Mode, Options, PoweroffChoice, RingChoice,
    ScreenChoice, TapVersion, Terminal, TransportChoice, Warning, parse_size,
};

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

/// All the options as a line. Whoever adds one is made to add it here.
fn write(options: &Options<'_>) -> String {
    let &Options {
        mode,
        irq,
        transport,
        access,
        ring,
        declined_features,
        report_age,
        report_threshold,
        report_budget,
        oom_cooldown,
        work,
        poison,
        queue_size,
        request,
        cpus,
        affinity,
        hotplug,
        poweroff,
        checks,
        tap,
        log,
        term,
        screen,
        verbose,
        test,
        list,
    } = options;
    let switch = |on: bool| if on { "on" } else { "off" };
    let names: Vec<_> =
        feature_names(Features::from_bits_retain(declined_features)).map(|name| format!("-{name}")).collect();
    let always = [
        ("mode", mode.to_string()),
        ("irq", irq.to_string()),
        ("transport", transport.to_string()),
        ("access", access.to_string()),
        ("ring", ring.to_string()),
        ("affinity", affinity.to_string()),
        ("hotplug", hotplug.to_string()),
        ("poweroff", poweroff.to_string()),
        ("tap", tap.to_string()),
        ("log", log.to_string()),
        ("term", term.to_string()),
        ("screen", screen.to_string()),
        ("verbose", switch(verbose).into()),
        ("list", switch(list).into()),
        ("features", names.join(",")),
        ("request", request.map_or("auto".into(), |shape| format!("{}x{}", shape.frames(), shape.descriptors()))),
        ("cpus", cpus.map_or("all".into(), |cpus| cpus.to_string())),
    ];
    let given = [
        ("poison", poison.map(|byte| format!("{byte:#04x}"))),
        ("queue-size", queue_size.map(|size| size.to_string())),
        ("report-age", report_age.map(|age| age.to_string())),
        ("report-threshold", report_threshold.map(|threshold| threshold.to_string())),
        ("report-budget", report_budget.map(|budget| budget.to_string())),
        ("oom-cooldown", oom_cooldown.map(|cooldown| cooldown.to_string())),
        ("work", work.map(|work| format!("{}:{}", work.kind.word(), work.size))),
        ("checks", checks.map(String::from)),
        ("test", test.map(String::from)),
    ];
    let given = given.into_iter().filter_map(|(key, value)| Some((key, value?)));
    always.into_iter().chain(given).map(|(key, value)| format!(" {key}={value}")).collect()
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
                let words: [&[&str]; 14] = [
                    Mode::WORDS,
                    IrqChoice::WORDS,
                    TransportChoice::WORDS,
                    RingChoice::WORDS,
                    AccessChoice::WORDS,
                    HotplugChoice::WORDS,
                    TapVersion::WORDS,
                    LogFormat::WORDS,
                    Terminal::WORDS,
                    ScreenChoice::WORDS,
                    &["on", "off"],
                    Key::WORDS,
                    PoweroffChoice::WORDS,
                    AffinityChoice::WORDS,
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
