//! Memory that the loader's map omits: DIMMs that are present at boot are used, anything else is only logged.

use ::log::{info, warn};

use crate::acpi::{Acpi, Dimm, DimmSlots, Rsdp};
use crate::boot::{BootInfo, PhysicalMemory};
use crate::machine::devices::mmio::Window;
use ballonet::memory::FRAME_SIZE;

/// Adds the DIMMs that are present to the memory map. Runs before the allocator exists. DIMMs plugged in later are not
/// used, and those in use are never released.
pub(crate) fn add(memory: &impl PhysicalMemory, boot: &mut BootInfo) {
    let rsdp = Rsdp::locate(memory, boot.rsdp, &mut |_, _| {});
    let Some(slots) = rsdp.and_then(|rsdp| DimmSlots::find(memory, &rsdp)) else { return };
    let (port, length) = slots.ports();
    // SAFETY: the DSDT says that these ports are the device's; ports are not memory.
    let registers = unsafe { Window::ports(port, length) };
    for dimm in slots.dimms(registers) {
        let Dimm { slot, address, size } = dimm;
        let is_whole = address.is_multiple_of(FRAME_SIZE) && size.is_multiple_of(FRAME_SIZE);
        match dimm.range().filter(|_| is_whole) {
            Some(range) if boot.memory_map.add_usable(range) => {
                info!("memory {range} is the DIMM in slot {slot}: used, although the loader's map does not name it");
            }
            _ => warn!(
                "the DIMM in slot {slot} is not used: {size:#x} bytes at {address:#x} are not whole pages outside the \
                 loader's map"
            ),
        }
    }
}

/// Logs address ranges for memory that ACPI has and the memory map lacks.
pub(crate) fn tell_unused(boot: &BootInfo, acpi: &Acpi) {
    /// Smaller gaps, and those below 1 MiB, are holes that firmware does not exclude from the SRAT.
    const LEAST: u64 = 2 << 20;
    const FIRST: u64 = 1 << 20;
    for memory in acpi.srat.iter().flat_map(|srat| &srat.memory) {
        let unnamed = boot.memory_map.unnamed(memory.range);
        for range in unnamed.filter(|range| range.bytes() >= LEAST && range.start().as_u64() >= FIRST) {
            if memory.is_persistent {
                info!("memory {range} is persistent (SRAT): left as it is");
            } else if memory.is_hot_pluggable {
                info!("memory may be plugged in at {range} (SRAT): it would not be used");
            } else {
                warn!("memory {range} is not used: the SRAT has it, the loader's map has not");
            }
        }
    }
}
