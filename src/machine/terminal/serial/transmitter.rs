//! Sending on a line that may stop taking bytes; without I/O.
//!
//! Bytes are collected into loads of the size of a 16550's FIFO, since reading the line status costs as much as sending
//! a byte.
//!
//! A host may stop reading at any moment, for a while or permanently. The main loop must not wait for it, so waits draw
//! on an allowance. Each byte that the line takes earns more than a line at full speed needs, so that such a line loses
//! nothing; elapsed time earns a little. Once the allowance is used up the line is *stuck*: output is dropped, its
//! lines are counted, and the line is probed now and then. Only a probe that the line accepts ends that state.

/// The output and the clock.
pub(crate) trait Line {
    /// Accepts as many bytes as there is room for, and returns how many.
    fn take(&mut self, bytes: &[u8]) -> usize;
    /// Nanoseconds since some moment.
    fn now(&self) -> u64;
}

/// The total wait after which the line counts as stuck: 300 ms.
const MOST: u64 = 300_000_000;
/// What each accepted byte earns: twice the time that it needs at 115200 baud.
const BYTE: u64 = 174_000;
/// The fraction of elapsed time that is earned.
const SHARE: u64 = 16;
/// The most that the time between two probes counts: 1 ms. The host may deschedule the CPU meanwhile, which is not the
/// line's fault.
const GAP: u64 = 1_000_000;
/// The shortest time between two probes of a stuck line: 10 ms.
const PROBE: u64 = 10_000_000;

/// Bytes of a load: the FIFO of a 16550.
const LOAD: usize = 16;

/// The sending half of a port.
pub(crate) struct Transmitter {
    /// Bytes that wait for the load to fill, or to be flushed.
    load: [u8; LOAD],
    loaded: usize,
    /// Nanoseconds of waiting left.
    allowance: u64,
    /// The end of the last wait, or, during a wait, the last probe.
    last: u64,
    waits: bool,
    stuck: bool,
    /// When a stuck line was last probed.
    probed: u64,
    /// Lines lost, whole or in part, and not yet reported.
    lost_lines: u64,
    /// Bytes dropped.
    dropped: u64,
}

impl Transmitter {
    /// A transmitter whose line has taken nothing so far.
    pub(crate) const fn new() -> Self {
        Self {
            load: [0; LOAD],
            loaded: 0,
            allowance: MOST,
            last: 0,
            waits: false,
            stuck: false,
            probed: 0,
            lost_lines: 0,
            dropped: 0,
        }
    }

