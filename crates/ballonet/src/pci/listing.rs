//! The listing: a line for each function in the style of `lspci -nn`, optionally followed by details.

use core::fmt;

use super::bar::{BarKind, MemoryWidth};
use super::bridge::BridgeWindows;
use super::capability::id;
use super::{Bar, Capability, Command, ConfigSpace, Function, Node, Space, names};

/// One line about a function, without a line end; with the class code if the device has no known name.
#[derive(Debug, Clone, Copy)]
pub struct Line<'f>(pub &'f Function);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let function = self.0;
        let device = names::device(function);
        write!(f, "{} {}", function.bdf, names::class(function.class))?;
        if device.is_none() {
            write!(f, " [{}]", function.class)?;
        }
        f.write_str(":")?;
        if let Some(vendor) = names::vendor(function.vendor) {
            write!(f, " {vendor}")?;
        }
        write!(f, " {} [{:04x}:{:04x}]", device.unwrap_or("device"), function.vendor, function.device)?;
        if function.revision != 0 {
            write!(f, " (rev {:02x})", function.revision)?;
        }
        Ok(())
    }
}

/// Describes a vendor-specific capability, at the end of its line. It reads only registers without side effects.
pub(crate) type DescribeVendor<C> = fn(&C, &Function, &Capability, &mut fmt::Formatter<'_>) -> fmt::Result;

/// The detail lines of a function: buses and windows of a bridge, BARs, interrupts, capabilities. Each is indented and
/// ends in a line end. Configuration space is read while they are shown.
#[derive(Debug, Clone, Copy)]
pub struct Details<'n, C> {
    /// Configuration space.
    pub config: &'n C,
    /// The function.
    pub node: &'n Node,
    /// Describes vendor-specific capabilities; [`crate::virtio::listing::describe`] knows those of virtio.
    pub vendor: DescribeVendor<C>,
}

impl<C: ConfigSpace> fmt::Display for Details<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, node, vendor } = *self;
        let function = node.function;
        if let Some(subsystem) = function.subsystem.filter(|subsystem| subsystem.vendor != 0) {
            writeln!(f, "    subsystem [{:04x}:{:04x}]", subsystem.vendor, subsystem.device)?;
        }
        let command = function.command(config);
        if command.contains(Command::BUS_MASTER) {
            writeln!(f, "    may master the bus")?;
        }
        if let Some(pin) = function.interrupt_pin {
            writeln!(f, "    interrupt pin {pin}")?;
        }
        if let Some(buses) = node.buses {
            writeln!(f, "    bus {buses}")?;
        }
        if function.is_bridge() {
            let windows = BridgeWindows::read(config, function.bdf);
            for space in [Space::Io, Space::Memory, Space::Prefetchable] {
                if let Some(window) = windows.get(space) {
                    writeln!(f, "    passes on {space} {window}")?;
                }
            }
        }
        for bar in node.bars.iter() {
            writeln!(f, "    {}", BarLine(bar))?;
        }
        for error in node.bars.errors() {
            writeln!(f, "    {error}")?;
        }
        for capability in function.capabilities(config) {
            match capability {
                Ok(capability) => {
                    writeln!(f, "    {}", CapabilityLine { config, function: &function, capability, vendor })?;
                }
                Err(error) => writeln!(f, "    {error}")?,
            }
        }
        Ok(())
    }
}

/// One line about a BAR.
struct BarLine<'b>(&'b Bar);

impl fmt::Display for BarLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bar = self.0;
        write!(f, "BAR{}: ", bar.index)?;
        match bar.kind {
            BarKind::Io => f.write_str("I/O ports")?,
            BarKind::Memory { width, prefetchable } => {
                f.write_str(match width {
                    MemoryWidth::Bits32 => "32-bit",
                    MemoryWidth::Bits64 => "64-bit",
                    MemoryWidth::Below1MiB => "below-1-MiB",
                })?;
                f.write_str(if prefetchable { " prefetchable memory" } else { " memory" })?;
            }
        }
        match bar.range() {
            Some(range) => write!(f, " at {:#x}", range.first())?,
            None => f.write_str(" without an address")?,
        }
        write!(f, ", {}", Size(bar.size))
    }
}

