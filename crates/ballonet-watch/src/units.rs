//! Sizes as people write and read them. All sizes in the program are bytes.

/// Bytes in a MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// MiB, rounded to the nearest.
pub(crate) const fn mib(bytes: u64) -> u64 {
    (bytes + MIB / 2) / MIB
}

/// Parses `256`, `256M`, `1G` or `4096K`; a plain number is MiB, as in QEMU's `balloon` command.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let invalid = || format!("`{text}` is not a size; use a number of MiB, or a suffix K, M, G or T: 512M");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "K" => 1 << 10,
        "" | "M" => MIB,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return Err(invalid()),
    };
    let number: u64 = digits.parse().map_err(|_| invalid())?;
    number.checked_mul(unit).ok_or_else(|| format!("`{text}` is too large"))
}

/// Parses an interval: `2`, `0.5`, `250ms` or `2s`.
pub(crate) fn parse_interval(text: &str) -> Result<std::time::Duration, String> {
    let (digits, scale) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = digits.parse::<f64>().map_or(f64::NAN, |number| number * scale);
    if (0.05..=3600.0).contains(&seconds) {
        return Ok(std::time::Duration::from_secs_f64(seconds));
    }
    Err(format!("`{text}` is not an interval; use 50ms to 3600 s: 1, 0.5, 250ms"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sizes_are_mib_unless_they_have_a_suffix() {
        assert_eq!(parse_size("300"), Ok(300 * MIB));
        assert_eq!(parse_size("300M"), Ok(300 * MIB));
        assert_eq!(parse_size("2g"), Ok(2048 * MIB));
        assert_eq!(parse_size("4096K"), Ok(4 * MIB));
        assert_eq!(parse_size("1T"), Ok(1 << 40));
    }

    #[test]
    fn invalid_sizes_are_quoted() {
        for text in ["", "M", "1.5G", "-1", "1X", "1MB", "99999999999T"] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn intervals_have_bounds() {
        assert_eq!(parse_interval("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_interval("2"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_interval("0.5s"), Ok(Duration::from_millis(500)));
        for text in ["0", "1ms", "4000", "soon", "-1", "NaN", "inf"] {
            assert!(parse_interval(text).is_err_and(|error| error.contains(text)), "{text}");
        }
    }
}
