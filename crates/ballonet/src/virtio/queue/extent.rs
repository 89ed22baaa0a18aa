//! The size of a chain's memory, and whether a queue may carry it.

use super::chain::{Chain, Segment};
use super::error::Refusal;
use super::options::UsedLength;

/// Bytes of a request that the device may read and write; less than 2^32 in total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) readable: u32,
    pub(super) writable: u32,
}

/// Total length in bytes; `None` if a segment is empty.
#[inline]
fn sum(segments: &[Segment]) -> Option<u64> {
    let mut sum = 0;
    for segment in segments {
        if segment.length == 0 {
            return None;
        }
        // At most 32768 lengths of 32 bits: the sum fits.
        sum += u64::from(segment.length);
    }
    Some(sum)
}

impl Extent {
    /// The extent of a chain that takes `needed` of the `free` descriptors of a queue of `size`.
    #[inline]
    pub(super) fn check(chain: &Chain<'_>, needed: usize, free: u16, size: u16) -> Result<Self, Refusal> {
        let length = chain.len();
        if length > usize::from(size) {
            return Err(Refusal::TooLong { length, size });
        }
        let (Some(readable), Some(writable), false) = (sum(chain.readable), sum(chain.writable), chain.is_empty())
        else {
            return Err(Refusal::Empty);
        };
        if needed > usize::from(free) {
            return Err(Refusal::Full { needed, free });
        }
        match u32::try_from(readable + writable) {
            Ok(_) => Ok(Self { readable: readable as u32, writable: writable as u32 }),
            Err(_) => Err(Refusal::TooLarge(readable + writable)),
        }
    }

    /// The largest used length that is valid.
    #[inline]
    pub(super) const fn limit(self, used: UsedLength) -> u32 {
        match used {
            UsedLength::Strict => self.writable,
            UsedLength::Lenient => self.readable + self.writable,
            UsedLength::Ignored => u32::MAX,
        }
    }
}
