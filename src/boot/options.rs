//! The kernel's options, read from its command line: `key=value`, separated by spaces.
//!
//! An unknown key or value is reported with the valid ones and the default stays, so that a slip of the pen never keeps
//! a machine from booting. Values may hold any bytes but spaces; there is no quoting.

use core::fmt;

use super::{CommandLine, Warning, WorkChoice, parse_size};
use ballonet::balloon::RequestShape;
use ballonet::balloon::wire::feature_named;
use ballonet::virtio::spec::QUEUE_SIZE_MAX;

/// Defines an enum whose variants are words of the command line; the first is the default.
macro_rules! words {
    (
        $(#[$about:meta])*
        $visibility:vis $name:ident { $($(#[$variant_about:meta])* $variant:ident = $word:literal,)+ }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $name { $($(#[$variant_about])* $variant,)+ }

        impl $name {
            /// The words, in the order of the variants.
            $visibility const WORDS: &'static [&'static str] = &[$($word),+];
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The variant that `word` stands for.
            pub(crate) fn from_word(word: &[u8]) -> Option<Self> {
                Self::ALL.iter().copied().find(|choice| choice.word().as_bytes() == word)
            }

            /// The word that stands for it.
            pub(crate) const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

words! {
    /// What the kernel is there for.
    pub Mode {
        /// Run the balloon, with a console on the serial line.
        Serve = "serve",
        /// Check the device.
        Check = "check",
        /// Measure the device.
        Bench = "bench",
    }
}

words! {
    /// How the device interrupts.
    pub IrqChoice {
        /// The first step of the ladder that works.
        Auto = "auto",
        /// MSI-X, a vector for config changes and one for each queue.
        Msix = "msix",
        /// MSI-X, a vector for config changes and one for all queues.
        MsixShared = "msix-shared",
        /// The interrupt line.
        Intx = "intx",
        /// Not at all: the kernel looks.
        Poll = "poll",
    }
}

words! {
    /// Which virtio-pci transport is driven.
    pub TransportChoice {
        /// Modern if the device has it.
        Auto = "auto",
        /// Virtio 1.0 and later.
        Modern = "modern",
        /// Virtio before 1.0.
        Legacy = "legacy",
    }
}

words! {
    /// How a modern device's structures are reached.
    pub AccessChoice {
        /// They are mapped; what cannot be is reached through configuration space.
        Auto = "auto",
        /// Through the device's window in configuration space.
        Window = "window",
    }
}

words! {
    /// Which virtqueue layout is used.
    pub RingChoice {
        /// Packed if the device offers it.
        Auto = "auto",
        /// Split rings.
        Split = "split",
        /// Packed rings.
        Packed = "packed",
    }
}

words! {
    /// Which CPUs message-signalled interrupts go to.
    pub AffinityChoice {
        /// All of them, as evenly as can be.
        Spread = "spread",
        /// The boot CPU, which does the work that follows.
        Boot = "boot",
    }
}

words! {
    /// What is done about hot-plug slots.
    pub HotplugChoice {
        /// They are served, with the waits that PCI Express asks for.
        On = "on",
        /// They are served without waits for hands, power and links: virtual machines need none.
        Prompt = "prompt",
        /// They are left alone.
        Off = "off",
    }
}

words! {
    /// What becomes of ballooned memory when the machine is switched off.
    pub PoweroffChoice {
        /// The host keeps it: nobody needs it any more.
        Keep = "keep",
        /// It is asked back first.
        Deflate = "deflate",
    }
}

words! {
    /// What the log on the serial line looks like.
    pub LogFormat {
        /// Lines for people.
        Text = "text",
        /// A JSON object a line.
        Json = "json",
    }
}

words! {
    /// Which version of the Test Anything Protocol `mode=check` speaks.
    pub TapVersion {
        /// That of most readers; Perl's `prove` refuses any later one.
        V13 = "13",
        /// The latest.
        V14 = "14",
    }
}

words! {
    /// What the other end of the serial line understands.
    pub Terminal {
        /// Lines only.
        Plain = "plain",
        /// ANSI escape sequences: cursor movement, erasing.
        Ansi = "ansi",
    }
}

words! {
    /// Whether the screen is used.
    pub ScreenChoice {
        /// If there is one.
        Auto = "auto",
        /// It is left alone.
        Off = "off",
    }
}

words! {
    /// Off or on.
    pub(crate) Switch {
        /// Off.
        Off = "off",
        /// On.
        On = "on",
    }
}

words! {
    /// The keys.
    pub Key {
        /// [`Options::mode`].
        Mode = "mode",
        /// [`Options::irq`].
        Irq = "irq",
        /// [`Options::transport`].
        Transport = "transport",
        /// [`Options::access`].
        Access = "access",
        /// [`Options::ring`].
        Ring = "ring",
        /// [`Options::declined_features`].
        Features = "features",
        /// [`Options::report_age`].
        ReportAge = "report-age",
        /// [`Options::report_threshold`].
        ReportThreshold = "report-threshold",
        /// [`Options::report_budget`].
        ReportBudget = "report-budget",
        /// [`Options::oom_cooldown`].
        OomCooldown = "oom-cooldown",
        /// [`Options::work`].
        Work = "work",
        /// [`Options::poison`].
        Poison = "poison",
        /// [`Options::queue_size`].
        QueueSize = "queue-size",
        /// [`Options::request`].
        Request = "request",
        /// [`Options::cpus`].
        Cpus = "cpus",
        /// [`Options::affinity`].
        Affinity = "affinity",
        /// [`Options::hotplug`].
        Hotplug = "hotplug",
        /// [`Options::poweroff`].
        Poweroff = "poweroff",
        /// [`Options::checks`].
        Checks = "checks",
        /// [`Options::tap`].
        Tap = "tap",
        /// [`Options::log`].
        Log = "log",
        /// [`Options::term`].
        Term = "term",
        /// [`Options::screen`].
        Screen = "screen",
        /// [`Options::verbose`].
        Verbose = "verbose",
        /// [`Options::test`].
        Test = "test",
        /// [`Options::list`].
        List = "list",
    }
}

/// The options. They borrow the command line for the names in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options<'a> {
    /// `mode=`: what the kernel is there for.
    pub mode: Mode,
    /// `irq=`: how the device interrupts.
    pub irq: IrqChoice,
    /// `transport=`: which transport is driven.
    pub transport: TransportChoice,
    /// `access=`: how a modern device's structures are reached.
    pub access: AccessChoice,
    /// `ring=`: which virtqueue layout is used.
    pub ring: RingChoice,
    /// `features=-name,-name`: feature bits not to accept, as a mask.
    pub declined_features: u64,
    /// `report-age=MS`: how long memory has been free before it is reported, in milliseconds; `None` if not said.
    pub report_age: Option<u64>,
    /// `report-threshold=SIZE`: how much must be free and not reported before any of it is, in bytes; likewise.
    pub report_threshold: Option<u64>,
    /// `report-budget=SIZE`: how much is reported a second at most, in bytes; likewise.
    pub report_budget: Option<u64>,
    /// `oom-cooldown=MS`: how long a balloon that the guest had memory back from stays smaller than the host wants, in
    /// milliseconds; likewise.
    pub oom_cooldown: Option<u64>,
    /// `work=KIND:SIZE`: a program that uses memory.
    pub work: Option<WorkChoice>,
    /// `poison=BYTE`: what free frames hold; `None` for anything.
    pub poison: Option<u8>,
    /// `queue-size=N`: the most entries of a queue; `None` for the driver's own choice.
    pub queue_size: Option<u16>,
    /// `request=auto|FRAMESxDESCRIPTORS`: how the frame numbers of a request are laid over descriptors; `None` for what the
    /// device turns out to read.
    pub request: Option<RequestShape>,
    /// `cpus=all|N`: how many CPUs run at most; `None` for all that there are.
    pub cpus: Option<u32>,
    /// `affinity=`: which CPUs message-signalled interrupts go to.
    pub affinity: AffinityChoice,
    /// `hotplug=`: what is done about hot-plug slots.
    pub hotplug: HotplugChoice,
    /// `poweroff=`: what becomes of ballooned memory when the machine is switched off.
    pub poweroff: PoweroffChoice,
    /// `checks=name,name*,-name`: which checks are made in `mode=check`; all of them if it is not given.
    pub checks: Option<&'a str>,
    /// `tap=`: which version of TAP `mode=check` speaks.
    pub tap: TapVersion,
    /// `log=`: what the log looks like.
    pub log: LogFormat,
    /// `term=`: what the terminal understands.
    pub term: Terminal,
    /// `screen=`: whether the screen is used.
    pub screen: ScreenChoice,
    /// `verbose=`: whether the boot log tells all.
    pub verbose: bool,
    /// `test=NAME`: the kernel test to run, of the test image.
    pub test: Option<&'a str>,
    /// `list=on`: whether the test image lists its tests instead of running them.
    pub list: bool,
}

impl<'a> Options<'a> {
    /// Reads the options in `line`. Of a key given several times the last value that is valid holds.
    pub fn parse(line: &'a [u8], warn: &mut dyn FnMut(Warning<'a>)) -> Self {
        let mut options = Self::default();
        let mut seen = [false; Key::ALL.len()];
        for word in line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            let Some((key, value)) = split_once(word) else {
                warn(Warning::NotAnOption(word));
                continue;
            };
            let Some(key) = Key::from_word(key) else {
                warn(Warning::UnknownKey(key));
                continue;
            };
            if core::mem::replace(&mut seen[key as usize], true) {
                warn(Warning::Repeated(key));
            }
            if options.set(key, value, warn).is_none() {
                warn(Warning::UnknownValue { key, value });
            }
        }
        options
    }

    /// The invalid word in `line` that ends the run, where a warning would go unread: in a mode that ends by itself, and where the
    /// misspelt word may be the mode.
    pub(crate) fn refusal(line: &'a [u8]) -> Option<Warning<'a>> {
        let (mut first, mut of_mode) = (None, None);
        let options = Self::parse(line, &mut |warning| match warning {
            Warning::Repeated(_) => {}
            warning if hides_mode(line, warning) => of_mode = of_mode.or(Some(warning)),
            warning => first = first.or(Some(warning)),
        });
        of_mode.or(first.filter(|_| options.mode != Mode::Serve))
    }

    /// Sets `key`, or `None` if the value is not valid.
    fn set(&mut self, key: Key, value: &'a [u8], warn: &mut dyn FnMut(Warning<'a>)) -> Option<()> {
        match key {
            Key::Mode => self.mode = Mode::from_word(value)?,
            Key::Irq => self.irq = IrqChoice::from_word(value)?,
            Key::Transport => self.transport = TransportChoice::from_word(value)?,
            Key::Access => self.access = AccessChoice::from_word(value)?,
            Key::Ring => self.ring = RingChoice::from_word(value)?,
            Key::Features => self.declined_features = declined(value, warn),
            Key::ReportAge => self.report_age = Some(text(value)?.parse().ok().filter(|age| *age <= LONGEST_AGE)?),
            Key::ReportThreshold => self.report_threshold = Some(parse_size(text(value)?).ok()?),
            Key::ReportBudget => self.report_budget = Some(parse_size(text(value)?).ok()?),
            Key::OomCooldown => {
                self.oom_cooldown = Some(text(value)?.parse().ok().filter(|cooldown| *cooldown <= LONGEST_AGE)?);
            }
            Key::Work => self.work = Some(WorkChoice::parse(text(value)?).ok()?),
            Key::Poison => self.poison = poison(value)?,
            Key::QueueSize => self.queue_size = Some(number(value).filter(|size| (1..=QUEUE_SIZE_MAX).contains(size))?),
            Key::Request => self.request = shape(value)?,
            Key::Cpus => self.cpus = cpus(value)?,
            Key::Affinity => self.affinity = AffinityChoice::from_word(value)?,
            Key::Hotplug => self.hotplug = HotplugChoice::from_word(value)?,
            Key::Poweroff => self.poweroff = PoweroffChoice::from_word(value)?,
            Key::Checks => self.checks = Some(core::str::from_utf8(value).ok().filter(|list| !list.is_empty())?),
            Key::Tap => self.tap = TapVersion::from_word(value)?,
            Key::Log => self.log = LogFormat::from_word(value)?,
            Key::Term => self.term = Terminal::from_word(value)?,
            Key::Screen => self.screen = ScreenChoice::from_word(value)?,
            Key::Verbose => self.verbose = Switch::from_word(value)? == Switch::On,
            Key::Test => self.test = Some(core::str::from_utf8(value).ok().filter(|name| !name.is_empty())?),
            Key::List => self.list = Switch::from_word(value)? == Switch::On,
        }
        Some(())
    }
}

impl Key {
    /// The values that the key may have, for people.
    pub(super) fn valid_values(self) -> &'static [&'static str] {
        match self {
            Self::Mode => Mode::WORDS,
            Self::Irq => IrqChoice::WORDS,
            Self::Transport => TransportChoice::WORDS,
            Self::Access => AccessChoice::WORDS,
            Self::Ring => RingChoice::WORDS,
            Self::Features => &["-NAME,-NAME..."],
            Self::ReportAge | Self::OomCooldown => &["milliseconds, at most 3600000"],
            Self::ReportThreshold | Self::ReportBudget => &["a size: a number and, if wanted, K, M, G or T"],
            Self::Work => &["sawtooth:SIZE", "steady:SIZE", "churn:SIZE", "verify:SIZE"],
            Self::Poison => &["off", "0x00 to 0xff"],
            Self::QueueSize => &["1 to 32768"],
            Self::Request => &["auto, or FRAMESxDESCRIPTORS, 1 to 256 by 1 to 64"],
            Self::Hotplug => HotplugChoice::WORDS,
            Self::Cpus => &["all, or 1 to 4096"],
            Self::Affinity => AffinityChoice::WORDS,
            Self::Poweroff => PoweroffChoice::WORDS,
            Self::Checks => &["NAME,NAME*,-NAME..."],
            Self::Tap => TapVersion::WORDS,
            Self::Log => LogFormat::WORDS,
            Self::Term => Terminal::WORDS,
            Self::Screen => ScreenChoice::WORDS,
            Self::Verbose | Self::List => Switch::WORDS,
            Self::Test => &["the name of a kernel test"],
        }
    }
}

/// The most that `report-age=` and `oom-cooldown=` take, in milliseconds: an hour.
const LONGEST_AGE: u64 = 3_600_000;

fn text(value: &[u8]) -> Option<&str> {
    core::str::from_utf8(value).ok()
}

/// Whether what was not understood is a mode that ends by itself, or may be meant as one.
fn hides_mode(line: &[u8], warning: Warning<'_>) -> bool {
    let Warning::UnknownKey(key) = warning else {
        return matches!(warning, Warning::UnknownValue { key: Key::Mode, .. });
    };
    let words = line.split(u8::is_ascii_whitespace).filter_map(split_once);
    let mut values = words.filter(|(other, _)| *other == key).map(|(_, value)| value);
    values.any(|value| Mode::from_word(value).is_some_and(|mode| mode != Mode::Serve))
}

fn split_once(word: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut halves = word.splitn(2, |&byte| byte == b'=');
    Some((halves.next()?, halves.next()?))
}

/// The number in decimal digits.
fn number(digits: &[u8]) -> Option<u16> {
    let digits = core::str::from_utf8(digits).ok()?;
    // Signs are no digits.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Most CPUs that can be asked for, and that the kernel has addresses for.
pub(crate) const MOST_CPUS: u32 = 4096;

/// The number for `1` to `4096`, or none for `all`; `None` if it is neither.
fn cpus(value: &[u8]) -> Option<Option<u32>> {
    if value == b"all" {
        return Some(None);
    }
    number(value).map(u32::from).filter(|count| (1..=MOST_CPUS).contains(count)).map(Some)
}

/// The byte for `0x00` to `0xff`, or none for `off`; `None` if it is neither.
fn poison(value: &[u8]) -> Option<Option<u8>> {
    if value == b"off" {
        return Some(None);
    }
    let digits = core::str::from_utf8(value.strip_prefix(b"0x")?).ok()?;
    // Signs are no digits.
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())?.map(Some)
}

/// The shape for `FRAMESxDESCRIPTORS`, or none for `auto`.
fn shape(value: &[u8]) -> Option<Option<RequestShape>> {
    if value == b"auto" {
        return Some(None);
    }
    let mut halves = value.splitn(2, |&byte| byte == b'x');
    RequestShape::new(number(halves.next()?)?, number(halves.next()?)?).map(Some)
}

/// The mask for `-name,-name`; nothing is declined by an empty list.
fn declined<'a>(list: &'a [u8], warn: &mut dyn FnMut(Warning<'a>)) -> u64 {
    let mut mask = 0;
    for item in list.split(|&byte| byte == b',').filter(|_| !list.is_empty()) {
        match item.strip_prefix(b"-").and_then(feature_named) {
            Some(feature) => mask |= feature.bits(),
            None => warn(Warning::UnknownFeature(item)),
        }
    }
    mask
}

impl CommandLine {
    /// The options on this line.
    pub fn options<'a>(&'a self, warn: &mut dyn FnMut(Warning<'a>)) -> Options<'a> {
        Options::parse(self.as_bytes(), warn)
    }

    /// [`Options::refusal`] of this line.
    pub(crate) fn refusal(&self) -> Option<Warning<'_>> {
        Options::refusal(self.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::boot::WorkKind;
    use ballonet::balloon::wire::FEATURES;

    #[test]
    fn a_word_that_is_not_understood_is_refused_where_nobody_reads_a_warning() {
        let refusal = |line: &str| Options::refusal(line.as_bytes()).map(|warning| warning.to_string());
        for line in ["mode=check", "mode=bench irq=intx irq=poll", "mdoe=serve nonsense irq=psychic", "quiet", ""] {
            assert_eq!(refusal(line), None, "{line}");
        }
        for (line, word) in [
            ("mode=chekc", "`chekc`"),
            ("quiet mode=", "``"),
            ("quiet mdoe=check", "`mdoe`"),
            ("mode=check quiet", "`quiet`"),
            ("irq=psychic mode=bench", "`psychic`"),
            ("mode=check chekcs=isr-*", "`chekcs`"),
            ("mode=check features=-nonsense", "`-nonsense`"),
        ] {
            assert!(refusal(line).is_some_and(|reason| reason.contains(word)), "{line}: {:?}", refusal(line));
        }
    }

    fn parse(line: &str) -> (Options<'_>, Vec<Warning<'_>>) {
        let mut warnings = Vec::new();
        let options = Options::parse(line.as_bytes(), &mut |warning| warnings.push(warning));
        (options, warnings)
    }

    #[test]
    fn an_empty_line_means_the_defaults() {
        for line in ["", " ", " \t \n"] {
            assert_eq!(parse(line), (Options::default(), vec![]));
        }
        let defaults = Options::default();
        assert_eq!((defaults.mode, defaults.irq, defaults.log), (Mode::Serve, IrqChoice::Auto, LogFormat::Text));
    }

    #[test]
    fn every_option_is_read() {
        let line = "mode=check irq=msix-shared  transport=modern access=window ring=split features=-event_idx,-ring_packed \
                    report-age=100 report-threshold=16M report-budget=2G oom-cooldown=200 work=churn:3M checks=isr-* poison=0xa5 queue-size=7 request=9x10 cpus=3 affinity=boot hotplug=prompt poweroff=deflate \
                    tap=14 log=json term=ansi screen=off verbose=on test=vectors::stack list=on";
        let expected = Options {
            mode: Mode::Check,
            irq: IrqChoice::MsixShared,
            transport: TransportChoice::Modern,
            access: AccessChoice::Window,
            ring: RingChoice::Split,
            declined_features: 1 << 29 | 1 << 34,
            report_age: Some(100),
            report_threshold: Some(16 << 20),
            report_budget: Some(2 << 30),
            oom_cooldown: Some(200),
            work: Some(WorkChoice { kind: WorkKind::Churn, size: 3 << 20 }),
            poison: Some(0xa5),
            queue_size: Some(7),
            request: RequestShape::new(9, 10),
            cpus: Some(3),
            affinity: AffinityChoice::Boot,
            hotplug: HotplugChoice::Prompt,
            poweroff: PoweroffChoice::Deflate,
            checks: Some("isr-*"),
            tap: TapVersion::V14,
            log: LogFormat::Json,
            term: Terminal::Ansi,
            screen: ScreenChoice::Off,
            verbose: true,
            test: Some("vectors::stack"),
            list: true,
        };
        assert_eq!(parse(line), (expected, vec![]));
    }

    #[test]
    fn every_word_of_every_choice_is_valid() {
        use Key::{
            Checks, Cpus, Features, OomCooldown, Poison, QueueSize, ReportAge, ReportBudget, ReportThreshold, Request,
            Test, Work,
        };
        let free = [
            Checks,
            Cpus,
            Features,
            OomCooldown,
            Poison,
            QueueSize,
            ReportAge,
            ReportBudget,
            ReportThreshold,
            Request,
            Test,
            Work,
        ];
        for &key in Key::ALL.iter().filter(|key| !free.contains(key)) {
            for value in key.valid_values() {
                let line = format!("{key}={value}");
                assert_eq!(parse(&line).1, [], "{line}");
            }
        }
    }

    #[test]
    fn every_feature_has_a_bit_of_its_own() {
        let list: Vec<_> = FEATURES.iter().map(|(name, _)| format!("-{name}")).collect();
        let line = format!("features={}", list.join(","));
        let (options, warnings) = parse(&line);
        assert_eq!(warnings, []);
        assert_eq!(options.declined_features.count_ones() as usize, FEATURES.len());
    }

    #[test]
    fn an_unknown_key_is_named_with_the_valid_ones() {
        let (options, warnings) = parse("colour=red mode=bench");
        assert_eq!(options.mode, Mode::Bench);
        assert_eq!(warnings, [Warning::UnknownKey(b"colour")]);
        assert_eq!(
            warnings[0].to_string(),
            "there is no option `colour`; valid: mode, irq, transport, access, ring, features, report-age, report-threshold, \
             report-budget, oom-cooldown, work, poison, queue-size, request, cpus, affinity, hotplug, poweroff, checks, tap, log, term, screen, verbose, test, list"
        );
    }

    #[test]
    fn an_unknown_value_is_named_with_the_valid_ones_and_the_default_stays() {
        let (options, warnings) = parse("irq=msi verbose=yes test= mode=");
        assert_eq!(options, Options::default());
        assert_eq!(warnings.len(), 4);
        assert_eq!(
            warnings[0].to_string(),
            "option `irq` has no value `msi`; valid: auto, msix, msix-shared, intx, poll"
        );
        assert_eq!(warnings[1].to_string(), "option `verbose` has no value `yes`; valid: off, on");
    }

    #[test]
    fn sizes_and_shapes_that_cannot_be_are_named() {
        for value in ["0", "32769", "65536", "-1", "+1", "", "ten", "99999999999999999999"] {
            let line = format!("queue-size={value}");
            let (options, warnings) = parse(&line);
            assert_eq!((options, warnings.len()), (Options::default(), 1), "{line}");
            assert!(warnings[0].to_string().ends_with("valid: 1 to 32768"), "{}", warnings[0]);
        }
        for value in ["256", "0x1", "1x0", "257x1", "1x65", "256x", "x2", "2x2x2", "2X2"] {
            let line = format!("request={value}");
            let (options, warnings) = parse(&line);
            assert_eq!((options, warnings.len()), (Options::default(), 1), "{line}");
            let message = warnings[0].to_string();
            assert!(message.ends_with("valid: auto, or FRAMESxDESCRIPTORS, 1 to 256 by 1 to 64"), "{message}");
        }
        assert_eq!(parse("queue-size=32768 request=256x64").1, []);
        assert_eq!(parse("request=auto"), (Options::default(), vec![]));
    }

    #[test]
    fn numbers_of_cpus_that_cannot_be_are_named() {
        for value in ["0", "4097", "-1", "+1", "", "two", "4294967297"] {
            let line = format!("cpus={value}");
            let (options, warnings) = parse(&line);
            assert_eq!((options, warnings.len()), (Options::default(), 1), "{line}");
            assert!(warnings[0].to_string().ends_with("valid: all, or 1 to 4096"), "{}", warnings[0]);
        }
        assert_eq!(parse("cpus=4096"), (Options { cpus: Some(4096), ..Options::default() }, vec![]));
        assert_eq!(parse("cpus=all"), (Options::default(), vec![]));
    }

    #[test]
    fn a_poison_is_a_byte_in_hexadecimal_or_off() {
        for (value, byte) in
            [("off", None), ("0x00", Some(0)), ("0x5A", Some(0x5a)), ("0xff", Some(0xff)), ("0x7", Some(7))]
        {
            assert_eq!(parse(&format!("poison={value}")), (Options { poison: byte, ..Options::default() }, vec![]));
        }
        for value in ["", "0x", "0x100", "0x+1", "5a", "-1", "on"] {
            let line = format!("poison={value}");
            let (options, warnings) = parse(&line);
            assert_eq!((options.poison, warnings.len()), (None, 1), "{line}");
            assert!(warnings[0].to_string().ends_with("valid: off, 0x00 to 0xff"), "{}", warnings[0]);
        }
    }

    #[test]
    fn features_that_are_not_known_or_not_declined_are_named() {
        let (options, warnings) = parse("features=-event_idx,ring_reset,-EVENT_IDX,,-in_order");
        assert_eq!(options.declined_features, 1 << 29 | 1 << 35);
        let items: [&[u8]; 3] = [b"ring_reset", b"-EVENT_IDX", b""];
        assert_eq!(warnings, items.map(Warning::UnknownFeature));
        assert!(
            warnings[0]
                .to_string()
                .starts_with("option `features` has no item `ring_reset`; valid: `-` and one of must_tell_host, ")
        );
        assert_eq!(parse("features="), (Options::default(), vec![]));
    }

    #[test]
    fn sizes_and_times_that_make_no_sense_are_named() {
        let (options, warnings) = parse("report-age=3600001 report-threshold=2X report-budget= report-age=-1");
        assert_eq!(options, Options::default());
        assert_eq!(warnings.len(), 5, "one is repeated");
        assert_eq!(
            warnings[1].to_string(),
            "option `report-threshold` has no value `2X`; valid: a size: a number and, if wanted, K, M, G or T"
        );
    }

    #[test]
    fn programs_and_cooldowns_that_make_no_sense_are_named() {
        for line in
            ["work=sawtooth", "work=saw:1M", "work=steady:0", "work=:", "oom-cooldown=-1", "oom-cooldown=3600001"]
        {
            let (options, warnings) = parse(line);
            assert_eq!((options, warnings.len()), (Options::default(), 1), "{line}");
        }
        assert_eq!(
            parse("work=saw:1M").1[0].to_string(),
            "option `work` has no value `saw:1M`; valid: sawtooth:SIZE, steady:SIZE, churn:SIZE, verify:SIZE"
        );
    }

    #[test]
    fn the_last_valid_value_of_a_key_holds() {
        let (options, warnings) = parse("ring=split ring=packed ring=round");
        assert_eq!(options.ring, RingChoice::Packed);
        let repeated = Warning::Repeated(Key::Ring);
        assert_eq!(warnings, [repeated, repeated, Warning::UnknownValue { key: Key::Ring, value: b"round" }]);
    }

    #[test]
    fn a_word_without_an_equals_sign_is_named() {
        let (_, warnings) = parse("quiet =x");
        assert_eq!(warnings, [Warning::NotAnOption(b"quiet"), Warning::UnknownKey(b"")]);
    }

    #[test]
    fn a_value_may_hold_an_equals_sign() {
        assert_eq!(parse("test=a=b").0.test, Some("a=b"));
    }

    #[test]
    fn warnings_show_any_bytes_and_not_too_many() {
        let line = [&b"\xff\x1b="[..], &[b'x'; 2000]].concat();
        let mut warnings = Vec::new();
        Options::parse(&line, &mut |warning| warnings.push(warning.to_string()));
        assert!(warnings[0].starts_with("there is no option `\\xff\\x1b`;"));
        warnings.clear();
        Options::parse(&[b'x'; 2000], &mut |warning| warnings.push(warning.to_string()));
        assert!(warnings[0].contains("xxx...` is not") && warnings[0].len() < 400);
    }

    proptest! {
        #[test]
        fn any_line_gives_options_and_warnings_that_can_be_shown(line: Vec<u8>) {
            Options::parse(&line, &mut |warning| drop(warning.to_string()));
        }

        #[test]
        fn any_words_around_known_keys_are_survived(
            words in prop::collection::vec((prop::sample::select(Key::WORDS), "[-,=a-z_]{0,12}"), 0..20),
        ) {
            let line: String = words.iter().map(|(key, value)| format!("{key}={value} ")).collect();
            let (_, warnings) = parse(&line);
            prop_assert!(!warnings.iter().any(|warning| matches!(warning, Warning::UnknownKey(_))));
        }
    }
}
