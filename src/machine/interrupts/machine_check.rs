//! Machine checks: errors that the CPU has detected, in banks of MSRs (SDM vol. 3, chapter 17).

use core::fmt;

use ::log::warn;

use crate::machine::cpu::cpuid::Features;
use crate::machine::cpu::msr;
use crate::machine::smp::cpu::Cpu;

/// The vector (SDM vol. 3, table 7-1).
pub(crate) const VECTOR: u8 = 18;

const GLOBAL_CAPABILITIES: u32 = 0x179;
const GLOBAL_CONTROL: u32 = 0x17B;
/// Capabilities: [`GLOBAL_CONTROL`] exists.
const CONTROL_PRESENT: u64 = 1 << 8;
/// The first bank's four MSRs; the next bank's follow them.
const CONTROL: u32 = 0x400;
const STATUS: u32 = 0x401;
const ADDRESS: u32 = 0x402;
/// The most banks that are read: the MSRs beyond them have other uses.
const MOST_BANKS: u32 = 32;

/// The record of a bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    /// Number of the bank.
    pub bank: u32,
    /// Its status register.
    pub status: u64,
    /// The address of the error, if the bank has one.
    pub address: Option<u64>,
}

/// Status: the record is valid; errors were lost; nothing corrected it; the address register holds one; the program
/// that was interrupted cannot continue.
const VALID: u64 = 1 << 63;
const OVERFLOW: u64 = 1 << 62;
const UNCORRECTED: u64 = 1 << 61;
const ADDRESS_VALID: u64 = 1 << 58;
const CONTEXT_CORRUPT: u64 = 1 << 57;

/// An error code in words (SDM vol. 3, 17.9.1 and 17.9.2). Bit 12 only says that such reports are filtered.
const fn kind(code: u16) -> &'static str {
    match code & !(1 << 12) {
        0x0000 => "no error code",
        0x0001 => "unclassified error",
        0x0002 => "parity error in the microcode ROM",
        0x0003 => "error signalled by another CPU or chip",
        0x0004 => "redundancy error between CPUs",
        0x0005 => "internal parity error",
        0x0400 => "internal timer error",
        0x0E0B => "I/O error",
        code if code & !0x3 == 0x000C => "error of the cache hierarchy",
        code if code & !0xF == 0x0010 => "error in a TLB",
        code if code & !0x7F == 0x0080 => "error of the memory controller",
        code if code & !0xFF == 0x0100 => "error in a cache",
        code if code & 0xF800 == 0x0800 => "error on the bus or interconnect",
        code if code & 0xFC00 == 0x0400 => "internal error",
        _ => "error of an unknown kind",
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |flag| self.status & flag != 0;
        let corrected = if has(UNCORRECTED) { "uncorrected" } else { "corrected" };
        write!(f, "bank {}: {corrected} {}", self.bank, kind(self.status as u16))?;
        if let Some(address) = self.address {
            write!(f, " at {address:#x}")?;
        }
        if has(CONTEXT_CORRUPT) {
            f.write_str(", after which the CPU's state is unreliable")?;
        }
        if has(OVERFLOW) {
            f.write_str(", and others that were lost")?;
        }
        write!(f, " (status {:#018x})", self.status)
    }
}

/// How many banks this CPU has.
fn banks(features: &Features) -> u32 {
    if !(features.machine_check && features.machine_check_banks) {
        return 0;
    }
    // Some emulators claim banks but lack the register that counts them.
    msr::read(GLOBAL_CAPABILITIES).map_or(0, |capabilities| (capabilities as u32 & 0xFF).min(MOST_BANKS))
}

fn read(bank: u32) -> Option<Record> {
    let status = msr::read(STATUS + 4 * bank).filter(|status| status & VALID != 0)?;
    let address = if status & ADDRESS_VALID != 0 { msr::read(ADDRESS + 4 * bank) } else { None };
    Some(Record { bank, status, address })
}

/// The records that the banks hold now.
pub(crate) fn records(features: &Features) -> impl Iterator<Item = Record> {
    (0..banks(features)).filter_map(read)
}

/// Reports errors that this CPU recorded before the start, and turns on reports of later ones.
pub(crate) fn begin(features: &Features) {
    for record in records(features) {
        warn!("machine check on CPU {}, from before the start: {record}", Cpu::this().number());
    }
    clear(features);
    enable(features);
}

/// Makes every bank report by exception; a bank that is off would only record, or shut the machine down.
fn enable(features: &Features) {
    let count = banks(features);
    if count == 0 {
        return;
    }
    let has_control = msr::read(GLOBAL_CAPABILITIES).is_some_and(|capabilities| capabilities & CONTROL_PRESENT != 0);
    // Bank 0 of old CPUs of family 6 controls the bus, and is firmware's (SDM vol. 3, 17.3.2.1).
    let banks = (u32::from(is_early_family_6())..count).map(|bank| CONTROL + 4 * bank);
    for register in has_control.then_some(GLOBAL_CONTROL).into_iter().chain(banks) {
        // SAFETY: all ones turns reports on (SDM vol. 3, 17.3.1.3 and 17.3.2.1), and vector 18 has a gate. A bank that
        // rejects the value stays unchanged.
        unsafe { msr::write(register, u64::MAX) };
    }
}

fn is_early_family_6() -> bool {
    let signature = core::arch::x86_64::__cpuid(1).eax;
    let (family, model) = (signature >> 8 & 0xF, signature >> 4 & 0xF | signature >> 12 & 0xF0);
    family == 6 && model < 0x1A
}

/// Clears the banks, once their errors have been reported.
fn clear(features: &Features) {
    for bank in 0..banks(features) {
        // SAFETY: zero is the only value that may be written to a status register.
        unsafe { msr::write(STATUS + 4 * bank, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bank: u32, status: u64, address: Option<u64>) -> alloc::string::String {
        alloc::string::ToString::to_string(&Record { bank, status, address })
    }

    #[test]
    fn a_record_tells_what_happened_and_where() {
        assert_eq!(
            text(4, VALID | UNCORRECTED | ADDRESS_VALID | CONTEXT_CORRUPT | 0x009F, Some(0x1234_5000)),
            "bank 4: uncorrected error of the memory controller at 0x12345000, after which the CPU's state is \
             unreliable (status 0xa60000000000009f)"
        );
        assert_eq!(
            text(0, VALID | OVERFLOW | 0x1135, None),
            "bank 0: corrected error in a cache, and others that were lost (status 0xc000000000001135)"
        );
    }

    #[test]
    fn every_code_of_the_tables_has_its_kind() {
        for (code, expected) in [
            (0x0000, "no error code"),
            (0x0005, "internal parity error"),
            (0x000E, "error of the cache hierarchy"),
            (0x001A, "error in a TLB"),
            (0x0400, "internal timer error"),
            (0x0405, "internal error"),
            (0x0E0B, "I/O error"),
            (0x0E0F, "error on the bus or interconnect"),
            (0x1810, "error on the bus or interconnect"),
            (0xFFFF, "error of an unknown kind"),
        ] {
            assert_eq!(kind(code), expected, "{code:#06x}");
        }
    }
}
