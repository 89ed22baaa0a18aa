//! The machine's hot-plug slots: starts drivers for plugged devices, and ends those of removed ones.
//!
//! A device leaves in two ways. If the slot's button requests it, the balloon first deflates completely; then the
//! driver ends and the slot loses power. If the device has vanished, the driver ends at once, and its ballooned
//! memory returns to the guest; if the host must be told first (`MUST_TELL_HOST`), it stays ballooned until the next
//! balloon adopts it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::boot::HotplugChoice;
use crate::console::events;
use crate::machine::mmio::Window;
use crate::machine::{Machine, lines, log as serial};
use ballonet::hotplug::{Slot, SlotError, SlotMode, SlotReport, SlotState, Stage, Task, Timing};
use ballonet::pci::listing::Line;
use ballonet::pci::{Bdf, Function, Node, Tree};
use ballonet::platform::{DeviceAddress, Platform};
use ballonet::virtio::InterruptMode;
use log::{info, warn};

use super::balloons::Balloons;
use super::devices;
use super::interrupt_proof::InterruptProof;

/// Polling interval of a slot without interrupts: 50 ms.
const POLL: u64 = 50_000_000;

/// A slot, and what the kernel does about it.
pub(super) struct Port {
    /// `slot` and its physical slot number.
    name: String,
    slot: Slot<Window>,
    /// The drivers behind it are ending.
    removing: bool,
    /// When to poll a slot without interrupts.
    next_poll: u64,
    proof: InterruptProof,
    stage: Stage,
}

/// Every slot of the machine.
pub(super) struct Slots {
    ports: Vec<Port>,
    /// Delays; `None` if slots are ignored.
    timing: Option<Timing>,
}

impl Slots {
    /// Starts serving every hot-plug slot on PCI.
    pub(super) fn start(machine: &mut Machine, tree: &Tree) -> Self {
        let timing = match machine.options().hotplug {
            HotplugChoice::On => Some(Timing::default()),
            HotplugChoice::Prompt => Some(Timing::PROMPT),
            HotplugChoice::Off => None,
        };
        let mut slots = Self { ports: Vec::new(), timing };
        slots.watch(machine, tree, tree.nodes().iter());
        slots
    }

    /// Starts serving the slots of those `nodes` that are bridges.
    fn watch<'t>(&mut self, machine: &mut Machine, tree: &Tree, nodes: impl Iterator<Item = &'t Node>) {
        let Some(timing) = self.timing else { return };
        let known = self.ports.len();
        let ports = &mut self.ports;
        let mut of_others = Vec::new();
        for node in nodes.filter(|node| node.function.is_bridge()) {
            match Slot::find(machine.config(), &node.function, timing) {
                Ok(Some(slot)) if is_of_others(&slot, tree) => of_others.push(slot.status().port),
                Ok(Some(slot)) => {
                    let name = name(&slot, ports);
                    ports.push(Port::start(machine, node, slot, name));
                }
                Ok(None) => {}
                Err(error) => warn!("hot-plug: {error}"),
            }
        }
        if let Some(behind) = Several::of(of_others.iter()) {
            info!(
                "hot-plug: left to firmware: {} slot(s) that claim to be empty and are not, behind {behind}",
                behind.count
            );
        }
        announce(ports.get(known..).unwrap_or(&[]));
    }

    /// Releases slots whose ports disappeared with a device above them.
    fn forget_gone(&mut self, machine: &mut Machine, tree: &Tree) {
        for port in self.ports.extract_if(.., |port| tree.get(port.bdf()).is_none()) {
            info!("{}: the port {} is gone", port.name, port.bdf());
            port.slot.forget(machine);
        }
    }

    /// Number of slots.
    pub(super) fn count(&self) -> usize {
        self.ports.len()
    }

    /// All slots.
    pub(super) fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// Whether one must be served at once. Reliable with interrupts off, right before the CPU sleeps.
    pub(super) fn is_pending(&self) -> bool {
        self.ports.iter().any(|port| port.slot.is_pending())
    }

    /// When to serve one without an interrupt, in nanoseconds since entry.
    pub(super) fn next_poll(&self) -> Option<u64> {
        self.ports.iter().filter_map(Port::next_poll).min()
    }

    /// Serves the slots that are due.
    pub(super) fn serve(&mut self, machine: &mut Machine, tree: &mut Tree, balloons: &mut Balloons) {
        while let Some(gone) = balloons.take_gone() {
            if let DeviceAddress::Pci(function) = gone {
                self.lose(function, tree, machine);
            }
        }
        let (mut place, mut came) = (0, Vec::new());
        while let Some(port) = self.ports.get_mut(place) {
            match port.serve(machine, tree, balloons) {
                Ok(added) => {
                    came.extend(added.then_some(port.bdf()));
                    place += 1;
                }
                Err(error) => {
                    warn!("hot-plug: {error}");
                    let port = self.ports.remove(place);
                    port.give_up_devices(machine, tree, balloons, true);
                    port.slot.forget(machine);
                }
            }
        }
        self.forget_gone(machine, tree);
        // The card may be a switch with slots of its own.
        for port in came {
            self.watch(machine, tree, tree.behind(port));
        }
    }

    /// A driver found its device gone: the slot checks its state.
    fn lose(&mut self, function: Bdf, tree: &Tree, machine: &Machine) {
        let above: Vec<Bdf> = tree.bridges_above(function).map(Node::bdf).collect();
        if let Some(port) = self.ports.iter_mut().find(|port| above.contains(&port.bdf())) {
            port.slot.lose(machine);
        }
    }

    /// Cuts the power of the named slot without telling its driver, as a fault would. Returns whether that slot
    /// exists.
    pub(super) fn cut_power(&self, machine: &mut Machine, name: &str) -> bool {
        let Some(port) = self.ports.iter().find(|port| port.name == name) else { return false };
        port.slot.cut_power(machine.config());
        true
    }

    /// Stops serving the slots.
    pub(super) fn shutdown(self, machine: &mut Machine) {
        for port in self.ports {
            port.slot.release(machine);
        }
    }
}

