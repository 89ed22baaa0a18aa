//! The picture on a terminal. It fits 80 columns and is complete without colours.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use crate::app::App;
use crate::bars::{self, Cell};
use crate::model::{Figure, History, Mark, Sample, State};
use crate::units::mib;

/// Columns that a guest needs.
const WIDTH: u16 = 76;
/// Lines of figures above a guest's chart, its title included.
const FIGURES: u16 = 5;
/// The least height of a chart, with its legend.
const LEAST_CHART: u16 = 4;
/// The height from which a chart has a line of events.
const LETTERS: u16 = 7;
/// The least height of a list of guests, with its head, that has the chosen guest below it.
const LEAST_LIST: u16 = 4;
/// Columns of the numbers beside a chart.
const SCALE: u16 = 6;

/// How to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Use colours.
    pub(crate) colours: bool,
    /// Use ASCII characters only.
    pub(crate) ascii: bool,
}

impl Look {
    /// Reads the environment: `NO_COLOR` (no-color.org), and the locale.
    pub(crate) fn from_environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let unicode = locale.to_ascii_lowercase().replace('-', "").contains("utf8");
        Self { colours: set("NO_COLOR").is_none(), ascii: !unicode }
    }

    const fn colour(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    const fn cell(self, cell: Cell) -> Style {
        match cell {
            Cell::Used => self.colour(Color::Blue),
            Cell::Idle => self.colour(Color::Yellow),
            Cell::Size => self.colour(Color::Green),
            Cell::Empty => Style::new(),
        }
    }
}

/// Draws everything.
pub(crate) fn draw(frame: &mut Frame<'_>, app: &App, look: Look) {
    let area = frame.area();
    let events = if area.height >= 20 { 3 } else { 1 };
    let rows = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(events),
        Constraint::Length(1),
    ])
    .split(area);
    frame.render_widget(head(app), rows[0]);
    draw_guests(frame, app, look, rows[1]);
    frame.render_widget(Paragraph::new(newest_events(app, events)), rows[2]);
    frame.render_widget(foot(app), rows[3]);
}

fn head(app: &App) -> Paragraph<'_> {
    let sum = |figure: Figure| amount(app.total(|sample| sample.get(figure)));
    let held = |sample: &Sample| sample.get(Figure::Size)?.checked_sub(sample.get(Figure::Actual)?);
    let guests = match app.guests.len() {
        1 => "1 guest".into(),
        count => format!("{count} guests"),
    };
    let pause = if app.paused.is_some() { "  PAUSED" } else { "" };
    let text = format!(
        "{guests}  sum: RSS {} MiB  PSS {} MiB  in balloons {} MiB{pause}",
        sum(Figure::Rss),
        sum(Figure::Pss),
        amount(app.total(held))
    );
    Paragraph::new(text).style(Style::new().add_modifier(Modifier::REVERSED))
}

/// A grid with as many columns as fit; or, of guests that do not all fit with their charts, a list with one line for each,
/// and the chosen guest below it.
fn draw_guests(frame: &mut Frame<'_>, app: &App, look: Look, area: Rect) {
    let columns = usize::from((area.width / WIDTH).max(1)).min(app.guests.len());
    let rows = app.guests.len().div_ceil(columns);
    if rows == 1 || usize::from(area.height) >= rows * usize::from(FIGURES + LEAST_CHART) {
        draw_grid(frame, app, look, area, columns);
        return;
    }
    let all = u16::try_from(app.guests.len() + 1).unwrap_or(u16::MAX);
    let room = area.height.saturating_sub(FIGURES + LEAST_CHART);
    let height = if room >= LEAST_LIST { all.min(room) } else { area.height };
    let parts = Layout::vertical([Constraint::Length(height), Constraint::Fill(1)]).split(area);
    frame.render_widget(list(app, look, parts[0].height), parts[0]);
    draw_guest(frame, app, &app.guests[app.selected], true, look, parts[1]);
}

fn draw_grid(frame: &mut Frame<'_>, app: &App, look: Look, area: Rect, columns: usize) {
    let rows = app.guests.len().div_ceil(columns);
    let lines = Layout::vertical(vec![Constraint::Fill(1); rows]).split(area);
    for (row, chunk) in app.guests.chunks(columns).enumerate() {
        let cells = Layout::horizontal(vec![Constraint::Fill(1); columns]).spacing(1).split(lines[row]);
        for (column, guest) in chunk.iter().enumerate() {
            let selected = app.guests.len() > 1 && row * columns + column == app.selected;
            draw_guest(frame, app, guest, selected, look, cells[column]);
        }
    }
}

