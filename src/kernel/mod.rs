//! The kernel above the machine layer: devices, balloons, slots, programs and the console, in safe code.

#![forbid(unsafe_code)]

mod backing;
mod balloons;
mod bench;
mod check;
pub mod console;
pub(crate) mod devices;
mod held;
mod hotplug;
mod interrupt_proof;
mod latency;
mod main_loop;
mod mmio_devices;
mod power;
mod scaling;
mod shortage;
mod typing;
mod view;
mod work;

use core::panic::PanicInfo;

use crate::boot::Mode;
use crate::console::events;
use crate::machine::power::exit;
use crate::machine::{Entry, fault, log as serial, screen};
use log::info;

use balloons::Balloons;
use console::Outcome;
use hotplug::Slots;
use main_loop::MainLoop;
use power::PowerButton;

/// Brings the machine up and serves it until the console or the power button ends it.
pub fn run(entry: Entry) -> ! {
    let mut machine = entry.bring_up();
    if let Some(reason) = machine.refusal() {
        exit(check::bail_out(machine.options().tap, format_args!("command line: {reason}")));
    }
    let verbose = machine.options().verbose;
    let mut tree = devices::discover(&mut machine, verbose);
    let mmio = mmio_devices::discover(&mut machine);
    if machine.options().mode != Mode::Serve {
        machine.identify();
        screen::set_hasty(true);
    }
    match machine.options().mode {
        Mode::Check => exit(check::run(&mut machine, &tree, &mmio)),
        Mode::Bench => exit(bench::run(&mut machine, &tree, &mmio)),
        Mode::Serve => {}
    }
    let mut balloons = Balloons::start(&mut machine, &tree, &mmio);
    balloons.serve(&mut machine);
    balloons.announce();
    machine.identify();
    let mut slots = Slots::start(&mut machine, &tree);
    if balloons.is_empty() {
        report_no_device(balloons.refused(), slots.count());
    }
    let mut button = PowerButton::start(&machine);
    // Last, so that a photo of the screen shows it.
    machine.identity.tell();
    screen::set_hasty(false);
    let devices = (&mut tree, mmio.as_slice());
    let outcome = MainLoop::new(&mut machine, devices, &mut balloons, &mut slots, &mut button).run();
    screen::set_hasty(true);
    serial::set_status(format_args!(""));
    if outcome == Outcome::PowerOff {
        power::deflate_all(&mut machine, &mut balloons, &mut button);
    }
    slots.shutdown(&mut machine);
    balloons.shutdown(&mut machine);
    console::end(outcome)
}

/// Reports a panic, and ends the kernel with failure.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    fault::report_panic(info)
}

fn report_no_device(refused: usize, slots: usize) {
    let message = match (refused, slots) {
        (0, 0) if !typing::is_possible() => "no virtio balloon was found on PCI or MMIO, as on every PC",
        (0, _) if !typing::is_possible() => {
            "no virtio balloon was found on PCI or MMIO; one may be plugged into a hot-plug slot"
        }
        (0, 0) => {
            "no virtio balloon was found on PCI or MMIO, as on every PC; `pci`, `acpi`, `info` and `mem` at the console show the machine"
        }
        (0, _) => {
            "no virtio balloon was found on PCI or MMIO; one may be plugged into a hot-plug slot, and `pci`, `acpi`, `info` and `mem` at the \
             console show what there is"
        }
        (_, 0) => "no virtio balloon could be started, see above; only the console remains",
        (_, _) => "no virtio balloon could be started, see above; another may be plugged into a hot-plug slot",
    };
    serial::emit(&events::NoDevice { message });
    if serial::is_text() {
        info!("{message}");
    }
}
