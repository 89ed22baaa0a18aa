//! Random numbers that repeat in each run, so that a failure can be reproduced.

/// A generator (`SplitMix64`) seeded by a name.
pub(crate) struct Random(u64);

impl Random {
    /// The sequence for `name`.
    pub(crate) fn seeded_by(name: &str) -> Self {
        // FNV-1a separates names that differ in one letter.
        Self(
            name.bytes()
                .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)),
        )
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high` (exclusive).
    pub(crate) fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }
}
