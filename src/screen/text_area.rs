//! An area of running text: line after line, wrapped, moving up when the area is full.

use core::fmt;

use super::{Cell, Grid, MOST_COLUMNS, Rect, Style};

/// Columns by which the continuation of a line is indented.
const INDENT: usize = 2;

/// An area that text is written into. All zero bits are one without room.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TextArea {
    area: Rect,
    column: usize,
    row: usize,
    /// The last line has ended; the next character begins another. So the bottom row is never empty.
    ended: bool,
}

/// How far text moves up when the area is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advance {
    /// By half of the area: cheap if every step is drawn at once. The first variant, so that it is all zero bits.
    Half,
    /// By a third of the area: the newest lines stay in view, and it costs a sixth of scrolling row by row.
    Third,
    /// By a row: easy to follow.
    Line,
}

impl TextArea {
    /// An area, from its top.
    pub(crate) const fn new(area: Rect) -> Self {
        Self { area, column: 0, row: 0, ended: false }
    }

    /// A writer for `write!`.
    pub(crate) const fn writer<'a>(&'a mut self, grid: &'a mut Grid, style: Style, advance: Advance) -> Writer<'a> {
        Writer { area: self, grid, style, advance }
    }

    /// Moves the text up until it takes `rows` rows at most. Returns how many it takes.
    pub(crate) fn keep_last(&mut self, grid: &mut Grid, rows: usize) -> usize {
        let taken = if self.row > 0 || self.column > 0 { self.row + 1 } else { 0 };
        let excess = taken.saturating_sub(rows);
        grid.scroll(self.area, excess);
        self.row -= excess.min(self.row);
        taken - excess
    }

    /// Ends the line.
    pub(crate) const fn end_line(&mut self) {
        self.ended = true;
    }

    /// The number of rows of a line.
    pub(crate) fn rows_of(&self, line: &str) -> usize {
        let columns = self.area.columns;
        if columns == 0 {
            return 0;
        }
        let (mut rows, mut column, mut word) = (1, 0, 0);
        for character in line.chars() {
            if column == columns {
                rows += 1;
                column = self.indent();
                word = if character == ' ' { column } else { column + self.carried(word) };
                column = word;
                if character == ' ' {
                    continue;
                }
            }
            column += 1;
            word = if character == ' ' { 0 } else { word + 1 };
        }
        rows
    }

    /// How much of a word that has `length` columns at the end of a row moves to the next row: all of it, unless it is
    /// long.
    fn carried(&self, length: usize) -> usize {
        let columns = self.area.columns;
        let longest = (columns / 2).min(MOST_COLUMNS / 2);
        if length > longest || length + INDENT >= columns { 0 } else { length }
    }

    fn write(&mut self, grid: &mut Grid, character: char, style: Style, advance: Advance) {
        if self.area.columns == 0 || self.area.rows == 0 {
            return;
        }
        if self.ended {
            self.ended = false;
            self.next_row(grid, 0, advance);
        }
        if character == '\n' {
            self.ended = true;
            return;
        }
        if self.column == self.area.columns {
            // A space at the end of a row need not be written.
            if character == ' ' {
                self.next_row(grid, self.indent(), advance);
                return;
            }
            self.wrap(grid, advance);
        }
        let cell = Cell::of(if character == '\t' { ' ' } else { character }, style);
        grid.put(self.area.column + self.column, self.area.row + self.row, cell);
        self.column += 1;
    }

    /// Continues in the next row, with the word that has begun at the end of this one, unless that is long.
    fn wrap(&mut self, grid: &mut Grid, advance: Advance) {
        let (row, end) = (self.area.row + self.row, self.area.column + self.area.columns);
        let mut word = [Cell::BLANK; MOST_COLUMNS / 2];
        let cells = (0..self.area.columns).map_while(|back| grid.get(end - 1 - back, row));
        let length = cells.take_while(|cell| cell.code() != b' ').count();
        let length = self.carried(length);
        for (index, cell) in word.iter_mut().take(length).enumerate() {
            let column = end - length + index;
            *cell = grid.get(column, row).unwrap_or_default();
            grid.put(column, row, Cell::BLANK);
        }
        self.next_row(grid, self.indent(), advance);
        for cell in word.into_iter().take(length) {
            grid.put(self.area.column + self.column, self.area.row + self.row, cell);
            self.column += 1;
        }
    }

