//! The console: commands from the serial line and the keyboard, and the line that is being typed.

use alloc::string::String;

use crate::acpi::SleepType;
use crate::boot::{Terminal, WorkChoice, parse_size};
use crate::console::{Command, Completion, Edit, LineEditor, Page, complete, count};
use crate::machine::memory_types::Mtrrs;
use crate::machine::{Machine, asleep, frames, power};
use crate::machine::{
    cpus, large, lines, local_apic, log as serial, machine_check, paging, power_button, relief, screen, vectors,
};
use ballonet::balloon::wire::feature_names;
use ballonet::balloon::{Balloon, BalloonQueue, Way};
use ballonet::memory::FRAME_SIZE;
use ballonet::pci::Tree;
use ballonet::pci::listing::{Details, Line};
use ballonet::platform::Platform;
use ballonet::virtio::InterruptMode;
use ballonet::virtio::listing;
use ballonet_check::similar;

use super::balloons::{self, Balloons, Verb};
use super::held::Held;
use super::hotplug::Slots;
use super::job::{Job, JobContext, Step};
use super::latency::Latency;
use super::processors;
use super::random;
use super::resources::Resources;
use super::typing;
use super::work::Work;
use crate::machine::heap;

/// A command: its name, its arguments, what it does.
const COMMANDS: [Command; 27] = [
    ("help", "[COMMAND]", "this list, or the part of it that is about a command"),
    ("info", "", "the kernel, the CPU, the clock, machine checks"),
    ("acpi", "", "the ACPI tables, and how the machine is switched off and reset"),
    ("pci", "[-v]", "the PCI devices"),
    ("virtio", "", "the balloon devices: features, queues, interrupts"),
    ("irq", "", "interrupt vectors and how often each came"),
    ("cpus", "", "the CPUs, the interrupts that came to each, and how long each slept"),
    ("affinity", "QUEUE CPU [NAME]", "have a queue of the balloon NAME, or of all, interrupt another CPU"),
    ("mem", "[map]", "memory by state"),
    ("mem", "hold SIZE | verify | release", "fill memory with a pattern, look at it again, give it back"),
    ("work", "[KIND:SIZE | stop]", "run a program that uses memory: sawtooth, steady, churn or verify"),
    ("log", "[all]", "the log from its beginning, a page at a time on a terminal; `all` without stopping"),
    ("balloon", "", "targets and sizes; the host sets them, as by `balloon MIB` in QEMU's monitor"),
    ("report", "", "report all free memory to the host at once"),
    ("stats", "", "what the drivers have counted"),
    ("cpu", "", "how long the kernel has run, and how long of that the boot CPU was awake"),
    ("latency", "start | stop", "allocate all the while, and say at the end how long that took"),
    ("reset", "[NAME]", "reset the balloon device NAME, or all, and start again"),
    ("reset-queue", "QUEUE [NAME]", "reset its queue inflate or deflate, and use it again"),
    ("freeze", "[NAME]", "reset it and leave it alone, until it is restored"),
    ("restore", "[NAME]", "start a frozen device again, where it was"),
    ("slots", "", "the hot-plug slots, and what is in them"),
    ("random", "[BYTES]", "random bytes from the first virtio entropy device, 1 to 64 of them, or 16"),
    ("resources", "", "all that can leak, counted"),
    ("poweroff", "", "reset the devices and switch off, as the power button does"),
    ("reboot", "", "reset the devices and start again"),
    ("fault", "page | panic [CPU] | nmi | hang | power SLOT", "fail on purpose, to see how failures are told"),
];

/// The prompt.
const PROMPT: &str = "> ";

/// What a command leads to beyond its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing.
    Done,
    /// Switch off.
    PowerOff,
    /// Start again.
    Reboot,
}

/// What the commands work on.
pub(super) struct Context<'k> {
    /// The machine.
    pub machine: &'k mut Machine,
    /// Its PCI devices.
    pub tree: &'k Tree,
    /// Its balloons.
    pub balloons: &'k mut Balloons,
    /// Its hot-plug slots.
    pub slots: &'k Slots,
    /// The memory held.
    pub held: &'k mut Held,
    /// The program that runs.
    pub work: &'k mut Work,
    /// The program that allocates.
    pub latency: &'k mut Latency,
}

