//! The picture's state and its keys, without I/O.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::model::{Figure, History, Sample, total};
use crate::units::{MIB, mib, parse_size};

/// The statistics key cycles through these intervals, in seconds; 0 is off.
const STATISTICS: [u64; 5] = [1, 2, 5, 10, 0];
/// Seconds in which a key goes on from the target that the previous one set: samples that show it come later.
const FRESH: f64 = 1.0;

/// A key's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Set a guest's target, in bytes.
    Target { guest: usize, bytes: u64 },
    /// Poll a guest's statistics at this interval, in seconds.
    Statistics { guest: usize, seconds: u64 },
    /// Quit.
    Quit,
}

/// The state of the picture.
pub(crate) struct App {
    /// All guests.
    pub(crate) guests: Vec<History>,
    /// The guest that keys apply to.
    pub(crate) selected: usize,
    /// The second at which the picture was paused.
    pub(crate) paused: Option<f64>,
    /// The digits of a target being typed.
    pub(crate) entry: Option<String>,
    /// The outcome of the last key.
    pub(crate) message: String,
    /// The target that a key has set: which guest's, in bytes, at which second.
    set: Option<(usize, u64, f64)>,
}

impl App {
    /// The picture of these guests.
    pub(crate) fn new(guests: Vec<History>) -> Self {
        Self { guests, selected: 0, paused: None, entry: None, message: String::new(), set: None }
    }

