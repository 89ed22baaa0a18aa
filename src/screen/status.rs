//! The picture of the balloon: the shares of memory, the movement under way, and the interrupts.

use core::fmt::{self, Write};

use super::{Cell, Colour, Grid, Rect, Style};
use crate::console::Movement;

/// Memory in bytes, by owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shares {
    /// Used by the kernel and its programs.
    pub used: u64,
    /// Free.
    pub free: u64,
    /// Free, and reported to the host.
    pub reported: u64,
    /// Ballooned: the host's.
    pub ballooned: u64,
}

/// What the picture shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Status<'a> {
    /// The shares of memory.
    pub shares: Shares,
    /// The sum of the hosts' targets, in bytes; `None` without a balloon.
    pub target: Option<u64>,
    /// A device is silent, so that its host's target is not known.
    pub silent: bool,
    /// The movement in progress, or the last one.
    pub movement: Option<Movement>,
    /// A problem of a balloon, or an unusual state.
    pub note: &'a str,
    /// The machine's names: instead of the balloon's status if there is no balloon, else if there is room.
    pub facts: &'a [Fact<'a>],
}

/// A fact about the machine, with its label.
pub(crate) type Fact<'a> = (&'a str, &'a str);

impl Shares {
    /// Each with its name and colour, in the order in which the bar has them.
    pub const fn parts(&self) -> [(&'static str, u64, Colour); 4] {
        [
            ("used", self.used, Colour::LightRed),
            ("free", self.free, Colour::LightGreen),
            ("reported", self.reported, Colour::LightCyan),
            ("ballooned", self.ballooned, Colour::LightMagenta),
        ]
    }

    /// Divides `cells` cells among the shares. Every share that is not 0 has at least one.
    pub(crate) fn cells(&self, cells: usize) -> [usize; 4] {
        let parts = self.parts().map(|(_, bytes, _)| bytes);
        let total: u128 = parts.iter().map(|&bytes| u128::from(bytes)).sum();
        if total == 0 || cells < parts.len() {
            return [0; 4];
        }
        let mut divided = parts.map(|bytes| {
            let share = (u128::from(bytes) * cells as u128 / total) as usize;
            share.max(usize::from(bytes > 0))
        });
        // Rounding leaves a few cells over, or uses a few too many: the largest share is corrected.
        let largest = (0..parts.len()).max_by_key(|&part| parts[part]).unwrap_or(0);
        let others: usize =
            divided.iter().enumerate().filter(|(part, _)| *part != largest).map(|(_, cells)| cells).sum();
        divided[largest] = cells.saturating_sub(others);
        divided
    }
}

const MIB: u64 = 1 << 20;
/// Rows of the bar.
const BAR: usize = 3;
/// Columns left free at either side.
const MARGIN: usize = 1;

/// Draws the picture: the balloon, then each interrupt's name and count as far as there is room.
pub(super) fn draw<'i>(
    grid: &mut Grid,
    area: Rect,
    status: &Status<'_>,
    interrupts: impl Iterator<Item = (&'i str, u64)>,
) {
    if area.columns == 0 {
        return;
    }
    let mut pen = Pen { grid, area, row: 0 };
    pen.line(Style::STRONG, format_args!("MEMORY"));
    pen.bar(&status.shares);
    for (name, bytes, colour) in status.shares.parts() {
        pen.part(colour, name, bytes);
    }
    pen.line(Style::PLAIN, format_args!(""));
    match status.target {
        Some(target) => pen.balloon(target, status),
        None => {
            pen.facts(status.facts);
            pen.line(Style::PLAIN, format_args!("no balloon"));
        }
    }
    pen.line(Style::WARNING, format_args!("{}", status.note));
    pen.line(Style::STRONG, format_args!("INTERRUPTS"));
    for (name, count) in interrupts {
        pen.line(Style::PLAIN, format_args!("{name:<17.17}{count:>11}"));
    }
    if status.target.is_some() {
        pen.line(Style::PLAIN, format_args!(""));
        pen.facts(status.facts);
    }
    pen.blank_rest();
}

/// Draws only the machine's names.
pub(super) fn draw_facts(grid: &mut Grid, area: Rect, facts: &[Fact<'_>]) {
    let mut pen = Pen { grid, area, row: 0 };
    pen.facts(facts);
    pen.blank_rest();
}

/// Draws row after row.
struct Pen<'a> {
    grid: &'a mut Grid,
    area: Rect,
    row: usize,
}

impl Pen<'_> {
    /// The next row, within the margins; `None` when there is no room.
    fn next_row(&mut self) -> Option<Rect> {
        let inside = self.row < self.area.rows && self.area.columns > 2 * MARGIN;
        let row = Rect {
            column: self.area.column + MARGIN,
            row: self.area.row + self.row,
            columns: self.area.columns.saturating_sub(2 * MARGIN),
            rows: 1,
        };
        self.row += 1;
        inside.then_some(row)
    }

    /// Writes a row, cut off where it ends.
    fn line(&mut self, style: Style, text: fmt::Arguments<'_>) {
        if let Some(row) = self.next_row() {
            put_line(self.grid, row, style, text);
        }
    }