/// The console's state.
pub(super) struct Console {
    editor: LineEditor,
    ansi: bool,
    /// When the status line was last drawn because the balloon or a job moved; 0 when it has come to rest since.
    drawn: u64,
    /// The command in progress.
    job: Option<Job>,
    /// It awaits a key.
    paused: bool,
    /// When its progress was last told where the status line cannot be redrawn.
    told: u64,
}

/// Time between two drawings of what moves: 100 ms.
const REDRAW: u64 = 100_000_000;
/// Time between two lines of progress where lines cannot be redrawn: 1 s.
const PLAIN: u64 = 1_000_000_000;
/// Ctrl-C.
const INTERRUPT: u8 = 3;

/// Writes a line of an answer.
macro_rules! say {
    ($($argument:tt)*) => {
        serial::line(format_args!($($argument)*))
    };
}

impl Console {
    /// A console for a terminal of this kind.
    pub(super) fn new(terminal: Terminal) -> Self {
        let ansi = terminal == Terminal::Ansi;
        Self { editor: LineEditor::new(), ansi, drawn: 0, job: None, paused: false, told: 0 }
    }

    /// Whether a command is in progress during which no input is read.
    pub(super) fn is_busy(&self) -> bool {
        self.job.is_some() && !self.paused
    }

    /// Runs a piece of the command in progress. Ctrl-C also discards what was typed before it.
    pub(super) fn work(&mut self, context: &mut Context<'_>) {
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

    /// Ends a command before its time.
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
        if !self.ansi && serial::is_text() && now >= self.told + PLAIN {
            // Not at once: most are done before that.
            if core::mem::replace(&mut self.told, now) != 0 {
                serial::passing(format_args!("{}", job.progress(context.held.bytes())));
            }
        }
    }

    /// Takes a byte that was typed. A finished line is run.
    pub(super) fn feed(&mut self, byte: u8, context: &mut Context<'_>) -> Outcome {
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
                // Any other key is the begin of something else.
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
        self.told = now;
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
        let words = |placeholder: &str| -> alloc::vec::Vec<String> {
            match placeholder {
                "COMMAND" => COMMANDS.iter().map(|(name, ..)| String::from(*name)).collect(),
                "NAME" => context.balloons.drivers().map(|driver| String::from(driver.name())).collect(),
                "SLOT" => context.slots.ports().iter().map(|port| String::from(port.name())).collect(),
                "QUEUE" => {
                    let queues = context.balloons.drivers().flat_map(Balloon::queues);
                    queues.map(|(name, _)| String::from(name)).collect()
                }
                _ => alloc::vec::Vec::new(),
            }
        };
        match complete(self.editor.left_of_cursor(), &COMMANDS, words) {
            Completion::Nothing => {}
            Completion::Insert(text) => self.editor.insert(&text),
            Completion::Choices(words) => serial::passing(format_args!("  {}", words.join("  "))),
        }
    }

    /// Draws the status line while a balloon moves, and once when it has come to rest.
    pub(super) fn draw_if_moving(&mut self, balloons: &Balloons, held: u64) {
        if self.job.is_some() {
            return;
        }
        let Some(movement) = balloons.movement() else {
            if core::mem::take(&mut self.drawn) != 0 {
                self.draw(balloons, held);
            }
            return;
        };
        if self.drawn == 0 || movement.now >= self.drawn + REDRAW {
            self.drawn = movement.now.max(1);
            self.draw(balloons, held);
        }
    }

    /// Draws the line being typed, or the progress of a command, with `held` bytes held: on the screen, and on a terminal, after the
    /// balloon's progress.
    pub(super) fn draw(&self, balloons: &Balloons, held: u64) {
        if let Some(job) = &self.job {
            // The hint on how to continue the log matters only while it waits.
            let silent = matches!(job, Job::Log(_)) && !self.paused;
            let progress = if silent { String::new() } else { alloc::format!("{}", job.progress(held)) };
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

impl Context<'_> {
    fn for_job(&mut self) -> JobContext<'_> {
        JobContext { machine: self.machine, balloons: self.balloons, held: self.held }
    }
}

/// Moves the cursor back (ECMA-48 CUB).
struct Back(usize);

impl core::fmt::Display for Back {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, "\x1b[{}D", self.0) }
    }
}

