//! Function level reset (PCIe 6.6.2; PCI's Advanced Features capability): the last resort for a dead device.

use super::PciFunction;
use crate::platform::AnyPlatform;
use ballonet::pci::{Bdf, ConfigSpace};

/// Capability IDs.
const PCI_EXPRESS: u8 = 0x10;
const ADVANCED_FEATURES: u8 = 0x13;
/// PCI Express: Device Capabilities and the bit for function level resets, Device Control and the bit that starts one.
const DEVICE_CAPABILITIES: u16 = 4;
const HAS_RESET: u32 = 1 << 28;
const DEVICE_CONTROL: u16 = 8;
const START_RESET: u16 = 1 << 15;
/// Advanced Features: the byte of capabilities and its bit for function level resets, the byte that starts one.
const AF_CAPABILITIES: u16 = 3;
const AF_HAS_RESET: u8 = 1 << 1;
const AF_CONTROL: u16 = 4;
/// How long the function may take, in nanoseconds (PCIe 6.6.2).
const DURATION: u64 = 100_000_000;
/// What a reset, D3 or power-off clears and the function needs: the BARs, the interrupt line, and finally the command
/// register.
const BARS: [u16; 6] = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24];
const INTERRUPT_LINE: u16 = 0x3c;
const COMMAND: u16 = 0x04;

/// What a function needs of its header, as it was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    bars: [u32; BARS.len()],
    line: u8,
    command: u16,
}

impl Header {
    pub(super) fn read(config: &impl ConfigSpace, bdf: Bdf) -> Self {
        let bars = BARS.map(|offset| config.read32(bdf, offset));
        Self { bars, line: config.read8(bdf, INTERRUPT_LINE), command: config.read16(bdf, COMMAND) }
    }

    pub(super) fn restore(&self, config: &mut impl ConfigSpace, bdf: Bdf) {
        for (offset, value) in BARS.into_iter().zip(self.bars) {
            config.write32(bdf, offset, value);
        }
        config.write8(bdf, INTERRUPT_LINE, self.line);
        // Not the status beside it, whose bits a 1 clears.
        config.write16(bdf, COMMAND, self.command);
    }
}

impl PciFunction {
    /// Resets the function and restores its header; `false` if it has no such reset.
    pub(super) fn reset_function(&self, platform: &mut dyn AnyPlatform) -> bool {
        let bdf = self.function.bdf;
        let Some(start) = self.reset_control(platform) else { return false };
        let header = Header::read(&platform.config(), bdf);
        match start {
            Control::Express(at) => {
                let value = platform.config().read16(bdf, at);
                platform.config().write16(bdf, at, value | START_RESET);
            }
            Control::Advanced(at) => platform.config().write8(bdf, at, 1),
        }
        let begin = platform.now();
        while platform.now().saturating_sub(begin) < DURATION {
            platform.relax();
        }
        header.restore(&mut platform.config(), bdf);
        true
    }

    fn reset_control(&self, platform: &mut dyn AnyPlatform) -> Option<Control> {
        let bdf = self.function.bdf;
        let config = &platform.config();
        self.function.capabilities(config).filter_map(Result::ok).find_map(|found| match found.id {
            PCI_EXPRESS if config.read32(bdf, found.offset + DEVICE_CAPABILITIES) & HAS_RESET != 0 => {
                Some(Control::Express(found.offset + DEVICE_CONTROL))
            }
            ADVANCED_FEATURES if config.read8(bdf, found.offset + AF_CAPABILITIES) & AF_HAS_RESET != 0 => {
                Some(Control::Advanced(found.offset + AF_CONTROL))
            }
            _ => None,
        })
    }
}

/// The register that starts a reset.
enum Control {
    Express(u16),
    Advanced(u16),
}