/// A list of guests, moved so that the chosen one is in it.
fn list(app: &App, look: Look, height: u16) -> Paragraph<'static> {
    let mut lines = vec![Line::raw(format!(
        "  {:<16} {:<12}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}",
        "guest", "MiB", "RSS", "PSS", "RAM", "used", "leaves", "of"
    ))];
    let shown = usize::from(height.saturating_sub(1));
    let first = app.selected.saturating_sub(shown / 2).min(app.guests.len().saturating_sub(shown));
    let guests = app.guests.iter().enumerate().skip(first).take(shown);
    lines.extend(guests.map(|(number, guest)| list_line(app, guest, number == app.selected, look)));
    Paragraph::new(lines)
}

fn list_line(app: &App, guest: &History, selected: bool, look: Look) -> Line<'static> {
    let (state, style) = match &guest.state {
        State::Silent => ("NO ANSWER", look.colour(Color::Red)),
        State::Ended(_) => ("ENDED", look.colour(Color::Red)),
        other => (state_of(other), look.colour(Color::Green)),
    };
    let sample = app.shown(guest).next();
    let size = |figure: Figure| amount(sample.and_then(|sample| sample.get(figure)));
    let figures = [
        size(Figure::Rss),
        size(Figure::Pss),
        size(Figure::Ram),
        amount(sample.and_then(bars::used)),
        size(Figure::Actual),
        size(Figure::Size),
    ];
    Line::from(vec![
        Span::raw(format!("{} {:<16.16} ", if selected { '>' } else { ' ' }, guest.name)),
        Span::styled(format!("{state:<12.12}"), style),
        Span::raw(figures.map(|figure| format!("{figure:>8}")).concat()),
    ])
}

fn state_of(state: &State) -> &str {
    match state {
        State::Unknown => "connecting",
        State::Runs(state) => state,
        State::Silent => "QEMU DOES NOT ANSWER",
        State::Ended(why) => why,
    }
}

fn draw_guest(frame: &mut Frame<'_>, app: &App, guest: &History, selected: bool, look: Look, area: Rect) {
    let last = app.shown(guest).next();
    let mut lines = vec![title(guest, selected, look)];
    if let Some(sample) = last {
        lines.extend(figures(sample));
    }
    lines.truncate(usize::from(area.height));
    frame.render_widget(Paragraph::new(lines), area);
    if area.height >= FIGURES + LEAST_CHART {
        let chart = Rect { y: area.y + FIGURES, height: area.height - FIGURES, ..area };
        frame.render_widget(chart_of(app, guest, look, chart), chart);
    }
}

fn title(guest: &History, selected: bool, look: Look) -> Line<'static> {
    let pid = guest.pid.map_or_else(|| "PID -".into(), |pid| format!("PID {pid}"));
    let state = state_of(&guest.state);
    let (state, style) = match &guest.state {
        State::Unknown => (state.to_owned(), Style::new()),
        State::Runs(_) => (state.to_owned(), look.colour(Color::Green)),
        State::Silent => (state.to_owned(), look.colour(Color::Red)),
        State::Ended(_) => (format!("ENDED: {state}"), look.colour(Color::Red)),
    };
    let cursor = if selected { "> " } else { "" };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let note = guest.note.clone().unwrap_or_default();
    Line::from(vec![
        Span::styled(format!("{cursor}{}", guest.name), bold),
        Span::raw(format!("  {pid}  ")),
        Span::styled(state, style),
        Span::raw(format!("  {note}")),
    ])
}

/// MiB, or `-` for an unknown figure.
fn amount(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".into(), |bytes| mib(bytes).to_string())
}

