//! Programs that use memory through the kernel's own allocator, while balloons work. The memory that they free must
//! reach the host, and memory that they hold must keep its contents.
//!
//! Each turn is bounded: a program allocates, frees or verifies one piece, then the balloons are served. Every word's
//! value depends on its piece and position, and is verified before the piece is freed.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::boot::{WorkChoice, WorkKind};
use crate::console::events::{self, Bytes};
use crate::console::{Quiet, count};
use crate::machine::{Machine, log as serial, reclaim};
use ballonet::platform::Platform;
use log::warn;

use super::backing;
use super::balloons::Balloons;
use super::held::pattern;
use super::shortage::Shortage;

/// Pause after everything is allocated or freed: 1 s, long enough for freed memory to be reported.
const REST: u64 = 1_000_000_000;
/// Pieces have 1 KiB to nearly 8 MiB, in powers of two: from small heap blocks to more than a region of frames.
const SMALLEST: u32 = 10;
const LARGEST: u32 = 22;
/// Turns of a churning program between two events.
const EVENT_TURNS: u64 = 256;

/// What a program is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It allocates pieces.
    Rising,
    /// It has allocated everything.
    Full,
    /// It verifies its pieces.
    Verifying,
    /// It frees pieces.
    Falling,
    /// It has freed everything.
    Empty,
    /// It allocates and frees pieces.
    Churning,
    /// It is done.
    Done,
    /// It was ended for lack of memory.
    Ended,
}

impl Phase {
    const fn word(self) -> &'static str {
        match self {
            Self::Rising => "rising",
            Self::Full => "full",
            Self::Verifying => "verifying",
            Self::Falling => "falling",
            Self::Empty => "empty",
            Self::Churning => "churning",
            Self::Done => "done",
            Self::Ended => "ended",
        }
    }
}

/// Memory of a program.
struct Piece {
    words: Vec<u64>,
    seed: u64,
}

impl Piece {
    /// A piece of `bytes` bytes, filled; `None` if there is no memory for it.
    fn new(bytes: u64, seed: u64) -> Option<Self> {
        let count = (bytes / 8).max(1);
        let mut words = Vec::new();
        words.try_reserve_exact(usize::try_from(count).ok()?).ok()?;
        words.extend((0..count).map(|index| pattern(index * 8, seed)));
        Some(Self { words, seed })
    }

    fn bytes(&self) -> u64 {
        self.words.len() as u64 * 8
    }

    /// Number of words that are not as written.
    fn bad(&self) -> u64 {
        self.words.iter().zip(0u64..).filter(|(word, index)| **word != pattern(index * 8, self.seed)).count() as u64
    }
}

/// A program, and its memory.
struct Program {
    choice: WorkChoice,
    phase: Phase,
    pieces: Vec<Piece>,
    bytes: u64,
    /// The piece to be verified next.
    cursor: usize,
    /// When it continues, if it rests.
    rest: Option<u64>,
    turns: u64,
    allocations: u64,
    failures: u64,
    bad: u64,
    /// Limits the lines for people; programs get an event for every phase.
    quiet: Quiet,
}

/// The program that runs, if any.
#[derive(Default)]
pub(super) struct Work {
    program: Option<Program>,
    random: u64,
}

impl Work {
    /// The program of the command line, if any.
    pub(super) fn new(choice: Option<WorkChoice>) -> Self {
        Self { program: choice.map(Program::new), random: 0 }
    }

    /// Starts a program. Ends the running one and frees its memory.
    pub(super) fn start(&mut self, choice: WorkChoice) {
        self.program = Some(Program::new(choice));
    }

    /// Ends the program and frees its memory. Returns whether there was one.
    pub(super) fn stop(&mut self) -> bool {
        let Some(mut program) = self.program.take() else { return false };
        program.free_all();
        program.enter(Phase::Done, 0);
        true
    }

    /// Gives the program a turn if it is due.
    pub(super) fn serve(&mut self, machine: &mut Machine, balloons: &mut Balloons) {
        let now = machine.now();
        let Some(program) = self.program.as_mut().filter(|program| program.is_due(now)) else { return };
        let before = program.bytes;
        let random = &mut self.random;
        backing::with(machine, balloons, || program.turn(now, random));
        if program.bytes < before {
            balloons.memory_freed();
        }
        if matches!(program.phase, Phase::Done | Phase::Ended) {
            self.program = None;
        }
    }

    /// When to serve it next, if it rests.
    pub(super) fn next_turn(&self) -> Option<u64> {
        self.program.as_ref().and_then(|program| program.rest)
    }

    /// Whether it must be served at once.
    pub(super) fn is_pending(&self) -> bool {
        self.program.as_ref().is_some_and(|program| program.rest.is_none())
    }

    /// Reports the program's phase.
    pub(super) fn report(&self) {
        match &self.program {
            Some(program) => program.report(),
            None => serial::line(format_args!("no program runs; `work KIND:SIZE` starts one")),
        }
    }
}

impl Program {
    fn new(choice: WorkChoice) -> Self {
        Self {
            choice,
            phase: if choice.kind == WorkKind::Churn { Phase::Churning } else { Phase::Rising },
            pieces: Vec::new(),
            bytes: 0,
            cursor: 0,
            rest: None,
            turns: 0,
            allocations: 0,
            failures: 0,
            bad: 0,
            quiet: Quiet::default(),
        }
    }

    fn is_due(&self, now: u64) -> bool {
        self.rest.is_none_or(|moment| now >= moment)
    }

