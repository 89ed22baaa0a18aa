//! The serial port's interrupt: finds its line by trial.
//!
//! The ISA line of a port is only a convention of PCs: machines differ, and in a virtual one it is an option. The port
//! can interrupt on demand, by an empty transmitter, so each possible line is tried until that interrupt arrives. If
//! none does, the port is polled until an interrupt arrives after all.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicBool, Ordering};

use log::{info, warn};

use crate::acpi::{InterruptRoute, Madt, PortInterrupt, Signalling, Trigger};
use crate::machine::interrupts::{io_apic, lines, local_apic, vectors};
use crate::machine::terminal::{line, ring};
use crate::machine::time::clock;
use ballonet::platform::Handled;

/// The ISA interrupts that a port may have besides its conventional one: all except those of timer, keyboard, mouse,
/// clock, ACPI and disks.
const OTHERS: [u8; 6] = [3, 4, 5, 7, 10, 11];
/// The first PCI line on a PC.
const FIRST_PCI: u32 = 16;
/// How long to wait for an interrupt, in nanoseconds and in polls: the host may deschedule the CPU meanwhile.
const PATIENCE: u64 = 5_000_000;
const LOOKS: u32 = 1000;

/// An interrupt of the port has arrived.
static ARRIVED: AtomicBool = AtomicBool::new(false);

/// Other devices may share the port's line.
static SHARED: AtomicBool = AtomicBool::new(false);

/// Whether the port's line may have been masked because another device on it interrupts without being claimed.
pub(crate) fn may_be_masked() -> bool {
    SHARED.load(Ordering::Relaxed) && lines::storms() > 0
}

/// Makes the port interrupt for each received byte, or be polled. Interrupts are on.
pub(crate) fn connect(madt: Option<&Madt>) {
    let (base, named) = line::with_serial(|serial| (serial.base(), serial.named()));
    if let Some(named) = named {
        match named.io_port() {
            Some(port) if Some(port) == base => info!("serial port: {named}"),
            Some(_) => warn!("serial port: {named}; nothing answers there"),
            None => warn!("serial port: {named}; only those at I/O ports are driven"),
        }
    }
    let Some(base) = base else {
        return info!("serial port: there is none");
    };
    let named = named.filter(|named| named.io_port() == Some(base)).and_then(|named| named.interrupt);
    let routes = routes(named, habit(base), madt);
    let found = if routes.is_empty() { None } else { attach(&routes) };
    match found {
        Some(route) => info!("serial port at {base:#x}: interrupts by {route}"),
        None => {
            ring::look_for_input(true);
            warn!("serial port at {base:#x}: its interrupt does not arrive, so it is polled every 20 ms");
        }
    }
}

/// The ISA interrupt that the port at `base` has on most PCs.
fn habit(base: u16) -> u8 {
    // COM1 and COM3 are at 0x3F8 and 0x3E8, COM2 and COM4 at 0x2F8 and 0x2E8.
    if base >> 8 == 3 { 4 } else { 3 }
}

/// The inputs where the port's interrupt may arrive, the likeliest first.
fn routes(named: Option<PortInterrupt>, habit: u8, madt: Option<&Madt>) -> Vec<InterruptRoute> {
    let isa = |irq| Some(madt?.isa_irq(irq));
    let named = named.and_then(|named| match named {
        PortInterrupt::Isa(irq) => isa(irq),
        PortInterrupt::Global(gsi) if gsi < FIRST_PCI => Some(InterruptRoute { gsi, signalling: Signalling::ISA }),
        PortInterrupt::Global(gsi) => Some(InterruptRoute { gsi, signalling: Signalling::PCI }),
    });
    let others = OTHERS.into_iter().filter(|&irq| irq != habit);
    let routes = named.into_iter().chain(core::iter::once(habit).chain(others).filter_map(isa));
    routes.filter(|route| io_apic::has(route.gsi)).collect()
}

/// Finds the one of `routes` on which the port interrupts. If there is none, the first one stays open.
fn attach(routes: &[InterruptRoute]) -> Option<InterruptRoute> {
    let proved = routes.iter().copied().find(|&route| match open(route) {
        Some(opened) if arrives() => {
            SHARED.store(matches!(opened, Opened::Shared(_)), Ordering::Relaxed);
            core::mem::forget(opened);
            true
        }
        _ => false,
    });
    if let (None, Some(&first)) = (proved, routes.first()) {
        core::mem::forget(open(first));
    }
    line::with_serial(crate::machine::terminal::serial::Serial::enable_receive_interrupt);
    proved
}

/// A line that is attached for the port, until it is dropped.
enum Opened {
    /// The port's own: this vector, from this input.
    Alone(u8, u32),
    /// One that others, such as PCI devices, may share.
    Shared(u32),
}

impl Drop for Opened {
    fn drop(&mut self) {
        match *self {
            Self::Alone(vector, gsi) => {
                io_apic::set_masked(gsi, true);
                vectors::release(vector);
            }
            Self::Shared(line) => drop(lines::detach(line)),
        }
    }
}

/// Opens a line to the port. `None` if there is no vector for it.
fn open(route: InterruptRoute) -> Option<Opened> {
    let id = u8::try_from(local_apic::id()).unwrap_or(0);
    let name = || String::from("serial");
    let failed = |error| warn!("serial port: {error}");
    if route.signalling.trigger == Trigger::Level {
        let line = lines::attach_to(vec![route], id, name(), vectors::Handler::new(interrupt));
        return line.map(Opened::Shared).map_err(|refused| refused.error.map(failed)).ok();
    }
    let vector = vectors::allocate(name(), vectors::Handler::new(interrupt)).map_err(failed).ok()?;
    io_apic::route(route, vector, id);
    Some(Opened::Alone(vector, route.gsi))
}

/// Provokes an interrupt of the port. Returns whether it arrives.
fn arrives() -> bool {
    ARRIVED.store(false, Ordering::Relaxed);
    line::with_serial(|serial| serial.set_transmit_interrupt(true));
    let arrived = wait() || {
        // Some ports interrupt only on a change to empty, not on being empty.
        line::with_serial(|serial| {
            let sent = serial.write_str("\r").is_ok();
            serial.flush();
            sent
        }) && wait()
    };
    line::with_serial(|serial| serial.set_transmit_interrupt(false));
    arrived
}

fn wait() -> bool {
    let end = clock::nanoseconds() + PATIENCE;
    let mut looks = 0;
    while !ARRIVED.load(Ordering::Relaxed) && (looks < LOOKS || clock::nanoseconds() < end) {
        looks += 1;
        core::hint::spin_loop();
    }
    ARRIVED.load(Ordering::Relaxed)
}

fn interrupt() -> Handled {
    let is_its_own = line::with_serial(crate::machine::terminal::serial::Serial::take_pending);
    if is_its_own {
        ARRIVED.store(true, Ordering::Relaxed);
        ring::look_for_input(false);
    }
    ring::take_input();
    if is_its_own { Handled::Yes } else { Handled::No }
}
