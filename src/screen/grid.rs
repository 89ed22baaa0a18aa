//! The characters on a screen, and which of them the screen does not show yet.

use super::{Cell, Rect};

/// The most columns that are used; a screen's other columns stay as they are.
pub(crate) const MOST_COLUMNS: usize = 240;
/// The most rows that are used. A screen of 1920x1200 has that many columns and rows.
pub(crate) const MOST_ROWS: usize = 75;

const CAPACITY: usize = MOST_COLUMNS * MOST_ROWS;
const WORDS: usize = CAPACITY.div_ceil(64);

/// A cell that the screen does not show yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) column: usize,
    pub(crate) row: usize,
    /// What to show.
    pub(crate) cell: Cell,
    /// What is shown, or [`Cell::UNKNOWN`].
    pub(crate) shown: Cell,
}

/// Cells in rows and columns. Writes outside are ignored.
///
/// All zero bits are a grid without cells, so that a static one takes no space in the kernel's file.
pub(crate) struct Grid {
    columns: usize,
    rows: usize,
    cells: [Cell; CAPACITY],
    /// What the screen shows.
    shown: [Cell; CAPACITY],
    /// A bit for each cell that looks different from what is shown.
    changed: [u64; WORDS],
    /// How many those are.
    count: usize,
    /// Where the search for the next one continues, round robin, so that no part of the screen starves others.
    next: usize,
}

impl Grid {
    /// No cells.
    pub(crate) const fn empty() -> Self {
        Self {
            columns: 0,
            rows: 0,
            cells: [Cell::BLANK; CAPACITY],
            shown: [Cell::BLANK; CAPACITY],
            changed: [0; WORDS],
            count: 0,
            next: 0,
        }
    }

    /// Makes it this large, up to the limits, and empty. Every cell counts as changed, since what the screen shows is
    /// unknown.
    pub(crate) fn resize(&mut self, columns: usize, rows: usize) {
        self.columns = columns.min(MOST_COLUMNS);
        self.rows = rows.min(MOST_ROWS);
        self.cells.fill(Cell::BLANK);
        self.assume(Cell::UNKNOWN);
    }

    /// Assumes that the screen shows `cell` everywhere: it was cleared, or its contents are unknown.
    pub(crate) fn assume(&mut self, cell: Cell) {
        self.shown.fill(cell);
        self.changed.fill(0);
        self.count = 0;
        for index in 0..self.columns * self.rows {
            self.compare(index);
        }
    }

    /// All of it.
    pub(crate) const fn area(&self) -> Rect {
        Rect { column: 0, row: 0, columns: self.columns, rows: self.rows }
    }

    /// The contents of a cell.
    pub(crate) fn get(&self, column: usize, row: usize) -> Option<Cell> {
        self.index(column, row).map(|index| self.cells[index])
    }

    /// Sets the contents of a cell.
    pub(crate) fn put(&mut self, column: usize, row: usize, cell: Cell) {
        if let Some(index) = self.index(column, row) {
            self.set(index, cell);
        }
    }

    /// Fills an area.
    pub(crate) fn fill(&mut self, area: Rect, cell: Cell) {
        for row in area.row..area.row + area.rows {
            for column in area.column..area.column + area.columns {
                self.put(column, row, cell);
            }
        }
    }

    /// Moves the contents of an area up by some rows, and empties the rows below.
    pub(crate) fn scroll(&mut self, area: Rect, by: usize) {
        // The log does this with most of its lines, so only cells that exist are visited.
        let (end, bottom) = (self.columns.min(area.column + area.columns), self.rows.min(area.row + area.rows));
        for row in area.row..bottom {
            for column in area.column..end {
                let (to, from) = (row * self.columns + column, (row + by) * self.columns + column);
                let cell = if row + by < bottom { self.cells[from] } else { Cell::BLANK };
                self.set(to, cell);
            }
        }
    }

    /// Whether any cell has changed.
    pub(crate) const fn has_changed(&self) -> bool {
        self.count > 0
    }

    /// How many cells have changed.
    pub(crate) const fn changes(&self) -> usize {
        self.count
    }

    /// Takes a changed cell: from now on it counts as shown.
    pub(crate) fn take_changed(&mut self) -> Option<Change> {
        if self.count == 0 {
            return None;
        }
        let index = self.changed_from(self.next).or_else(|| self.changed_from(0))?;
        self.changed[index / 64] &= !(1 << (index % 64));
        self.count -= 1;
        self.next = index + 1;
        let shown = self.shown[index];
        let cell = self.cells[index].nearest(shown);
        self.shown[index] = cell;
        Some(Change { column: index % self.columns, row: index / self.columns, cell, shown })
    }

    fn changed_from(&self, start: usize) -> Option<usize> {
        let (first, mask) = (start / 64, u64::MAX << (start % 64));
        self.changed.iter().enumerate().skip(first).find_map(|(word, &bits)| {
            let bits = if word == first { bits & mask } else { bits };
            (bits != 0).then(|| word * 64 + bits.trailing_zeros() as usize)
        })
    }

    fn index(&self, column: usize, row: usize) -> Option<usize> {
        (column < self.columns && row < self.rows).then_some(row * self.columns + column)
    }

    fn set(&mut self, index: usize, cell: Cell) {
        if self.cells[index] != cell {
            self.cells[index] = cell;
            self.compare(index);
        }
    }

