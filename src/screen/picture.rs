//! The whole screen.

use core::fmt::{self, Write};

use super::status::{self, Fact, Status, put_line};
use super::{Advance, Cell, Grid, Rect, ScreenLayout, Style, TextArea};
use crate::console::{Page, Record, count};

/// Rows of a report of the kernel's own failure. The log above it shows what led to it.
const REPORT: usize = 18;

/// The contents of the screen. All zero bits are a screen without cells.
pub(crate) struct Screen {
    grid: Grid,
    layout: ScreenLayout,
    log: TextArea,
    /// How the log moves.
    advance: Advance,
    /// The first row of the record that is shown, while the log is scrolled back.
    top: Option<usize>,
}

impl Screen {
    /// Nothing.
    pub(crate) const fn empty() -> Self {
        Self {
            grid: Grid::empty(),
            layout: ScreenLayout::empty(),
            log: TextArea::new(ScreenLayout::empty().log),
            advance: Advance::Half,
            top: None,
        }
    }

    /// A screen of this many cells, empty except its title.
    pub(crate) fn begin(&mut self, columns: usize, rows: usize, title: fmt::Arguments<'_>) {
        self.grid.resize(columns, rows);
        self.layout = ScreenLayout::of(self.grid.area());
        (self.log, self.top) = (TextArea::new(self.layout.log), None);
        put_line(&mut self.grid, self.layout.title, Style::TITLE, format_args!(" {title}"));
        self.grid.fill(self.layout.rule, Cell::new(Cell::VERTICAL, Style::FAINT));
    }

    /// No cells are left.
    pub(crate) fn end(&mut self) {
        self.grid.resize(0, 0);
        (self.layout, self.log) = (ScreenLayout::empty(), TextArea::new(Rect::default()));
    }

    /// How the log moves from now on.
    pub(crate) const fn set_advance(&mut self, advance: Advance) {
        self.advance = advance;
    }

    /// Leaves a third of the log's area free, so that it need not move soon.
    pub(crate) fn make_room(&mut self) {
        let rows = self.layout.log.rows;
        self.log.keep_last(&mut self.grid, rows - rows / 3);
    }

    /// Writes a line of the log, unless the log is scrolled back.
    pub(crate) fn line(&mut self, style: Style, text: fmt::Arguments<'_>) {
        if self.top.is_some() {
            return;
        }
        let advance = self.advance;
        // Writing to the screen cannot fail.
        let _ = self.log.writer(&mut self.grid, style, advance).write_fmt(text);
        self.log.end_line();
    }

    /// Continues at the end of the log.
    pub(crate) fn write(&mut self, text: &str) {
        let advance = self.advance;
        let _ = self.log.writer(&mut self.grid, Style::STRONG, advance).write_str(text);
    }

    /// Scrolls through the log in `record`. Unless its end is shown, the last row shows how much follows.
    pub(crate) fn turn(&mut self, record: &Record, page: Page) {
        let area = self.layout.log;
        let mut total = 0;
        record.for_each(0, |_, _, text| {
            total += self.log.rows_of(text);
            true
        });
        let (last, step) = (total.saturating_sub(area.rows), area.rows.saturating_sub(2).max(1));
        let current = self.top.unwrap_or(last);
        let top = match page {
            Page::Up => current.saturating_sub(step),
            Page::Down => current.saturating_add(step).min(last),
            Page::End => last,
        };
        self.top = (top < last).then_some(top);
        let rows = if self.top.is_some() { area.rows.saturating_sub(1) } else { area.rows };
        let drawn = self.draw_log(record, top, rows);
        if self.top.is_some() {
            let hint = Rect { row: area.row + rows, rows: 1, ..area };
            let left = count(total.saturating_sub(top + drawn), "more row");
            put_line(&mut self.grid, hint, Style::WARNING, format_args!("-- {left}: Page Down --"));
        }
    }

    /// Whether the log is scrolled back.
    pub(crate) const fn is_turned(&self) -> bool {
        self.top.is_some()
    }

    /// Clears the log's area. The next line is written at its top.
    pub(crate) fn clear_log(&mut self) {
        self.grid.fill(self.layout.log, Cell::BLANK);
        (self.log, self.top) = (TextArea::new(self.layout.log), None);
    }

