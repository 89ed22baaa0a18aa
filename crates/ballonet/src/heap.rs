//! Heap memory whose absence is an error: what a start allocates, in sizes that options or devices decide.

use alloc::vec::Vec;

use crate::bus::DmaExhausted;

/// An empty vector with room for `count` values.
///
/// # Errors
/// When the heap has no room; size and alignment are those of the values.
pub(crate) fn vector<T>(count: usize) -> Result<Vec<T>, DmaExhausted> {
    let mut values = Vec::new();
    let exhausted = DmaExhausted { size: count.saturating_mul(size_of::<T>()), align: align_of::<T>() };
    values.try_reserve_exact(count).map_err(|_| exhausted)?;
    Ok(values)
}
