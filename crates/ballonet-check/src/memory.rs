//! Where the memory of the machine ends.

/// The ends of the machine's memory: the addresses of the first byte past it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEnds {
    /// Of the memory below 4 GiB.
    pub low: u64,
    /// Of all memory; equal to `low` if there is none above 4 GiB.
    pub high: u64,
}
