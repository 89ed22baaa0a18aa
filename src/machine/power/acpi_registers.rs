//! Registers that ACPI names, mapped early, so that the kernel's last steps need no page tables.

use crate::acpi::{Acpi, AddressSpace, EventBlock, Events, Fadt, GenericAddress, Pm1Event, ResetRegister};
use crate::machine::devices::mmio::Window;
use crate::machine::memory::frames;
use crate::machine::paging::{self, Access};
use crate::machine::time::clock;
use ballonet::platform::Registers;

/// Opens the register at `address`, of `length` bytes, permanently. `None` if it cannot be accessed.
fn open(address: GenericAddress, length: usize) -> Option<Window> {
    match address.space {
        AddressSpace::Io => {
            let base = u16::try_from(address.address).ok()?;
            u16::try_from(usize::from(base) + length.checked_sub(1)?).ok()?;
            // SAFETY: the FADT says that these ports are such a register; ports are not memory.
            Some(unsafe { Window::ports(base, length) })
        }
        AddressSpace::Memory => {
            let opened = paging::with(|space| {
                space.open_window(address.address, length as u64, Access::Device, &mut frames::ForTables)
            });
            // SAFETY: just mapped permanently; page tables refuse windows of device registers onto memory.
            opened.ok().map(|start| unsafe { Window::memory(start, length) })
        }
        AddressSpace::PciConfig | AddressSpace::Other(_) => None,
    }
}

/// The power registers: for sleep and for reset.
pub(crate) struct PowerRegisters {
    /// PM1 control, both halves.
    pub(crate) control: [Option<Window>; 2],
    /// Sleep control of hardware-reduced machines.
    pub(crate) sleep_control: Option<Window>,
    /// The reset register, and what to write to it.
    pub(crate) reset: Option<(ResetPlace, u8)>,
    /// The fixed events, if there is fixed hardware.
    pub(crate) events: Option<Events<Window>>,
}

/// The location of the reset register.
pub(crate) enum ResetPlace {
    Window(Window),
    /// In configuration space of bus 0: the value that selects it at the ports, and the byte within the dword.
    Config(u32, u16),
}

impl PowerRegisters {
    /// Opens the registers that the tables name.
    pub(crate) fn open(acpi: &Acpi) -> Self {
        let Some(fadt) = &acpi.fadt else {
            return Self { control: [None, None], sleep_control: None, reset: None, events: None };
        };
        Self {
            control: [fadt.pm1a_control, fadt.pm1b_control].map(|register| open(register?, 2)),
            sleep_control: fadt.sleep_control.and_then(|register| open(register, 1)),
            reset: fadt.reset.and_then(|reset| Some((reset_place(reset)?, reset.value))),
            events: open_events(fadt),
        }
    }
}

fn reset_place(reset: ResetRegister) -> Option<ResetPlace> {
    /// Configuration space through ports is on (PCI 3.0, 3.2.2.3.2).
    const ENABLE: u32 = 1 << 31;
    let register = reset.register;
    if register.space != AddressSpace::PciConfig {
        return open(register, 1).map(ResetPlace::Window);
    }
    // Device, function and offset are 16 bits each (ACPI 6.5, table 5.1).
    let [offset, function, device, 0] = [0, 16, 32, 48].map(|shift| (register.address >> shift) as u16) else {
        return None;
    };
    let valid = offset < 256 && function < 8 && device < 32;
    let select = ENABLE | u32::from(device) << 11 | u32::from(function) << 8 | u32::from(offset & !3);
    valid.then_some(ResetPlace::Config(select, offset & 3))
}

/// The event registers; `None` without a PM1 block.
fn open_events(fadt: &Fadt) -> Option<Events<Window>> {
    let pair = |status, enable, bytes| Some(EventBlock { status: open(status, bytes)?, enable: open(enable, bytes)? });
    let fixed = |block: Option<Pm1Event>| {
        let Pm1Event { status, enable } = block.filter(|block| block.status.bit_width >= 16)?;
        pair(status, enable, 2)
    };
    let fixed: alloc::vec::Vec<_> = [fadt.pm1a_event, fadt.pm1b_event].into_iter().filter_map(fixed).collect();
    let general = fadt.general_events.iter().flatten();
    let general = general.filter_map(|block| pair(block.status, block.enable, block.registers.into()));
    (!fixed.is_empty()).then(|| Events::new(fixed, general.collect()))
}

/// Takes the power registers over from firmware, if it still owns them (ACPI 6.5, 4.8.2.5). Returns whether the kernel
/// owns them now.
pub(crate) fn take_acpi_mode(fadt: &Fadt, registers: &PowerRegisters) -> bool {
    /// PM1 control: ACPI mode is on.
    const SCI_ENABLE: u16 = 1;
    /// Firmware may be slow: 3 s, in steps of 1 ms.
    const PATIENCE: u32 = 3000;
    let is_on = || registers.control.iter().flatten().any(|control| control.read16(0) & SCI_ENABLE != 0);
    if is_on() {
        return true;
    }
    let Some(command) = fadt.smi_command.filter(|command| command.enable != 0) else {
        // Without an SMI command port ACPI mode is always on (ACPI 6.5, table 5.9, SMI_CMD).
        return true;
    };
    let Ok(port) = u16::try_from(command.port) else { return false };
    // SAFETY: the FADT says that this byte at this port asks firmware for ACPI mode.
    unsafe { x86_64::instructions::port::PortWriteOnly::<u8>::new(port).write(command.enable) };
    (0..PATIENCE).any(|_| {
        let on = is_on();
        if !on {
            clock::wait_some_ms(1);
        }
        on
    })
}