/// Whether a slot claims to be empty or off although something responds behind it. Then ACPI does the hot-plug and
/// these registers mean nothing; that is QEMU's default.
fn is_of_others(slot: &Slot<Window>, tree: &Tree) -> bool {
    let SlotState { stage, port, .. } = slot.status();
    matches!(stage, Stage::Off | Stage::Falling) && tree.behind(port).next().is_some()
}

/// Logs the newly served slots: one line for equal ones, since a switch has dozens.
fn announce(ports: &[Port]) {
    let kind = |port: &Port| format!("{}; {}", port.stage, port.slot.status().mode);
    for (index, port) in ports.iter().enumerate() {
        let kind_here = kind(port);
        if ports.iter().take(index).any(|earlier| kind(earlier) == kind_here) {
            continue;
        }
        let alike = || ports.iter().filter(|port| kind(port) == kind_here);
        match (Several::of(alike().map(Port::name)), Several::of(alike().map(Port::bdf))) {
            (Some(names), Some(behind)) if names.count > 1 => {
                info!("{names}: {} hot-plug slots behind {behind}, each {kind_here}", names.count);
            }
            _ => info!("{}: hot-plug slot behind {}, {kind_here}", port.name, port.bdf()),
        }
    }
}

/// The first and the last of several values.
struct Several<T> {
    first: T,
    last: T,
    count: usize,
}

impl<T: Clone> Several<T> {
    fn of(mut all: impl Iterator<Item = T>) -> Option<Self> {
        let first = all.next()?;
        let one = Self { last: first.clone(), first, count: 1 };
        Some(all.fold(one, |several, last| Self { last, count: several.count + 1, ..several }))
    }
}

impl<T: fmt::Display> fmt::Display for Several<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "{}", self.first),
            _ => write!(f, "{} to {}", self.first, self.last),
        }
    }
}

/// A slot's name: its number, and its port if another slot has that number.
fn name(slot: &Slot<Window>, known: &[Port]) -> String {
    let name = format!("slot{}", slot.status().number);
    if known.iter().any(|port| port.name == name) { format!("{name}-{}", slot.status().port) } else { name }
}

