//! A balloon's movement: how far, and how fast.

use core::fmt;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// One movement of a balloon, from its size to its target. Sizes are in bytes, times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Movement {
    from: u64,
    begun: u64,
    /// The size now.
    pub actual: u64,
    /// The size at the end.
    pub target: u64,
    /// When `actual` was true.
    pub now: u64,
}

impl Movement {
    /// A movement that begins at `now`.
    pub(crate) const fn begin(actual: u64, target: u64, now: u64) -> Self {
        Self { from: actual, begun: now, actual, target, now }
    }

    /// Notes the size at `now`.
    pub(crate) const fn advance(&mut self, actual: u64, now: u64) {
        self.actual = actual;
        self.now = now;
    }

    /// Bytes moved so far.
    pub(crate) const fn moved(&self) -> u64 {
        self.actual.abs_diff(self.from)
    }

    /// Nanoseconds since it began, at least 1.
    pub(crate) const fn elapsed(&self) -> u64 {
        let elapsed = self.now.saturating_sub(self.begun);
        if elapsed == 0 { 1 } else { elapsed }
    }

    /// The share that is done, from 0 to 100.
    pub(crate) fn percent(&self) -> u64 {
        let way = self.target.abs_diff(self.from);
        if way == 0 { 100 } else { (u128::from(self.moved().min(way)) * 100 / u128::from(way)) as u64 }
    }

    /// Its direction.
    pub(crate) const fn direction(&self) -> &'static str {
        if self.target < self.from { "deflating" } else { "inflating" }
    }

    /// Its rate, in hundredths of a GiB per second.
    pub(crate) fn rate(&self) -> u64 {
        let rate = u128::from(self.moved()) * 100 * 1_000_000_000 / (u128::from(GIB) * u128::from(self.elapsed()));
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

/// `inflating balloon by 128 of 256 MiB  50 % 1.25 GiB/s`
impl fmt::Display for Movement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (direction, rate) = (self.direction(), self.rate());
        write!(
            f,
            "{direction} balloon by {} of {} MiB {:>3} % {}.{:02} GiB/s",
            self.moved() / MIB,
            self.target.abs_diff(self.from) / MIB,
            self.percent(),
            rate / 100,
            rate % 100
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn half_way_in_a_tenth_of_a_second() {
        let mut movement = Movement::begin(0, 256 * MIB, 5 * SECOND);
        movement.advance(128 * MIB, 5 * SECOND + SECOND / 10);
        assert_eq!(movement.to_string(), "inflating balloon by 128 of 256 MiB  50 % 1.25 GiB/s");
    }

    #[test]
    fn deflation_counts_the_way_down() {
        let mut movement = Movement::begin(2 * GIB, 0, 0);
        movement.advance(0, 2 * SECOND);
        assert_eq!(movement.to_string(), "deflating balloon by 2048 of 2048 MiB 100 % 1.00 GiB/s");
    }

    proptest::proptest! {
        #[test]
        fn any_numbers_can_be_shown(from: u64, to: u64, begun: u64, steps: Vec<(u64, u64)>, done: bool) {
            let mut movement = Movement::begin(from, to, begun);
            for (at, now) in steps.into_iter().chain(done.then_some((to, begun))) {
                movement.advance(at, now);
                proptest::prop_assert!(movement.percent() <= 100 && movement.elapsed() > 0);
                proptest::prop_assert!(movement.actual != movement.target || movement.percent() == 100, "{:?}", movement);
                proptest::prop_assert!(movement.to_string().ends_with("GiB/s"));
            }
        }
    }
}
