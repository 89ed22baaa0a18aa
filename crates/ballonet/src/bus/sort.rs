//! A small sort for lists that nobody waits for. The standard library's is faster and has 5 KiB of code for each type,
//! several in a kernel; this one has 300 bytes.

/// Sorts by `key` in place, without an allocation and in O(n log n) steps. Equals end up in any order.
pub(crate) fn by_key<T, K: Ord>(values: &mut [T], key: impl Fn(&T) -> K) {
    // A heap sort: first the greatest of each subtree rises to its root, then root after root goes to the end.
    for root in (0..values.len() / 2).rev() {
        sink(values, root, &key);
    }
    for end in (1..values.len()).rev() {
        values.swap(0, end);
        sink(&mut values[..end], 0, &key);
    }
}

/// Makes a heap of the subtree at `root`, whose two subtrees are heaps.
fn sink<T, K: Ord>(values: &mut [T], mut root: usize, key: &impl Fn(&T) -> K) {
    loop {
        let mut greatest = root;
        for child in [2 * root + 1, 2 * root + 2] {
            if child < values.len() && key(&values[child]) > key(&values[greatest]) {
                greatest = child;
            }
        }
        if greatest == root {
            return;
        }
        values.swap(root, greatest);
        root = greatest;
    }
}

#[cfg(test)]
mod tests {
    use super::by_key;
    use core::cmp::Reverse;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_sorts_as_the_standard_library_does(values in prop::collection::vec(0..50u8, 0..80)) {
            let (mut expected, mut sorted) = (values.clone(), values);
            expected.sort_unstable();
            by_key(&mut sorted, |value| *value);
            prop_assert_eq!(&sorted, &expected);
            expected.reverse();
            by_key(&mut sorted, |value| Reverse(*value));
            prop_assert_eq!(sorted, expected);
        }
    }
}