    /// Draws the record from a row on, as far as it fits into the given rows. Returns the rows drawn.
    fn draw_log(&mut self, record: &Record, top: usize, rows: usize) -> usize {
        self.grid.fill(self.layout.log, Cell::BLANK);
        self.log = TextArea::new(self.layout.log);
        let (mut row, mut drawn) = (0, 0);
        record.for_each(0, |_, style, text| {
            let needed = self.log.rows_of(text);
            let begins = row;
            row += needed;
            if begins < top {
                return true;
            }
            if drawn + needed > rows {
                return false;
            }
            drawn += needed;
            // Writing to the area cannot fail.
            let _ = self.log.writer(&mut self.grid, Style::from_bits(style), Advance::Line).write_str(text);
            self.log.end_line();
            true
        });
        drawn
    }

    /// Shows the machine's names, until there is a balloon to show.
    pub(crate) fn show_facts(&mut self, facts: &[Fact<'_>]) {
        status::draw_facts(&mut self.grid, self.layout.status, facts);
    }

    /// Shows the balloon, and how often each interrupt has come.
    pub(crate) fn show_status<'i>(&mut self, status: &Status<'_>, interrupts: impl Iterator<Item = (&'i str, u64)>) {
        status::draw(&mut self.grid, self.layout.status, status, interrupts);
    }

    /// Shows the line being typed, behind `prompt`, and the cursor. Of a long line it shows the part with the cursor.
    pub(crate) fn show_prompt(&mut self, prompt: &str, line: &str, right_of_cursor: usize) {
        let area = self.layout.prompt;
        let (Some(last), length) = (area.columns.checked_sub(1), prompt.len() + line.len()) else { return };
        let cursor = length.saturating_sub(right_of_cursor);
        let left = cursor.saturating_sub(last);
        let text = || prompt.chars().chain(line.chars()).chain(core::iter::repeat(' '));
        for (column, character) in text().skip(left).take(area.columns).enumerate() {
            let style = if column + left == cursor { Style::CURSOR } else { Style::STRONG };
            self.grid.put(area.column + column, area.row, Cell::of(character, style));
        }
    }

    /// Shows a hint instead of a prompt, without a cursor.
    pub(crate) fn show_hint(&mut self, hint: &str) {
        put_line(&mut self.grid, self.layout.prompt, Style::STRONG, format_args!("{hint}"));
    }

    /// Makes room for a report of the kernel's own failure, in the whole width, below the end of the log and under
    /// `title`. Later text goes there.
    pub(crate) fn begin_report(&mut self, title: fmt::Arguments<'_>) {
        let all = self.grid.area();
        let title_row = self.layout.title.row;
        let kept = self.log.keep_last(&mut self.grid, all.rows.saturating_sub(1 + REPORT));
        let first = self.layout.log.row.max(1) + kept;
        let area = Rect { row: first, rows: all.rows.saturating_sub(first), ..all };
        self.grid.fill(area, Cell::BLANK);
        put_line(
            &mut self.grid,
            Rect { row: title_row, rows: all.rows.min(1), ..all },
            Style::ALARM,
            format_args!(" {title}"),
        );
        self.log = TextArea::new(area);
        (self.advance, self.top) = (Advance::Half, None);
    }

    /// The cells.
    pub(crate) const fn grid(&self) -> &Grid {
        &self.grid
    }

    /// The cells, to be drawn.
    pub(crate) const fn grid_mut(&mut self) -> &mut Grid {
        &mut self.grid
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::grid::tests_support::text_of;

    fn screen(columns: usize, rows: usize) -> Screen {
        let mut screen = Screen::empty();
        screen.begin(columns, rows, format_args!("ballonet"));
        screen
    }

    fn text(screen: &Screen) -> Vec<String> {
        text_of(screen.grid(), screen.grid().area())
    }

    #[test]
    fn title_log_and_prompt_are_in_their_places() {
        let mut screen = screen(80, 25);
        screen.line(Style::PLAIN, format_args!("one {}", 1));
        screen.line(Style::ERROR, format_args!("two"));
        screen.show_prompt("> ", "status", 2);
        let text = text(&screen);
        assert_eq!((text[0].as_str(), text[24].as_str()), (" ballonet", "> status"));
        assert!(text[1].starts_with("one 1 ") && text[2].starts_with("two "));
        assert_eq!(screen.grid().get(0, 2), Some(Cell::of('t', Style::ERROR)));
        let cursors: Vec<_> =
            (0..80).filter(|&column| screen.grid().get(column, 24) == Some(Cell::of('u', Style::CURSOR))).collect();
        assert_eq!(cursors, [6]);
    }

    #[test]
    fn a_hint_takes_the_place_of_the_prompt_and_nothing_blinks() {
        let mut screen = screen(80, 25);
        screen.show_prompt("> ", "a long line that somebody has typed", 0);
        screen.show_hint("no keyboard");
        assert_eq!(text(&screen)[24].trim_end(), "no keyboard");
        assert!(
            (0..80).all(|column| screen.grid().get(column, 24).is_none_or(|cell| cell != Cell::of(' ', Style::CURSOR)))
        );
    }

    #[test]
    fn a_long_line_shows_its_cursor() {
        let mut screen = screen(40, 25);
        let line: String = (0..120).map(|number| char::from(b'a' + number % 26)).collect();
        screen.show_prompt("> ", &line, 0);
        assert_eq!(text(&screen)[24], line[81..]);
        assert_eq!(screen.grid().get(39, 24), Some(Cell::of(' ', Style::CURSOR)));
        screen.show_prompt("> ", &line, 120);
        assert_eq!(text(&screen)[24], format!("> {}", &line[..38]));
    }

    #[test]
    fn the_log_moves_by_half_or_smoothly() {
        let mut screen = screen(40, 10);
        for number in 0..9 {
            screen.line(Style::PLAIN, format_args!("{number}"));
        }
        assert_eq!(text(&screen)[1..9], ["4", "5", "6", "7", "8", "", "", ""]);
        screen.set_advance(Advance::Line);
        for number in 9..13 {
            screen.line(Style::PLAIN, format_args!("{number}"));
        }
        assert_eq!(text(&screen)[1..9], ["5", "6", "7", "8", "9", "10", "11", "12"]);
    }

    /// Draws what has changed, and returns how many cells that were.
    fn draw(screen: &mut Screen) -> usize {
        core::iter::from_fn(|| screen.grid_mut().take_changed()).count()
    }

    /// A start on a screen of 3840x2160, of 16,080 cells: it is cleared once, and then each letter is drawn once.
    #[test]
    fn a_start_draws_each_letter_once() {
        let (mut screen, mut kept) = (screen(240, 67), Box::new(Record::new()));
        screen.grid_mut().assume(Cell::BLANK);
        let mut drawn = draw(&mut screen);
        let facts: [Fact<'_>; 2] = [("CPU", "QEMU TCG CPU version 2.5+"), ("FIRMWARE", "SeaBIOS")];
        let mut letters = 240 + 65;
        for number in 0..45 {
            let line =
                format!("[   0.{number:03}] PCI 00:{number:02x}.0 a device of some length, and its name [1234:5678]");
            letters += line.bytes().filter(|byte| *byte != b' ').count();
            kept.push(Style::PLAIN.bits(), format_args!("{line}"));
            screen.line(Style::PLAIN, format_args!("{line}"));
            drawn += draw(&mut screen);
            if number == 20 {
                screen.show_facts(&facts);
            }
        }
        // The main loop begins: the log is written anew from what is kept of it.
        screen.set_advance(Advance::Line);
        screen.turn(&kept, Page::End);
        screen.show_prompt("> ", "", 0);
        drawn += draw(&mut screen);
        assert!((letters..letters + 100).contains(&drawn), "{drawn} cells drawn for {letters} letters");
    }

    fn record(screen: &mut Screen, numbers: core::ops::Range<u32>, record: &mut Record) {
        for number in numbers {
            record.push(Style::PLAIN.bits(), format_args!("{number}"));
            screen.line(Style::PLAIN, format_args!("{number}"));
        }
    }

    /// The lines of a boot with many devices, at 1920x1080: the user can scroll to the beginning, and new lines appear
    /// back at the end.
    #[test]
    fn the_log_scrolls_from_end_to_beginning_and_back() {
        let mut screen = screen(240, 67);
        let mut kept = Box::new(Record::new());
        record(&mut screen, 0..200, &mut kept);
        let first = |screen: &Screen| text(screen)[1].split(' ').next().unwrap().to_owned();
        screen.set_advance(Advance::Line);
        screen.turn(&kept, Page::End);
        // By halves the log had left room at its end: it is full now.
        assert_eq!((first(&screen).as_str(), text(&screen)[65].split(' ').next()), ("135", Some("199")));
        screen.turn(&kept, Page::Up);
        assert_eq!(first(&screen), "72");
        assert!(text(&screen)[65].starts_with("-- 64 more rows: Page Down --"), "{:?}", text(&screen)[65]);
        record(&mut screen, 200..210, &mut kept);
        assert_eq!(first(&screen), "72");
        for _ in 0..5 {
            screen.turn(&kept, Page::Up);
        }
        assert_eq!(first(&screen), "0");
        for _ in 0..5 {
            screen.turn(&kept, Page::Down);
        }
        assert!(text(&screen)[65].starts_with("209 "));
        record(&mut screen, 210..211, &mut kept);
        assert!(text(&screen)[65].starts_with("210 "));
        screen.turn(&kept, Page::Up);
        screen.clear_log();
        record(&mut screen, 211..212, &mut kept);
        assert_eq!(first(&screen), "211");
    }

    #[test]
    fn room_is_made_once() {
        let mut screen = screen(40, 22);
        for number in 0..18 {
            screen.line(Style::PLAIN, format_args!("{number}"));
        }
        screen.make_room();
        assert_eq!(text(&screen)[1..4], ["4", "5", "6"]);
        for number in 18..24 {
            screen.line(Style::PLAIN, format_args!("{number}"));
        }
        assert_eq!((text(&screen)[1].as_str(), text(&screen)[20].as_str()), ("4", "23"));
    }

    #[test]
    fn a_log_that_fits_does_not_scroll() {
        let mut screen = screen(80, 25);
        let mut kept = Box::new(Record::new());
        for page in [Page::Up, Page::Down, Page::End] {
            screen.turn(&kept, page);
        }
        record(&mut screen, 0..3, &mut kept);
        screen.turn(&kept, Page::Up);
        record(&mut screen, 3..4, &mut kept);
        assert!(text(&screen)[1].starts_with("0 ") && text(&screen)[4].starts_with("3 "));
    }

    #[test]
    fn a_report_is_below_the_end_of_the_log() {
        let mut screen = screen(80, 30);
        for number in 0..28 {
            screen.line(Style::PLAIN, format_args!("{number}"));
        }
        screen.begin_report(format_args!("has failed"));
        screen.write("\nFAULT page fault\n  rip ");
        screen.write("0x1\n");
        let seen = text(&screen);
        assert_eq!(seen[0], " has failed");
        assert!(seen[1].starts_with("17 ") && seen[11].starts_with("27 "), "{seen:?}");
        assert_eq!(seen[12..16], ["", "FAULT page fault", "  rip 0x1", ""]);
        // A short log stays where it is.
        let mut screen = self::screen(80, 25);
        screen.line(Style::PLAIN, format_args!("one"));
        screen.begin_report(format_args!("has failed"));
        screen.write("\nPANIC\n");
        let seen = text(&screen);
        assert!(seen[1].starts_with("one ") && seen[2..5] == ["", "PANIC", ""], "{seen:?}");
    }

    #[test]
    fn the_longest_report_fits_below_the_log() {
        let mut screen = screen(80, 25);
        for number in 0..40 {
            screen.line(Style::PLAIN, format_args!("{number}"));
        }
        screen.begin_report(format_args!("has failed"));
        // Fault, page, rip, registers, the head and the rows of a backtrace, and the farewell.
        screen.write("\n");
        for number in 0..1 + 1 + 1 + 5 + 1 + 6 + 1 {
            screen.line(Style::STRONG, format_args!("row {number}"));
        }
        let seen = text(&screen);
        assert!(seen[6].starts_with("39 "), "{seen:?}");
        assert!(seen.iter().any(|row| row == "row 0") && seen.iter().any(|row| row == "row 15"), "{seen:?}");
    }

    #[test]
    fn a_screen_without_cells_shows_nothing() {
        let mut screen = Screen::empty();
        for _ in 0..2 {
            screen.line(Style::PLAIN, format_args!("one"));
            screen.show_prompt("> ", "x", 0);
            screen.begin_report(format_args!("title"));
            screen.write("two\n");
            screen.end();
            assert!(!screen.grid().has_changed());
        }
    }

    #[test]
    fn any_size_will_do() {
        for (columns, rows) in [(1, 1), (1, 200), (300, 1), (3, 9), (71, 8), (200, 64), (240, 75)] {
            let mut screen = screen(columns, rows);
            screen.line(Style::PLAIN, format_args!("a line that is longer than most"));
            screen.show_prompt("> ", "line", 1);
            let mut kept = Box::new(Record::new());
            record(&mut screen, 0..99, &mut kept);
            for page in [Page::Up, Page::Up, Page::Down, Page::End] {
                screen.turn(&kept, page);
            }
            screen.begin_report(format_args!("title"));
            screen.write("report\n");
        }
    }
}
