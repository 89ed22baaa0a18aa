//! The guest's machine: devices on a bus, interrupt vectors and lines, mappings, and virtual time.
//!
//! Every access of the driver to a register, to DMA memory or to the clock is a moment at which time passes, devices
//! work and interrupts arrive: a handler can run between any two accesses, as on a real CPU.

mod frames;
mod platform;
mod port;

pub use frames::Frames;
pub use platform::ModelPlatform;
use platform::ModelRegisters;
use port::Port;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use ballonet::pci::Bdf;
use ballonet::platform::{Handled, Handler, MsiMessage, Polarity, Trigger, WiredInterrupt};
use ballonet::virtio::{DeviceHandle, MmioDevice};

use crate::behaviour::Behaviour;
use crate::device::Balloon;
use crate::world::Ram;
use crate::world::{Bus, Misstep};

/// Bytes in the window of a device on MMIO, as in QEMU.
pub(crate) const MMIO_LENGTH: u64 = 0x200;
/// The line that devices on MMIO share.
pub(crate) const MMIO_INTERRUPT: WiredInterrupt =
    WiredInterrupt { gsi: 12, polarity: Polarity::ActiveHigh, trigger: Trigger::Edge };

/// The address of the MMIO window of the device at this place.
pub(crate) fn mmio_base(at: Bdf) -> u64 {
    0xfeb0_0000 + u64::from(at.device()) * MMIO_LENGTH
}

/// Consecutive deliveries of one line that count as a storm: the line then rests until the next access.
const STORM: u32 = 100;

/// An interrupt vector or an attachment to a line.
pub(crate) struct VectorEntry {
    pub name: String,
    pub message: Option<MsiMessage>,
    /// `None` while the handler runs.
    pub handler: Option<Handler<ModelRegisters>>,
    /// Another CPU is running the handler, and finishes only when it is waited for.
    pub elsewhere: bool,
    pub count: u64,
}

/// The machine's state.
pub(crate) struct State {
    pub bus: Bus,
    pub devices: BTreeMap<Bdf, Balloon>,
    /// The port above a device that can be unplugged.
    pub port: Option<Port>,
    pub vectors: BTreeMap<u32, VectorEntry>,
    pub mappings: BTreeSet<u64>,
    pub next_number: u32,
    pub next_mapping: u64,
    pub in_handler: bool,
    /// Vectors that the platform has.
    pub vector_limit: u32,
    pub takes_messages: bool,
    pub knows_lines: bool,
    pub dma_limit: usize,
    /// BARs that the platform cannot map.
    pub unmappable: Vec<u8>,
    /// Whether the platform reaches registers through configuration space.
    pub takes_config_windows: bool,
    /// Number of refusable requests to the platform, and those to refuse for no reason.
    pub asked: u64,
    pub refused: Range<u64>,
}

/// A handle on the machine; clones are the same machine.
#[derive(Clone)]
pub struct Machine(Arc<Mutex<State>>);

/// Resources of the machine that are allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allocated {
    pub vectors: usize,
    pub mappings: usize,
    pub dma: usize,
}

impl Machine {
    /// A machine with `mib` MiB of RAM and no device.
    pub fn new(mib: u32) -> Self {
        Self(Arc::new(Mutex::new(State {
            bus: Bus::new(Ram::new(mib)),
            devices: BTreeMap::new(),
            port: None,
            vectors: BTreeMap::new(),
            mappings: BTreeSet::new(),
            next_number: 0x30,
            next_mapping: 1,
            in_handler: false,
            vector_limit: 200,
            takes_messages: true,
            knows_lines: true,
            dma_limit: usize::MAX,
            unmappable: Vec::new(),
            takes_config_windows: true,
            asked: 0,
            refused: 0..0,
        })))
    }

    /// A machine with one balloon, and its address.
    pub fn with_balloon(mib: u32, behaviour: Behaviour) -> (Self, Bdf) {
        let machine = Self::new(mib);
        let at = Bdf::new(0, 0, 5, 0).expect("a function number");
        machine.plug(at, behaviour);
        (machine, at)
    }

    /// Adds a device.
    pub fn plug(&self, at: Bdf, behaviour: Behaviour) {
        let device = u32::from(at.device());
        let balloon = Balloon::new(behaviour, 0xe000_0000 + device * 0x100_0000, 0xc000 + device * 0x100);
        let mut state = self.state();
        state.bus.expect(balloon.behaviour.weakness);
        state.devices.insert(at, balloon);
    }

