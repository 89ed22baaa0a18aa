//! Selects a small set of cells that has every combination of a few values that any cell has.

use std::collections::BTreeSet;

/// Something with a position on each of several axes.
pub(crate) trait Positioned: Copy {
    /// Its position on each axis. All compared values have the same axes, at most 16.
    fn position(&self) -> &[usize];
}

/// The positions of combination `number` on axes of these sizes: its digits, the first axis's first.
pub(crate) fn digits<const AXES: usize>(mut number: usize, sizes: [usize; AXES]) -> [usize; AXES] {
    sizes.map(|size| {
        let digit = number % size;
        number /= size;
        digit
    })
}

/// Values on some of the axes: a bit mask of the axes, and the position on each.
type Values = (u32, Vec<usize>);

/// Every combination of `count` values that a cell has.
fn combinations<C: Positioned>(cell: &C, count: u32) -> impl Iterator<Item = Values> + use<C> {
    let position = cell.position().to_vec();
    (0u32..1 << position.len()).filter(move |axes| axes.count_ones() == count).map(move |axes| {
        let chosen = position.iter().enumerate().filter(|(axis, _)| axes & 1 << axis != 0);
        (axes, chosen.map(|(_, value)| *value).collect())
    })
}

/// A subset of `cells` that has every combination of `count` values found in `cells`. Greedy: repeatedly adds the
/// cell with the most new combinations; among equals, the first.
pub(crate) fn covering<C: Positioned>(cells: &[C], count: u32) -> Vec<C> {
    let mut missing: BTreeSet<Values> = cells.iter().flat_map(|cell| combinations(cell, count)).collect();
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let adds = |cell: &&C| combinations(*cell, count).filter(|values| missing.contains(values)).count();
        let Some(best) = cells.iter().rev().max_by_key(adds) else { break };
        for values in combinations(best, count) {
            missing.remove(&values);
        }
        chosen.push(*best);
    }
    chosen
}
