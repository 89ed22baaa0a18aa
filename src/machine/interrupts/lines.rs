//! Interrupt lines, of PCI and of devices whose input is known, and their IOAPIC inputs.
//!
//! Which IOAPIC input a PCI pin is wired to, only AML says, and this kernel has no interpreter. So a line is attached
//! to every possible input. The first interrupt that only its handler claims identifies the input; the others are then
//! released. An input whose interrupts no handler claims is masked before it can storm.

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::acpi::{InterruptRoute, Madt, Signalling, Trigger};
use crate::machine::interrupts::vectors::Handler;
use crate::machine::interrupts::{io_apic, vectors};
use crate::machine::lock::Lock;
use ballonet::platform::{Handled, VectorError};

/// Unclaimed interrupts in a row after which an input is masked.
const PATIENCE: u32 = 64;
/// How often at most the handlers of a shared edge-triggered input run for one interrupt.
const EDGE_LOOKS: u32 = 8;
/// The first input that only PCI uses on a PC.
const FIRST_PCI: u32 = 16;
/// The first ISA input that a machine without firmware routing may use for PCI: below are timer, keyboard and COM
/// ports.
const FIRST_ISA: u32 = 5;
/// The most inputs that a line is attached to: each takes a vector, of which there are fewer than large machines have
/// inputs.
const MOST_CANDIDATES: usize = 96;
/// Real-time clock and, mostly, the ACPI interrupt: never PCI.
const NEVER_PCI: [u32; 2] = [8, 9];

struct Line {
    id: u32,
    name: String,
    handler: Handler,
    /// The possible inputs: one, once it is known.
    inputs: Vec<u32>,
    count: u64,
}

/// An input in use: its vector, and its run of unclaimed interrupts.
struct Input {
    gsi: u32,
    vector: u8,
    trigger: Trigger,
    unclaimed: u32,
}

pub(crate) struct Lines {
    lines: Vec<Line>,
    inputs: Vec<Input>,
    next_id: u32,
}

pub(crate) static LINES: Lock<Lines> = Lock::new(Lines { lines: Vec::new(), inputs: Vec::new(), next_id: 0 });
static STORMS: AtomicU64 = AtomicU64::new(0);

/// The inputs to which a function's interrupt may be wired. `interrupt_line` is the register in which firmware stores
/// the ISA IRQ to which it routed the pin (PCI 3.0, 6.2.4).
fn candidates(interrupt_line: u8, madt: Option<&Madt>) -> Vec<InterruptRoute> {
    let as_pci = |gsi| InterruptRoute { gsi, signalling: Signalling::PCI };
    let isa = |irq: u8| madt.map_or(as_pci(irq.into()), |madt| madt.isa_irq(irq));
    let mut routes: Vec<InterruptRoute> = match interrupt_line {
        // A PCI line is level-triggered at any input; the polarity is the override's, if there is one.
        1..=15 => {
            let route = isa(interrupt_line);
            let overridden = route.signalling.trigger == Trigger::Level;
            Vec::from([if overridden { route } else { as_pci(route.gsi) }])
        }
        // Without firmware routing any ISA input is possible.
        _ => (FIRST_ISA..FIRST_PCI).filter(|gsi| !NEVER_PCI.contains(gsi)).map(as_pci).collect(),
    };
    let ranges = io_apic::ranges();
    routes.retain(|route| ranges.iter().any(|range| range.contains(&route.gsi)));
    let of_pci = |gsi: &u32| *gsi >= FIRST_PCI;
    routes.extend(ranges.into_iter().flatten().filter(of_pci).map(as_pci));
    routes.truncate(MOST_CANDIDATES);
    routes
}

/// A handler that could not be attached.
pub(crate) struct NotAttached {
    /// Why; `None` if there is no input at all.
    pub(crate) error: Option<VectorError>,
    /// It owns registers, which the caller must unmap.
    pub(crate) handler: Handler,
}

/// Attaches `handler` to every input to which the pin of the function with this Interrupt Line register may be wired;
/// interrupts go to the CPU with this APIC id. Returns the line's id.
///
/// # Errors
/// When there is no input, or vectors have run out.
#[allow(clippy::result_large_err, reason = "the handler is returned, once per device")]
pub(crate) fn attach(
    interrupt_line: u8,
    madt: Option<&Madt>,
    apic_id: u8,
    name: String,
    handler: Handler,
) -> Result<u32, NotAttached> {
    attach_to(candidates(interrupt_line, madt), apic_id, name, handler)
}

/// Attaches `handler` to the inputs of `routes`, of which one is the right one; the rest as in [`attach`].
///
/// # Errors
/// When there is no input, or vectors have run out.
#[allow(clippy::result_large_err, reason = "the handler is returned, once per device")]
pub(crate) fn attach_to(
    mut routes: Vec<InterruptRoute>,
    apic_id: u8,
    name: String,
    handler: Handler,
) -> Result<u32, NotAttached> {
    routes.retain(|route| io_apic::has(route.gsi));
    if routes.is_empty() {
        return Err(NotAttached { error: None, handler });
    }
    let line = Line { id: 0, name, handler, inputs: routes.iter().map(|route| route.gsi).collect(), count: 0 };
    let id = LINES.with(|all| {
        let id = all.next_id;
        all.next_id += 1;
        all.lines.push(Line { id, ..line });
        id
    });
    for route in routes {
        if let Err(error) = open_input(route, apic_id) {
            let handler = detach(id).expect("the line was just attached");
            return Err(NotAttached { error: Some(error), handler });
        }
    }
    Ok(id)
}

