//! A function's interrupts: MSI-X messages while enabled, else its line and the ISR byte.

use crate::behaviour::Behaviour;
use crate::bug::Bug;
use crate::device::config_space::ConfigModel;
use crate::device::msix::MsixTable;
use crate::queue::NO_VECTOR;
use crate::world::Bus;

const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// The interrupt side of a function.
#[derive(Debug)]
pub(crate) struct Interrupts {
    msix: Option<MsixTable>,
    isr: u8,
    bug: Option<Bug>,
    /// The ISR byte is always 0.
    no_isr: bool,
}

impl Interrupts {
    pub(crate) fn new(behaviour: &Behaviour) -> Self {
        let (bug, no_isr) = (behaviour.bug, behaviour.quirks.no_isr);
        Self { msix: behaviour.vectors.map(MsixTable::new), isr: 0, bug, no_isr }
    }

    /// A reset of the device: nothing is pending. The MSI-X table is PCI's and stays.
    pub(crate) fn clear(&mut self) {
        self.isr = 0;
    }

    /// Asserts the line until the ISR byte is read.
    pub(crate) fn pull(&mut self) {
        self.isr = ISR_CONFIG;
    }

    pub(crate) fn read_isr(&mut self, config: &ConfigModel, bus: &mut Bus) -> u32 {
        if config.msix_enabled() {
            bus.misstep("PCI-ISR-01", "ISR read in MSI-X mode");
        }
        let isr = if self.bug == Some(Bug::IsrStays) { self.isr } else { std::mem::take(&mut self.isr) };
        let junk = if self.bug == Some(Bug::IsrHasJunk) && isr != 0 { 0x40 } else { 0 };
        (isr | junk).into()
    }

    /// The same bits as `InterruptStatus`, which reading does not clear (4.2.2).
    pub(crate) fn read_status(&self) -> u32 {
        let junk = if self.bug == Some(Bug::IsrHasJunk) && self.isr != 0 { 0x40 } else { 0 };
        (self.isr | junk).into()
    }

    /// `InterruptACK`: the driver has handled these.
    pub(crate) fn acknowledge(&mut self, handled: u32, bus: &mut Bus) {
        let known = u32::from(ISR_QUEUE | ISR_CONFIG);
        if handled & !known != 0 {
            bus.misstep("MMIO-REG-12", format!("{handled:#x} written to InterruptACK: undefined bits"));
        } else if handled & !u32::from(self.isr) != 0 {
            bus.misstep("MMIO-REG-12", format!("{handled:#x} acknowledged of {:#x}", self.isr));
        }
        match self.bug {
            Some(Bug::IsrStays) => {}
            Some(Bug::AckClearsAll) => self.isr = 0,
            _ => self.isr &= !(handled as u8),
        }
    }

    pub(crate) fn read_table(&self, offset: u64, width: u8, bus: &mut Bus) -> u32 {
        self.msix.as_ref().map_or(u32::MAX, |table| table.read_table(offset, width, bus))
    }

    pub(crate) fn write_table(&mut self, offset: u64, width: u8, value: u32, bus: &mut Bus) {
        match &mut self.msix {
            Some(table) => table.write_table(offset, width, value, bus),
            None => bus.misstep("PCI-MSIX", "write to the MSI-X table of a function that has none"),
        }
    }

    pub(crate) fn read_pending(&self, offset: u64, width: u8) -> u32 {
        self.msix.as_ref().map_or(0, |table| table.read_pending(offset, width))
    }

    /// At `DRIVER_OK` every vector up to the highest in use can be raised.
    pub(crate) fn check_live(&self, highest: Option<u16>, config: &ConfigModel, bus: &mut Bus) {
        let Some(table) = self.msix.as_ref().filter(|_| config.msix_enabled()) else { return };
        let used = highest.map_or(0, |vector| usize::from(vector) + 1);
        if config.msix_all_masked() || table.unmasked() < used {
            bus.misstep("PCI-MSIX", format!("DRIVER_OK with {} of {used} vectors unmasked", table.unmasked()));
        }
    }

    pub(crate) fn raise_config(&mut self, vector: u16, delay: u64, config: &ConfigModel, bus: &mut Bus) {
        self.set_isr(ISR_CONFIG);
        self.raise_vector(vector, delay, config, bus);
    }

    pub(crate) fn raise_queue(&mut self, vector: u16, delay: u64, config: &ConfigModel, bus: &mut Bus) {
        if !config.msix_enabled() && self.bug != Some(Bug::IsrIsNeverSet) {
            self.set_isr(ISR_QUEUE);
        }
        let vector = match self.bug {
            Some(Bug::MessagesAreLost) => return,
            Some(Bug::QueuesRaiseConfigVector) => 0,
            Some(Bug::NoVectorIsVector0) if vector == NO_VECTOR => 0,
            _ => vector,
        };
        self.raise_vector(vector, delay, config, bus);
    }

    /// Sets the ISR byte's queue bit for no reason.
    pub(crate) fn set_isr_early(&mut self) {
        self.set_isr(ISR_QUEUE);
    }

    fn set_isr(&mut self, bit: u8) {
        if !self.no_isr {
            self.isr |= bit;
        }
    }

    /// Whether an INTx interrupt is pending: Interrupt Status in the PCI status register.
    pub(crate) fn asserted(&self, config: &ConfigModel) -> bool {
        self.isr != 0 && !config.msix_enabled() && self.bug != Some(Bug::InterruptStatusIsNeverSet)
    }

    /// Raises everything at once, for no reason.
    pub(crate) fn raise_all(&mut self, config: &ConfigModel, bus: &mut Bus) {
        self.set_isr(ISR_QUEUE);
        let vectors = self.msix.as_ref().map_or(0, MsixTable::len) as u16;
        (0..vectors).for_each(|vector| self.raise_vector(vector, 0, config, bus));
    }

    fn raise_vector(&mut self, vector: u16, delay: u64, config: &ConfigModel, bus: &mut Bus) {
        if !config.msix_enabled() || vector == NO_VECTOR {
            return;
        }
        if let Some(message) = self.msix.as_mut().and_then(|table| table.raise(vector, config.msix_all_masked())) {
            bus.send(message, delay);
        }
    }

    /// Sends messages that were raised while masked and are now unmasked.
    pub(crate) fn send_pending(&mut self, config: &ConfigModel, bus: &mut Bus) {
        if config.msix_enabled() {
            for message in self.msix.iter_mut().flat_map(|table| table.release_pending(config.msix_all_masked())) {
                bus.send(message, 0);
            }
        }
    }

    /// Whether the line is asserted, for a function that has one.
    pub(crate) fn pulls_line(&self, config: &ConfigModel) -> bool {
        self.isr != 0 && !config.msix_enabled() && !config.intx_disabled()
    }
}