    /// Records whether a cell looks different from what is shown.
    fn compare(&mut self, index: usize) {
        let (word, bit) = (&mut self.changed[index / 64], 1 << (index % 64));
        self.count -= usize::from(*word & bit != 0);
        *word &= !bit;
        if !self.cells[index].looks_like(self.shown[index]) {
            *word |= bit;
            self.count += 1;
        }
    }
}

#[cfg(test)]
pub(super) mod tests_support {
    use super::*;

    /// The text in an area, row by row, without trailing blanks; `#` for blocks, `|` for lines.
    pub(in crate::screen) fn text_of(grid: &Grid, area: Rect) -> Vec<String> {
        let text = |row| {
            let codes =
                (area.column..area.column + area.columns).filter_map(|column| Some(grid.get(column, row)?.code()));
            let letter = |code| match code {
                0 => ' ',
                Cell::BLOCK => '#',
                Cell::VERTICAL => '|',
                code => char::from(code),
            };
            let line: String = codes.map(letter).collect();
            line.trim_end().to_owned()
        };
        (area.row..area.row + area.rows).map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::screen::Style;

    fn cell(code: u8) -> Cell {
        Cell::new(code, Style::PLAIN)
    }

    /// Takes all that has changed, as a screen would.
    fn draw(grid: &mut Grid, screen: &mut [Cell]) -> usize {
        let mut taken = 0;
        while let Some(Change { column, row, cell, shown }) = grid.take_changed() {
            let on_screen = &mut screen[row * MOST_COLUMNS + column];
            assert!(shown == Cell::UNKNOWN || shown == *on_screen, "{column}, {row}");
            *on_screen = cell;
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_new_size_changes_every_cell_and_what_is_put_changes_one() {
        let mut grid = Grid::empty();
        assert_eq!(grid.take_changed(), None);
        grid.resize(10, 3);
        let mut screen = vec![cell(1); CAPACITY];
        assert_eq!(draw(&mut grid, &mut screen), 30);
        grid.put(4, 1, cell(b'x'));
        grid.put(4, 1, cell(b'x'));
        grid.put(10, 1, cell(b'x'));
        let shown = Cell::BLANK;
        assert_eq!(grid.take_changed(), Some(Change { column: 4, row: 1, cell: cell(b'x'), shown }));
        assert_eq!((grid.take_changed(), grid.has_changed()), (None, false));
        grid.put(4, 1, cell(b'x'));
        assert!(!grid.has_changed());
    }

    #[test]
    fn no_part_keeps_another_waiting() {
        let mut grid = Grid::empty();
        grid.resize(80, 25);
        while grid.take_changed().is_some() {}
        grid.put(79, 24, cell(1));
        // The first cell changes again and again, and is taken at most once before the last one's turn.
        let mut taken = Vec::new();
        for code in 2..6 {
            grid.put(0, 0, cell(code));
            taken.extend(grid.take_changed().map(|change| change.column));
        }
        assert!(taken.iter().position(|&column| column == 79).unwrap() <= 1, "{taken:?}");
    }

    #[test]
    fn what_looks_as_it_did_is_not_drawn() {
        let mut grid = Grid::empty();
        grid.resize(80, 25);
        let plain_blank = Cell::of(' ', Style::PLAIN);
        // As firmware clears a text mode.
        grid.assume(plain_blank);
        assert!(!grid.has_changed());
        grid.fill(grid.area(), Cell::of(' ', Style::STRONG));
        assert!(!grid.has_changed());
        grid.put(3, 0, cell(b'x'));
        grid.put(3, 0, Cell::BLANK);
        assert!(!grid.has_changed(), "it went before it was drawn");
        grid.put(3, 0, cell(b'x'));
        assert_eq!(grid.take_changed().map(|change| change.shown), Some(plain_blank));
        // The colour of what is not seen stays.
        grid.put(3, 0, Cell::BLANK);
        let change = grid.take_changed().unwrap();
        assert_eq!((change.cell, change.shown), (Cell::new(0, Style::PLAIN), cell(b'x')));
        grid.put(3, 0, Cell::of(' ', Style::TITLE));
        assert_eq!(grid.changes(), 1, "another background is seen");
    }

    #[test]
    fn a_grid_is_no_larger_than_it_can_be() {
        let mut grid = Grid::empty();
        grid.resize(1000, 1000);
        assert_eq!(grid.area(), Rect { column: 0, row: 0, columns: MOST_COLUMNS, rows: MOST_ROWS });
    }

    proptest! {
        /// After any operations the taken cells add up to the contents.
        #[test]
        fn what_was_taken_is_what_stands_there(
            size in (0..90usize, 0..30usize),
            steps in prop::collection::vec((0..3u8, 0..100usize, 0..40usize, 0..40usize, any::<u8>()), 0..20),
        ) {
            let mut grid = Grid::empty();
            grid.resize(size.0, size.1);
            let mut screen = vec![cell(1); CAPACITY];
            for (step, column, row, extent, code) in steps {
                let area = Rect { column, row, columns: extent, rows: extent / 2 };
                match step {
                    0 => grid.put(column, row, cell(code)),
                    1 => grid.fill(area, cell(code)),
                    _ => grid.scroll(area, usize::from(code % 7)),
                }
                if code % 3 == 0 {
                    draw(&mut grid, &mut screen);
                }
            }
            draw(&mut grid, &mut screen);
            for row in 0..size.1 {
                for column in 0..size.0 {
                    let seen = screen[row * MOST_COLUMNS + column];
                    prop_assert!(grid.get(column, row).is_some_and(|cell| cell.looks_like(seen)), "{seen:?}");
                }
            }
        }
    }
}
