//! Runs the program in a pseudo-terminal and reads its screen.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{Outcome, until};

/// The program's output: all bytes, and the resulting screen.
struct Written {
    bytes: Vec<u8>,
    screen: vt100::Parser,
}

/// A terminal. Dropping this value ends the program in it.
pub(crate) struct Terminal {
    child: Child,
    keyboard: Option<File>,
    written: Arc<Mutex<Written>>,
    reader: Option<JoinHandle<()>>,
    gone: Arc<AtomicBool>,
}

impl Terminal {
    /// Starts a program in a terminal of this size.
    pub(crate) fn start(mut command: Command, columns: u16, rows: u16) -> Outcome<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        tcsetwinsize(&master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
        let name = ptsname(&master, Vec::new())?;
        let side = OpenOptions::new().read(true).write(true).open(name.to_str()?)?;
        let end = |file: &File| -> Outcome<Stdio> { Ok(OwnedFd::from(file.try_clone()?).into()) };
        let child = command.stdin(end(&side)?).stdout(end(&side)?).stderr(end(&side)?).spawn()?;
        let master = File::from(master);
        let some = |size: u16| NonZero::new(size).ok_or("a terminal of no size");
        let screen = vt100::Parser::new(some(rows)?, some(columns)?, 0);
        let written = Arc::new(Mutex::new(Written { bytes: Vec::new(), screen }));
        let gone = Arc::new(AtomicBool::new(false));
        let (screen, record, stop) = (master.try_clone()?, Arc::clone(&written), Arc::clone(&gone));
        let reader = Some(thread::spawn(move || show(screen, &record, &stop)));
        Ok(Self { child, keyboard: Some(master), written, reader, gone })
    }

    /// Takes the terminal away, as a lost connection does.
    pub(crate) fn hang_up(&mut self) -> Outcome {
        self.gone.store(true, Ordering::Relaxed);
        self.keyboard = None;
        self.reader.take().ok_or("hung up before")?.join().map_err(|_| "the reader has panicked".into())
    }

    /// Sends a signal to the program.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) -> Outcome {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id())?).ok_or("no PID")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    fn keyboard(&self) -> Outcome<&File> {
        self.keyboard.as_ref().ok_or_else(|| "the terminal is gone".into())
    }

    /// Types keys.
    pub(crate) fn type_keys(&mut self, keys: &str) -> Outcome {
        Ok(self.keyboard()?.write_all(keys.as_bytes())?)
    }

    /// Changes the terminal's size.
    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Outcome {
        tcsetwinsize(self.keyboard()?, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
        let some = |size: u16| NonZero::new(size).ok_or("a terminal of no size");
        locked(&self.written).screen.screen_mut().set_size(some(rows)?, some(columns)?);
        Ok(())
    }

    /// The lines of the screen.
    pub(crate) fn screen(&self) -> String {
        locked(&self.written).screen.screen().contents()
    }

    /// Whether the program uses the alternate screen.
    pub(crate) fn is_alternate(&self) -> bool {
        locked(&self.written).screen.screen().alternate_screen()
    }

    /// All that the program has written.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        locked(&self.written).bytes.clone()
    }

    /// Whether any cell of the screen has a colour.
    pub(crate) fn has_colours(&self) -> bool {
        let written = locked(&self.written);
        let screen = written.screen.screen();
        let (rows, columns) = screen.size();
        let cells = (0..rows.get()).flat_map(|row| (0..columns.get()).map(move |column| (row, column)));
        cells.filter_map(|(row, column)| screen.cell(row, column)).any(|cell| cell.fgcolor() != vt100::Color::Default)
    }

    /// Waits until the screen shows these words.
    pub(crate) fn wait_for(&self, words: &str) -> Outcome<String> {
        self.wait_until(words, |screen| screen.contains(words).then(|| screen.to_owned()))
    }

    /// Waits until `find` finds something on the screen. A failure shows the screen.
    pub(crate) fn wait_until<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> Outcome<T> {
        until(what, || Ok(find(&self.screen())))
            .map_err(|error| format!("{error}; the screen:\n{}", self.screen()).into())
    }

    /// Waits until the program has ended.
    pub(crate) fn end(&mut self) -> Outcome<ExitStatus> {
        let child = &mut self.child;
        until("the program to end", || Ok(child.try_wait()?))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only if the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads what the program writes until it ends or the terminal is taken away.
fn show(mut screen: File, record: &Mutex<Written>, gone: &AtomicBool) {
    let mut bytes = [0; 4096];
    while !gone.load(Ordering::Relaxed) {
        let glance = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        match poll(&mut [PollFd::new(&screen, PollFlags::IN)], Some(&glance)) {
            Ok(0) => continue,
            Ok(_) => {}
            Err(_) => return,
        }
        // A read error means that the other side is closed.
        let Ok(count @ 1..) = screen.read(&mut bytes) else { return };
        let mut record = locked(record);
        record.bytes.extend_from_slice(&bytes[..count]);
        record.screen.process(&bytes[..count]);
    }
}

fn locked(written: &Mutex<Written>) -> MutexGuard<'_, Written> {
    written.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number after `words`, on the first line of the screen that has them.
pub(crate) fn number_after(screen: &str, words: &str) -> Option<u64> {
    let rest = &screen[screen.find(words)? + words.len()..];
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
