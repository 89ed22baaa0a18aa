//! The console: commands from the serial line and the keyboard, and the line that is being typed.

use alloc::string::String;

use ballonet::acpi::SleepType;
use ballonet::balloon::wire::feature_names;
use ballonet::balloon::{BalloonQueue, Way};
use ballonet::boot::{Terminal, WorkChoice, parse_size};
use ballonet::console::{Edit, LineEditor};
use ballonet::machine::memory_types::Mtrrs;
use ballonet::machine::{Machine, asleep, frames, power};
use ballonet::machine::{
    cpus, large, lines, local_apic, log as serial, machine_check, paging, power_button, relief, screen, vectors,
};
use ballonet::memory::FRAME_SIZE;
use ballonet::pci::Tree;
use ballonet::pci::listing::{Details, Line};
use ballonet::platform::Platform;
use ballonet::virtio::InterruptMode;
use ballonet::virtio::listing;

use crate::backing;
use crate::balloons::{self, Balloons, Verb};
use crate::held::Held;
use crate::hotplug::Slots;
use crate::latency::Latency;
use crate::processors;
use crate::resources::Resources;
use crate::symbols::HEAP;
use crate::work::Work;

/// A command: its name, its arguments, what it does.
const COMMANDS: [(&str, &str, &str); 25] = [
    ("help", "", "this list"),
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
    ("resources", "", "all that can leak, counted"),
    ("poweroff", "", "reset the devices and switch off, as the power button does"),
    ("reboot", "", "reset the devices and start again"),
    ("fault", "page | panic [CPU] | nmi | hang | power SLOT", "fail on purpose, to see how failures are told"),
];

/// The prompt.
const PROMPT: &str = "> ";

/// What a command leads to beyond its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Done,
    /// Switch off.
    PowerOff,
    /// Start again.
    Reboot,
}

/// What the commands work on.
pub struct Context<'k> {
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
pub struct Console {
    editor: LineEditor,
    ansi: bool,
    /// When the status line was last drawn because the balloon moved; 0 when it has come to rest since.
    drawn: u64,
}

/// Time between two drawings of a moving balloon: 100 ms.
const REDRAW: u64 = 100_000_000;

/// Writes a line of an answer.
macro_rules! say {
    ($($argument:tt)*) => {
        serial::line(format_args!($($argument)*))
    };
}

impl Console {
    /// A console for a terminal of this kind.
    pub fn new(terminal: Terminal) -> Self {
        Self { editor: LineEditor::new(), ansi: terminal == Terminal::Ansi, drawn: 0 }
    }

    /// Takes a byte that was typed. A finished line is run.
    pub fn feed(&mut self, byte: u8, context: &mut Context<'_>) -> Outcome {
        match self.editor.feed(byte) {
            Edit::Nothing => Outcome::Done,
            Edit::Changed => {
                self.draw(context.balloons);
                Outcome::Done
            }
            Edit::Line(line) => {
                serial::set_status(format_args!(""));
                serial::echo(format_args!("{PROMPT}{line}"));
                let outcome = run(&line, context);
                self.draw(context.balloons);
                outcome
            }
        }
    }

    /// Draws the status line while a balloon moves, and once when it has come to rest.
    pub fn draw_if_moving(&mut self, balloons: &Balloons) {
        let Some(movement) = balloons.movement() else {
            if core::mem::take(&mut self.drawn) != 0 {
                self.draw(balloons);
            }
            return;
        };
        if self.drawn == 0 || movement.now >= self.drawn + REDRAW {
            self.drawn = movement.now.max(1);
            self.draw(balloons);
        }
    }