    /// Bytes dropped in all.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether the line is stuck, so that output is dropped.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Sends text, with a carriage return before each line feed, as terminals want it. Its end may wait for
    /// [`Transmitter::flush`].
    pub(crate) fn write(&mut self, text: &str, line: &mut impl Line) {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.push(b'\r', line);
            }
            self.push(byte, line);
        }
    }

    fn push(&mut self, byte: u8, line: &mut impl Line) {
        if let Some(place) = self.load.get_mut(self.loaded) {
            *place = byte;
            self.loaded += 1;
        }
        if self.loaded == LOAD {
            self.flush(line);
        }
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self, line: &mut impl Line) {
        let load = self.load;
        let loaded = core::mem::take(&mut self.loaded);
        let lost = self.send(load.get(..loaded).unwrap_or_default(), line);
        let lines = lost.iter().filter(|&&byte| byte == b'\n').count();
        self.lost_lines = self.lost_lines.saturating_add(lines as u64);
    }

    /// Sends bytes, and returns those that the line did not take.
    fn send<'b>(&mut self, mut bytes: &'b [u8], line: &mut impl Line) -> &'b [u8] {
        while !bytes.is_empty() && !self.stuck {
            match line.take(bytes) {
                0 => self.stuck = !self.may_wait(line.now()),
                taken => {
                    self.waits = false;
                    self.allowance = MOST.min(self.allowance + taken as u64 * BYTE);
                    bytes = bytes.get(taken..).unwrap_or_default();
                }
            }
        }
        self.dropped = self.dropped.saturating_add(bytes.len() as u64);
        bytes
    }

    /// Whether a line that has just taken nothing may be tried again.
    fn may_wait(&mut self, now: u64) -> bool {
        let passed = now.saturating_sub(self.last);
        self.last = now;
        if self.waits {
            self.allowance = self.allowance.saturating_sub(passed.min(GAP));
        } else {
            self.waits = true;
            self.allowance = MOST.min(self.allowance.saturating_add(passed / SHARE));
        }
        self.allowance > 0
    }

    /// Probes a stuck line, unless it did so a moment ago, by ending the incomplete line. If the line takes bytes
    /// again, returns how many lines were lost: the caller reports that and calls [`Transmitter::reported`].
    pub(crate) fn resume(&mut self, line: &mut impl Line) -> Option<u64> {
        let now = line.now();
        if !self.stuck || now.saturating_sub(self.probed) < PROBE {
            return None;
        }
        self.probed = now;
        let end = b"\r\n";
        let taken = line.take(end);
        if taken == 0 {
            return None;
        }
        (self.stuck, self.waits) = (false, false);
        self.send(end.get(taken..).unwrap_or_default(), line);
        Some(self.lost_lines)
    }

    /// The loss of this many lines has been reported, if the line took the report.
    pub(crate) fn reported(&mut self, lines: u64) {
        if !self.stuck {
            self.lost_lines = self.lost_lines.saturating_sub(lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    /// A line with room for some bytes. Each probe takes time.
    struct Fake {
        room: usize,
        taken: Vec<u8>,
        questions: u64,
        question: u64,
        now: Cell<u64>,
    }

    impl Fake {
        fn with_room(room: usize) -> Self {
            Self { room, taken: Vec::new(), questions: 0, question: 1000, now: Cell::new(5 * MS) }
        }

        fn pass(&self, time: u64) {
            self.now.set(self.now.get() + time);
        }
    }

    fn say(transmitter: &mut Transmitter, text: &str, line: &mut impl Line) {
        transmitter.write(text, line);
        transmitter.flush(line);
    }

    impl Line for Fake {
        fn take(&mut self, bytes: &[u8]) -> usize {
            self.pass(self.question);
            self.questions += 1;
            let taken = bytes.len().min(16).min(self.room);
            self.room -= taken;
            self.taken.extend(&bytes[..taken]);
            taken
        }

        fn now(&self) -> u64 {
            self.now.get()
        }
    }

    /// Regression: an empty write, of which each line end has one, made a stuck line count as working.
    #[test]
    fn a_stuck_line_is_waited_for_once() {
        let (mut line, mut transmitter) = (Fake::with_room(10), Transmitter::new());
        for _ in 0..1000 {
            say(&mut transmitter, "some words\n", &mut line);
            say(&mut transmitter, "", &mut line);
            say(&mut transmitter, "\n", &mut line);
        }
        assert_eq!(line.taken, b"some words");
        let waited = line.now.get();
        assert!((MOST..2 * MOST).contains(&waited), "{waited} ns");
        assert_eq!(transmitter.dropped(), 1000 * 14 - 10);
        assert_eq!(transmitter.lost_lines, 2000);
    }

    /// Pieces of text, as formatting makes them, share loads.
    #[test]
    fn a_line_is_asked_once_for_a_load() {
        let (mut line, mut transmitter) = (Fake::with_room(10_000), Transmitter::new());
        for _ in 0..100 {
            ["[", "   0", ".", "001", "] ", "words", "\n"].iter().for_each(|piece| transmitter.write(piece, &mut line));
        }
        assert_eq!((line.questions, line.taken.len()), (18 * 100 / 16, 18 * 100 / 16 * 16));
        transmitter.flush(&mut line);
        assert_eq!((line.questions, line.taken.len()), (18 * 100 / 16 + 1, 18 * 100));
    }

    #[test]
    fn a_stuck_line_is_asked_rarely() {
        let (mut line, mut transmitter) = (Fake::with_room(0), Transmitter::new());
        say(&mut transmitter, "words\n", &mut line);
        let before = line.questions;
        for _ in 0..1000 {
            line.pass(100_000);
            assert_eq!(transmitter.resume(&mut line), None);
            say(&mut transmitter, "words\n", &mut line);
        }
        // 100 ms have passed.
        assert!(line.questions - before <= 11, "{} questions", line.questions - before);
    }

    #[test]
    fn a_slow_hypervisor_makes_no_longer_wait() {
        let (mut line, mut transmitter) = (Fake::with_room(0), Transmitter::new());
        line.question = 200_000;
        (0..1000).for_each(|_| say(&mut transmitter, "words\n", &mut line));
        assert!(line.now.get() < 2 * MOST);
    }

    #[test]
    fn time_that_the_cpu_was_away_is_not_the_lines() {
        let (mut line, mut transmitter) = (Fake::with_room(0), Transmitter::new());
        line.question = 500 * MS;
        say(&mut transmitter, "words", &mut line);
        assert!(line.questions > 100);
    }

    #[test]
    fn lost_lines_count_until_they_are_reported() {
        let (mut line, mut transmitter) = (Fake::with_room(3), Transmitter::new());
        say(&mut transmitter, "one\ntwo\nthree\n", &mut line);
        assert_eq!(transmitter.resume(&mut line), None, "it is full");
        line.pass(PROBE);
        line.room = 4;
        assert_eq!(transmitter.resume(&mut line), Some(3));
        // The notice does not get through, and is a lost line like any other.
        say(&mut transmitter, "3 lost\n", &mut line);
        transmitter.reported(3);
        line.pass(PROBE);
        line.room = 1000;
        assert_eq!(transmitter.resume(&mut line), Some(4));
        say(&mut transmitter, "4 lost\n", &mut line);
        transmitter.reported(4);
        say(&mut transmitter, "four\n", &mut line);
        assert_eq!(line.taken, b"one\r\n3 \r\n4 lost\r\nfour\r\n");
        assert_eq!(transmitter.lost_lines, 0);
        line.pass(PROBE);
        assert_eq!(transmitter.resume(&mut line), None, "it is not stuck");
    }

    #[test]
    fn a_line_without_a_queue_is_resumed_too() {
        let (mut line, mut transmitter) = (Fake::with_room(0), Transmitter::new());
        say(&mut transmitter, "one\n", &mut line);
        line.pass(PROBE);
        line.room = 1;
        // The wait for the line feed fails.
        assert_eq!(transmitter.resume(&mut line), Some(1));
        assert!(transmitter.is_stuck());
        assert_eq!(line.taken, b"\r");
    }

    /// A UART of 115200 baud: a queue of 16 bytes that asks for more when it is empty.
    struct FullSpeed {
        empty_at: u64,
        taken: usize,
        now: Cell<u64>,
    }

    impl Line for FullSpeed {
        fn take(&mut self, bytes: &[u8]) -> usize {
            self.now.set(self.now.get() + 1000);
            if self.now.get() < self.empty_at {
                return 0;
            }
            let taken = bytes.len().min(16);
            self.empty_at = self.now.get() + taken as u64 * 86_806;
            self.taken += taken;
            taken
        }

        fn now(&self) -> u64 {
            self.now.get()
        }
    }

    #[test]
    fn nothing_is_lost_at_full_speed() {
        let mut line = FullSpeed { empty_at: 0, taken: 0, now: Cell::new(0) };
        let mut transmitter = Transmitter::new();
        (0..5000).for_each(|_| say(&mut transmitter, "a line of the log, of some length\n", &mut line));
        assert_eq!((transmitter.dropped(), line.taken), (0, 5000 * 35));
    }

    proptest! {
        /// However a reader behaves, it delays the kernel no longer than the allowance.
        #[test]
        fn any_reader_holds_up_a_bounded_part_of_the_time(
            steps in prop::collection::vec((0usize..3, 0u64..100 * MS), 1..60),
        ) {
            let (mut line, mut transmitter) = (Fake::with_room(0), Transmitter::new());
            line.question = 50_000;
            let (mut waited, mut passed, mut earned) = (0, 0, 0);
            for (room, time) in steps {
                line.pass(time);
                passed += time;
                line.room += room;
                earned += room as u64 * BYTE;
                let before = line.now.get();
                if let Some(lines) = transmitter.resume(&mut line) {
                    transmitter.reported(lines);
                }
                say(&mut transmitter, "words\n", &mut line);
                waited += line.now.get() - before;
                let most = 2 * (MOST + earned + passed / SHARE) + passed / 100;
                prop_assert!(waited <= most, "{waited} of {most} ns");
            }
        }
    }
}