/// What a line leads to.
enum Answer {
    /// It is answered.
    Done,
    /// It is in progress.
    Job(Job),
    /// Print the log: all of it without stopping, or with pauses on a terminal.
    Log { all: bool },
    /// The kernel ends.
    End(Outcome),
}

fn run(line: &str, context: &mut Context<'_>) -> Answer {
    let mut words = line.split_ascii_whitespace();
    let Some(command) = words.next() else { return Answer::Done };
    let arguments: alloc::vec::Vec<&str> = words.collect();
    match (command, arguments.as_slice()) {
        ("help" | "?", []) => usage(None),
        ("help" | "?", [command]) => help(command),
        ("info", []) => info(context),
        ("acpi", []) => acpi(context.machine),
        ("pci", []) => pci(context),
        ("pci", ["-v"]) => return Answer::Job(Job::list(details(context))),
        ("virtio", []) => virtio(context.balloons),
        ("irq", []) => irq(),
        ("cpus", []) => processors::list(),
        ("affinity", [queue, cpu]) => {
            processors::set_affinity(context.balloons, context.machine, queue, cpu, None);
        }
        ("affinity", [queue, cpu, name]) => {
            processors::set_affinity(context.balloons, context.machine, queue, cpu, Some(name));
        }
        ("mem", []) => mem(context.held),
        ("mem", ["map"]) => return Answer::Job(Job::list(map())),
        ("mem", ["hold", size]) => match parse_size(size) {
            Ok(wanted) => return Answer::Job(Job::Hold { wanted, taken: 0 }),
            Err(error) => say!("{error}"),
        },
        ("mem", ["verify"]) => return Answer::Job(Job::Verify { next: 0, bytes: 0, bad: 0 }),
        ("mem", ["release"]) => return Answer::Job(Job::Release { bytes: context.held.bytes() }),
        ("work", []) => context.work.tell(),
        ("work", [what]) => work(what, context),
        ("log", []) => return Answer::Log { all: false },
        ("log", ["all"]) => return Answer::Log { all: true },
        ("balloon", []) => {
            // The interrupt that announces a new target may be lost.
            context.balloons.look();
            context.balloons.serve(context.machine);
            balloon(context.balloons);
        }
        ("balloon", [size, ..]) => say!(
            "only the host sets the balloon's size: type `balloon {size}` in QEMU's monitor (Ctrl-A C goes there and back), or use QMP"
        ),
        ("report", []) => report(context.balloons),
        ("stats", []) => stats(context.balloons),
        ("cpu", []) => cpu(context.machine),
        ("latency", ["start"]) => {
            context.latency.start();
            say!("the kernel allocates; `latency stop` ends it");
        }
        ("latency", ["stop"]) => context.latency.stop(),
        ("reset", names) => lifecycle(Verb::Reset, names, context),
        // Not that of statistics: QEMU keeps its buffer over the reset, and answers each that follows at once, for ever.
        ("reset-queue", ["inflate", names @ ..]) => {
            lifecycle(Verb::ResetQueue(BalloonQueue::Inflate), names, context);
        }
        ("reset-queue", ["deflate", names @ ..]) => {
            lifecycle(Verb::ResetQueue(BalloonQueue::Deflate), names, context);
        }
        ("freeze", names) => lifecycle(Verb::Freeze, names, context),
        ("restore", names) => lifecycle(Verb::Restore, names, context),
        ("slots", []) => slots(context),
        ("random", []) => random::tell_some(context.machine, context.tree, random::DEFAULT),
        ("random", [length]) => random::tell(context.machine, context.tree, length),
        ("resources", []) => Resources::count(context.balloons).tell(),
        ("poweroff", []) => return Answer::End(Outcome::PowerOff),
        ("reboot", []) => return Answer::End(Outcome::Reboot),
        ("fault", ["page"]) => fault(),
        ("fault", ["hang"]) => hang(),
        ("fault", ["panic"]) => panic!("asked for at the console"),
        ("fault", ["panic", cpu]) => processors::fail(cpu),
        ("fault", ["nmi"]) => panic!("{}", processors::WithNmis),
        ("fault", ["power", slot]) => cut_power(context, slot),
        (known, given) if COMMANDS.iter().any(|(name, ..)| *name == known) => {
            match given {
                [] => say!("`{known}` needs to know what:"),
                _ => say!("`{known} {}` is not understood:", given.join(" ")),
            }
            usage(Some(known));
        }
        (unknown, _) => tell_unknown_command(unknown),
    }
    Answer::Done
}

