//! How fast memory moves.

/// Bytes moved in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bytes.
    pub bytes: u64,
    /// Nanoseconds.
    pub time: u64,
}

impl Rate {
    /// In thousandths of a GiB a second.
    pub fn milli_gib_per_second(self) -> u64 {
        let thousandths = u128::from(self.bytes) * 1_000_000_000_000 / u128::from(self.time.max(1));
        u64::try_from(thousandths >> 30).unwrap_or(u64::MAX)
    }

    /// Its share of `other`, in thousandths of a percent.
    pub fn milli_percent_of(self, other: Self) -> u64 {
        let whole = u128::from(other.milli_gib_per_second().max(1));
        u64::try_from(u128::from(self.milli_gib_per_second()) * 100_000 / whole).unwrap_or(u64::MAX)
    }
}

/// The faster of two, the first if they are equal.
pub(super) fn faster(one: Rate, other: Rate) -> Rate {
    if other.milli_gib_per_second() > one.milli_gib_per_second() { other } else { one }
}

/// The item with the median rate, the faster of two; `None` if there are none. Compares each pair, since there are
/// few.
pub(super) fn median<T: Copy>(items: &[T], rate: impl Fn(&T) -> Rate) -> Option<T> {
    let speed = |item: &T| rate(item).milli_gib_per_second();
    let place = items.len() / 2;
    let is_in_the_middle = |item: &&T| {
        let slower = items.iter().filter(|other| speed(other) < speed(item)).count();
        let as_fast = items.iter().filter(|other| speed(other) == speed(item)).count();
        (slower..slower + as_fast).contains(&place)
    };
    items.iter().find(is_in_the_middle).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn rate(bytes: u64, time: u64) -> Rate {
        Rate { bytes, time }
    }

    #[test]
    fn a_rate_is_bytes_by_time() {
        assert_eq!(rate(GIB, 1_000_000_000).milli_gib_per_second(), 1000);
        assert_eq!(rate(GIB / 2, 2_000_000_000).milli_gib_per_second(), 250);
        assert_eq!(rate(GIB, 300_000_000).milli_gib_per_second(), 3333);
        assert_eq!(rate(16 << 40, 1).milli_gib_per_second(), (16 << 10) * 1_000_000_000_000);
    }

    #[test]
    fn no_time_and_no_bytes_are_survived() {
        assert_eq!(rate(0, 0).milli_gib_per_second(), 0);
        assert_eq!(rate(u64::MAX, 0).milli_gib_per_second(), u64::MAX);
        assert_eq!(rate(GIB, 1_000_000_000).milli_percent_of(rate(0, 1)), 100_000_000);
    }

    #[test]
    fn a_share_is_of_the_other_rate() {
        assert_eq!(rate(GIB, 4_000_000_000).milli_percent_of(rate(GIB, 1_000_000_000)), 25_000);
        assert_eq!(rate(GIB, 1_000_000_000).milli_percent_of(rate(GIB, 4_000_000_000)), 400_000);
    }

    #[test]
    fn the_median_is_the_faster_of_the_two_in_the_middle() {
        let rates = [2, 1, 5, 9].map(|seconds| rate(GIB, seconds * 1_000_000_000));
        assert_eq!(median(&rates, |rate| *rate), Some(rates[0]));
        assert_eq!(median(&rates[1..], |rate| *rate), Some(rates[2]));
        assert_eq!(median(&[rates[1]; 3], |rate| *rate), Some(rates[1]));
        assert_eq!(median(&[], |rate: &Rate| *rate), None);
    }
}