    fn balloon(&mut self, target: u64, status: &Status<'_>) {
        self.line(Style::STRONG, format_args!("BALLOON"));
        if status.silent {
            self.line(Style::PLAIN, format_args!("{:<9}{:>19}", "target", "not known"));
        } else {
            self.line(Style::PLAIN, format_args!("{:<9}{:>15} MiB", "target", target / MIB));
        }
        match status.movement {
            Some(movement) => {
                let (done, rate) = (movement.percent(), movement.rate());
                let direction = movement.direction();
                self.line(
                    Style::PLAIN,
                    format_args!("{direction} {done:>3} % {:>3}.{:02} GiB/s", rate / 100, rate % 100),
                );
            }
            None => self.line(Style::PLAIN, format_args!("")),
        }
    }

    /// Writes each fact's label above its text, which takes as many rows as it needs.
    fn facts(&mut self, facts: &[Fact<'_>]) {
        for (what, name) in facts {
            self.line(Style::STRONG, format_args!("{what}"));
            let columns = self.area.columns.saturating_sub(2 * MARGIN).max(1);
            let mut rest = *name;
            while !rest.is_empty() {
                let (line, behind) = break_line(rest, columns);
                self.line(Style::PLAIN, format_args!("{line}"));
                rest = behind;
            }
        }
    }

    fn blank_rest(&mut self) {
        while self.row < self.area.rows {
            self.line(Style::PLAIN, format_args!(""));
        }
    }

    fn part(&mut self, colour: Colour, name: &str, bytes: u64) {
        if let Some(row) = self.next_row() {
            self.grid.put(row.column, row.row, Cell::new(Cell::BLOCK, Style::new(colour, Colour::Black)));
            let rest = Rect { column: row.column + 1, columns: row.columns.saturating_sub(1), ..row };
            put_line(self.grid, rest, Style::PLAIN, format_args!(" {name:<9}{:>13} MiB", bytes / MIB));
        }
    }

    /// Fills column by column, so that three rows show three times as many steps as one.
    fn bar(&mut self, shares: &Shares) {
        let Some(first) = self.next_row() else { return };
        let height = BAR.min(self.area.row + self.area.rows - first.row);
        self.row += BAR - 1;
        let cells = shares.cells(first.columns * height);
        let mut place = 0;
        for ((_, _, colour), count) in shares.parts().into_iter().zip(cells) {
            for index in place..place + count {
                let cell = Cell::new(Cell::BLOCK, Style::new(colour, Colour::Black));
                self.grid.put(first.column + index / height, first.row + index % height, cell);
            }
            place += count;
        }
    }
}

/// Splits `text` after at most the given columns, at least one, and between words if possible.
fn break_line(text: &str, columns: usize) -> (&str, &str) {
    let Some((end, _)) = text.char_indices().nth(columns) else { return (text, "") };
    let (line, behind) = text.split_at_checked(end).unwrap_or((text, ""));
    if behind.starts_with(' ') {
        return (line, behind.trim_start());
    }
    match line.rfind(' ').and_then(|space| text.split_at_checked(space)) {
        Some((line, behind)) if !line.is_empty() => (line, behind.trim_start()),
        _ => (line, behind),
    }
}

/// Writes a line into a row, and blanks behind it.
pub(super) fn put_line(grid: &mut Grid, row: Rect, style: Style, text: fmt::Arguments<'_>) {
    let mut line = Line { grid, row, style, column: 0 };
    // What does not fit is cut off.
    let _ = line.write_fmt(text);
    while line.column < row.columns {
        let _ = line.write_char(' ');
    }
}

struct Line<'a> {
    grid: &'a mut Grid,
    row: Rect,
    style: Style,
    column: usize,
}

