//! Whether the console has input, and what works without it: many PCs have neither a PS/2 keyboard nor a serial port.

use crate::machine::keyboard::{self, KeyboardState};
use crate::machine::log as serial;
use log::{info, warn};

/// Shown on the screen instead of a prompt if there is no input.
pub(super) const HINT: &str = "no keyboard can be used (USB is not driven): the power button switches off";

/// What works without input.
const WITHOUT: &str = "the power button switches off (hold it for 4 s if a press does not), and options are set in the loader's menu \
                       (`e` in GRUB's)";

/// Whether there is input, now or once a keyboard is plugged in.
pub(super) fn is_possible() -> bool {
    has_serial() || keyboard::state() != KeyboardState::Absent
}

fn has_serial() -> bool {
    serial::with_serial(|serial| serial.is_present())
}

/// Logs how to type commands, or what works without input.
pub(super) fn announce() {
    match (keyboard::state(), has_serial()) {
        (KeyboardState::Absent, false) => {
            warn!("no input: there is no PS/2 keyboard, USB is not driven, and there is no serial port; {WITHOUT}");
        }
        (KeyboardState::Silent, false) => {
            warn!(
                "no PS/2 keyboard has answered, and a USB keyboard types only if firmware passes it off as one (*legacy USB* in \
                 its setup); without one {WITHOUT}"
            );
        }
        (KeyboardState::Absent, true) => {
            info!("commands are typed on the serial line: there is no PS/2 keyboard, and USB is not driven");
        }
        (KeyboardState::Answered | KeyboardState::Silent, _) => {}
    }
    if serial::is_text() && is_possible() {
        info!("`help` lists the console's commands");
    }
}
