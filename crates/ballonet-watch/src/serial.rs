//! A guest's serial line. A thread reads it all the time, so that the guest never waits for us.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::failure::{Context as _, Outcome};

/// Lines kept for a slow reader; further lines are dropped.
const KEPT: usize = 4096;
/// The longest line; longer ones are split.
const LONGEST: u64 = 64 << 10;

/// The serial line, both directions.
pub(crate) struct Serial {
    lines: Receiver<String>,
    keyboard: Box<dyn Write + Send>,
    /// Typing failed: the other end is closed.
    mute: bool,
}

impl Serial {
    /// A serial line made of its two directions.
    pub(crate) fn new(screen: impl Read + Send + 'static, keyboard: impl Write + Send + 'static) -> Self {
        let (sender, lines) = sync_channel(KEPT);
        thread::spawn(move || keep(screen, &sender));
        Self { lines, keyboard: Box::new(keyboard), mute: false }
    }

    /// The serial line at QEMU's socket: `-serial unix:PATH,server=on,wait=off`.
    pub(crate) fn connect(path: &Path) -> Outcome<Self> {
        let socket = UnixStream::connect(path).of(format_args!("--serial {}", path.display()))?;
        socket.set_write_timeout(Some(Duration::from_millis(200)))?;
        Ok(Self::new(socket.try_clone()?, socket))
    }

    /// Types a line. Does not wait for a guest that accepts no keys.
    pub(crate) fn type_line(&mut self, line: &str) {
        if !self.mute {
            let typed = self.keyboard.write_all(format!("{line}\r").as_bytes()).and_then(|()| self.keyboard.flush());
            self.mute = typed.is_err();
        }
    }

    /// The next line, if one has arrived.
    pub(crate) fn next(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// Waits for the next line.
    pub(crate) fn wait(&self, patience: Duration) -> Option<String> {
        self.lines.recv_timeout(patience).ok()
    }
}

fn keep(screen: impl Read, sender: &SyncSender<String>) {
    let mut screen = BufReader::new(screen);
    let mut bytes = Vec::new();
    while (&mut screen).take(LONGEST).read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
        let line = String::from_utf8_lossy(&bytes).into_owned();
        bytes.clear();
        if let Err(TrySendError::Disconnected(_)) = sender.try_send(line) {
            return;
        }
    }
}
