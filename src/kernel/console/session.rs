//! The input line, and the command in progress.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use ballonet::balloon::Balloon;
use ballonet::platform::Platform;

use super::command::{Answer, Context, Outcome};
use super::job::{Job, Step};
use super::table::{commands, run};
use crate::boot::Terminal;
use crate::console::{Completion, Edit, LineEditor, Page, Usage, complete};
use crate::kernel::balloons::Balloons;
use crate::kernel::typing;
use crate::machine::{log as serial, screen};

/// The prompt.
const PROMPT: &str = "> ";

/// The console's state.
pub(in crate::kernel) struct Console {
    editor: LineEditor,
    ansi: bool,
    /// When the status line was last drawn for a movement or job; 0 if nothing moves.
    drawn: u64,
    /// The command in progress.
    job: Option<Job>,
    /// The command waits for a key.
    paused: bool,
    /// When its progress was last printed where the status line cannot be redrawn.
    reported: u64,
}

/// Interval of drawing the progress of a command: 100 ms.
const REDRAW: u64 = 100_000_000;
/// Interval of drawing the balloon's progress, and of a command's progress lines where lines cannot be redrawn: 1 s,
/// since each byte costs a virtual machine an exit.
const PLAIN: u64 = 1_000_000_000;
/// Ctrl-C.
const INTERRUPT: u8 = 3;

impl Console {
    /// A console for a terminal of this kind.
    pub(in crate::kernel) fn new(terminal: Terminal) -> Self {
        let ansi = terminal == Terminal::Ansi;
        Self { editor: LineEditor::new(), ansi, drawn: 0, job: None, paused: false, reported: 0 }
    }

    /// Whether a command is in progress that reads no input.
    pub(in crate::kernel) fn is_busy(&self) -> bool {
        self.job.is_some() && !self.paused
    }

    /// Runs a piece of the command in progress. Ctrl-C also discards earlier input.
    pub(in crate::kernel) fn work(&mut self, context: &mut Context<'_>) {
        let Some(mut job) = self.job.take() else { return };
        let mut for_job = context.for_job();
        if serial::take_interrupt() {
            self.end(job, context);
            return;
        }
        match job.step(&mut for_job) {
            Step::Done => self.draw(context.balloons, context.held.bytes()),
            step => {
                self.paused = step == Step::Pause;
                self.job = Some(job);
                self.show_progress(context);
            }
        }
    }

    /// Stops a command early.
    fn end(&mut self, job: Job, context: &mut Context<'_>) {
        self.paused = false;
        job.stop(&mut context.for_job());
        self.draw(context.balloons, context.held.bytes());
    }

    fn show_progress(&mut self, context: &Context<'_>) {
        let now = context.machine.now();
        if self.paused || now >= self.drawn + REDRAW {
            self.drawn = now.max(1);
            self.draw(context.balloons, context.held.bytes());
        }
        let Some(job @ (Job::Hold { .. } | Job::Verify { .. } | Job::Release { .. })) = &self.job else { return };
        if !self.ansi && serial::is_text() && now >= self.reported + PLAIN {
            // Not in the first turn: most commands end before the second.
            if core::mem::replace(&mut self.reported, now) != 0 {
                serial::passing(format_args!("{}", job.progress(context.held.bytes())));
            }
        }
    }

    /// Takes a typed byte. Runs a completed line.
    pub(in crate::kernel) fn feed(&mut self, byte: u8, context: &mut Context<'_>) -> Outcome {
        if let Some(mut job) = self.job.take_if(|_| self.paused) {
            self.paused = false;
            match byte {
                b' ' | b'\r' | b'\n' => {
                    job.resume();
                    self.job = Some(job);
                    return Outcome::Done;
                }
                b'q' | INTERRUPT => {
                    self.end(job, context);
                    return Outcome::Done;
                }
                // Any other key starts a new line.
                _ => self.end(job, context),
            }
        }
        match self.editor.feed(byte) {
            Edit::Nothing => return Outcome::Done,
            Edit::Changed => {}
            Edit::Line(line) => {
                serial::set_status(format_args!(""));
                screen::return_to_end();
                serial::echo(format_args!("{PROMPT}{line}"));
                let answer = run(&line, context);
                if let Answer::End(outcome) = answer {
                    return outcome;
                }
                self.begin(answer, context.machine.now());
            }
            Edit::Complete => self.complete(context),
            Edit::Clear => {
                if self.ansi {
                    serial::clear_terminal();
                }
                screen::clear_log();
            }
            Edit::Turn(page) => self.turn(page),
        }
        self.draw(context.balloons, context.held.bytes());
        Outcome::Done
    }