fn help(command: &str) {
    if COMMANDS.iter().any(|(name, ..)| *name == command) {
        usage(Some(command));
    } else {
        tell_unknown_command(command);
    }
}

fn tell_unknown_command(unknown: &str) {
    match similar(unknown, COMMANDS.iter().map(|(name, ..)| *name)) {
        Some(name) => say!("there is no command `{unknown}`, did you mean `{name}`? `help` lists those there are"),
        None => say!("there is no command `{unknown}`; `help` lists those there are"),
    }
}

fn usage(only: Option<&str>) {
    for (name, arguments, about) in COMMANDS.iter().filter(|(name, ..)| only.is_none_or(|only| only == *name)) {
        let call = alloc::format!("{name} {arguments}");
        say!("  {call:<34} {about}");
    }
}

fn info(context: &mut Context<'_>) {
    let machine = &*context.machine;
    say!("ballonet {}, loaded by {}", env!("CARGO_PKG_VERSION"), machine.boot_info().protocol);
    say!("command line: {}", String::from_utf8_lossy(machine.boot_info().command_line.as_bytes()));
    for (what, name) in machine.identity.facts() {
        say!("{what}: {name}");
    }
    let mode = if local_apic::is_x2apic() { "x2APIC" } else { "xAPIC" };
    say!("local APIC {} in {mode} mode, {}", local_apic::id(), count(local_apic::errors(), "error"));
    say!("TSC: {} MHz, {}", machine.rate.tsc_hz / 1_000_000, machine.rate.source);
    if let Some(mtrrs) = Mtrrs::read(&machine.features) {
        say!("memory is {} where the MTRRs say nothing else", mtrrs.default_type());
    }
    let image = machine.image();
    let place = image.place();
    say!("image: {:#x}-{:#x}, {} KiB", place.start, place.end - 1, (place.end - place.start) / 1024);
    for record in machine_check::records(&machine.features) {
        say!("machine check: {record}");
    }
    say!("up {} ms", machine.now() / 1_000_000);
}

fn acpi(machine: &Machine) {
    let Some(acpi) = &machine.acpi else {
        say!("there is no ACPI");
        return;
    };
    for table in acpi.tables.iter() {
        say!("{table}");
    }
    for problem in &acpi.problems {
        say!("problem: {problem}");
    }
    if let Some(madt) = &acpi.madt {
        say!("{}, {}", count(madt.processors().len(), "CPU"), count(madt.io_apics().len(), "IOAPIC"));
    }
    match acpi.soft_off {
        Some(SleepType { a, b }) => say!("switched off by sleep type {a}, {b}"),
        None => say!("there is no way to switch off: no `_S5` was found"),
    }
    match acpi.fadt.as_ref().and_then(|fadt| fadt.reset) {
        Some(reset) => say!("reset by writing {:#x} to {}", reset.value, reset.register),
        None => say!("there is no reset register: the chipset's is tried, then the keyboard controller's"),
    }
    say!("power button: pressed {}", count(power_button::presses(), "time"));
}

fn pci(context: &Context<'_>) {
    for node in context.tree.nodes() {
        say!("{}", Line(node.function()));
    }
}

/// The PCI functions with their BARs and capabilities, line by line.
fn details(context: &mut Context<'_>) -> alloc::vec::Vec<String> {
    let mut lines = alloc::vec::Vec::new();
    for node in context.tree.nodes() {
        lines.push(alloc::format!("{}", Line(node.function())));
        let details = Details::new(context.machine.config(), node).with_vendor(listing::describe);
        lines.extend(alloc::format!("{details}").lines().map(String::from));
    }
    lines
}

