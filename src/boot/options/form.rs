//! The forms that values take: how each is read, written and described.

use core::fmt;
use core::marker::PhantomData;
use core::str::FromStr;

use ballonet::balloon::RequestShape;
use ballonet::balloon::wire::FEATURES;
use ballonet::virtio::spec::{Features, QUEUE_SIZE_MAX};
use ballonet_check::HostAction;

use super::choice::Word;
use super::mmio::{MmioArgument, MmioArguments, MmioError};
use super::size::{SizeError, Whole, parse_size};
use super::work::{self, WorkChoice, WorkError};

/// The values that an option takes: words, and values of a form that words cannot list.
#[derive(Clone, Copy)]
pub struct Valid {
    nth: fn(usize) -> Option<&'static str>,
    form: &'static str,
}

impl Valid {
    const fn words(nth: fn(usize) -> Option<&'static str>) -> Self {
        Self { nth, form: "" }
    }

    pub(super) const fn form(form: &'static str) -> Self {
        Self { nth: |_| None, form }
    }

    const fn word_or(nth: fn(usize) -> Option<&'static str>, form: &'static str) -> Self {
        Self { nth, form }
    }

    /// The words.
    pub fn choices(self) -> impl Iterator<Item = &'static str> + Clone {
        (0..).map_while(self.nth)
    }

    /// The other values, described for people; empty if there are none.
    pub const fn others(self) -> &'static str {
        self.form
    }
}

/// Why a value, or an item in it, is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueError<'a> {
    /// The option has no such value.
    Invalid(&'a [u8]),
    /// It is not a size.
    Size(SizeError<'a>),
    /// It is not a program to run.
    Work(WorkError<'a>),
    /// An item of a list is not `-` and the name of a feature.
    Feature(&'a [u8]),
    /// It is not a virtio-mmio device.
    Mmio(MmioError<'a>),
}

/// Gets the errors in a value.
pub(super) type Complain<'c, 'a> = &'c mut dyn FnMut(ValueError<'a>);

/// A form of values. An option without a value has `None`; `write` writes nothing for it unless there is a word for it.
pub(crate) trait Form<'a> {
    /// What is read.
    type Value: Copy + PartialEq + fmt::Debug;
    /// What can be read.
    const VALID: Valid;
    /// Whether the key may be repeated and every occurrence counts.
    const REPEATS: bool = false;

    /// Reads a value. Errors go to `complain`; `None` if no value is left.
    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<Self::Value>;

    /// The value of a repeated key that had `old`: the last one holds, unless every occurrence counts.
    fn add(_old: Self::Value, new: Self::Value, _value: &'a [u8], _complain: Complain<'_, 'a>) -> Self::Value {
        new
    }

    /// Writes a value so that `read` reads it.
    fn write(value: Self::Value, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// Passes a value on; complains if there is none.
fn valid<'a, T>(read: Option<T>, value: &'a [u8], complain: Complain<'_, 'a>) -> Option<T> {
    if read.is_none() {
        complain(ValueError::Invalid(value));
    }
    read
}

/// One of a few words.
pub(crate) struct Choice<T>(PhantomData<T>);

impl<'a, T: Word> Form<'a> for Choice<T> {
    type Value = T;
    const VALID: Valid = Valid::words(T::nth);

    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<T> {
        valid(T::from_word(value), value, complain)
    }

    fn write(value: T, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(value.word())
    }
}

/// One of a few words, or `auto` (`None`): the driver chooses.
pub(crate) struct Auto<T>(PhantomData<T>);

const AUTO: &str = "auto";

impl<T: Word> Auto<T> {
    fn nth(place: usize) -> Option<&'static str> {
        place.checked_sub(1).map_or(Some(AUTO), T::nth)
    }
}

impl<'a, T: Word> Form<'a> for Auto<T> {
    type Value = Option<T>;
    const VALID: Valid = Valid::words(Self::nth);

    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<Option<T>> {
        if value == AUTO.as_bytes() { Some(None) } else { Choice::<T>::read(value, complain).map(Some) }
    }

    fn write(value: Option<T>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(value.map_or(AUTO, T::word))
    }
}

/// Off or on.
pub(crate) struct Switch;

impl<'a> Form<'a> for Switch {
    type Value = bool;
    const VALID: Valid = Valid::words(|place| ["off", "on"].get(place).copied());

    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<bool> {
        let read = match value {
            b"off" => Some(false),
            b"on" => Some(true),
            _ => None,
        };
        valid(read, value, complain)
    }

    fn write(value: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if value { "on" } else { "off" })
    }
}

/// A time in milliseconds, an hour at most.
pub(crate) struct Milliseconds;

impl<'a> Form<'a> for Milliseconds {
    type Value = u64;
    const VALID: Valid = Valid::form("milliseconds, 0 to 3600000");

    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<u64> {
        valid(number(value).filter(|time| *time <= 3_600_000), value, complain)
    }

    fn write(value: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{value}")
    }
}

/// A size in bytes.
pub(crate) struct Size;

impl<'a> Form<'a> for Size {
    type Value = u64;
    const VALID: Valid = Valid::form("a whole number of bytes, or with K, M, G or T");

    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<u64> {
        let text = valid(text(value), value, complain)?;
        parse_size(text).map_err(|error| complain(ValueError::Size(error))).ok()
    }

    fn write(value: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Whole(value))
    }
}

