//! How much memory a chain lends to the device, and whether a queue may carry it at all.

use super::queue::{Chain, Refusal, Segment, UsedLength};

/// How many bytes of a request the device may read and write; less than 2^32 in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) readable: u32,
    pub(super) writable: u32,
}

impl Extent {
    /// The extent of a chain that is to take `needed` of the `free` descriptors of a queue of `size`.
    pub(super) fn check(chain: &Chain<'_>, needed: usize, free: u16, size: u16) -> Result<Self, Refusal> {
        let length = chain.len();
        if length > usize::from(size) {
            return Err(Refusal::TooLong { length, size });
        }
        if chain.is_empty() || chain.readable.iter().chain(chain.writable).any(|segment| segment.length == 0) {
            return Err(Refusal::Empty);
        }
        if needed > usize::from(free) {
            return Err(Refusal::Full { needed, free });
        }
        // At most 32768 lengths of 32 bits: the sums fit.
        let sum = |segments: &[Segment]| segments.iter().map(|segment| u64::from(segment.length)).sum::<u64>();
        let (readable, writable) = (sum(chain.readable), sum(chain.writable));
        match u32::try_from(readable + writable) {
            Ok(_) => Ok(Self { readable: readable as u32, writable: writable as u32 }),
            Err(_) => Err(Refusal::TooLarge(readable + writable)),
        }
    }

    /// The most bytes that the device may say it used.
    pub(super) const fn limit(self, used: UsedLength) -> u32 {
        match used {
            UsedLength::Strict => self.writable,
            UsedLength::Lenient => self.readable + self.writable,
            UsedLength::Ignored => u32::MAX,
        }
    }
}