    /// The samples of a guest that the picture shows, the newest first.
    pub(crate) fn shown<'a>(&self, guest: &'a History) -> impl Iterator<Item = &'a Sample> + use<'a> {
        let until = self.paused.unwrap_or(f64::MAX);
        guest.samples().iter().rev().skip_while(move |sample| sample.at > until)
    }

    /// The sum of a figure as the picture shows it, over guests that have not ended.
    pub(crate) fn total(&self, of: impl Fn(&Sample) -> Option<u64>) -> Option<u64> {
        let guests = self.guests.iter().filter(|guest| !guest.has_ended());
        total(guests.filter_map(|guest| self.shown(guest).next()), of)
    }

    /// Takes a key at second `now`.
    pub(crate) fn key(&mut self, key: KeyEvent, now: f64) -> Option<Action> {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(Action::Quit);
        }
        if self.entry.is_some() {
            return self.edit(key.code, now);
        }
        self.message.clear();
        match key.code {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Up | KeyCode::Char('+') => return self.step(1, now),
            KeyCode::Down | KeyCode::Char('-') => return self.step(-1, now),
            KeyCode::Char('t') => self.entry = Some(String::new()),
            KeyCode::Char(digit @ '0'..='9') => self.entry = Some(digit.into()),
            KeyCode::Char('s') => return self.next_statistics(),
            KeyCode::Char('p' | ' ') => {
                self.paused = if self.paused.is_some() { None } else { Some(now) };
            }
            KeyCode::Tab | KeyCode::Right => self.selected = (self.selected + 1) % self.guests.len(),
            KeyCode::BackTab | KeyCode::Left => {
                self.selected = (self.selected + self.guests.len() - 1) % self.guests.len();
            }
            _ => {}
        }
        None
    }

    fn edit(&mut self, key: KeyCode, now: f64) -> Option<Action> {
        let entry = self.entry.as_mut()?;
        match key {
            KeyCode::Char(letter) if letter.is_ascii_alphanumeric() && entry.len() < 12 => entry.push(letter),
            KeyCode::Backspace => drop(entry.pop()),
            KeyCode::Esc => self.entry = None,
            KeyCode::Enter => {
                let text = self.entry.take()?;
                return match parse_size(&text) {
                    Ok(bytes) => self.target(bytes, now),
                    Err(error) => {
                        self.message = error;
                        None
                    }
                };
            }
            _ => {}
        }
        None
    }

    /// Changes the target by a 32nd of the guest's memory, in whole MiB.
    fn step(&mut self, direction: i64, now: f64) -> Option<Action> {
        let guest = &self.guests[self.selected];
        let size = guest.figure(Figure::Size).unwrap_or_default();
        let set = self.set.filter(|(of, _, at)| *of == self.selected && now - at < FRESH).map(|(_, bytes, _)| bytes);
        let Some(old) = set.or_else(|| guest.figure(Figure::Target)).or_else(|| guest.figure(Figure::Actual)) else {
            self.message = format!("{}: there is no balloon to move", guest.name);
            return None;
        };
        let step = (mib(size) / 32).max(1) * MIB;
        let wanted = if direction > 0 { old.saturating_add(step) } else { old.saturating_sub(step) };
        self.target(wanted, now)
    }

    fn target(&mut self, bytes: u64, now: f64) -> Option<Action> {
        let guest = &self.guests[self.selected];
        let size = guest.figure(Figure::Size).unwrap_or(u64::MAX);
        // QEMU refuses 0.
        let bytes = bytes.clamp(MIB, size.max(MIB));
        self.message = format!("{}: target {} MiB", guest.name, mib(bytes));
        self.set = Some((self.selected, bytes, now));
        Some(Action::Target { guest: self.selected, bytes })
    }

    /// Goes on to the interval after the guest's own.
    fn next_statistics(&mut self) -> Option<Action> {
        let guest = &mut self.guests[self.selected];
        let name = &guest.name;
        let Some(now) = guest.statistics else {
            self.message = format!("{name}: there are no statistics to poll");
            return None;
        };
        let place = STATISTICS.iter().position(|seconds| *seconds == now).map_or(0, |place| place + 1);
        let seconds = STATISTICS[place % STATISTICS.len()];
        self.message = match seconds {
            0 => format!("{name}: statistics off"),
            seconds => format!("{name}: statistics every {seconds} s"),
        };
        guest.statistics = Some(seconds);
        Some(Action::Statistics { guest: self.selected, seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> App {
        let mut guests = vec![History::new("a"), History::new("b")];
        for guest in &mut guests {
            let mut sample = Sample::new(1.0);
            sample.set(Figure::Size, Some(256 * MIB));
            sample.set(Figure::Actual, Some(256 * MIB));
            guest.push(sample);
            guest.statistics = Some(1);
        }
        App::new(guests)
    }

    fn press(app: &mut App, keys: &str) -> Option<Action> {
        let press = |letter| match letter {
            '\n' => KeyCode::Enter,
            '^' => KeyCode::Up,
            'v' => KeyCode::Down,
            '>' => KeyCode::Tab,
            letter => KeyCode::Char(letter),
        };
        keys.chars().map(|letter| app.key(KeyEvent::from(press(letter)), 1.0)).last().flatten()
    }

    #[test]
    fn arrows_move_the_target_within_the_guests_memory() {
        let mut app = app();
        assert_eq!(press(&mut app, "v"), Some(Action::Target { guest: 0, bytes: 248 * MIB }));
        assert_eq!(press(&mut app, "^^"), Some(Action::Target { guest: 0, bytes: 256 * MIB }));
        assert_eq!(press(&mut app, ">v"), Some(Action::Target { guest: 1, bytes: 248 * MIB }));
    }

    #[test]
    fn quick_presses_add_up_before_a_sample_shows_them() {
        let mut app = app();
        assert_eq!(press(&mut app, "vvv"), Some(Action::Target { guest: 0, bytes: 232 * MIB }));
        // Later, the samples' word counts: somebody else may have set a target.
        let down = app.key(KeyEvent::from(KeyCode::Down), 1.0 + FRESH);
        assert_eq!(down, Some(Action::Target { guest: 0, bytes: 248 * MIB }));
    }

    #[test]
    fn each_guest_has_an_interval_of_its_own() {
        let mut app = app();
        app.guests[1].statistics = Some(7);
        for (keys, guest, seconds) in [("s", 0, 2), ("s", 0, 5), (">s", 1, 1), (">s", 0, 10), ("s", 0, 0), ("s", 0, 1)]
        {
            assert_eq!(press(&mut app, keys), Some(Action::Statistics { guest, seconds }));
        }
        app.guests[0].statistics = None;
        assert_eq!(press(&mut app, "s"), None);
        assert!(app.message.contains("no statistics"), "{}", app.message);
    }

    #[test]
    fn a_sum_is_of_what_is_shown_of_running_guests() {
        let mut app = app();
        let sum = |app: &App| app.total(|sample| sample.get(Figure::Size));
        assert_eq!(sum(&app), Some(512 * MIB));
        press(&mut app, "p");
        app.guests[0].push(Sample::new(2.0));
        assert_eq!(sum(&app), Some(512 * MIB), "paused");
        app.guests[1].state = crate::model::State::Ended("gone".into());
        assert_eq!(sum(&app), Some(256 * MIB));
    }

    #[test]
    fn a_number_is_a_target() {
        let mut app = app();
        assert_eq!(press(&mut app, "t100\n"), Some(Action::Target { guest: 0, bytes: 100 * MIB }));
        assert_eq!(press(&mut app, "64M\n"), Some(Action::Target { guest: 0, bytes: 64 * MIB }));
        assert_eq!(
            press(&mut app, "9999\n"),
            Some(Action::Target { guest: 0, bytes: 256 * MIB }),
            "capped at the guest's memory"
        );
        assert_eq!(press(&mut app, "12x\n"), None);
        assert!(app.message.contains("`12x`"), "{}", app.message);
    }

    #[test]
    fn statistics_pause_and_quit() {
        let mut app = app();
        assert_eq!(press(&mut app, "s"), Some(Action::Statistics { guest: 0, seconds: 2 }));
        assert_eq!(press(&mut app, "p"), None);
        app.guests[0].push(Sample::new(2.0));
        assert_eq!(app.shown(&app.guests[0]).next().map(|sample| sample.at), Some(1.0), "the picture is frozen");
        press(&mut app, "p");
        assert_eq!(app.shown(&app.guests[0]).next().map(|sample| sample.at), Some(2.0));
        assert_eq!(press(&mut app, "q"), Some(Action::Quit));
    }

    #[test]
    fn without_a_balloon_there_is_no_target() {
        let mut app = App::new(vec![History::new("bare")]);
        app.guests[0].push(Sample::new(0.0));
        assert_eq!(press(&mut app, "v"), None);
        assert!(app.message.contains("bare"), "{}", app.message);
    }
}