    fn indent(&self) -> usize {
        INDENT.min(self.area.columns - 1)
    }

    fn next_row(&mut self, grid: &mut Grid, column: usize, advance: Advance) {
        self.column = column;
        self.row += 1;
        if self.row == self.area.rows {
            let by = match advance {
                Advance::Line => 1,
                Advance::Third => self.area.rows.div_ceil(3),
                Advance::Half => self.area.rows.div_ceil(2),
            };
            grid.scroll(self.area, by);
            self.row -= by;
        }
    }
}

/// Writes text into a [`TextArea`] on a grid.
pub(crate) struct Writer<'a> {
    area: &'a mut TextArea,
    grid: &'a mut Grid,
    style: Style,
    advance: Advance,
}

impl fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars().filter(|&character| character != '\r') {
            self.area.write(self.grid, character, self.style, self.advance);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use core::fmt::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::screen::MOST_ROWS;
    use crate::screen::grid::tests_support::text_of;

    fn write(columns: usize, rows: usize, advance: Advance, text: &str) -> Vec<String> {
        let mut grid = Grid::empty();
        grid.resize(columns + 2, rows + 2);
        let area = Rect { column: 1, row: 1, columns, rows };
        TextArea::new(area).writer(&mut grid, Style::PLAIN, advance).write_str(text).unwrap();
        text_of(&grid, area)
    }

    #[test]
    fn lines_wrap_and_are_indented() {
        assert_eq!(write(6, 4, Advance::Line, "abcdefghij\r\nk\tl"), ["abcdef", "  ghij", "k l", ""]);
    }

    #[test]
    fn lines_wrap_between_words() {
        assert_eq!(write(10, 3, Advance::Line, "one two three four"), ["one two", "  three", "  four"]);
        assert_eq!(write(7, 3, Advance::Line, "one two three"), ["one two", "  three", ""]);
        assert_eq!(write(10, 1, Advance::Line, "one two three four"), ["  four"]);
        assert_eq!(write(3, 3, Advance::Line, "a bcd"), ["a b", "  c", "  d"]);
    }

    #[test]
    fn a_full_area_moves_up_by_a_row_or_by_half() {
        assert_eq!(write(4, 3, Advance::Line, "1\n2\n3\n4\n"), ["2", "3", "4"]);
        assert_eq!(write(4, 4, Advance::Half, "1\n2\n3\n4\n5"), ["3", "4", "5", ""]);
        assert_eq!(write(4, 1, Advance::Half, "1\n2\n3"), ["3"]);
        assert_eq!(write(4, 6, Advance::Third, "1\n2\n3\n4\n5\n6\n7"), ["3", "4", "5", "6", "7", ""]);
    }

    #[test]
    fn an_end_of_line_alone_does_not_move_it() {
        assert_eq!(write(4, 2, Advance::Line, "1\n2\n"), ["1", "2"]);
        assert_eq!(write(4, 3, Advance::Line, "\n\n1"), ["", "", "1"]);
    }

    proptest! {
        #[test]
        fn rows_are_counted_as_they_are_written(columns in 0..40usize, line in "([!-~]{0,12} {0,2}){0,12}") {
            let mut grid = Grid::empty();
            grid.resize(columns, MOST_ROWS);
            let mut area = TextArea::new(grid.area());
            let counted = area.rows_of(&line);
            prop_assume!(counted < MOST_ROWS);
            area.writer(&mut grid, Style::PLAIN, Advance::Line).write_str(&line).unwrap();
            prop_assert_eq!(counted, if columns == 0 { 0 } else { area.row + 1 });
        }

        #[test]
        fn text_stays_inside(columns in 0..9usize, rows in 0..5usize, half: bool, text: String) {
            let advance = if half { Advance::Half } else { Advance::Line };
            let mut grid = Grid::empty();
            grid.resize(columns + 2, rows + 2);
            let area = Rect { column: 1, row: 1, columns, rows };
            TextArea::new(area).writer(&mut grid, Style::PLAIN, advance).write_str(&text).unwrap();
            let all = grid.area();
            for (row, column) in (0..all.rows).flat_map(|row| (0..all.columns).map(move |column| (row, column))) {
                let inside = (1..=columns).contains(&column) && (1..=rows).contains(&row);
                prop_assert!(inside || grid.get(column, row) == Some(Cell::BLANK));
            }
        }
    }
}
