//! A small set of cells that has every combination of a few values that any cell has.

use std::collections::BTreeSet;

use super::cell::{AXES, Cell};

/// Values on some of the axes: a bit for each such axis, and the position on each; 0 on the others.
type Values = (u32, [usize; AXES]);

/// Every combination of values on `count` axes that a cell has.
pub(super) fn combinations(cell: &Cell, count: u32) -> impl Iterator<Item = Values> + use<> {
    let position = cell.position;
    (0u32..1 << AXES).filter(move |axes| axes.count_ones() == count).map(move |axes| {
        let mut values = [0; AXES];
        for axis in (0..AXES).filter(|axis| axes & 1 << axis != 0) {
            values[axis] = position[axis];
        }
        (axes, values)
    })
}

/// A subset of `cells` with all their combinations of `count` values: repeatedly adds the cell with the most new ones,
/// the first of several.
pub(super) fn covering(cells: &[Cell], count: u32) -> Vec<Cell> {
    let mut missing: BTreeSet<Values> = cells.iter().flat_map(|cell| combinations(cell, count)).collect();
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let adds = |cell: &&Cell| combinations(cell, count).filter(|values| missing.contains(values)).count();
        let Some(best) = cells.iter().rev().max_by_key(adds) else { break };
        for values in combinations(best, count) {
            missing.remove(&values);
        }
        chosen.push(*best);
    }
    chosen
}
