//! A histogram of durations, of fixed size, which records without allocating.
//! Its buckets grow with the value, eight per power of two, so that a value between 1 and 2^64 is known to an
//! eighth of itself. The largest is known exactly.

/// A power of two is divided into 2^this buckets.
const DIVISION: u32 = 3;
const BUCKETS: usize = ((64 - DIVISION as usize) + 1) << DIVISION;

/// Counts of values.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: [u32; BUCKETS],
    count: u64,
    most: u64,
}

impl Histogram {
    /// Nothing recorded.
    pub const fn new() -> Self {
        Self { buckets: [0; BUCKETS], count: 0, most: 0 }
    }

    /// Records a value.
    pub fn record(&mut self, value: u64) {
        let bucket = &mut self.buckets[bucket_of(value)];
        *bucket = bucket.saturating_add(1);
        self.count += 1;
        self.most = self.most.max(value);
    }

    /// How many values were recorded.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The largest value; 0 if there are none.
    pub const fn most(&self) -> u64 {
        self.most
    }

    /// An upper bound of the given quantile, in thousandths, at most an eighth too large; 0 if there are no values.
    pub fn permille(&self, share: u64) -> u64 {
        let wanted = (u128::from(self.count) * u128::from(share.min(1000))).div_ceil(1000).max(1);
        let mut below = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            below += u128::from(*count);
            if below >= wanted {
                return largest_in(bucket).min(self.most);
            }
        }
        self.most
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// The bucket that a value is counted in.
const fn bucket_of(value: u64) -> usize {
    if value < 1 << DIVISION {
        return value as usize;
    }
    let shift = value.ilog2() - DIVISION;
    // The highest bits, of which the first is always set, and their position.
    ((shift as usize) << DIVISION) + (value >> shift) as usize
}

/// The largest value that is counted in a bucket.
const fn largest_in(bucket: usize) -> u64 {
    if bucket < 1 << DIVISION {
        return bucket as u64;
    }
    let shift = (bucket >> DIVISION) as u32 - 1;
    let highest = (bucket as u64 & ((1 << DIVISION) - 1)) | 1 << DIVISION;
    highest << shift | ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        let mut next = 0;
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(next), bucket, "{next}");
            assert_eq!(bucket_of(largest_in(bucket)), bucket);
            next = largest_in(bucket).wrapping_add(1);
        }
        assert_eq!(next, 0, "the last bucket ends with the last value");
    }

    #[test]
    fn of_nothing_everything_is_nothing() {
        let none = Histogram::new();
        assert_eq!((none.count(), none.most(), none.permille(999)), (0, 0, 0));
    }

    #[test]
    fn few_that_take_long_are_in_the_last_thousandths_only() {
        let mut histogram = Histogram::new();
        (0..998).for_each(|_| histogram.record(5));
        histogram.record(1_000_000);
        histogram.record(7_000_000);
        assert_eq!([0, 500, 990, 998].map(|share| histogram.permille(share)), [5; 4]);
        assert!((1_000_000..1_125_000).contains(&histogram.permille(999)));
        assert_eq!((histogram.permille(1000), histogram.most()), (7_000_000, 7_000_000));
    }

    #[test]
    fn the_extremes_are_counted() {
        let mut histogram = Histogram::new();
        histogram.record(0);
        histogram.record(u64::MAX);
        assert_eq!((histogram.permille(500), histogram.permille(1000), histogram.count()), (0, u64::MAX, 2));
    }

    proptest! {
        #[test]
        fn a_share_is_right_to_an_eighth(mut values in prop::collection::vec(0..1u64 << 40, 1..200), share in 1..=1000u64) {
            let mut histogram = Histogram::new();
            values.iter().for_each(|value| histogram.record(*value));
            values.sort_unstable();
            let exact = values[(values.len() as u64 * share).div_ceil(1000) as usize - 1];
            let told = histogram.permille(share);
            prop_assert!((exact..=exact + exact / 8).contains(&told), "{exact} told as {told}");
        }
    }
}
