//! Registers whose values a reset restores, whatever a driver wrote.

use core::mem::offset_of;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::transport::mmio;
use super::{TestDevice, Transport};
use crate::verdict::Verdict;
use ballonet::pci::ConfigSpace;
use ballonet::platform::Registers;
use ballonet::virtio::spec::CommonConfig;

/// Dwords of the configuration header that must not change: IDs, command, class, BARs, subsystem, capability
/// pointer, line and pin.
const HEADER: [u16; 12] = [0x00, 0x04, 0x08, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x2c, 0x34, 0x3c];
/// The dword with command and status, and its bits that must not change: decoding and bus mastering.
const COMMAND: u16 = 0x04;
const COMMAND_BITS: u32 = 7;

/// The registers of a device that was just reset: a name and a value each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint(Vec<(String, u64)>);

impl Fingerprint {
    /// The first register that differs, with the value now and the value before.
    fn difference<'f>(&'f self, before: &'f Self) -> Option<(&'f str, u64, u64)> {
        let differs = |((name, now), (_, before)): (&'f (String, u64), &(String, u64))| {
            (now != before).then_some((name.as_str(), *now, *before))
        };
        self.0.iter().zip(&before.0).find_map(differs)
    }
}

impl TestDevice<'_> {
    /// Reads the fingerprint the first time; later compares with that one and returns the difference in words.
    pub(super) fn compare_fingerprint(&mut self) -> Verdict<Option<String>> {
        let now = self.read_fingerprint()?;
        let Some(before) = &self.fingerprint else {
            self.fingerprint = Some(now);
            return Ok(None);
        };
        let difference = now.difference(before);
        Ok(difference.map(|(name, now, before)| format!("{name} is {now:#x} after a reset, and was {before:#x}")))
    }

    fn read_fingerprint(&mut self) -> Verdict<Fingerprint> {
        self.negotiate_least()?;
        let mut registers = Vec::new();
        if let Some(bdf) = self.pci.as_ref().map(|pci| pci.function.bdf) {
            for offset in HEADER {
                let value = self.platform.config().read32(bdf, offset);
                let value = if offset == COMMAND { value & COMMAND_BITS } else { value };
                registers.push((format!("configuration dword {offset:#x}"), u64::from(value)));
            }
        }
        registers.push((String::from("the offered features"), self.read_offered().bits()));
        match &self.transport {
            Transport::Modern(modern) => {
                let count = modern.common.read16(offset_of!(CommonConfig, num_queues));
                registers.push((String::from("num_queues"), count.into()));
            }
            Transport::Mmio(mmio) => {
                for register in [mmio::MAGIC_VALUE, mmio::VERSION, mmio::DEVICE_ID, mmio::VENDOR_ID] {
                    registers.push((format!("register {register:#x}"), mmio.registers.read32(register).into()));
                }
            }
            Transport::Legacy(_) => {}
        }
        for queue in self.present() {
            // Not its size: whether a reset restores that is a lawful check, which some devices fail.
            self.select(queue);
            if let Transport::Modern(modern) = &self.transport {
                let doorbell = modern.common.read16(offset_of!(CommonConfig, queue_notify_off));
                registers.push((format!("queue_notify_off of queue {queue}"), doorbell.into()));
            }
            let in_use = self.in_use(queue);
            registers.push((format!("whether queue {queue} is in use"), in_use.into()));
        }
        Ok(Fingerprint(registers))
    }
}