fn figures(sample: &Sample) -> [Line<'static>; 4] {
    let size = |figure: Figure| amount(sample.get(figure));
    let count = |figure: Figure| sample.get(figure).map_or_else(|| "-".into(), |count| count.to_string());
    [
        Line::raw(format!(
            "host     RSS {} MiB  PSS {} MiB  RAM {} MiB  swapped {} MiB",
            size(Figure::Rss),
            size(Figure::Pss),
            size(Figure::Ram),
            size(Figure::Swapped)
        )),
        Line::raw(format!(
            "balloon  target {}  leaves {} of {} MiB  inflating {}  deflating {} MiB/s",
            size(Figure::Target),
            size(Figure::Actual),
            size(Figure::Size),
            size(Figure::InflateRate),
            size(Figure::DeflateRate)
        )),
        Line::raw(format!(
            "says     free {}  available {}  total {}  caches {}  swap in {} out {} MiB",
            size(Figure::StatFree),
            size(Figure::StatAvailable),
            size(Figure::StatTotal),
            size(Figure::StatCaches),
            size(Figure::StatSwapIn),
            size(Figure::StatSwapOut)
        )),
        Line::raw(format!(
            "kernel   used {}  free {}  reported {}  hinted {} MiB  kicks {}  irqs {}",
            size(Figure::Used),
            size(Figure::Free),
            size(Figure::Reported),
            size(Figure::Hinted),
            count(Figure::Kicks),
            count(Figure::Interrupts)
        )),
    ]
}

fn chart_of(app: &App, guest: &History, look: Look, area: Rect) -> Paragraph<'static> {
    let has_letters = area.height >= LETTERS;
    let (width, height) = (area.width.saturating_sub(SCALE), area.height - 1 - u16::from(has_letters));
    // The newest sample is at the right.
    let mut samples: Vec<_> = app.shown(guest).take(usize::from(width)).collect();
    samples.reverse();
    let scale = bars::scale(samples.iter().copied());
    let columns: Vec<_> = samples.iter().map(|sample| bars::column(sample, scale, height)).collect();
    let gap = usize::from(width) - columns.len();
    let mut lines: Vec<Line<'_>> = (0..usize::from(height))
        .map(|row| {
            let label = match row {
                0 => format!("{:>5} ", mib(scale)),
                row if row + 1 == usize::from(height) => format!("{:>5} ", 0),
                _ => " ".repeat(usize::from(SCALE)),
            };
            let mut spans = vec![Span::raw(label), Span::raw(" ".repeat(gap))];
            spans.extend(
                columns
                    .iter()
                    .map(|column| Span::styled(column[row].letter(look.ascii).to_string(), look.cell(column[row]))),
            );
            Line::from(spans)
        })
        .collect();
    if has_letters {
        let margin = " ".repeat(usize::from(SCALE) + gap);
        lines.push(Line::raw(format!("{margin}{}", bars::letters(&samples, guest.marks()))));
    }
    lines.push(legend(&samples, look));
    Paragraph::new(lines)
}

fn legend(samples: &[&Sample], look: Look) -> Line<'static> {
    let seconds = match (samples.first(), samples.last()) {
        (Some(oldest), Some(newest)) => newest.at - oldest.at,
        _ => 0.0,
    };
    let key = |cell: Cell| Span::styled(cell.letter(look.ascii).to_string(), look.cell(cell));
    Line::from(vec![
        Span::raw("  MiB ".to_owned()),
        key(Cell::Used),
        Span::raw(" guest uses  "),
        key(Cell::Idle),
        Span::raw(" host holds besides  "),
        key(Cell::Size),
        Span::raw(format!(" balloon leaves   last {seconds:.0} s")),
    ])
}

/// The newest events of all guests, the newest last.
fn newest_events(app: &App, count: u16) -> Vec<Line<'static>> {
    let until = app.paused.unwrap_or(f64::MAX);
    let mut events: Vec<_> = app
        .guests
        .iter()
        .flat_map(|guest| guest.marks().iter().map(move |mark| (&guest.name, mark)))
        .filter(|(_, mark)| mark.at <= until)
        .collect();
    events.sort_by(|(_, one), (_, other)| one.at.total_cmp(&other.at));
    // Reports are frequent: of several in a row, the last one stands for all.
    events.dedup_by(|next, kept| {
        let same = next.0 == kept.0 && next.1.kind == "report" && kept.1.kind == "report";
        if same {
            *kept = *next;
        }
        same
    });
    let first = events.len().saturating_sub(usize::from(count));
    let line = |(guest, mark): &(&String, &Mark)| {
        Line::raw(format!("{:8.1} s {} {guest}: {}", mark.at, bars::letter(mark), mark.text))
    };
    events[first..].iter().map(line).collect()
}