/// A program that uses memory; `None` for none.
pub(crate) struct Program;

impl<'a> Form<'a> for Program {
    type Value = Option<WorkChoice>;
    const VALID: Valid = Valid::form(work::VALID);

    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<Option<WorkChoice>> {
        let text = valid(text(value), value, complain)?;
        WorkChoice::parse(text).map(Some).map_err(|error| complain(ValueError::Work(error))).ok()
    }

    fn write(value: Option<WorkChoice>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        value.map_or(Ok(()), |work| write!(f, "{work}"))
    }
}

/// A byte in hexadecimal, or `off` (`None`).
pub(crate) struct FillByte;

impl<'a> Form<'a> for FillByte {
    type Value = Option<u8>;
    const VALID: Valid = Valid::word_or(|place| ["off"].get(place).copied(), "0x00 to 0xff");

    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<Option<u8>> {
        let byte = || {
            let digits = text(value.strip_prefix(b"0x")?)?;
            // `from_str_radix` also takes a sign.
            digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())?
        };
        if value == b"off" { Some(None) } else { valid(byte(), value, complain).map(Some) }
    }

    fn write(value: Option<u8>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match value {
            Some(byte) => write!(f, "{byte:#04x}"),
            None => f.write_str("off"),
        }
    }
}

/// The most entries of a queue.
pub(crate) struct QueueSize;

impl<'a> Form<'a> for QueueSize {
    type Value = u16;
    const VALID: Valid = Valid::form("1 to 32768");

    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<u16> {
        let size = number(value).filter(|size| (1..=QUEUE_SIZE_MAX).contains(size));
        valid(size, value, complain)
    }

    fn write(value: u16, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{value}")
    }
}

/// How a request's frame numbers are laid over descriptors, or `auto` (`None`).
pub(crate) struct Shape;

impl<'a> Form<'a> for Shape {
    type Value = Option<RequestShape>;
    const VALID: Valid = Valid::word_or(|place| [AUTO].get(place).copied(), "FRAMESxDESCRIPTORS, 1 to 256 by 1 to 64");

    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<Option<RequestShape>> {
        let shape = || {
            let mut halves = value.splitn(2, |&byte| byte == b'x');
            RequestShape::new(number(halves.next()?)?, number(halves.next()?)?)
        };
        if value == AUTO.as_bytes() { Some(None) } else { valid(shape(), value, complain).map(Some) }
    }

    fn write(value: Option<RequestShape>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match value {
            Some(shape) => write!(f, "{}x{}", shape.frames(), shape.descriptors()),
            None => f.write_str(AUTO),
        }
    }
}

/// The most CPUs that run, or `all` (`None`).
pub(crate) struct CpuLimit;

/// The most CPUs that can be requested, and that the kernel has addresses for.
pub(crate) const MOST_CPUS: u32 = 4096;

impl<'a> Form<'a> for CpuLimit {
    type Value = Option<u32>;
    const VALID: Valid = Valid::word_or(|place| ["all"].get(place).copied(), "1 to 4096");

    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<Option<u32>> {
        let count = || number(value).filter(|count| (1..=MOST_CPUS).contains(count));
        if value == b"all" { Some(None) } else { valid(count(), value, complain).map(Some) }
    }

    fn write(value: Option<u32>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match value {
            Some(count) => write!(f, "{count}"),
            None => f.write_str("all"),
        }
    }
}

/// The names of the features in a set; bits without a name are skipped.
pub(crate) fn feature_names(features: Features) -> impl Iterator<Item = &'static str> + Clone {
    FEATURES.into_iter().filter(move |(_, feature)| features.contains(*feature)).map(|(name, _)| name)
}

/// Features to decline, `-name,-name`: a mask of their bits. An empty list declines none.
pub(crate) struct DeclinedFeatures;

impl<'a> Form<'a> for DeclinedFeatures {
    type Value = u64;
    const VALID: Valid = Valid::form("-NAME,-NAME...");

    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<u64> {
        let mut mask = 0;
        for item in value.split(|&byte| byte == b',').filter(|_| !value.is_empty()) {
            let name = item.strip_prefix(b"-");
            match FEATURES.iter().find(|(known, _)| Some(known.as_bytes()) == name) {
                Some((_, feature)) => mask |= feature.bits(),
                None => complain(ValueError::Feature(item)),
            }
        }
        Some(mask)
    }