impl fmt::Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.column == self.row.columns {
                return Err(fmt::Error);
            }
            self.grid.put(self.row.column + self.column, self.row.row, Cell::of(character, self.style));
            self.column += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::screen::grid::tests_support::text_of;

    const AREA: Rect = Rect { column: 2, row: 1, columns: 30, rows: 20 };
    const FACTS: [Fact<'static>; 2] = [("CPU", "Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz"), ("FIRMWARE", "SeaBIOS")];

    fn status() -> Status<'static> {
        let mut movement = Movement::begin(0, 256 * MIB, 0);
        movement.advance(128 * MIB, 100_000_000);
        let shares = Shares { used: 12 * MIB, free: 4 * MIB, reported: 368 * MIB, ballooned: 128 * MIB };
        Status {
            shares,
            target: Some(256 * MIB),
            silent: false,
            movement: Some(movement),
            note: "frozen",
            facts: &FACTS,
        }
    }

    fn drawn(status: &Status<'_>, area: Rect) -> (Grid, Vec<String>) {
        let mut grid = Grid::empty();
        grid.resize(40, 24);
        draw(&mut grid, area, status, [("virtio0-inflate-and-more", 12), ("serial", 3)].into_iter());
        let text = text_of(&grid, area);
        (grid, text)
    }

    #[test]
    fn everything_is_said_in_words() {
        let (_, text) = drawn(&status(), AREA);
        assert_eq!(text[4], " # used                12 MiB");
        assert_eq!(text[7], " # ballooned          128 MiB");
        assert_eq!(text[10], " target               256 MiB");
        assert_eq!(text[11], " inflating  50 %   1.25 GiB/s");
        assert_eq!(
            text[12..16],
            [" frozen", " INTERRUPTS", " virtio0-inflate-a         12", " serial                     3"]
        );
        assert_eq!(text[16..20], ["", " CPU", " Intel(R) Core(TM) i7-8550U", " CPU @ 1.80GHz"]);
        let (_, text) = drawn(&Status { silent: true, ..status() }, AREA);
        assert_eq!(text[10], " target             not known");
    }

    /// Without a balloon the machine takes its place.
    #[test]
    fn without_a_balloon_the_machine_is_shown() {
        let (_, text) = drawn(&Status { target: None, movement: None, note: "", ..status() }, AREA);
        let machine = [" CPU", " Intel(R) Core(TM) i7-8550U", " CPU @ 1.80GHz", " FIRMWARE", " SeaBIOS", " no balloon"];
        assert_eq!(text[9..15], machine);
        assert_eq!(text[15..17], ["", " INTERRUPTS"]);
        let mut grid = Grid::empty();
        grid.resize(40, 24);
        draw_facts(&mut grid, AREA, &FACTS);
        assert_eq!(text_of(&grid, AREA)[..6], [&machine[..5], &[""]].concat());
        // Nothing of that is left when the picture takes its place.
        draw(&mut grid, AREA, &status(), [("virtio0-inflate-and-more", 12), ("serial", 3)].into_iter());
        assert_eq!(text_of(&grid, AREA), drawn(&status(), AREA).1);
    }

    #[test]
    fn names_break_between_words() {
        assert_eq!(break_line("one two three", 7), ("one two", "three"));
        assert_eq!(break_line("one two three", 6), ("one", "two three"));
        assert_eq!(break_line("longer", 4), ("long", "er"));
        assert_eq!(break_line(" onetwo", 3), (" on", "etwo"));
        assert_eq!(break_line("short", 9), ("short", ""));
    }

    #[test]
    fn the_bar_is_divided_as_the_memory_is() {
        let (grid, _) = drawn(&status(), AREA);
        let cells = |colour: Colour| {
            let places = (1..4).flat_map(|row| (0..40).map(move |column| (column, row + 1)));
            let of =
                |place: &(usize, usize)| grid.get(place.0, place.1).is_some_and(|cell| cell.text() == colour as usize);
            places.filter(of).count()
        };
        let counted = status().shares.parts().map(|(.., colour)| cells(colour));
        // Of 84 cells: 512 MiB are 84, so 12 MiB are 1.97, 4 MiB are 0.66, 128 MiB are 21.
        assert_eq!(counted, [1, 1, 61, 21]);
    }

    #[test]
    fn what_stays_the_same_is_not_drawn_again() {
        let (mut grid, _) = drawn(&status(), AREA);
        while grid.take_changed().is_some() {}
        let interrupts = || [("virtio0-inflate-and-more", 12), ("serial", 3)].into_iter();
        draw(&mut grid, AREA, &status(), interrupts());
        assert!(!grid.has_changed());
        draw(&mut grid, AREA, &Status { target: Some(257 * MIB), ..status() }, interrupts());
        assert_eq!(core::iter::from_fn(|| grid.take_changed()).count(), 1);
    }

    proptest! {
        #[test]
        fn every_cell_of_the_bar_is_someones(parts: [u64; 4], cells in 4..300usize) {
            let [used, free, reported, ballooned] = parts;
            let shares = Shares { used, free, reported, ballooned };
            let divided = shares.cells(cells);
            let total: u128 = parts.iter().map(|&part| u128::from(part)).sum();
            prop_assert_eq!(divided.iter().sum::<usize>(), if total == 0 { 0 } else { cells });
            for (part, count) in parts.into_iter().zip(divided) {
                prop_assert_eq!(part > 0, count > 0);
                let exact = (u128::from(part) * cells as u128).checked_div(total).unwrap_or(0) as usize;
                prop_assert!(count.abs_diff(exact) <= 3);
            }
        }

        #[test]
        fn any_room_will_do(columns in 0..40usize, rows in 0..30usize, used: u64, target: Option<u64>, note: String) {
            let area = Rect { column: 1, row: 1, columns, rows };
            let shares = Shares { used, ..Shares::default() };
            let silent = used % 2 == 0;
            let status = Status { shares, target, silent, movement: None, note: &note, facts: &[(&note, &note)] };
            let mut grid = Grid::empty();
            grid.resize(50, 40);
            draw(&mut grid, area, &status, [(note.as_str(), u64::MAX)].into_iter());
            for (column, row) in (0..40).flat_map(|row| (0..50).map(move |column| (column, row))) {
                let inside = (1..=columns).contains(&column) && (1..=rows).contains(&row);
                prop_assert!(inside || grid.get(column, row) == Some(Cell::BLANK), "{column}, {row}");
            }
        }
    }
}
