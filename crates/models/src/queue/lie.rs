//! Lies that a hostile device tells in the used ring.

/// A lie told in the used ring instead of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// An id beyond the queue.
    IdOutOfRange,
    /// An id that names a descriptor that is not in flight.
    IdNotInFlight,
    /// The id of the previous request again.
    IdRepeated,
    /// More bytes written than the request has writable ones (it has none).
    LengthTooLong,
    /// The id of a later request, though `IN_ORDER` was accepted.
    OutOfOrder,
    /// The index jumps by more than the queue holds. On a packed ring: flags that belong to no lap.
    IndexJumps,
    /// The index moves back. On a packed ring: the used flags of the lap before.
    IndexGoesBack,
}

impl Lie {
    pub const ALL: [Self; 7] = [
        Self::IdOutOfRange,
        Self::IdNotInFlight,
        Self::IdRepeated,
        Self::LengthTooLong,
        Self::OutOfOrder,
        Self::IndexJumps,
        Self::IndexGoesBack,
    ];
}