    fn write(value: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = feature_names(Features::from_bits_retain(value)).enumerate();
        names.into_iter().try_for_each(|(place, name)| write!(f, "{}-{name}", if place == 0 { "" } else { "," }))
    }
}

/// A list of checks; `None` for all.
pub(crate) struct Checks;

impl<'a> Form<'a> for Checks {
    type Value = Option<&'a str>;
    const VALID: Valid = Valid::form("NAME,NAME*,-NAME...");

    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<Option<&'a str>> {
        valid(name(value), value, complain).map(Some)
    }

    fn write(value: Option<&'a str>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(value.unwrap_or_default())
    }
}

/// What the host does for checks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostActions(u8);

impl HostActions {
    /// Nothing.
    pub(super) const NONE: Self = Self(0);

    fn nth(place: usize) -> Option<&'static str> {
        HostAction::ALL.get(place).map(|action| action.word())
    }

    /// The same, and this too.
    #[must_use]
    pub(crate) fn with(self, action: HostAction) -> Self {
        Self(self.0 | 1 << action as u8)
    }

    /// Whether this is among them.
    pub(crate) fn has(self, action: HostAction) -> bool {
        self.0 & 1 << action as u8 != 0
    }
}

impl fmt::Debug for HostActions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        <Self as Form<'_>>::write(*self, f)
    }
}

impl<'a> Form<'a> for HostActions {
    type Value = Self;
    const VALID: Valid = Valid::word_or(Self::nth, "several of them, with commas between");

    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<Self> {
        let mut actions = Self::NONE;
        for item in value.split(|&byte| byte == b',') {
            let action = valid(text(item).and_then(HostAction::from_word), item, complain);
            actions = action.map_or(actions, |action| actions.with(action));
        }
        Some(actions)
    }

    fn write(value: Self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = HostAction::ALL.iter().filter(|action| value.has(**action)).map(|action| action.word());
        words.enumerate().try_for_each(|(place, word)| write!(f, "{}{word}", if place == 0 { "" } else { "," }))
    }
}

/// Devices, by the name of their type or by an address.
pub(crate) struct DeviceName;

impl DeviceName {
    /// The default.
    pub(super) const BALLOON: &'static str = "balloon";

    fn nth(place: usize) -> Option<&'static str> {
        ["all", Self::BALLOON, "rng", "blk", "console", "net", "other"].get(place).copied()
    }
}

impl<'a> Form<'a> for DeviceName {
    type Value = &'a str;
    const VALID: Valid = Valid::word_or(Self::nth, "an address as the boot log has it");

    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<&'a str> {
        // An address begins with a digit; any other word that is not in the list is misspelt.
        let known = |word: &&str| Self::VALID.choices().any(|choice| choice == *word) || word.contains([':', 'x']);
        valid(name(value).filter(known), value, complain)
    }

    fn write(value: &'a str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(value)
    }
}

/// The form of `virtio_mmio.device=`, which is given once for each device.
pub(crate) struct MmioForm;

impl<'a> Form<'a> for MmioForm {
    type Value = MmioArguments;
    const VALID: Valid = Valid::form("SIZE@BASE:IRQ or SIZE@BASE:IRQ:ID, once for each device");
    const REPEATS: bool = true;

    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<MmioArguments> {
        let parsed = MmioArgument::parse(value).map_err(|error| complain(ValueError::Mmio(error))).ok()?;
        let mut new = MmioArguments::new();
        new.push(parsed);
        Some(new)
    }

    fn add(mut old: MmioArguments, new: MmioArguments, value: &'a [u8], complain: Complain<'_, 'a>) -> MmioArguments {
        for device in new.iter() {
            if !old.push(*device) {
                complain(ValueError::Mmio(MmioError::TooMany(value)));
            }
        }
        old
    }

    /// Writes the devices as words of a command line, whose first key has already been written.
    fn write(value: MmioArguments, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        value.iter().enumerate().try_for_each(|(place, device)| {
            let key = if place == 0 { "" } else { " virtio_mmio.device=" };
            write!(f, "{key}{device}")
        })
    }
}

/// The name of a kernel test; `None` for all.
pub(crate) struct TestName;

impl<'a> Form<'a> for TestName {
    type Value = Option<&'a str>;
    const VALID: Valid = Valid::form("the name of a kernel test");

    fn read(value: &'a [u8], complain: Complain<'_, 'a>) -> Option<Option<&'a str>> {
        valid(name(value), value, complain).map(Some)
    }

    fn write(value: Option<&'a str>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(value.unwrap_or_default())
    }
}

fn text(value: &[u8]) -> Option<&str> {
    core::str::from_utf8(value).ok()
}

fn name(value: &[u8]) -> Option<&str> {
    text(value).filter(|name| !name.is_empty())
}

/// The number in decimal digits, if it fits.
fn number<T: FromStr>(digits: &[u8]) -> Option<T> {
    let digits = text(digits)?;
    // `parse` also takes a sign.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}