    /// Does one step.
    fn turn(&mut self, now: u64, random: &mut u64) {
        self.rest = None;
        self.turns += 1;
        match self.phase {
            Phase::Rising => self.rise(now, random),
            Phase::Full => match self.choice.kind {
                WorkKind::Sawtooth => self.enter(Phase::Falling, now),
                WorkKind::Steady | WorkKind::Churn | WorkKind::Verify => self.enter(Phase::Verifying, now),
            },
            Phase::Verifying => self.verify(now),
            Phase::Falling => self.fall(now),
            Phase::Empty => self.enter(Phase::Rising, now),
            Phase::Churning => self.churn(random),
            Phase::Done | Phase::Ended => {}
        }
    }

    fn rise(&mut self, now: u64, random: &mut u64) {
        if self.take(random) {
            if self.bytes >= self.choice.size {
                self.enter(Phase::Full, now);
            }
            return;
        }
        // A sawtooth can work with less; the other programs cannot.
        if self.choice.kind == WorkKind::Sawtooth && self.bytes > 0 {
            self.enter(Phase::Full, now);
        } else {
            self.end(now);
        }
    }

    fn verify(&mut self, now: u64) {
        if let Some(piece) = self.pieces.get(self.cursor) {
            self.bad += piece.bad();
            self.cursor += 1;
            return;
        }
        match self.choice.kind {
            WorkKind::Verify => self.enter(Phase::Falling, now),
            WorkKind::Sawtooth | WorkKind::Steady | WorkKind::Churn => self.enter(Phase::Full, now),
        }
    }

    fn fall(&mut self, now: u64) {
        let last = self.pieces.len().saturating_sub(1);
        self.give(last);
        if self.pieces.is_empty() {
            let next = if self.choice.kind == WorkKind::Verify { Phase::Done } else { Phase::Empty };
            self.enter(next, now);
        }
    }

    fn churn(&mut self, random: &mut u64) {
        let full = self.bytes >= self.choice.size;
        if full || (next(random).is_multiple_of(2) && !self.pieces.is_empty()) {
            let which = next(random) as usize % self.pieces.len();
            self.give(which);
        } else {
            self.take(random);
        }
        if self.turns.is_multiple_of(EVENT_TURNS) {
            self.emit();
        }
    }

    /// Allocates a piece of random size. Returns whether there was memory.
    fn take(&mut self, random: &mut u64) -> bool {
        let unit = 1 << (u64::from(SMALLEST) + next(random) % u64::from(LARGEST - SMALLEST + 1));
        let bytes = (unit + next(random) % unit).min(self.choice.size - self.bytes);
        let room = self.pieces.try_reserve(1).is_ok();
        match Piece::new(bytes, next(random)).filter(|_| room) {
            Some(piece) => {
                self.allocations += 1;
                self.bytes += piece.bytes();
                self.pieces.push(piece);
                true
            }
            None => {
                self.failures += 1;
                false
            }
        }
    }

    /// Verifies a piece and frees it.
    fn give(&mut self, which: usize) {
        if which < self.pieces.len() {
            let piece = self.pieces.swap_remove(which);
            self.bad += piece.bad();
            self.bytes -= piece.bytes();
        }
    }

    fn free_all(&mut self) {
        self.pieces = Vec::new();
        self.bytes = 0;
    }

    fn end(&mut self, now: u64) {
        let (kind, size, taken) = (self.choice.kind.word(), self.choice.size >> 10, self.bytes >> 10);
        warn!("work: {kind} of {size} KiB is ended, with {taken} KiB: {Shortage}");
        self.free_all();
        reclaim::note_ended();
        self.enter(Phase::Ended, now);
    }

    fn enter(&mut self, phase: Phase, now: u64) {
        let before = core::mem::replace(&mut self.phase, phase);
        self.cursor = 0;
        self.rest = matches!(phase, Phase::Full | Phase::Empty).then_some(now.saturating_add(REST));
        self.emit();
        let first = self.quiet.rounds() == 0;
        if self.quiet.may_speak(now) || matches!(phase, Phase::Done | Phase::Ended) {
            self.say();
        }
        // A program that grows and shrinks completes a round when it is empty; others when they have verified
        // everything.
        if phase == Phase::Empty || (before, phase) == (Phase::Verifying, Phase::Full) {
            self.quiet.end_round(now);
            if first && serial::is_text() {
                serial::line(format_args!(
                    "work: that was the first round; from now on one line a minute, or `work` at any time"
                ));
            }
        }
    }

    /// Writes the event.
    fn emit(&self) {
        let (kind, phase) = (self.choice.kind.word(), self.phase.word());
        serial::emit(&events::Work {
            kind,
            phase,
            bytes: Bytes(self.bytes),
            size: Bytes(self.choice.size),
            allocations: self.allocations,
            failures: self.failures,
            bad: self.bad,
            rounds: self.quiet.rounds(),
        });
    }

    fn report(&self) {
        self.emit();
        self.say();
    }

    /// Writes the log line.
    fn say(&self) {
        let (kind, phase) = (self.choice.kind.word(), self.phase.word());
        if serial::is_text() {
            let after = match self.quiet.rounds() {
                0 => String::new(),
                rounds => format!(" after {}", count(rounds, "round")),
            };
            serial::line(format_args!(
                "work: {kind} is {phase} with {} of {} KiB{after}; {}, {} failed, {}",
                self.bytes >> 10,
                self.choice.size >> 10,
                count(self.allocations, "allocation"),
                self.failures,
                count(self.bad, "bad word")
            ));
        }
    }
}

/// The next pseudo-random number (Steele and Vigna's `SplitMix64`).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}