fn virtio(balloons: &Balloons) {
    for driver in balloons.drivers() {
        let (transport, ring, interrupts) = (driver.transport(), driver.ring_format(), driver.interrupt_mode());
        say!("{}: balloon at {}, {transport}, {ring} rings, {interrupts}", driver.name(), driver.address());
        let features: alloc::vec::Vec<_> = feature_names(driver.features()).collect();
        say!("  features {:#x}: {}", driver.features().bits(), features.join(" "));
        for (name, size) in driver.queues() {
            say!("  queue {name}: {}", count(size, "entry"));
        }
        if let Some(error) = driver.failed() {
            say!("  failed: {error}");
        }
    }
    if balloons.is_empty() {
        say!("there is no virtio balloon");
    }
}

fn irq() {
    lines::trim();
    for view in vectors::views() {
        let name = if view.name.is_empty() { "(released)" } else { &view.name };
        let on = OnCpus(&view);
        let (vector, cpu) = (view.vector, Some(view.cpu));
        match view.unclaimed {
            0 => tell_interrupts(name, view.count, cpu, format_args!("vector {vector:#04x}{on}")),
            unclaimed => {
                let about = format_args!("vector {vector:#04x}{on}, {unclaimed} not claimed by any device");
                tell_interrupts(name, view.count, cpu, about);
            }
        }
        for &(cpu, count) in &view.by_cpu {
            serial::emit("irq-cpu", |line| {
                line.text("name", name).number("cpu", cpu.into()).number("count", count);
            });
        }
    }
    for (name, claimed, inputs) in lines::views() {
        match inputs.as_slice() {
            [input] => tell_interrupts(&name, claimed, None, format_args!("interrupt line, at GSI {input}")),
            _ => tell_interrupts(
                &name,
                claimed,
                None,
                format_args!("interrupt line, at one of {} GSIs: the first interrupt tells", inputs.len()),
            ),
        }
    }
    if vectors::holds() > 0 {
        say!("devices were held back {}: they interrupted without a pause", count(vectors::holds(), "time"));
    }
    if lines::storms() > 0 {
        say!("{} masked: nobody claimed its interrupts", count(lines::storms(), "input"));
    }
}

/// Where a vector goes, and where its interrupts came, on a machine with several CPUs.
struct OnCpus<'v>(&'v vectors::VectorView);

impl core::fmt::Display for OnCpus<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if cpus::count() == 1 {
            return Ok(());
        }
        write!(f, " to CPU {}", self.0.cpu)?;
        let elsewhere = self.0.by_cpu.iter().filter(|(cpu, _)| *cpu != self.0.cpu);
        elsewhere.into_iter().try_for_each(|(cpu, count)| write!(f, ", {count} came to CPU {cpu}"))
    }
}

/// An interrupt's name and count, and the number of the CPU that a vector goes to: an event of its own for programs.
fn tell_interrupts(name: &str, count: u64, cpu: Option<u32>, about: core::fmt::Arguments<'_>) {
    if serial::is_text() {
        say!("{name:<20} {count:>10}  {about}");
    } else {
        serial::emit("irq", |line| {
            line.text("name", name).number("count", count);
            if let Some(cpu) = cpu {
                line.number("cpu", cpu.into());
            }
        });
    }
}

fn mem(held: &Held) {
    let counts = frames::counts();
    let sound = frames::with(|frames| frames.check());
    serial::emit("memory", |line| {
        line.number("total", counts.total)
            .number("free", counts.free)
            .number("used", counts.used)
            .number("ballooned", counts.ballooned)
            .number("reserved", counts.reserved)
            .number("refused", counts.history.refusals)
            .boolean("sound", sound.is_ok());
    });
    let heap = heap::view();
    for (name, frames) in [
        ("total", counts.total),
        ("free", counts.free),
        ("used", counts.used),
        ("ballooned", counts.ballooned),
        ("reserved", counts.reserved),
    ] {
        say!("{name:<10} {frames:>10} frames {:>12} KiB", (frames * FRAME_SIZE) >> 10);
    }
    say!(
        "wholly free: {} of 2 MiB, the host was told of {}; the largest free block has {}",
        count(counts.free_regions, "region"),
        counts.reported_regions,
        count(counts.largest_free_block, "frame")
    );
    let history = counts.history;
    say!(
        "{}, {} failed, {}, {} refused",
        count(history.allocations, "allocation"),
        history.failures,
        count(history.frees, "free"),
        history.refusals
    );
    let large = large::view();
    say!("heap: {} of {} KiB used; held: {} KiB", heap.used >> 10, heap.size >> 10, held.bytes() >> 10);
    say!(
        "{}, {} KiB in all, {} in pieces",
        count(large.blocks, "large block"),
        (large.frames * FRAME_SIZE) >> 10,
        large.scattered
    );
    let relieved = relief::counts();
    say!(
        "{} waited for {} KiB; ended for lack of memory: {}",
        count(relieved.stalls, "allocation"),
        (relieved.frames * FRAME_SIZE) >> 10,
        count(relieved.ended, "program")
    );
    say!("open: {} onto devices", count(paging::with(|space| space.windows()), "window"));
    match sound {
        Ok(()) => say!("the allocator's records agree with each other"),
        Err(error) => say!("the allocator's records are wrong: {error}"),
    }
}

