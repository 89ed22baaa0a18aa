//! The main loop: serves balloons, slots, programs and the console, and sleeps when idle.

use core::convert::identity;

use ballonet::pci::Tree;
use ballonet::platform::Platform;
use log::warn;

use super::balloons::Balloons;
use super::console::{Console, Context, Outcome};
use super::held::Held;
use super::hotplug::Slots;
use super::latency::Latency;
use super::mmio_devices::MmioFound;
use super::power::PowerButton;
use super::typing;
use super::view::View;
use super::work::Work;
use crate::console::events::{self, Hex};
use crate::machine::{Machine, calibration, idle_unless, log as serial, nmi, power_button, screen, timer, vectors};

/// Typed bytes handled before the balloons are served again.
const INPUT_A_ROUND: usize = 256;

/// What the loop serves.
pub(super) struct MainLoop<'k> {
    machine: &'k mut Machine,
    tree: &'k mut Tree,
    mmio: &'k [MmioFound],
    balloons: &'k mut Balloons,
    slots: &'k mut Slots,
    button: &'k mut PowerButton,
    console: Console,
    held: Held,
    work: Work,
    latency: Latency,
    view: View,
}

impl<'k> MainLoop<'k> {
    pub(super) fn new(
        machine: &'k mut Machine,
        (tree, mmio): (&'k mut Tree, &'k [MmioFound]),
        balloons: &'k mut Balloons,
        slots: &'k mut Slots,
        button: &'k mut PowerButton,
    ) -> Self {
        let (console, work) = (Console::new(machine.options().term), Work::new(machine.options().work));
        let (held, latency, view) = (Held::default(), Latency::default(), View::default());
        Self { machine, tree, mmio, balloons, slots, button, console, held, work, latency, view }
    }

    /// Runs until the console or the power button ends it.
    pub(super) fn run(mut self) -> Outcome {
        typing::announce();
        self.console.draw(self.balloons, self.held.bytes());
        loop {
            self.serve();
            if self.button.was_pressed(self.machine.now()) {
                return Outcome::PowerOff;
            }
            match self.serve_console() {
                Outcome::Done => self.sleep(),
                end => return end,
            }
        }
    }

    /// Serves everything but the console once.
    fn serve(&mut self) {
        self.balloons.serve(self.machine);
        self.slots.serve(self.machine, self.tree, self.balloons);
        self.work.serve(self.machine, self.balloons);
        self.console.draw_if_moving(self.balloons, self.held.bytes());
        self.view.serve(self.machine, self.balloons);
        self.latency.sample(self.machine.now());
        report_nmis();
        calibration::refine(self.machine.now());
        serial::retry();
    }

    /// Runs a piece of the command in progress, and takes typed characters.
    fn serve_console(&mut self) -> Outcome {
        let Self { machine, tree, mmio, balloons, slots, console, held, work, latency, .. } = self;
        let mut context = Context { machine, tree, mmio, balloons, slots, held, work, latency };
        if console.is_busy() {
            console.work(&mut context);
        }
        // Endless input must not block the balloons.
        for _ in 0..INPUT_A_ROUND {
            // Input typed during a command is for the next one.
            let Some(byte) = (if console.is_busy() { None } else { serial::read_input() }) else { break };
            let outcome = console.feed(byte, &mut context);
            if outcome != Outcome::Done {
                return outcome;
            }
        }
        Outcome::Done
    }

    /// Whether there is work. Reliable with interrupts off, right before the CPU sleeps.
    fn is_pending(&self) -> bool {
        let served =
            [self.balloons.is_pending(), self.slots.is_pending(), self.work.is_pending(), self.console.is_busy()];
        let noted = power_button::is_pressed() || nmi::has_unreported() || screen::is_pending(self.machine.now());
        served.into_iter().any(identity) || noted || serial::has_input() || timer::has_fired()
    }

    /// When to serve something without an interrupt, in nanoseconds since entry.
    fn next_poll(&mut self) -> Option<u64> {
        let polls = [
            self.balloons.next_poll(self.machine),
            self.slots.next_poll(),
            self.work.next_turn(),
            self.latency.next_round(),
            self.button.next_poll(),
            serial::next_look(),
            self.view.next_comparison(),
            screen::next_frame(),
        ];
        polls.into_iter().flatten().min()
    }

    /// Sleeps until there is work.
    fn sleep(&mut self) {
        vectors::note_progress();
        timer::take_fired();
        if self.is_pending() {
            return;
        }
        // Only a CPU about to sleep needs the timer interrupt.
        match self.next_poll() {
            Some(moment) => timer::arm_at(moment),
            None => timer::disarm(),
        }
        idle_unless(|| self.is_pending());
    }
}

/// Reports NMIs; the kernel continues. The report also shows the sender that the kernel is alive.
fn report_nmis() {
    if let Some((count, interrupted)) = nmi::take_unreported() {
        serial::emit(&events::Nmi { count, interrupted: Hex(interrupted) });
        warn!("an NMI interrupted {interrupted:#x}, {count} so far; the kernel continues");
    }
}