/// Gives an input a vector and unmasks it, unless it is in use already.
fn open_input(route: InterruptRoute, apic_id: u8) -> Result<(), VectorError> {
    let gsi = route.gsi;
    let known = LINES.with(|all| {
        let input = all.inputs.iter_mut().find(|input| input.gsi == gsi)?;
        input.unclaimed = 0;
        Some(())
    });
    if known.is_some() {
        io_apic::set_masked(gsi, false);
        return Ok(());
    }
    let vector = vectors::allocate(alloc::format!("GSI {gsi}"), Handler::new(move || interrupt(gsi)))?;
    let trigger = route.signalling.trigger;
    LINES.with(|all| all.inputs.push(Input { gsi, vector, trigger, unclaimed: 0 }));
    io_apic::route(route, vector, apic_id);
    Ok(())
}

/// Runs every handler that may be meant by an interrupt at input `gsi`.
fn interrupt(gsi: u32) -> Handled {
    LINES.with(|all| {
        let handled = all.run(gsi);
        // A shared edge recurs only after all devices have released the line at the same time.
        let mut looks = 1;
        while handled == Handled::Yes && looks < EDGE_LOOKS && all.is_shared_edge(gsi) && all.run(gsi) == Handled::Yes {
            looks += 1;
        }
        all.note(gsi, handled);
        handled
    })
}

impl Lines {
    /// Runs every handler that input `gsi` may mean, once.
    fn run(&mut self, gsi: u32) -> Handled {
        let mut claims = 0;
        let mut claimant = None;
        for line in self.lines.iter_mut().filter(|line| line.inputs.contains(&gsi)) {
            if line.handler.run() == Handled::Yes {
                line.count += 1;
                claims += 1;
                claimant = Some(line);
            }
        }
        // If several claim it, all but one may have interrupted at another input at the same time.
        let learns = claimant.filter(|line| claims == 1 && line.inputs.len() > 1);
        if let Some(line) = learns {
            line.inputs.retain(|&input| input == gsi);
            self.mask_unused();
        }
        if claims > 0 { Handled::Yes } else { Handled::No }
    }

    /// Whether several devices share an input that is edge-triggered.
    fn is_shared_edge(&self, gsi: u32) -> bool {
        let is_edge = self.inputs.iter().any(|input| input.gsi == gsi && input.trigger == Trigger::Edge);
        is_edge && self.lines.iter().filter(|line| line.inputs.contains(&gsi)).count() > 1
    }

    fn mask_unused(&self) {
        let used = |gsi: u32| self.lines.iter().any(|line| line.inputs.contains(&gsi));
        for input in self.inputs.iter().filter(|input| !used(input.gsi)) {
            io_apic::set_masked(input.gsi, true);
        }
    }

    /// Counts unclaimed interrupts in a row, and masks the input of a storm.
    fn note(&mut self, gsi: u32, handled: Handled) {
        let Some(input) = self.inputs.iter_mut().find(|input| input.gsi == gsi) else { return };
        input.unclaimed = if handled == Handled::Yes { 0 } else { input.unclaimed.saturating_add(1) };
        if input.unclaimed >= PATIENCE {
            io_apic::set_masked(gsi, true);
            STORMS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Frees the vectors of unused inputs, one at a time and outside the lock, since that frees
/// memory. Called regularly, because the handler that identifies a line's input cannot do it.
pub(crate) fn trim() {
    while let Some(vector) = LINES.with(|all| {
        let used = |gsi: u32| all.lines.iter().any(|line| line.inputs.contains(&gsi));
        let index = all.inputs.iter().position(|input| !used(input.gsi))?;
        Some(all.inputs.swap_remove(index).vector)
    }) {
        vectors::release(vector);
    }
}

/// Detaches a line. Returns its handler, which no longer runs.
pub(crate) fn detach(id: u32) -> Option<Handler> {
    let line = LINES.with(|all| {
        let index = all.lines.iter().position(|line| line.id == id)?;
        let line = all.lines.remove(index);
        all.mask_unused();
        Some(line)
    });
    trim();
    line.map(|line| line.handler)
}

/// Waits until no handler of a line runs on any CPU.
pub(crate) fn synchronize() {
    // They run with the lock held.
    LINES.with(|_| ());
}

/// How many inputs were masked because no handler claimed their interrupts.
pub(crate) fn storms() -> u64 {
    STORMS.load(Ordering::Relaxed)
}

/// Every attached line: its name, its count, and its possible inputs.
pub(crate) fn views() -> Vec<(String, u64, Vec<u32>)> {
    LINES.with(|all| all.lines.iter().map(|line| (line.name.clone(), line.count, line.inputs.clone())).collect())
}
