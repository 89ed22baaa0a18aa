//! How the kernel comes to its end: the power button, and what becomes of ballooned memory before power goes.

use crate::boot::PoweroffChoice;
use crate::machine::power_button::{self, Heard, NoButton};
use crate::machine::{Machine, idle_unless, lines, log as serial, timer};
use ballonet::platform::Platform;
use log::info;

use super::balloons::Balloons;

/// How often a button without an interrupt is looked at: 100 ms.
const LOOK: u64 = 100_000_000;
/// How often it is looked whether balloons that are to go have gone: 10 ms.
const GLANCE: u64 = 10_000_000;

/// The power button, or the lack of one.
pub(super) struct PowerButton {
    heard: Result<Heard, NoButton>,
    /// When it is to be looked at next, if it has no interrupt.
    look: u64,
}

impl PowerButton {
    /// Has presses noted from now on.
    pub(super) fn start(machine: &Machine) -> Self {
        let heard = power_button::watch(machine.acpi.as_ref());
        match &heard {
            Ok(heard) => info!("power button: heard {heard}"),
            Err(why) => info!("no power button: {why}"),
        }
        Self { heard, look: machine.now() }
    }

    /// Whether no interrupt tells of it: there is none, or its line had to be masked because of others on it.
    fn is_polled(&self) -> bool {
        match self.heard {
            Ok(Heard::Look) => true,
            Ok(Heard::Interrupt(_)) => lines::storms() > 0,
            Err(_) => false,
        }
    }

    /// When it is to be looked at although nothing has come from it, in nanoseconds since entry.
    pub(super) fn next_look(&self) -> Option<u64> {
        self.is_polled().then_some(self.look)
    }

    /// Whether it was pressed since this was last asked, which is told.
    pub(super) fn was_pressed(&mut self, now: u64) -> bool {
        if self.is_polled() && now >= self.look {
            self.look = now + LOOK;
            power_button::look();
        }
        let pressed = power_button::take_pressed();
        if pressed {
            serial::emit("power-button", |line| {
                line.number("presses", power_button::presses());
            });
            info!("the power button was pressed");
        }
        pressed
    }
}

/// Has the balloons ask back what their hosts have, if the kernel was told to (`poweroff=deflate`), for as long as one that
/// is taken away may take. A press of the button ends the wait.
pub(super) fn ask_back(machine: &mut Machine, balloons: &mut Balloons, button: &mut PowerButton) {
    if machine.options().poweroff == PoweroffChoice::Keep {
        return;
    }
    balloons.leave_all(machine.now());
    loop {
        balloons.serve(machine);
        let now = machine.now();
        if balloons.have_left(now) || button.was_pressed(now) {
            return;
        }
        timer::take_fired();
        timer::arm_at(balloons.next_look(machine).unwrap_or(u64::MAX).min(now + GLANCE));
        idle_unless(|| balloons.is_pending() || power_button::is_pressed() || timer::has_fired());
    }
}
