//! The IOAPICs: from interrupt lines to vectors.

use alloc::vec::Vec;
use core::ops::Range;

use derive_more::Display;

use crate::acpi::{InterruptRoute, IoApic as IoApicEntry, Polarity, Trigger};
use crate::machine::devices::mmio::Window;
use crate::machine::lock::Lock;
use crate::machine::memory::frames;
use crate::machine::paging::{self, Access, PagingError};
use ballonet::platform::Registers;

/// Register select and its data window (82093AA, 3.1).
const SELECT: usize = 0x00;
const DATA: usize = 0x10;
/// Size of the two in bytes.
const WINDOW: u64 = 0x20;

/// Index of the version register.
const VERSION: u32 = 0x01;
/// Index of the first redirection table entry; two registers each.
const TABLE: u32 = 0x10;

/// Redirection entry: active low.
const ACTIVE_LOW: u32 = 1 << 13;
/// Redirection entry: level-triggered.
const LEVEL: u32 = 1 << 15;
/// Redirection entry: masked.
const MASKED: u32 = 1 << 16;

pub(crate) struct IoApic {
    window: Window,
    gsi_base: u32,
    inputs: u32,
    /// The low half of each input's entry, as last written: vector, polarity, trigger, mask. Nothing else writes there.
    entries: Vec<u32>,
}

pub(crate) static IO_APICS: Lock<Vec<IoApic>> = Lock::new(Vec::new());

impl IoApic {
    fn read(&mut self, index: u32) -> u32 {
        self.window.write32(SELECT, index);
        self.window.read32(DATA)
    }

    /// How many inputs its version register reports, once the IOAPIC has been found.
    fn count_inputs(&mut self) -> Result<u32, IoApicError> {
        let inputs = (self.read(VERSION) >> 16 & 0xFF) + 1;
        if self.window.read32(SELECT) & 0xFF != VERSION {
            return Err(IoApicError::Absent);
        }
        if inputs > IoApicEntry::MOST_INPUTS { Err(IoApicError::Inputs(inputs)) } else { Ok(inputs) }
    }

    /// Writes the low half of an input's entry, unless it has that value already.
    fn set_entry(&mut self, input: u32, value: u32) {
        let Some(entry) = self.entries.get_mut(input as usize) else { return };
        if core::mem::replace(entry, value) != value {
            self.write(TABLE + 2 * input, value);
        }
    }

    fn write(&mut self, index: u32, value: u32) {
        self.window.write32(SELECT, index);
        self.window.write32(DATA, value);
    }
}

/// Why an IOAPIC that the tables list is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub(crate) enum IoApicError {
    /// Its registers cannot be mapped.
    #[display("{_0}")]
    Map(PagingError),
    /// Its select register does not keep values: nothing responds there, or another device does.
    #[display("there is none")]
    Absent,
    /// Its version register reports more inputs than there can be.
    #[display("it claims {_0} inputs, which is impossible")]
    Inputs(u32),
}

/// Takes over one IOAPIC, with every input masked. Returns how many inputs it has.
///
/// # Errors
/// When its registers cannot be mapped, or do not look like an IOAPIC's.
pub(crate) fn add(entry: &IoApicEntry) -> Result<u32, IoApicError> {
    let address = entry.address.as_u64();
    let start = paging::with(|space| space.open_window(address, WINDOW, Access::Device, &mut frames::ForTables))
        .map_err(IoApicError::Map)?;
    // SAFETY: just mapped, as long as it is used; an IOAPIC's registers affect memory only through interrupts, which
    // have gates.
    let window = unsafe { Window::memory(start, WINDOW as usize) };
    let mut io_apic = IoApic { window, gsi_base: entry.gsi_base, inputs: 0, entries: Vec::new() };
    let inputs = io_apic.count_inputs().inspect_err(|_| paging::with(|space| space.close_window(start, WINDOW)))?;
    io_apic.inputs = inputs;
    io_apic.entries.resize(inputs as usize, MASKED);
    for input in 0..inputs {
        // The other half, the destination, is written when the input is used.
        io_apic.write(TABLE + 2 * input, MASKED);
    }
    IO_APICS.with(|list| list.push(io_apic));
    Ok(inputs)
}

/// Runs `action` on the IOAPIC that has this global system interrupt, with the number of its input.
fn with_input<R>(gsi: u32, action: impl FnOnce(&mut IoApic, u32) -> R) -> Option<R> {
    IO_APICS.with(|list| {
        let io_apic = list.iter_mut().find(|io_apic| gsi.wrapping_sub(io_apic.gsi_base) < io_apic.inputs)?;
        let input = gsi - io_apic.gsi_base;
        Some(action(io_apic, input))
    })
}

/// Sends a line's interrupts to `vector` on the CPU with this APIC id, unmasked. `None` if no IOAPIC has the line.
pub(crate) fn route(route: InterruptRoute, vector: u8, apic_id: u8) -> Option<()> {
    let polarity = if route.signalling.polarity == Polarity::ActiveLow { ACTIVE_LOW } else { 0 };
    let trigger = if route.signalling.trigger == Trigger::Level { LEVEL } else { 0 };
    with_input(route.gsi, |io_apic, input| {
        io_apic.set_entry(input, MASKED);
        io_apic.write(TABLE + 2 * input + 1, u32::from(apic_id) << 24);
        io_apic.set_entry(input, u32::from(vector) | polarity | trigger);
    })
}

/// Masks or unmasks a line. `None` if no IOAPIC has it.
pub(crate) fn set_masked(gsi: u32, masked: bool) -> Option<()> {
    with_input(gsi, |io_apic, input| {
        let entry = io_apic.entries.get(input as usize).copied().unwrap_or(MASKED);
        io_apic.set_entry(input, if masked { entry | MASKED } else { entry & !MASKED });
    })
}

/// The low half of a line's redirection entry: vector, polarity, trigger, mask.
#[cfg(feature = "test-image")]
pub(crate) fn entry(gsi: u32) -> Option<u32> {
    with_input(gsi, |io_apic, input| io_apic.read(TABLE + 2 * input))
}

/// Whether some IOAPIC has this line.
pub(crate) fn has(gsi: u32) -> bool {
    with_input(gsi, |_, _| ()).is_some()
}

/// The lines of each IOAPIC.
pub(crate) fn ranges() -> Vec<Range<u32>> {
    IO_APICS.with(|list| list.iter().map(|io_apic| io_apic.gsi_base..io_apic.gsi_base + io_apic.inputs).collect())
}

/// The number after that of the last line, 0 without IOAPICs.
#[cfg(feature = "test-image")]
pub(crate) fn end() -> u32 {
    IO_APICS.with(|list| list.iter().map(|io_apic| io_apic.gsi_base + io_apic.inputs).max().unwrap_or(0))
}
