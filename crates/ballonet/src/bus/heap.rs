//! Heap memory whose absence is an error: everything that a driver allocates goes through here.

use alloc::vec::Vec;

use super::OutOfMemory;

/// An empty vector with room for `count` values.
///
/// # Errors
/// When the heap has no room.
pub(crate) fn vector<T>(count: usize) -> Result<Vec<T>, OutOfMemory> {
    let mut values = Vec::new();
    reserve(&mut values, count)?;
    Ok(values)
}

/// Makes room for `more` values.
///
/// # Errors
/// When the heap has no room; the values stay as they are.
pub(crate) fn reserve<T>(values: &mut Vec<T>, more: usize) -> Result<(), OutOfMemory> {
    let bytes = values.len().saturating_add(more).saturating_mul(size_of::<T>());
    values.try_reserve_exact(more).map_err(|_| OutOfMemory::Heap(bytes))
}

/// Makes room for another value of a list that may become long: in steps, so that not every value moves the others.
///
/// # Errors
/// When the heap has no room; the values stay as they are.
pub(crate) fn make_room<T>(values: &mut Vec<T>) -> Result<(), OutOfMemory> {
    let bytes = values.len().saturating_add(1).saturating_mul(size_of::<T>());
    values.try_reserve(1).map_err(|_| OutOfMemory::Heap(bytes))
}

/// Adds a value to a list that may become long.
///
/// # Errors
/// When the heap has no room for it.
pub(crate) fn append<T>(values: &mut Vec<T>, value: T) -> Result<(), OutOfMemory> {
    make_room(values)?;
    values.push(value);
    Ok(())
}

/// Adds a value.
///
/// # Errors
/// When the heap has no room for it.
pub(crate) fn push<T>(values: &mut Vec<T>, value: T) -> Result<(), OutOfMemory> {
    reserve(values, 1)?;
    values.push(value);
    Ok(())
}