fn foot(app: &App) -> Paragraph<'static> {
    let text = match &app.entry {
        Some(entry) => {
            format!("target in MiB for {}: {entry}_   Enter sets it, Esc cancels", app.guests[app.selected].name)
        }
        None if !app.message.is_empty() => app.message.clone(),
        None => "up/down target  0-9 number  s statistics  p pause  Tab guest  q quit".into(),
    };
    Paragraph::new(text).style(Style::new().add_modifier(Modifier::REVERSED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    const PLAIN: Look = Look { colours: false, ascii: true };

    fn app(count: usize) -> App {
        let guest = |number: usize| {
            let mut guest = History::new(&format!("guest-{number}"));
            for second in 0..300_u32 {
                let mut sample = Sample::new(f64::from(second));
                for (figure, value) in
                    [(Figure::Ram, 100), (Figure::Used, 50), (Figure::Actual, 200), (Figure::Size, 256)]
                {
                    sample.set(figure, Some(value << 20));
                }
                guest.push(sample);
                guest.mark(Mark::new(f64::from(second), "target", format!("target {second} MiB")));
            }
            guest.state = State::Runs("running".into());
            guest
        };
        App::new((0..count).map(guest).collect())
    }

    fn lines(app: &App, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app, PLAIN)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let row = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
        (0..height).map(row).collect()
    }

    #[test]
    fn every_size_of_a_terminal_is_drawn() {
        for count in [1, 2, 5, 100] {
            let app = app(count);
            for (width, height) in [(1, 1), (5, 3), (20, 8), (79, 10), (80, 24), (81, 25), (160, 50), (400, 100)] {
                lines(&app, width, height);
            }
        }
        lines(&App::new(vec![History::new("without samples")]), 80, 24);
    }

    #[test]
    fn wide_terminals_have_guests_side_by_side() {
        let both = |line: &String| line.contains("guest-0") && line.contains("guest-1") && line.contains("PID");
        assert!(lines(&app(2), 160, 30).iter().any(both));
        let narrow = lines(&app(2), 80, 30);
        assert!(!narrow.iter().any(both));
        assert!(narrow[0].contains("2 guests") && narrow[0].contains("in balloons 112 MiB"), "{}", narrow[0]);
    }

    #[test]
    fn many_guests_are_a_list_and_the_chosen_one_is_below_it() {
        let mut app = app(40);
        app.selected = 30;
        let text = lines(&app, 80, 24).join("\n");
        assert!(text.contains("40 guests") && text.contains("> guest-30         running"), "{text}");
        assert!(text.contains("     100      50     200     256 \n"), "RAM, used, leaves, of: {text}");
        assert!(!text.contains("guest-1 ") && text.contains("guest-29 ") && text.contains("guest-31 "), "{text}");
        assert!(
            text.contains("> guest-30  PID -") && text.contains("leaves 200 of 256 MiB") && text.contains("###"),
            "{text}"
        );
        for number in [0, 39] {
            app.selected = number;
            let text = lines(&app, 80, 12).join("\n");
            assert!(text.contains(&format!("> guest-{number} ")), "{text}");
        }
    }

    #[test]
    fn events_are_marked_below_the_chart_and_listed() {
        let mut app = app(1);
        app.guests[0].mark(Mark::new(299.0, "reclaim", "memory ran out"));
        let lines = lines(&app, 80, 24);
        assert!(lines[18].ends_with("TTTTO"), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("299.0 s O guest-0: memory ran out")), "{lines:?}");
    }

    #[test]
    fn reports_in_a_row_are_listed_once() {
        let mut app = app(1);
        for second in [297.1, 298.1, 299.1] {
            app.guests[0].mark(Mark::new(second, "report", format!("report {second}")));
        }
        app.guests[0].mark(Mark::new(299.2, "reclaim", "memory ran out"));
        let text = lines(&app, 80, 24).join("\n");
        let listed = ["299.0 s T guest-0: target 299 MiB", "299.1 s r guest-0: report 299.1", "299.2 s O guest-0"];
        assert!(listed.iter().all(|line| text.contains(line)), "{text}");
        assert!(!text.contains("report 297.1") && !text.contains("report 298.1"), "{text}");
    }

    #[test]
    fn a_chart_shows_used_and_idle_memory_below_the_size() {
        let lines = lines(&app(1), 80, 24);
        // The column at the right edge, from the top of the chart down.
        let column: String = lines[6..18].iter().map(|line| line.chars().last().unwrap_or(' ')).collect();
        assert_eq!(column.trim(), "-   :::##");
    }
}