/// The runs of frames of one state, a line each.
fn map() -> alloc::vec::Vec<String> {
    // Collected first: frames are locked meanwhile, so nothing is allocated.
    let count = frames::with(|frames| frames.runs().count());
    let mut runs = alloc::vec::Vec::with_capacity(count + 8);
    frames::with(|frames| runs.extend(frames.runs().take(count + 8)));
    let line = |(run, state): &(ballonet::memory::FrameRun, ballonet::memory::FrameState)| {
        alloc::format!("{:#014x} {:>10} KiB {state}", run.start().start().as_u64(), run.bytes() >> 10)
    };
    runs.iter().map(line).collect()
}

fn work(what: &str, context: &mut Context<'_>) {
    match (what, WorkChoice::parse(what)) {
        (_, Ok(choice)) => {
            context.work.start(choice);
            context.work.tell();
        }
        ("stop", Err(_)) => {
            if !context.work.stop() {
                say!("no program runs");
            }
            context.balloons.memory_freed();
        }
        (_, Err(error)) => say!("{error}"),
    }
}

fn balloon(balloons: &Balloons) {
    for driver in balloons.drivers() {
        let status = driver.status();
        let mib = |frames: u64| (frames * FRAME_SIZE) >> 20;
        let short = if status.short { "; the rest is in use, or kept free for the kernel" } else { "" };
        let (actual, target) = (mib(status.actual), mib(status.target));
        if status.silent {
            say!("{}: {actual} MiB are with the host; what it asks for is not known", driver.name());
            say!("  the device returns no requests; `reset {}` restarts it", driver.name());
        } else {
            say!("{}: {actual} MiB are with the host, which asks for {target} MiB{short}", driver.name());
        }
        if let Some(error) = driver.failed() {
            say!("  given up on: {error}; `reset {}` tries again", driver.name());
        }
        if status.cooling.is_some() {
            say!("  it stays smaller for a while, because memory ran out");
        }
        if status.frozen {
            say!("  frozen: nothing moves before it is restored");
        }
        if status.withheld > 0 {
            say!("  withheld: {}, which the device would not stop using", count(status.withheld, "frame"));
        }
        if status.hinted > 0 {
            say!(
                "  {} MiB of free memory are hinted: the host copies memory, and need not copy these",
                mib(status.hinted)
            );
        }
        if status.inflating + status.deflating > 0 {
            say!("  on the way: {} to the host, {} back", count(status.inflating, "frame"), status.deflating);
        }
    }
    if balloons.is_empty() {
        say!("there is no virtio balloon");
    }
}

fn report(balloons: &mut Balloons) {
    if balloons.report_now() {
        say!("all free memory is being reported to the host");
    } else {
        say!("no balloon wants reports of free memory (`page_reporting`)");
    }
}

/// The time since entry, and how much of it the CPU did not sleep.
fn cpu(machine: &Machine) {
    let up = machine.now();
    let awake = up.saturating_sub(asleep());
    serial::emit("cpu", |line| {
        line.number("up", up).number("awake", awake);
    });
    if serial::is_text() {
        say!("up {} ms, of which the boot CPU was awake for {} ms", up / 1_000_000, awake / 1_000_000);
    }
}

/// Has the balloons of these names do it, or all where none is named.
fn lifecycle(verb: Verb, names: &[&str], context: &mut Context<'_>) {
    let Context { balloons, machine, .. } = context;
    match names {
        [] if balloons.all_do(verb, None, machine) == 0 => say!("there is no virtio balloon"),
        [] => {}
        names => {
            for name in names.iter().filter(|name| balloons.all_do(verb, Some(name), machine) == 0) {
                balloons::tell_unknown(name);
            }
        }
    }
}