/// A power of two in bytes, in the largest unit that divides it.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.into_iter().find(|(shift, _)| self.0 >> shift != 0) {
            Some((shift, unit)) => write!(f, "{} {unit}", self.0 >> shift),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// One line about a capability.
struct CapabilityLine<'c, C> {
    config: &'c C,
    function: &'c Function,
    capability: Capability,
    vendor: DescribeVendor<C>,
}

/// Number of vectors.
struct Vectors(u32);

impl fmt::Display for Vectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} vector{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

impl<C: ConfigSpace> fmt::Display for CapabilityLine<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, function, capability, vendor } = self;
        write!(f, "[{:02x}] {}", capability.offset, names::capability(capability.id))?;
        let Ok(control) = capability.read16(*config, 2) else { return f.write_str(", cut off") };
        match capability.id {
            id::MSI_X => {
                let state = if control >> 15 != 0 { "on" } else { "off" };
                write!(f, ", {}, {state}", Vectors(u32::from(control & 0x7FF) + 1))
            }
            id::MSI => {
                let state = if control & 1 != 0 { "on" } else { "off" };
                write!(f, ", {}, {state}", Vectors(1 << (control >> 1 & 0x7)))
            }
            id::VENDOR => {
                write!(f, ", {} bytes", control & 0xFF)?;
                vendor(config, function, capability, f)
            }
            // The others have nothing that this kernel uses.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::fake::{FakeConfig, FakeFunction};
    use crate::pci::{BusRange, Tree};

    fn tree(fake: FakeFunction) -> (FakeConfig, Tree) {
        let (mut config, _) = FakeConfig::with(fake);
        let mut tree = Tree::walk(&mut config, &[BusRange::SEGMENT_0]);
        tree.size_bars(&mut config);
        (config, tree)
    }

    #[test]
    fn a_line_reads_like_lspci() {
        let line = |fake| Line(&tree(fake).1.nodes()[0].function).to_string();
        let balloon = FakeFunction::new(0x1AF4, 0x1045, 0x00_FF_00);
        assert_eq!(
            line(balloon),
            "00:03.0 Unclassified device: Red Hat, Inc. Virtio 1.0 memory balloon [1af4:1045] (rev 01)"
        );
        let unknown = FakeFunction::new(0xABCD, 0x0001, 0x13_77_00);
        assert_eq!(line(unknown), "00:03.0 Non-essential instrumentation [1377]: device [abcd:0001] (rev 01)");
    }

    #[test]
    fn details_show_bars_pins_and_capabilities() {
        let fake = FakeFunction::new(0x1AF4, 0x1045, 0)
            .memory32(1, 0xFEBD_1000, 0x1000)
            .memory64(4, 0, 0x4000, true)
            .pin(1)
            .command(Command::MEMORY | Command::BUS_MASTER)
            .capability(0x98, 0x11, &[1, 0x80])
            .capability(0x84, 0x09, &[0x14, 1])
            .byte(0x85, 0x98);
        let (config, tree) = tree(fake);
        let shown = Details { config: &config, node: &tree.nodes()[0], vendor: |_, _, _, _| Ok(()) }.to_string();
        let expected = "    may master the bus
    interrupt pin INTA#
    BAR1: 32-bit memory at 0xfebd1000, 4 KiB
    BAR4: 64-bit prefetchable memory without an address, 16 KiB
    [98] MSI-X, 2 vectors, on
    [84] vendor-specific, 20 bytes
    00:03.0: capability list loops at 0x98
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn details_of_a_bridge_show_its_buses_and_windows() {
        let fake = FakeFunction::bridge(0x1B36, 1).buses(0, 1, 2).memory_window(0xFE80_0000, 0xFE8F_FFFF);
        let (config, tree) = tree(fake);
        let shown = Details { config: &config, node: &tree.nodes()[0], vendor: |_, _, _, _| Ok(()) }.to_string();
        assert!(!shown.contains("may master the bus"), "{shown}");
        assert!(shown.contains("bus primary=00, secondary=01, subordinate=02\n"), "{shown}");
        assert!(shown.contains("passes on memory 0xfe800000-0xfe8fffff\n"), "{shown}");
    }
}
