//! A map in a sorted vector: unlike the standard library's, it says when the heap has no room.

use alloc::vec::Vec;

use crate::bus::{OutOfMemory, heap};

/// Values by key, in order of the keys.
#[derive(Debug, Clone)]
pub(super) struct SortedMap<K, V>(Vec<(K, V)>);

impl<K: Ord + Copy, V> SortedMap<K, V> {
    /// An empty map.
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    fn find(&self, key: K) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |(key, _)| *key)
    }

    /// The value of a key.
    pub(super) fn get(&self, key: K) -> Option<&V> {
        self.find(key).ok().map(|place| &self.0[place].1)
    }

    /// The value of a key, to change.
    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.find(key).ok().map(|place| &mut self.0[place].1)
    }

    /// The value of a key, which `make` makes if there is none.
    ///
    /// # Errors
    /// When the heap has no room for it.
    pub(super) fn or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> Result<&mut V, OutOfMemory> {
        let place = match self.find(key) {
            Ok(place) => place,
            Err(place) => {
                heap::make_room(&mut self.0)?;
                self.0.insert(place, (key, make()));
                place
            }
        };
        Ok(&mut self.0[place].1)
    }

    /// All values, in order of their keys.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (K, &V)> {
        self.0.iter().map(|(key, value)| (*key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_key_and_listed_in_order() {
        let mut map = SortedMap::new();
        for key in [5, 1, 9, 5, 3] {
            *map.or_insert_with(key, || 0).unwrap() += key;
        }
        assert_eq!(map.iter().map(|(key, value)| (key, *value)).collect::<Vec<_>>(), [(1, 1), (3, 3), (5, 10), (9, 9)]);
        *map.get_mut(3).unwrap() = 7;
        assert_eq!((map.get(3), map.get(4)), (Some(&7), None));
        assert_eq!(map.get_mut(0), None);
    }
}