fn stats(balloons: &Balloons) {
    for driver in balloons.drivers() {
        let counters = driver.counters();
        let interrupts = counters.config_interrupts + counters.vring_interrupts;
        serial::emit("stats", |line| {
            line.text("name", driver.name()).number("kicks", counters.kicks).number("interrupts", interrupts);
            line.number("inflated", counters.inflate_frames).number("deflated", counters.deflate_frames);
            line.number("reported", counters.reported_frames).number("reports", counters.reports);
        });
        say!(
            "{}: {}, {}, {}, {} for nothing",
            driver.name(),
            count(counters.kicks, "kick"),
            count(interrupts, "interrupt"),
            count(counters.polls, "poll"),
            counters.spurious
        );
        let manner = driver.manner();
        let way = manner.way.map_or("plain", Way::word);
        say!("  requests of {} frame numbers, chains {}, {way}", manner.request, manner.chains.word());
        if let Some(rates) = manner.rates {
            say!("  measured: report-first {} MiB/s, plain {} MiB/s", rates.report_first, rates.plain);
        }
        moved("inflated", counters.inflate_frames, counters.inflate_requests);
        moved("deflated", counters.deflate_frames, counters.deflate_requests);
        if counters.reports > 0 {
            say!(
                "  reported {} in {}",
                count(counters.reported_frames, "free frame"),
                count(counters.reports, "report")
            );
        }
        if counters.reliefs > 0 {
            let (reliefs, frames, in_vain) = (counters.reliefs, counters.relief_frames, counters.reliefs_in_vain);
            say!(
                "  reclaimed {} for {}, {in_vain} of which got too few",
                count(frames, "frame"),
                count(reliefs, "allocation")
            );
        }
        if counters.hint_rounds > 0 {
            say!(
                "  hinted {} in {}, and took {} back early",
                count(counters.hinted_frames, "free frame"),
                count(counters.hint_rounds, "round"),
                counters.relinquished_frames
            );
        }
        say!(
            "  device reset {}, single queues {}",
            count(counters.resets, "time"),
            count(counters.queue_resets, "time")
        );
        say!(
            "  target read {}, size written {}, statistics sent {}",
            count(counters.target_reads, "time"),
            count(counters.actual_writes, "time"),
            count(counters.statistics, "time")
        );
        if driver.interrupt_mode() == InterruptMode::Line {
            say!("  not its own: {} on the line", count(counters.stray_interrupts, "interrupt"));
        }
    }
    let dropped = serial::with_serial(|serial| serial.dropped());
    say!("serial line: {} dropped", count(dropped, "byte"));
}

/// Prints the frames that moved in one direction.
fn moved(what: &str, frames: u64, requests: u64) {
    say!("  {what} {} in {}", count(frames, "frame"), count(requests, "request"));
}

fn slots(context: &Context<'_>) {
    for port in context.slots.ports() {
        let (mode, interrupts) = port.interrupts();
        say!("{}: behind {}, {}; {mode}, {}", port.name(), port.bdf(), port.stage(), count(interrupts, "interrupt"));
        for node in context.tree.behind(port.bdf()) {
            say!("  {}", Line(node.function()));
        }
    }
    if context.slots.count() == 0 {
        say!("there is no hot-plug slot, or `hotplug=off` leaves them alone");
    }
}

/// A device without power reads as all ones, which its driver finds out by looking.
fn cut_power(context: &mut Context<'_>, slot: &str) {
    if context.slots.cut_power(context.machine, slot) {
        context.balloons.look();
    } else {
        say!("there is no slot `{slot}`; `slots` lists those there are");
    }
}

/// Reads where nothing is mapped: page 0.
fn fault() {
    crate::machine::fault::provoke();
}

/// Does nothing more, interrupts on: what an NMI tells of.
fn hang() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// Switches off or starts again.
pub(super) fn end(outcome: Outcome) -> ! {
    match outcome {
        Outcome::Reboot => power::reboot(),
        Outcome::Done | Outcome::PowerOff => power::exit(power::ExitStatus::Success),
    }
}
