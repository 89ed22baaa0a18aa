//! Where the memory of the machine ends.

/// The ends of the machine's memory: addresses of the first byte that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEnds {
    /// Of the memory below 4 GiB.
    pub low: u64,
    /// Of all memory: the same if there is none above 4 GiB.
    pub high: u64,
}
