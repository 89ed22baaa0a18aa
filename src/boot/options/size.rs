//! Sizes as people write them: `4096`, `512M`, `2G`.

use core::fmt;

use derive_more::{Display, Error};

use super::quote::Quoted;

/// Why a text is not a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum SizeError<'a> {
    /// There is no number in front.
    #[display("invalid size {}: write a whole number, and if wanted K, M, G or T", Quoted(_0.as_bytes()))]
    NoNumber(#[error(not(source))] &'a str),
    /// The number has a fraction; the second text is the same size without one, if there is one.
    #[display("invalid size {}: whole numbers only{}", Quoted(_0.as_bytes()), Try(*_1))]
    Fraction(#[error(not(source))] &'a str, #[error(not(source))] Option<u64>),
    /// No unit follows the number, but something else.
    #[display("unknown unit {}; valid: K, M, G and T", Quoted(_0.as_bytes()))]
    Unit(#[error(not(source))] &'a str),
    /// The size does not fit 64 bits.
    #[display("{} is too large", Quoted(_0.as_bytes()))]
    TooLarge(#[error(not(source))] &'a str),
}

/// A suggestion of a size.
struct Try(Option<u64>);

impl fmt::Display for Try {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |size| write!(f, "; try {}", Whole(size)))
    }
}

/// The units, and the powers of two that they stand for, the largest first.
const UNITS: [(&str, u32); 4] = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];

/// Shows a size in bytes as [`parse_size`] reads it, in the largest unit of which it is a multiple.
pub(super) struct Whole(pub(super) u64);

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let unit = UNITS.into_iter().find(|(_, shift)| bytes != 0 && bytes.trailing_zeros() >= *shift);
        let (unit, shift) = unit.unwrap_or(("", 0));
        write!(f, "{}{unit}", bytes >> shift)
    }
}

/// Reads a size in bytes: a decimal number, then nothing for bytes, or one of K, M, G, T (either case) for powers of
/// 1024, optionally spelled out as `KiB`, `MiB`, `GiB`, `TiB`.
///
/// # Errors
/// When the text is anything else or the size does not fit 64 bits.
pub fn parse_size(text: &str) -> Result<u64, SizeError<'_>> {
    let (number, unit) = text.split_at(digits(text));
    if let Some(fraction) = unit.strip_prefix('.')
        && let Some((fraction, unit)) = fraction.split_at_checked(digits(fraction))
        && let Some(shift) = shift_of(unit)
    {
        return Err(SizeError::Fraction(text, without_fraction(number, fraction, shift)));
    }
    if number.is_empty() {
        return Err(SizeError::NoNumber(text));
    }
    let shift = shift_of(unit).ok_or(SizeError::Unit(unit))?;
    // Only digits are left: what can be wrong is that there are too many.
    let count: u64 = number.parse().map_err(|_| SizeError::TooLarge(text))?;
    count.checked_mul(1 << shift).ok_or(SizeError::TooLarge(text))
}

/// How many bytes of `text` are digits, from its start.
fn digits(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())
}

/// The size in bytes of a number with a fraction, in a unit of `1 << shift` bytes, if that is whole.
fn without_fraction(number: &str, fraction: &str, shift: u32) -> Option<u64> {
    let scale = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let number: u64 = if number.is_empty() { 0 } else { number.parse().ok()? };
    let fraction: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = fraction.checked_mul(1 << shift)?;
    part.is_multiple_of(scale).then(|| number.checked_mul(1 << shift)?.checked_add(part / scale))?
}

/// The power of two that a unit stands for.
fn shift_of(unit: &str) -> Option<u32> {
    let letter = match unit.len() {
        0 => return Some(0),
        1 => unit,
        _ => unit.strip_suffix("iB")?,
    };
    UNITS.into_iter().find(|(known, _)| letter.eq_ignore_ascii_case(known)).map(|(_, shift)| shift)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("2g"), Ok(2 << 30));
        assert_eq!(parse_size("16TiB"), Ok(16 << 40));
        assert_eq!(parse_size("64KiB"), Ok(64 << 10));
    }

    #[test]
    fn invalid_sizes_are_quoted() {
        assert_eq!(parse_size(""), Err(SizeError::NoNumber("")));
        assert_eq!(parse_size("M"), Err(SizeError::NoNumber("M")));
        assert_eq!(parse_size("-1M"), Err(SizeError::NoNumber("-1M")));
        assert_eq!(parse_size("1 M"), Err(SizeError::Unit(" M")));
        assert_eq!(parse_size("1.5G"), Err(SizeError::Fraction("1.5G", Some(3 << 29))));
        assert_eq!(parse_size(".25K"), Err(SizeError::Fraction(".25K", Some(256))));
        assert_eq!(parse_size("1.3G"), Err(SizeError::Fraction("1.3G", None)));
        assert_eq!(parse_size("1.5X"), Err(SizeError::Unit(".5X")));
        assert_eq!(parse_size("1iB"), Err(SizeError::Unit("iB")));
        assert_eq!(parse_size("1é"), Err(SizeError::Unit("é")));
        assert_eq!(parse_size("18446744073709551616"), Err(SizeError::TooLarge("18446744073709551616")));
        assert_eq!(parse_size("16777216T"), Err(SizeError::TooLarge("16777216T")));
        assert_eq!(parse_size("16777215T"), Ok(16_777_215 << 40));
    }

    #[test]
    fn errors_say_what_would_be_valid() {
        let message = |text| parse_size(text).map_err(|error| error.to_string()).unwrap_err();
        assert_eq!(message("1.5G"), "invalid size `1.5G`: whole numbers only; try 1536M");
        assert_eq!(message("1.3G"), "invalid size `1.3G`: whole numbers only");
        assert_eq!(message("99999999999G"), "`99999999999G` is too large");
        assert_eq!(message("2X"), "unknown unit `X`; valid: K, M, G and T");
    }

    proptest! {
        #[test]
        fn any_text_is_a_size_or_an_error(text in "\\PC*") {
            let _ = parse_size(&text);
        }

        #[test]
        fn every_number_of_bytes_reads_back(bytes: u64) {
            let (digits, whole) = (bytes.to_string(), Whole(bytes).to_string());
            prop_assert_eq!(parse_size(&digits), Ok(bytes));
            prop_assert_eq!(parse_size(&whole), Ok(bytes));
        }
    }
}
