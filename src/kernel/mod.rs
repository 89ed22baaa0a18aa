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
mod latency;
mod mmio_devices;
mod power;
mod scaling;
mod shortage;
mod typing;
mod view;
mod work;

use core::panic::PanicInfo;

use crate::boot::Mode;
use crate::console::events::{self, Hex};
use crate::machine::power::exit;
use crate::machine::{Entry, Machine, fault, idle_unless, log as serial, nmi, power_button, screen, timer, vectors};
use ballonet::pci::Tree;
use ballonet::platform::Platform;
use log::{info, warn};

use balloons::Balloons;
use console::{Console, Context, Outcome};
use held::Held;
use hotplug::Slots;
use latency::Latency;
use mmio_devices::MmioFound;
use power::PowerButton;
use view::View;
use work::Work;

/// Brings the machine up and runs it until the console or the power button ends it.
pub fn run(entry: Entry) -> ! {
    let mut machine = entry.bring_up();
    if let Some(reason) = machine.refusal() {
        exit(check::bail_out(machine.options().tap, format_args!("command line: {reason}")));
    }
    let verbose = machine.options().verbose;
    let mut tree = devices::discover(&mut machine, verbose);
    let mmio = mmio_devices::discover(&mut machine);
    if machine.options().mode != Mode::Serve {
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
    let mut slots = Slots::start(&mut machine, &tree);
    if balloons.is_empty() {
        tell_no_device(balloons.refused(), slots.count());
    }
    let mut button = PowerButton::start(&machine);
    // Last, so that a photo of the screen has it.
    machine.identity.tell();
    screen::set_hasty(false);
    let outcome = serve(&mut machine, &mut tree, &mmio, &mut balloons, &mut slots, &mut button);
    screen::set_hasty(true);
    serial::set_status(format_args!(""));
    if outcome == Outcome::PowerOff {
        power::ask_back(&mut machine, &mut balloons, &mut button);
    }
    slots.shutdown(&mut machine);
    balloons.shutdown(&mut machine);
    console::end(outcome)
}

/// Reports a panic, and ends the kernel with failure.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    fault::report_panic(info)
}

fn tell_no_device(refused: usize, slots: usize) {
    let message = match (refused, slots) {
        (0, 0) if !typing::is_possible() => "no virtio balloon was found on PCI or MMIO, as on every PC",
        (0, _) if !typing::is_possible() => {
            "no virtio balloon was found on PCI or MMIO; one may come into a hot-plug slot"
        }
        (0, 0) => {
            "no virtio balloon was found on PCI or MMIO, as on every PC; `pci`, `acpi`, `info` and `mem` at the console show what there is"
        }
        (0, _) => {
            "no virtio balloon was found on PCI or MMIO; one may come into a hot-plug slot, and `pci`, `acpi`, `info` and `mem` at the \
             console show what there is"
        }
        (_, 0) => "no virtio balloon could be started, see above; the console is all there is to do",
        (_, _) => "no virtio balloon could be started, see above; another may come into a hot-plug slot",
    };
    serial::emit(&events::NoDevice { message });
    if serial::is_text() {
        info!("{message}");
    }
}

/// Bytes from the serial line that are dealt with before the balloons get their turn again.
const INPUT_A_ROUND: usize = 256;

/// Reports NMIs, after which the kernel continues. The report also shows the sender that the kernel is alive.
fn tell_nmis() {
    if let Some((count, interrupted)) = nmi::take_untold() {
        serial::emit(&events::Nmi { count, interrupted: Hex(interrupted) });
        warn!("an NMI came at {interrupted:#x}, {count} so far; the kernel goes on");
    }
}

/// Serves balloons, slots and console until the console or the power button says to end.
fn serve(
    machine: &mut Machine,
    tree: &mut Tree,
    mmio: &[MmioFound],
    balloons: &mut Balloons,
    slots: &mut Slots,
    button: &mut PowerButton,
) -> Outcome {
    let mut console = Console::new(machine.options().term);
    let mut held = Held::default();
    let mut work = Work::new(machine.options().work);
    let mut latency = Latency::default();
    let mut view = View::default();
    typing::tell();
    console.draw(balloons, held.bytes());
    loop {
        balloons.serve(machine);
        slots.serve(machine, tree, balloons);
        work.serve(machine, balloons);
        console.draw_if_moving(balloons, held.bytes());
        view.serve(machine, balloons);
        latency.sample(machine.now());
        tell_nmis();
        serial::retry();
        if button.was_pressed(machine.now()) {
            return Outcome::PowerOff;
        }
        let mut context =
            Context { machine, tree, mmio, balloons, slots, held: &mut held, work: &mut work, latency: &mut latency };
        if console.is_busy() {
            console.work(&mut context);
        }
        // A line that never falls silent must not keep the balloons waiting.
        for _ in 0..INPUT_A_ROUND {
            // Input during a command is for the next one.
            let Some(byte) = (if console.is_busy() { None } else { serial::read_input() }) else { break };
            let outcome = console.feed(byte, &mut context);
            if outcome != Outcome::Done {
                return outcome;
            }
        }
        vectors::note_progress();
        timer::take_fired();
        let is_pending = || {
            let served = balloons.is_pending() || slots.is_pending() || work.is_pending() || console.is_busy();
            let told = power_button::is_pressed() || nmi::is_untold() || screen::is_pending();
            served || told || serial::has_input() || timer::has_fired()
        };
        if !is_pending() {
            let looks = [
                balloons.next_poll(machine),
                slots.next_look(),
                work.next_turn(),
                latency.next_look(),
                button.next_look(),
                serial::next_look(),
                view.next_look(),
            ];
            // Only a CPU that is about to sleep must be interrupted.
            match looks.into_iter().flatten().min() {
                Some(moment) => timer::arm_at(moment),
                None => timer::disarm(),
            }
            idle_unless(is_pending);
        }
    }
}