    fn begin(&mut self, answer: Answer, now: u64) {
        self.reported = now;
        self.job = match answer {
            Answer::Job(job) => Some(job),
            Answer::Log { all } => Some(Job::log(self.ansi && !all)),
            Answer::Done | Answer::End(_) => None,
        };
    }

    /// Scrolls the log on the screen. Without a screen, prints it page by page on a terminal.
    fn turn(&mut self, page: Page) {
        if screen::is_present() {
            screen::turn(page);
        } else if self.ansi && page == Page::Up {
            self.job = Some(Job::log(true));
        }
    }

    fn complete(&mut self, context: &Context<'_>) {
        let usages: Vec<Usage> = commands().collect();
        let words = |placeholder: &str| -> Vec<String> {
            match placeholder {
                "COMMAND" => usages.iter().map(|usage| String::from(usage.name)).collect(),
                "NAME" => context.balloons.drivers().map(|driver| String::from(driver.name())).collect(),
                "SLOT" => context.slots.ports().iter().map(|port| String::from(port.name())).collect(),
                "QUEUE" => {
                    let queues = context.balloons.drivers().flat_map(Balloon::queues);
                    queues.map(|(name, _)| String::from(name)).collect()
                }
                _ => Vec::new(),
            }
        };
        match complete(self.editor.left_of_cursor(), &usages, words) {
            Completion::Nothing => {}
            Completion::Insert(text) => self.editor.insert(&text),
            Completion::Choices(words) => serial::passing(format_args!("  {}", words.join("  "))),
        }
    }

    /// Draws the status line while a balloon moves, and once more when it stops.
    pub(in crate::kernel) fn draw_if_moving(&mut self, balloons: &Balloons, held: u64) {
        if self.job.is_some() {
            return;
        }
        let Some(movement) = balloons.movement() else {
            if core::mem::take(&mut self.drawn) != 0 {
                self.draw(balloons, held);
            }
            return;
        };
        // Not at once: most movements are done before that.
        if self.drawn == 0 {
            self.drawn = movement.now.max(1);
        } else if movement.now >= self.drawn + PLAIN {
            self.drawn = movement.now;
            self.draw(balloons, held);
        }
    }

    /// Draws the input line or a command's progress, with `held` bytes held: on the screen, and on a terminal behind
    /// the balloon's progress.
    pub(in crate::kernel) fn draw(&self, balloons: &Balloons, held: u64) {
        if let Some(job) = &self.job {
            // The key hint for the log matters only while it is paused.
            let silent = matches!(job, Job::Log(_)) && !self.paused;
            let progress = if silent { String::new() } else { format!("{}", job.progress(held)) };
            return self.draw_line("", &progress, 0, balloons);
        }
        self.draw_line(PROMPT, self.editor.text(), self.editor.right_of_cursor(), balloons);
    }

    fn draw_line(&self, prompt: &str, line: &str, right_of_cursor: usize, balloons: &Balloons) {
        if typing::is_possible() {
            screen::show_prompt(prompt, line, right_of_cursor);
        } else {
            screen::show_hint(typing::HINT);
        }
        if !self.ansi {
            return;
        }
        let back = Back(right_of_cursor);
        match balloons.movement() {
            Some(movement) => serial::set_status(format_args!("{movement} {prompt}{line}{back}")),
            None => serial::set_status(format_args!("{prompt}{line}{back}")),
        }
    }
}

/// Moves the cursor back (ECMA-48 CUB).
struct Back(usize);

impl core::fmt::Display for Back {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, "\x1b[{}D", self.0) }
    }
}