    /// The address under which the driver opens the device at this place: a PCI function, or the MMIO window and its
    /// line.
    pub fn handle(&self, at: Bdf) -> DeviceHandle {
        let is_mmio = |device: &Balloon| device.behaviour.mmio.is_some();
        if !self.state().devices.get(&at).is_some_and(is_mmio) {
            return at.into();
        }
        MmioDevice::new(mmio_base(at), MMIO_LENGTH, Some(MMIO_INTERRUPT)).into()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test thread panicked while it held the machine")
    }

    /// Limits the platform's resources.
    pub fn limit(&self, vectors: u32, takes_messages: bool, knows_lines: bool) {
        let mut state = self.state();
        (state.vector_limit, state.takes_messages, state.knows_lines) = (vectors, takes_messages, knows_lines);
    }

    /// The number of DMA allocations that still succeed.
    pub fn limit_dma(&self, allocations: usize) {
        self.state().dma_limit = allocations;
    }

    /// Limits the platform's reach: these BARs cannot be mapped; windows in configuration space work or not.
    pub fn limit_reach(&self, unmappable: &[u8], takes_config_windows: bool) {
        let mut state = self.state();
        (state.unmappable, state.takes_config_windows) = (unmappable.to_vec(), takes_config_windows);
    }

    /// Refuses these of the platform's coming requests, counted from 0: mappings, memory, vectors.
    pub fn refuse(&self, which: Range<u64>) {
        let mut state = self.state();
        (state.asked, state.refused) = (0, which);
    }

    /// Requests since [`Machine::refuse`].
    pub fn asked(&self) -> u64 {
        self.state().asked
    }

    /// Inspects or changes a device.
    pub fn balloon<T>(&self, at: Bdf, look: impl FnOnce(&mut Balloon, &mut Bus) -> T) -> T {
        let state = &mut *self.state();
        look(state.devices.get_mut(&at).expect("a balloon"), &mut state.bus)
    }

    /// Inspects or changes every device.
    pub fn each_balloon(&self, mut look: impl FnMut(&mut Balloon, &mut Bus)) {
        let state = &mut *self.state();
        state.devices.values_mut().for_each(|device| look(device, &mut state.bus));
    }

    /// Inspects or changes the machine.
    pub fn bus<T>(&self, look: impl FnOnce(&mut Bus) -> T) -> T {
        look(&mut self.state().bus)
    }

    /// The resources that are allocated now.
    pub fn allocated(&self) -> Allocated {
        let state = self.state();
        Allocated { vectors: state.vectors.len(), mappings: state.mappings.len(), dma: state.bus.ram.dma_regions() }
    }

    /// Names and counts of the vectors.
    pub fn vectors(&self) -> Vec<(String, u64)> {
        self.state().vectors.values().map(|v| (v.name.clone(), v.count)).collect()
    }

    /// Another CPU takes every vector's interrupt: its handlers run from now on.
    pub fn interrupt_elsewhere(&self) {
        self.state().vectors.values_mut().for_each(|vector| vector.elsewhere = true);
    }

    /// How many handlers another CPU is running.
    pub fn running_elsewhere(&self) -> usize {
        self.state().vectors.values().filter(|vector| vector.elsewhere).count()
    }

    /// Waits until the other CPU has finished a vector's handler.
    pub(crate) fn await_elsewhere(&self, number: u32) {
        let mut state = self.state();
        let entry = state.vectors.get_mut(&number).expect("an allocated vector");
        if !std::mem::take(&mut entry.elsewhere) {
            return;
        }
        let Some(mut handler) = entry.handler.take() else { return };
        drop(state);
        let _: Handled = handler.run();
        self.state().put_back(vec![(number, handler)]);
    }

    /// Number of vectors attached to lines.
    pub fn lines_attached(&self) -> usize {
        self.state().vectors.values().filter(|v| v.message.is_none()).count()
    }

    pub fn missteps(&self) -> Vec<Misstep> {
        self.state().bus.missteps().to_vec()
    }

    /// Panics on any misstep.
    #[track_caller]
    pub fn expect_no_missteps(&self) {
        let missteps = self.missteps();
        assert!(missteps.is_empty(), "missteps: {missteps:#?}");
    }

    /// Lets a moment pass: advances time, devices and interrupts.
    pub(crate) fn touch(&self, nanoseconds: u64) {
        let mut state = self.state();
        let stolen = state.devices.values().map(|d| d.behaviour.stolen).max().unwrap_or(0);
        state.bus.now += nanoseconds + if nanoseconds == NOW { stolen } else { 0 };
        if state.in_handler {
            return;
        }
        state.work();
        drop(state);
        self.deliver();
    }