    /// Draws the line being typed: on the screen, and on a terminal, where how the balloon moves stands before it.
    pub fn draw(&self, balloons: &Balloons) {
        let line = self.editor.text();
        screen::show_prompt(PROMPT, line, self.editor.right_of_cursor());
        if !self.ansi {
            return;
        }
        let back = Back(self.editor.right_of_cursor());
        match balloons.movement() {
            Some(movement) => serial::set_status(format_args!("{movement} {PROMPT}{line}{back}")),
            None => serial::set_status(format_args!("{PROMPT}{line}{back}")),
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

fn run(line: &str, context: &mut Context<'_>) -> Outcome {
    let mut words = line.split_ascii_whitespace();
    let Some(command) = words.next() else { return Outcome::Done };
    let arguments: alloc::vec::Vec<&str> = words.collect();
    match (command, arguments.as_slice()) {
        ("help" | "?", []) => help(),
        ("info", []) => info(context),
        ("acpi", []) => acpi(context.machine),
        ("pci", []) => pci(context, false),
        ("pci", ["-v"]) => pci(context, true),
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
        ("mem", ["map"]) => map(),
        ("mem", ["hold", size]) => hold(size, context),
        ("mem", ["verify"]) => verify(context.held),
        ("mem", ["release"]) => release(context),
        ("work", []) => context.work.tell(),
        ("work", [what]) => work(what, context),
        ("balloon", []) => {
            // An interrupt that would have told of a new target may be lost.
            context.balloons.look();
            context.balloons.serve(context.machine);
            balloon(context.balloons);
        }
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
        ("resources", []) => Resources::count(context.balloons).tell(),
        ("poweroff", []) => return Outcome::PowerOff,
        ("reboot", []) => return Outcome::Reboot,
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
        (unknown, _) => say!("there is no command `{unknown}`; `help` lists those there are"),
    }
    Outcome::Done
}

fn help() {
    usage(None);
}

fn usage(only: Option<&str>) {
    for (name, arguments, about) in COMMANDS.iter().filter(|(name, ..)| only.is_none_or(|only| only == *name)) {
        let call = alloc::format!("{name} {arguments}");
        say!("  {call:<34} {about}");
    }
}

fn info(context: &mut Context<'_>) {
    let machine = &*context.machine;
    let brand = ballonet::machine::cpu::brand();
    let brand = String::from_utf8_lossy(&brand);
    say!("ballonet {}, loaded by {}", env!("CARGO_PKG_VERSION"), machine.boot_info().protocol);
    say!("command line: {}", String::from_utf8_lossy(machine.boot_info().command_line.as_bytes()));
    say!("CPU: {}", brand.trim_matches(['\0', ' ']));
    let mode = if local_apic::is_x2apic() { "x2APIC" } else { "xAPIC" };
    say!("local APIC {} in {mode} mode, {} errors", local_apic::id(), local_apic::errors());
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
        say!("{} CPUs, {} IOAPICs", madt.processors().len(), madt.io_apics().len());
    }
    match acpi.soft_off {
        Some(SleepType { a, b }) => say!("switched off by sleep type {a}, {b}"),
        None => say!("there is no way to switch off: no `_S5` was found"),
    }
    match acpi.fadt.as_ref().and_then(|fadt| fadt.reset) {
        Some(reset) => say!("reset by writing {:#x} to {}", reset.value, reset.register),
        None => say!("there is no reset register: the chipset's is tried, then the keyboard controller's"),
    }
    say!("power button: pressed {} times", power_button::presses());
}

fn pci(context: &mut Context<'_>, verbose: bool) {
    for node in context.tree.nodes() {
        say!("{}", Line(node.function()));
        if verbose {
            for line in
                alloc::format!("{}", Details::new(context.machine.config(), node).with_vendor(listing::describe))
                    .lines()
            {
                say!("{line}");
            }
        }
    }
}

fn virtio(balloons: &Balloons) {
    for driver in balloons.drivers() {
        let (transport, ring, interrupts) = (driver.transport(), driver.ring_format(), driver.interrupt_mode());
        say!("{}: balloon at {}, {transport}, {ring} rings, {interrupts}", driver.name(), driver.function());
        let features: alloc::vec::Vec<_> = feature_names(driver.features()).collect();
        say!("  features {:#x}: {}", driver.features().bits(), features.join(" "));
        for (name, size) in driver.queues() {
            say!("  queue {name}: {size} entries");
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
            0 => count(name, view.count, cpu, format_args!("vector {vector:#04x}{on}")),
            unclaimed => {
                let about = format_args!("vector {vector:#04x}{on}, {unclaimed} not claimed by any device");
                count(name, view.count, cpu, about);
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
            [input] => count(&name, claimed, None, format_args!("interrupt line, at GSI {input}")),
            _ => count(
                &name,
                claimed,
                None,
                format_args!("interrupt line, at one of {} GSIs: the first interrupt tells", inputs.len()),
            ),
        }
    }
    if vectors::holds() > 0 {
        say!("{} times devices were held back: they interrupted without a pause", vectors::holds());
    }
    if lines::storms() > 0 {
        say!("{} inputs were masked: nobody claimed their interrupts", lines::storms());
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
fn count(name: &str, count: u64, cpu: Option<u32>, about: core::fmt::Arguments<'_>) {
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
    let heap = HEAP.view();
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
        "{} regions of 2 MiB are wholly free, the host was told of {}; the largest free block has {} frames",
        counts.free_regions,
        counts.reported_regions,
        counts.largest_free_block
    );
    let history = counts.history;
    say!(
        "{} allocations, {} failed, {} frees, {} refused",
        history.allocations,
        history.failures,
        history.frees,
        history.refusals
    );
    let large = large::view();
    say!("heap: {} of {} KiB used; held: {} KiB", heap.used >> 10, heap.size >> 10, held.bytes() >> 10);
    say!(
        "{} large blocks of {} KiB, {} of them in pieces",
        large.blocks,
        (large.frames * FRAME_SIZE) >> 10,
        large.scattered
    );
    let relieved = relief::counts();
    say!(
        "{} allocations waited for {} KiB; {} programs were ended for lack of memory",
        relieved.stalls,
        (relieved.frames * FRAME_SIZE) >> 10,
        relieved.ended
    );
    say!("{} windows onto devices are open", paging::with(|space| space.windows()));
    match sound {
        Ok(()) => say!("the allocator's records agree with each other"),
        Err(error) => say!("the allocator's records are wrong: {error}"),
    }
}

fn map() {
    // Collected first: writing to the serial line takes long, and frames are locked meanwhile.
    let runs: alloc::vec::Vec<_> = {
        let count = frames::with(|frames| frames.runs().count());
        let mut runs = alloc::vec::Vec::with_capacity(count + 8);
        frames::with(|frames| runs.extend(frames.runs().take(count + 8)));
        runs
    };
    for (run, state) in runs {
        say!("{:#014x} {:>10} KiB {state}", run.start().start().as_u64(), run.bytes() >> 10);
    }
}

fn hold(size: &str, context: &mut Context<'_>) {
    let Context { machine, balloons, held, .. } = context;
    match parse_size(size) {
        Ok(wanted) => {
            let before = held.bytes();
            let bytes = backing::with(machine, balloons, || held.hold(wanted));
            let all = if bytes - before < wanted { ": there is no more" } else { "" };
            serial::emit("held", |line| {
                line.number("bytes", bytes);
            });
            if serial::is_text() {
                say!("{} KiB are held{all}", bytes >> 10);
            }
        }
        Err(error) => say!("{error}"),
    }
}

fn verify(held: &Held) {
    let verdict = held.verify();
    serial::emit("verify", |line| {
        line.boolean("ok", verdict.bad == 0).number("bytes", verdict.bytes).number("bad", verdict.bad);
    });
    if serial::is_text() {
        match (verdict.bad, verdict.bytes / 8) {
            (0, words) => say!("all {words} words are as they were written"),
            (bad, words) => say!("{bad} of {words} words are NOT as they were written"),
        }
    }
}

fn release(context: &mut Context<'_>) {
    context.held.release();
    context.balloons.memory_freed();
    say!("nothing is held");
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
        let short = if status.short { "; the kernel lives on the rest" } else { "" };
        let (actual, target) = (mib(status.actual), mib(status.target));
        if status.silent {
            say!("{}: {actual} MiB are with the host; what it asks for is not known", driver.name());
            say!("  the device gives nothing back of what it was asked; `reset {}` starts it again", driver.name());
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
            say!("  {} frames are in use no more: the device would not stop using them", status.withheld);
        }
        if status.hinted > 0 {
            say!(
                "  {} MiB of free memory are hinted: the host copies memory, and need not copy these",
                mib(status.hinted)
            );
        }
        if status.inflating + status.deflating > 0 {
            say!("  on the way: {} frames to the host, {} back", status.inflating, status.deflating);
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
            "{}: {} kicks, {interrupts} interrupts, {} polls, {} for nothing",
            driver.name(),
            counters.kicks,
            counters.polls,
            counters.spurious
        );
        let manner = driver.manner();
        let way = manner.way.map_or("plain", Way::word);
        say!("  requests of {} frame numbers, chains {}, {way}", manner.request, manner.chains.word());
        if let Some(rates) = manner.rates {
            say!("  measured: report-first {} MiB/s, plain {} MiB/s", rates.report_first, rates.plain);
        }
        say!("  inflated {} frames in {} requests", counters.inflate_frames, counters.inflate_requests);
        say!("  deflated {} frames in {} requests", counters.deflate_frames, counters.deflate_requests);
        if counters.reports > 0 {
            say!("  reported {} free frames in {} reports", counters.reported_frames, counters.reports);
        }
        if counters.reliefs > 0 {
            let (reliefs, frames, in_vain) = (counters.reliefs, counters.relief_frames, counters.reliefs_in_vain);
            say!(
                "  had {frames} frames back for {reliefs} allocations that lacked memory, {in_vain} of which got too few"
            );
        }
        if counters.hint_rounds > 0 {
            say!(
                "  hinted {} free frames in {} rounds, and took {} back early",
                counters.hinted_frames,
                counters.hint_rounds,
                counters.relinquished_frames
            );
        }
        say!("  reset {} times, single queues of it {} times", counters.resets, counters.queue_resets);
        say!(
            "  target read {} times, size written {} times, statistics sent {} times",
            counters.target_reads,
            counters.actual_writes,
            counters.statistics
        );
        if driver.interrupt_mode() == InterruptMode::Line {
            say!("  {} interrupts on the line were not its own", counters.stray_interrupts);
        }
    }
    let dropped = serial::with_serial(|serial| serial.dropped());
    say!("serial line: {dropped} bytes dropped");
}

fn slots(context: &Context<'_>) {
    for port in context.slots.ports() {
        let (mode, count) = port.interrupts();
        say!("{}: behind {}, {}; {mode}, {count} interrupts", port.name(), port.bdf(), port.stage());
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
    ballonet::machine::fault::provoke();
}

/// Does nothing more, interrupts on: what an NMI tells of.
fn hang() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// Switches off or starts again.
pub fn end(outcome: Outcome) -> ! {
    match outcome {
        Outcome::Reboot => power::reboot(),
        Outcome::Done | Outcome::PowerOff => power::exit(power::ExitStatus::Success),
    }
}