impl Port {
    fn start(machine: &mut Machine, node: &Node, mut slot: Slot<Window>, name: String) -> Self {
        let mode = match machine.options().irq {
            None | Some(InterruptMode::PerQueue | InterruptMode::Shared) => None,
            Some(InterruptMode::Line) => Some(SlotMode::Line),
            Some(InterruptMode::Polling) => Some(SlotMode::Polling),
        };
        slot.start(machine, node, &name, mode);
        let stage = slot.status().stage;
        Self { name, slot, removing: false, next_poll: machine.now(), proof: InterruptProof::default(), stage }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The address of the port.
    pub(super) fn bdf(&self) -> Bdf {
        self.slot.status().port
    }

    /// Its stage.
    pub(super) fn stage(&self) -> Stage {
        self.slot.status().stage
    }

    /// How the port interrupts, and how often it did.
    pub(super) fn interrupts(&self) -> (SlotMode, u32) {
        (self.slot.status().mode, self.slot.status().interrupts)
    }

    /// Whether the port has interrupts that the kernel does not hold back.
    fn may_interrupt(&self) -> bool {
        match self.slot.status().mode {
            SlotMode::Polling => false,
            SlotMode::Line => lines::storms() == 0,
            SlotMode::Msix | SlotMode::Msi => true,
        }
    }

    /// Whether to poll because no interrupt may arrive: there is none, the kernel masked its line in a storm, or one was
    /// lost.
    fn is_polled(&self) -> bool {
        !self.may_interrupt() || self.proof.is_missed()
    }

    fn next_poll(&self) -> Option<u64> {
        // Deflating balloons know when to be served, but not when their time limit ends.
        let polled = (self.is_polled() || self.removing).then_some(self.next_poll);
        let look = self.proof.next_look().filter(|_| self.may_interrupt());
        [polled, look, self.slot.status().deadline].into_iter().flatten().min()
    }

    /// Serves the slot if it is due. Returns whether functions were added.
    fn serve(&mut self, machine: &mut Machine, tree: &mut Tree, balloons: &mut Balloons) -> Result<bool, SlotError> {
        if self.removing && self.give_up_devices(machine, tree, balloons, false) {
            self.removing = false;
            self.slot.removed(machine);
        }
        let now = machine.now();
        if !self.slot.is_pending() && self.next_poll().is_none_or(|moment| moment > now) {
            return Ok(false);
        }
        let is_late = self.slot.status().deadline.is_some_and(|deadline| now >= deadline);
        let is_look = self.proof.is_due(now) && !self.slot.is_pending() && !is_late;
        let stage = core::mem::discriminant(&self.slot.status().stage);
        self.next_poll = now + POLL;
        let SlotReport { task, errors } = self.slot.poll(machine)?;
        let SlotState { stage: new, mode, interrupts, .. } = self.slot.status();
        let changed = task.is_some() || core::mem::discriminant(&new) != stage;
        let turn = self.proof.note(now, interrupts.into(), is_look && changed).filter(|_| self.may_interrupt());
        if let Some(turn) = turn {
            turn.report(&self.name, &mode);
        }
        for error in errors.into_iter().flatten() {
            self.report_error(error);
        }
        self.report_stage();
        match task {
            Some(Task::Add) => self.bring_up_devices(machine, tree, balloons),
            Some(Task::Remove { surprise }) => self.start_removal(machine, tree, balloons, surprise),
            None => {}
        }
        self.report_stage();
        Ok(matches!(task, Some(Task::Add)))
    }

    fn bring_up_devices(&mut self, machine: &mut Machine, tree: &mut Tree, balloons: &mut Balloons) {
        let functions = discover_behind(machine, tree, self.bdf());
        for function in &functions {
            match balloons.add(machine, tree, function) {
                Some(place) => balloons.announce_one(place),
                None => info!("{}: there is no driver for {}", self.name, Line(function)),
            }
        }
        if let Some(error) = self.slot.added(machine, !functions.is_empty()) {
            self.report_error(error);
        }
    }

    fn start_removal(&mut self, machine: &mut Machine, tree: &mut Tree, balloons: &mut Balloons, surprise: bool) {
        if !surprise {
            let now = machine.now();
            tree.behind(self.bdf()).for_each(|node| balloons.leave(node.bdf(), now));
        }
        if self.give_up_devices(machine, tree, balloons, surprise) {
            self.slot.removed(machine);
        } else {
            self.removing = true;
        }
    }

    /// Ends the drivers of everything behind the port, then removes it from the tree. Returns whether that is
    /// complete.
    fn give_up_devices(&self, machine: &mut Machine, tree: &mut Tree, balloons: &mut Balloons, at_once: bool) -> bool {
        let functions: Vec<Bdf> = tree.behind(self.bdf()).map(Node::bdf).collect();
        let left = functions.into_iter().filter(|function| !balloons.remove(machine, *function, at_once)).count();
        if left == 0 {
            tree.remove_behind(self.bdf());
            balloons.memory_freed();
        }
        left == 0
    }

    /// Reports the slot's stage if it has changed.
    fn report_stage(&mut self) {
        let stage = self.slot.status().stage;
        if core::mem::discriminant(&stage) == core::mem::discriminant(&self.stage) {
            return;
        }
        self.stage = stage;
        serial::emit(&events::Slot { name: &self.name, port: &self.bdf(), state: &stage });
        if serial::is_text() {
            info!("{}: {stage}", self.name);
        }
    }

    fn report_error(&self, error: SlotError) {
        warn!("{}: {error}", self.name);
    }
}

/// Finds the functions added behind a port, assigns addresses, lists and returns them.
fn discover_behind(machine: &mut Machine, tree: &mut Tree, port: Bdf) -> Vec<Function> {
    let known = tree.errors().len();
    if let Err(error) = tree.rescan(machine.config(), port) {
        warn!("PCI: {error}");
        return Vec::new();
    }
    for error in tree.errors().iter().skip(known) {
        warn!("PCI: {error}");
    }
    let functions: Vec<Function> = tree.behind(port).map(|node| node.function).collect();
    devices::assign(machine, tree, |bdf| functions.iter().any(|function| function.bdf == bdf));
    let verbose = machine.options().verbose;
    for node in tree.behind(port) {
        devices::list(machine, node, verbose);
    }
    functions
}
