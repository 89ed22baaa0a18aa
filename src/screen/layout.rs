//! The areas of the screen.

/// An area of cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rect {
    /// The first column.
    pub column: usize,
    /// The first row.
    pub row: usize,
    /// How many columns.
    pub columns: usize,
    /// How many rows.
    pub rows: usize,
}

/// The areas of the screen. An area that is missing has no cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScreenLayout {
    /// The line at the top.
    pub title: Rect,
    /// The log.
    pub log: Rect,
    /// The line between log and picture.
    pub rule: Rect,
    /// The picture of the balloon.
    pub status: Rect,
    /// The line at the bottom: the line being typed.
    pub prompt: Rect,
}

/// Columns of the picture.
const STATUS: usize = 30;
/// A log narrower than this is hard to read: then it gets the whole width.
const NARROWEST_LOG: usize = 40;
/// With fewer rows the log gets all of them.
const FEWEST_ROWS: usize = 8;

impl ScreenLayout {
    /// No area has cells.
    pub(crate) const fn empty() -> Self {
        const NONE: Rect = Rect { column: 0, row: 0, columns: 0, rows: 0 };
        Self { title: NONE, log: NONE, rule: NONE, status: NONE, prompt: NONE }
    }

    /// Divides a screen.
    pub fn of(area: Rect) -> Self {
        if area.rows < FEWEST_ROWS {
            return Self { log: area, ..Self::empty() };
        }
        let line = |row| Rect { row, rows: 1, ..area };
        let (title, prompt) = (line(area.row), line(area.row + area.rows - 1));
        let middle = Rect { row: area.row + 1, rows: area.rows - 2, ..area };
        if area.columns < NARROWEST_LOG + 1 + STATUS {
            return Self { title, log: middle, prompt, ..Self::empty() };
        }
        let log = Rect { columns: area.columns - STATUS - 1, ..middle };
        let rule = Rect { column: log.column + log.columns, columns: 1, ..middle };
        let status = Rect { column: rule.column + 1, columns: STATUS, ..middle };
        Self { title, log, rule, status, prompt }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(columns: usize, rows: usize) -> Rect {
        Rect { column: 0, row: 0, columns, rows }
    }

    #[test]
    fn log_and_picture_are_side_by_side() {
        let layout = ScreenLayout::of(screen(80, 25));
        assert_eq!(layout.log, Rect { column: 0, row: 1, columns: 49, rows: 23 });
        assert_eq!(layout.status, Rect { column: 50, row: 1, columns: 30, rows: 23 });
        assert_eq!((layout.title.row, layout.prompt.row, layout.rule.column), (0, 24, 49));
    }

    #[test]
    fn a_small_screen_is_all_log() {
        assert_eq!(ScreenLayout::of(screen(40, 25)).log.columns, 40);
        assert_eq!(ScreenLayout::of(screen(80, 5)).log, screen(80, 5));
        assert_eq!(ScreenLayout::of(screen(0, 0)), ScreenLayout::empty());
    }

    #[test]
    fn each_cell_is_in_one_area() {
        for (columns, rows) in [(80, 25), (128, 48), (200, 64), (71, 8), (70, 8), (1, 1), (30, 7)] {
            let layout = ScreenLayout::of(screen(columns, rows));
            let areas = [layout.title, layout.log, layout.rule, layout.status, layout.prompt];
            for row in 0..rows {
                for column in 0..columns {
                    let inside = |area: &&Rect| {
                        (area.column..area.column + area.columns).contains(&column)
                            && (area.row..area.row + area.rows).contains(&row)
                    };
                    assert_eq!(areas.iter().filter(inside).count(), 1, "{column}, {row} of {columns}x{rows}");
                }
            }
        }
    }
}
