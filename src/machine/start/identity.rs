//! The names of this machine, for failure reports.

use alloc::format;
use alloc::string::{String, ToString};

use ::log::{info, warn};

use crate::boot::BootInfo;
use crate::machine::cpu::cpuid;
use crate::machine::start::firmware::FirmwareMemory;
use crate::screen::Fact;
use crate::smbios::Smbios;

/// The names of the CPU, the machine and its firmware.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    cpu: String,
    machine: String,
    firmware: String,
}

impl Identity {
    /// Reads them from CPUID and SMBIOS.
    pub(crate) fn read(boot: &BootInfo, features: &cpuid::Features) -> Self {
        let brand = cpuid::brand();
        let brand = String::from_utf8_lossy(&brand);
        let named = brand.trim_matches(['\0', ' ']);
        let cpu = if named.is_empty() { String::from("has no name in CPUID") } else { named.into() };
        let unknown = if features.hypervisor { "virtual, without SMBIOS" } else { "not named: there is no SMBIOS" };
        let nameless = Self { cpu, machine: unknown.into(), firmware: String::from("not named") };
        match Smbios::find(&FirmwareMemory, boot.efi) {
            Some(Ok(smbios)) => Self { machine: machine(&smbios), firmware: firmware(&smbios), ..nameless },
            Some(Err(error)) => {
                warn!("{error}");
                nameless
            }
            None => nameless,
        }
    }

    /// Label and name.
    pub(crate) fn facts(&self) -> [Fact<'_>; 3] {
        [("CPU", &self.cpu), ("MACHINE", &self.machine), ("FIRMWARE", &self.firmware)]
    }

    /// Logs a line for each: as the last lines, so that a photo of the screen shows them.
    pub(crate) fn tell(&self) {
        info!("CPU: {}", self.cpu);
        info!("machine: {}", self.machine);
        info!("firmware: {}", self.firmware);
    }
}

/// The system, and the board if that is another product.
fn machine(smbios: &Smbios) -> String {
    let (system, board) = (smbios.system.to_string(), smbios.board.to_string());
    match (system.is_empty(), board.is_empty()) {
        (true, true) => String::from("not named by its maker"),
        (true, false) => format!("board {board}"),
        (false, false) if smbios.board.name != smbios.system.name => format!("{system}, board {board}"),
        (false, _) => system,
    }
}

fn firmware(smbios: &Smbios) -> String {
    let (major, minor) = smbios.version;
    let name = smbios.firmware.to_string();
    let name = if name.is_empty() { "not named" } else { &name };
    format!("{name} (SMBIOS {major}.{minor})")
}
