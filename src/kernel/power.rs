//! The power button, and what becomes of ballooned memory before the machine is switched off.

use crate::boot::PoweroffChoice;
use crate::console::events;
use crate::machine::power_button::{self, Heard, NoButton};
use crate::machine::{Machine, idle_unless, lines, log as serial, timer};
use ballonet::platform::Platform;
use log::info;

use super::balloons::Balloons;

/// The interval at which a button without an interrupt is polled: 100 ms.
const LOOK: u64 = 100_000_000;
/// The interval at which deflating balloons are polled: 10 ms.
const GLANCE: u64 = 10_000_000;

/// The power button, or the lack of one.
pub(super) struct PowerButton {
    heard: Result<Heard, NoButton>,
    /// When it is polled next, if it has no interrupt.
    next_poll: u64,
}

impl PowerButton {
    /// Notes presses from now on.
    pub(super) fn start(machine: &Machine) -> Self {
        let heard = power_button::watch(machine.acpi.as_ref());
        match &heard {
            Ok(heard) => info!("power button: heard {heard}"),
            Err(why) => info!("no power button: {why}"),
        }
        Self { heard, next_poll: machine.now() }
    }

    /// Whether it may not interrupt: it cannot, or its line had to be masked because of others on it.
    fn is_polled(&self) -> bool {
        match self.heard {
            Ok(Heard::Look) => true,
            Ok(Heard::Interrupt(_)) => lines::storms() > 0,
            Err(_) => false,
        }
    }

    /// When it must be polled, in nanoseconds since entry; `None` if it interrupts.
    pub(super) fn next_poll(&self) -> Option<u64> {
        self.is_polled().then_some(self.next_poll)
    }

    /// Whether it was pressed since the last call; reports that.
    pub(super) fn was_pressed(&mut self, now: u64) -> bool {
        if self.is_polled() && now >= self.next_poll {
            self.next_poll = now + LOOK;
            power_button::look();
        }
        let pressed = power_button::take_pressed();
        if pressed {
            serial::emit(&events::PowerButton { presses: power_button::presses() });
            info!("the power button was pressed");
        }
        pressed
    }
}

/// Deflates the balloons completely if `poweroff=deflate`, for at most as long as one that is removed may take. A press of the
/// button ends the wait.
pub(super) fn deflate_all(machine: &mut Machine, balloons: &mut Balloons, button: &mut PowerButton) {
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
        timer::arm_at(balloons.next_poll(machine).unwrap_or(u64::MAX).min(now + GLANCE));
        idle_unless(|| balloons.is_pending() || power_button::is_pressed() || timer::has_fired());
    }
}