    /// Runs an action that no interrupt handler interrupts.
    pub(crate) fn uninterrupted<T>(&self, action: impl FnOnce() -> T) -> T {
        let before = std::mem::replace(&mut self.state().in_handler, true);
        let value = action();
        self.state().in_handler = before;
        self.touch(0);
        value
    }

    /// Runs the handlers of pending interrupts.
    fn deliver(&self) {
        for round in 0.. {
            let ready = self.state().next_interrupt();
            if ready.is_empty() || round == STORM {
                self.state().put_back(ready);
                return;
            }
            self.state().in_handler = true;
            let ran = ready
                .into_iter()
                .map(|(number, mut handler)| {
                    let _: Handled = handler.run();
                    (number, handler)
                })
                .collect();
            let mut state = self.state();
            state.in_handler = false;
            state.put_back(ran);
        }
    }

    /// Lets the CPU sleep until the next event: an action of a device, or the arrival of a message. `false` if there is
    /// none.
    pub fn sleep(&self) -> bool {
        let mut state = self.state();
        let devices = state.devices.values().filter_map(Balloon::next_due).min();
        let messages = state.bus.messages.iter().map(|m| m.due).min();
        let next = devices.into_iter().chain(messages).min();
        state.bus.now = state.bus.now.max(next.unwrap_or(0));
        state.work();
        drop(state);
        self.deliver();
        next.is_some()
    }

    /// Lets time pass with the CPU asleep.
    pub fn pass(&self, nanoseconds: u64) {
        self.touch(nanoseconds.min(NOW - 1));
        self.state().bus.now += nanoseconds;
        self.touch(0);
    }

    pub fn now(&self) -> u64 {
        self.state().bus.now
    }
}

/// Cost of reading the clock, in nanoseconds.
pub(crate) const NOW: u64 = 30;

impl State {
    /// Counts a request that can be refused. `true` if it is refused.
    pub(crate) fn refuses(&mut self) -> bool {
        self.asked += 1;
        self.refused.contains(&(self.asked - 1))
    }

    fn work(&mut self) {
        for device in self.devices.values_mut() {
            device.work(&mut self.bus);
        }
    }

    /// Takes the handlers to run for the next interrupt.
    fn next_interrupt(&mut self) -> Vec<(u32, Handler<ModelRegisters>)> {
        if let Some(message) = self.bus.arrived() {
            let vector = self.vectors.iter_mut().find(|(_, v)| v.message == Some(message));
            let Some((&number, entry)) = vector else {
                self.bus.misstep("PCI-MSIX", format!("{message:x?} sent, which is no allocated vector"));
                return Vec::new();
            };
            entry.count += 1;
            return entry.handler.take().map(|handler| (number, handler)).into_iter().collect();
        }
        if !self.devices.values().any(Balloon::pulls_line) {
            return Vec::new();
        }
        let attached = self.vectors.iter_mut().filter(|(_, v)| v.message.is_none());
        attached
            .filter_map(|(&number, entry)| {
                entry.count += 1;
                entry.handler.take().map(|handler| (number, handler))
            })
            .collect()
    }

    fn put_back(&mut self, handlers: Vec<(u32, Handler<ModelRegisters>)>) {
        for (number, handler) in handlers {
            if let Some(entry) = self.vectors.get_mut(&number) {
                entry.handler = Some(handler);
            }
        }
    }

    /// Whether a device is behind a port without power.
    pub(crate) fn hides(&self, function: Bdf) -> bool {
        self.port.as_ref().is_some_and(|port| port.hides(function))
    }

    /// The device, BAR and offset at which a mapped address arrives.
    pub(crate) fn decode(&self, io: bool, address: u64, length: u64) -> Option<(Bdf, u8, u64)> {
        self.devices.iter().filter(|(bdf, d)| !d.gone() && !self.hides(**bdf)).find_map(|(bdf, device)| {
            if device.behaviour.mmio.is_some() {
                let start = mmio_base(*bdf);
                let inside = !io && address >= start && address.checked_add(length)? <= start + MMIO_LENGTH;
                return inside.then(|| (*bdf, 0, address - start));
            }
            (0..6).find_map(|bar| {
                let (is_io, start, size) = device.config.decoded(bar)?;
                let inside =
                    is_io == io && address >= start && address.checked_add(length)? <= start.saturating_add(size);
                inside.then(|| (*bdf, bar, address - start))
            })
        })
    }
}
