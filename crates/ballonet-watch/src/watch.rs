//! Watches guests: sends samples from their threads to the picture, the record and the endpoint.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use crossterm::terminal::{Clear, ClearType};

use crate::app::{Action, App};
use crate::cli;
use crate::failure::{Context as _, Outcome};
use crate::guest::Guest;
use crate::metrics::Endpoint;
use crate::model::History;
use crate::plain;
use crate::plot;
use crate::record::{Recorder, Track};
use crate::view::{self, Look};
use crate::worker::{Order, Update, Worker};

/// Interval between checks of the keyboard.
const GLANCE: Duration = Duration::from_millis(50);

/// A watch: guests, and where their samples go.
struct Session {
    app: App,
    workers: Vec<Worker>,
    updates: Receiver<Update>,
    recorder: Option<Recorder>,
    endpoint: Option<Endpoint>,
    stop: Arc<AtomicBool>,
    start: Instant,
    lines: bool,
}

/// Watches guests until the user or the options end it, or all QEMUs have ended. `ours` are guests that this program
/// started; they end with the watch.
pub(crate) fn watch(guests: Vec<Guest>, options: &cli::Watch, start: Instant, ours: bool) -> Outcome {
    let recorder = options.outputs.record.as_deref().map(Recorder::create).transpose()?;
    let endpoint = options.listen.map(Endpoint::listen).transpose()?;
    let picture = has_screen() && !options.plain && !options.once;
    if let Some(endpoint) = &endpoint
        && !picture
    {
        eprintln!("metrics are at http://{}/metrics", endpoint.address);
    }
    let app = App::new(guests.iter().map(history).collect());
    let (sender, updates) = channel();
    let start_one = |(number, guest)| Worker::start(number, guest, options.interval, sender.clone());
    let workers = guests.into_iter().enumerate().map(start_one).collect();
    drop(sender);
    let stop = stop_on_signals()?;
    let lines = !picture && !options.outputs.records_to_output();
    let mut session = Session { app, workers, updates, recorder, endpoint, stop, start, lines };
    let outcome = match picture {
        true => session.on_screen(options.duration),
        false => session.as_lines(options.once, options.duration),
    };
    session.end(ours);
    outcome?;
    plot::write(&session.tracks(), &options.outputs)
}

/// Keys from a thread of their own: crossterm reads a terminal that has gone for ever, and must not keep the program with
/// it. The program then ends by SIGHUP, or since it can no longer draw.
fn keyboard() -> Receiver<KeyEvent> {
    let (sender, keys) = channel();
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if let Event::Key(key) = event
                && key.kind != KeyEventKind::Release
                && sender.send(key).is_err()
            {
                return;
            }
        }
    });
    keys
}

/// Whether the terminal can show a picture and has a keyboard.
fn has_screen() -> bool {
    let dumb = std::env::var("TERM").is_ok_and(|name| name == "dumb" || name.is_empty());
    io::stdout().is_terminal() && io::stdin().is_terminal() && !dumb
}

fn history(guest: &Guest) -> History {
    let mut history = History::new(&guest.name);
    history.pid = guest.pid.as_ref().ok().copied();
    history.note = guest.note();
    history.statistics = guest.statistics;
    history
}

/// A flag that signals set, instead of ending the program with the terminal in raw mode.
pub(crate) fn stop_on_signals() -> Outcome<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).of("signals")?;
    }
    Ok(stop)
}

impl Session {
    fn is_over(&self, duration: Option<Duration>) -> bool {
        let late = duration.is_some_and(|duration| self.start.elapsed() >= duration);
        late || self.stop.load(Ordering::Relaxed)
    }

    fn on_screen(&mut self, duration: Option<Duration>) -> Outcome {
        let mut terminal = ratatui::try_init().of("the terminal; --plain needs none")?;
        let outcome = self.picture(&mut terminal, duration);
        let restored = ratatui::try_restore();
        if outcome.is_err() || restored.is_err() {
            // The terminal has gone. Dropping it prints an error, and panics if standard error has gone with it.
            std::mem::forget(terminal);
        }
        outcome
    }

    fn picture(&mut self, terminal: &mut ratatui::DefaultTerminal, duration: Option<Duration>) -> Outcome {
        let look = Look::from_environment();
        // Not every terminal has a second screen, which would be empty.
        crossterm::execute!(io::stdout(), Clear(ClearType::All))?;
        let keyboard = keyboard();
        while !self.is_over(duration) {
            while let Ok(update) = self.updates.try_recv() {
                self.take(update)?;
            }
            terminal.draw(|frame| view::draw(frame, &self.app, look))?;
            if self.keys(&keyboard) {
                break;
            }
        }
        Ok(())
    }

    /// Handles keys for a moment. Returns whether to quit.
    fn keys(&mut self, keyboard: &Receiver<KeyEvent>) -> bool {
        let mut patience = GLANCE;
        while let Ok(key) = keyboard.recv_timeout(patience) {
            patience = Duration::ZERO;
            match self.app.key(key, self.start.elapsed().as_secs_f64()) {
                Some(Action::Quit) => return true,
                Some(Action::Target { guest, bytes }) => self.workers[guest].order(Order::Target(bytes)),
                Some(Action::Statistics { guest, seconds }) => self.workers[guest].order(Order::Statistics(seconds)),
                None => {}
            }
        }
        false
    }

    fn as_lines(&mut self, once: bool, duration: Option<Duration>) -> Outcome {
        let mut waiting = vec![true; self.app.guests.len()];
        while !self.is_over(duration) {
            match self.updates.recv_timeout(GLANCE) {
                Ok(update) => {
                    waiting[update.guest] = false;
                    self.take(update)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                // All threads have ended, as have their QEMUs.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if once && !waiting.contains(&true) {
                break;
            }
        }
        Ok(())
    }

    /// Distributes an update.
    fn take(&mut self, update: Update) -> Outcome {
        let Update { guest, mut sample, marks, state, error } = update;
        let history = &mut self.app.guests[guest];
        if let Some(before) = history.last() {
            sample.set_rates(before);
        }
        history.state = state;
        if let Some(recorder) = &mut self.recorder {
            recorder.sample(&history.name, &sample)?;
            marks.iter().try_for_each(|mark| recorder.mark(&history.name, mark))?;
        }
        if self.lines {
            let mut text: Vec<_> = marks.iter().map(|mark| plain::mark_line(history, mark)).collect();
            text.push(plain::sample_line(history, &sample));
            text.extend(error.clone());
            // The reader has closed the pipe.
            if plain::say(&text.join("\n")).is_err() {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
        history.push(sample);
        marks.into_iter().for_each(|mark| history.mark(mark));
        if let Some(error) = error {
            self.app.message = error;
        }
        if let Some(endpoint) = &self.endpoint {
            endpoint.publish(&self.app.guests);
        }
        Ok(())
    }

    fn end(&mut self, quit: bool) {
        for worker in &self.workers {
            worker.order(Order::End { quit });
        }
        self.workers.drain(..).for_each(Worker::join);
    }

    fn tracks(&self) -> Vec<Track> {
        let track = |guest: &History| Track {
            name: guest.name.clone(),
            samples: guest.samples().iter().cloned().collect(),
            marks: guest.marks().iter().cloned().collect(),
        };
        self.app.guests.iter().map(track).collect()
    }
}
