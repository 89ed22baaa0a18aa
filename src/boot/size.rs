//! Sizes as people write them: `4096`, `512M`, `2G`.

use derive_more::{Display, Error};

/// Why a text is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum SizeError<'a> {
    /// There is no number in front.
    #[display("`{}` is no size: write a number and, if wanted, K, M, G or T", _0.escape_debug())]
    NoNumber(#[error(not(source))] &'a str),
    /// What follows the number is no unit.
    #[display("`{}` is no unit of size: K, M, G and T are", _0.escape_debug())]
    Unit(#[error(not(source))] &'a str),
    /// The size does not fit 64 bits.
    #[display("`{_0}` is too large a size")]
    TooLarge(#[error(not(source))] &'a str),
}

/// Reads a size in bytes: a decimal number, then nothing for bytes, or one of K, M, G, T (either case) for powers of
/// 1024, optionally spelled out as `KiB`, `MiB`, `GiB`, `TiB`.
///
/// # Errors
/// When the text is anything else or the size does not fit 64 bits.
pub fn parse_size(text: &str) -> Result<u64, SizeError<'_>> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(SizeError::NoNumber(text));
    }
    let shift = shift_of(unit).ok_or(SizeError::Unit(unit))?;
    // Only digits are left, so the one thing that can be wrong is their number.
    let count: u64 = number.parse().map_err(|_| SizeError::TooLarge(text))?;
    count.checked_mul(1 << shift).ok_or(SizeError::TooLarge(text))
}

/// The power of two that a unit stands for.
fn shift_of(unit: &str) -> Option<u32> {
    let letter = match unit.len() {
        0 => return Some(0),
        1 => unit,
        _ => unit.strip_suffix("iB")?,
    };
    match letter {
        "K" | "k" => Some(10),
        "M" | "m" => Some(20),
        "G" | "g" => Some(30),
        "T" | "t" => Some(40),
        _ => None,
    }
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
    fn what_is_no_size_is_named() {
        assert_eq!(parse_size(""), Err(SizeError::NoNumber("")));
        assert_eq!(parse_size("M"), Err(SizeError::NoNumber("M")));
        assert_eq!(parse_size("-1M"), Err(SizeError::NoNumber("-1M")));
        assert_eq!(parse_size("1 M"), Err(SizeError::Unit(" M")));
        assert_eq!(parse_size("1.5G"), Err(SizeError::Unit(".5G")));
        assert_eq!(parse_size("1iB"), Err(SizeError::Unit("iB")));
        assert_eq!(parse_size("1é"), Err(SizeError::Unit("é")));
        assert_eq!(parse_size("18446744073709551616"), Err(SizeError::TooLarge("18446744073709551616")));
        assert_eq!(parse_size("16777216T"), Err(SizeError::TooLarge("16777216T")));
        assert_eq!(parse_size("16777215T"), Ok(16_777_215 << 40));
    }

    proptest! {
        #[test]
        fn any_text_is_a_size_or_an_error(text in "\\PC*") {
            let _ = parse_size(&text);
        }

        #[test]
        fn every_number_of_bytes_reads_back(bytes: u64) {
            let text = bytes.to_string();
            prop_assert_eq!(parse_size(&text), Ok(bytes));
        }
    }
}
