//! The power button, and what happens to ballooned memory before power-off.

use crate::boot::PoweroffChoice;
use crate::console::events;
use crate::machine::power_button::{self, Heard, NoButton};
use crate::machine::{Machine, idle_unless, lines, log as serial, timer};
use ballonet::platform::Platform;
use log::info;

use super::balloons::Balloons;
use super::interrupt_proof::InterruptProof;

/// Polling interval of a button without an interrupt: 100 ms.
const LOOK: u64 = 100_000_000;
/// Polling interval of deflating balloons: 10 ms.
const GLANCE: u64 = 10_000_000;

/// The power button, or the lack of one.
pub(super) struct PowerButton {
    heard: Result<Heard, NoButton>,
    /// When to poll it, if it has no interrupt.
    next_poll: u64,
    proof: InterruptProof,
}

impl PowerButton {
    /// Starts watching for presses.
    pub(super) fn start(machine: &Machine) -> Self {
        let heard = power_button::watch(machine.acpi.as_ref());
        match &heard {
            Ok(heard) => info!("power button: detected {heard}"),
            Err(why) => info!("no power button: {why}"),
        }
        Self { heard, next_poll: machine.now(), proof: InterruptProof::default() }
    }

    /// Whether to poll because no interrupt may arrive: there is none, or its line is masked because of another
    /// device.
    fn is_polled(&self) -> bool {
        match self.heard {
            Ok(Heard::Look) => true,
            Ok(Heard::Interrupt(_)) => lines::storms() > 0,
            Err(_) => false,
        }
    }

    /// When to poll it, in nanoseconds since entry; `None` if it interrupts.
    pub(super) fn next_poll(&self) -> Option<u64> {
        let look = self.heard.ok().and_then(|_| self.proof.next_look());
        self.is_polled().then_some(self.next_poll).into_iter().chain(look).min()
    }

    /// Whether it was pressed since the last call. Reports a press.
    pub(super) fn was_pressed(&mut self, now: u64) -> bool {
        if self.is_polled() && now >= self.next_poll {
            self.next_poll = now + LOOK;
            power_button::look();
        } else if self.heard.is_ok() && self.proof.is_due(now) {
            // The machine goes off at the first press: so whether its interrupt was lost is not reported.
            power_button::look();
            let _ = self.proof.note(now, power_button::interrupts(), false);
        }
        let pressed = power_button::take_pressed();
        if pressed {
            serial::emit(&events::PowerButton { presses: power_button::presses() });
            info!("the power button was pressed");
        }
        pressed
    }
}

/// With `poweroff=deflate`, deflates all balloons, with the time limit of a removal. Another press of the button ends
/// the wait.
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
