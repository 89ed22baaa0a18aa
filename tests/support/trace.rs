//! A guest's accesses outside memory, as traced by QEMU: under KVM each of them would exit the guest.
//!
//! An access wider than the device accepts counts as several.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::failure::Outcome;

/// The events that QEMU must trace.
pub(crate) const EVENTS: [&str; 2] = ["memory_region_ops_read", "memory_region_ops_write"];

/// An access by a CPU of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    /// QEMU's name of the region.
    pub(crate) region: String,
    pub(crate) is_write: bool,
    pub(crate) address: u64,
    pub(crate) value: u64,
}

/// Accesses, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace(pub(crate) Vec<Access>);

impl Access {
    /// Parses a line of the trace. `None` for other lines, and for accesses by QEMU itself instead of a CPU.
    fn parse(line: &str) -> Option<Self> {
        let (_, event) = line.split_once("memory_region_ops_")?;
        let (fields, name) = event.split_once(" name '")?;
        let after = |word: &str| {
            let mut words = fields.split(' ').skip_while(|it| *it != word);
            words.nth(1)
        };
        let number = |word| u64::from_str_radix(after(word)?.strip_prefix("0x")?, 16).ok();
        if after("cpu")?.starts_with('-') {
            return None;
        }
        Some(Self {
            region: name.trim_end().trim_end_matches('\'').to_owned(),
            is_write: fields.starts_with("write"),
            address: number("addr")?,
            value: number("value")?,
        })
    }

    /// The byte that it sends to the first serial port, if any.
    pub(crate) fn sent(&self) -> Option<u8> {
        let sends = self.is_write && self.region == "serial" && self.address & 7 == 0;
        u8::try_from(self.value).ok().filter(|_| sends)
    }

    /// Its target in words.
    pub(crate) fn source(&self) -> &str {
        match self.region.as_str() {
            "acpi-tmr" => "PM timer",
            "hpet" => "HPET",
            "pit" => "PIT",
            "serial" => "serial port",
            "pcie-mmcfg-mmio" | "pci-conf-idx" | "pci-conf-data" => "configuration space",
            "ioapic" => "IOAPIC",
            "apic-msi" => "local APIC",
            "vga-lowmem" => "VGA text",
            "vga" | "vbe" => "VGA registers",
            "pic" | "elcr" => "8259",
            "rtc" | "rtc-index" => "RTC",
            "io" => "ports that are not there",
            name if name.starts_with("virtio-pci") || name.starts_with("msix") || name == "virtio-pci" => "balloon",
            name if name.starts_with("i8042") => "keyboard controller",
            name if name.starts_with("acpi") || name == "apm-io" => "ACPI",
            name if name.starts_with("fwcfg") => "fw_cfg",
            name => name,
        }
    }
}

impl Trace {
    /// Reads the trace so far.
    pub(crate) fn read(file: &Path) -> Outcome<Self> {
        Ok(Self(fs::read_to_string(file)?.lines().filter_map(Access::parse).collect()))
    }

    /// The accesses from the first byte of a log line on the serial port to the end of the first line with `words`.
    pub(crate) fn of_log_until(&self, words: &str) -> Outcome<Self> {
        let begins = |access: &Access| access.sent() == Some(b'[');
        let first = self.0.iter().position(begins).ok_or("there is no log on the serial port")?;
        let mut line = Vec::new();
        for (length, access) in self.0.iter().skip(first).enumerate() {
            let Some(byte) = access.sent() else { continue };
            line.push(byte);
            if byte == b'\n' {
                if String::from_utf8_lossy(&line).contains(words) {
                    return Ok(Self(self.0.iter().skip(first).take(length + 1).cloned().collect()));
                }
                line.clear();
            }
        }
        Err(format!("no line on the serial port has {words:?}").into())
    }

    /// The accesses from the loader's last access to QEMU's configuration to the write of `value` to the balloon's
    /// status.
    pub(crate) fn until_status(&self, value: u64) -> Outcome<Self> {
        let is_status = |access: &Access| {
            let common = access.region.starts_with("virtio-pci-common") && access.address & 0xFFF == 0x14;
            common && access.is_write && access.value == value
        };
        let end = self.0.iter().position(is_status).ok_or("the balloon's status was not written")?;
        let loaded = self.0.iter().take(end).rposition(|access| access.region.starts_with("fwcfg"));
        let first = loaded.map_or(0, |place| place + 1);
        Ok(Self(self.0.get(first..=end).unwrap_or_default().to_vec()))
    }

    /// The accesses after the first `count`.
    pub(crate) fn after(&self, count: usize) -> Self {
        Self(self.0.get(count..).unwrap_or_default().to_vec())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Number of accesses by target.
    pub(crate) fn sources(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for access in &self.0 {
            *counts.entry(access.source()).or_default() += 1;
        }
        counts
    }
}
