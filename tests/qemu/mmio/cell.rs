//! The axes of the matrix over MMIO, the combinations that QEMU can build, and the expected result of each.

use std::fmt;

use super::cover::{Positioned, digits};
use crate::matrix::Feature;
use crate::support::Version;

/// The machines: the name in a cell, and QEMU's argument.
pub(super) const MACHINES: [(&str, &str); 5] = [
    ("acpi", "microvm,acpi=on"),
    ("no_acpi", "microvm,acpi=off"),
    ("one_ioapic", "microvm,acpi=on,ioapic2=off"),
    ("two_ioapics", TWO_IOAPICS),
    ("bare", BARE),
];
pub(super) const TWO_IOAPICS: &str = "microvm,acpi=on,ioapic2=on";
/// Nothing but ACPI.
pub(super) const BARE: &str = "microvm,acpi=on,pit=off,rtc=off,pic=off";

const VERSIONS: [Version; 2] = [Version::V7_2, Version::V10_0];

/// The register layout of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registers {
    Legacy,
    Modern,
}

impl Registers {
    pub(super) const ALL: [Self; 2] = [Self::Legacy, Self::Modern];

    /// The transport that the kernel must use.
    pub(super) fn transport(self) -> &'static str {
        match self {
            Self::Legacy => "mmio-legacy",
            Self::Modern => "mmio",
        }
    }
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => "version_1",
            Self::Modern => "version_2",
        })
    }
}

const AXES: usize = 8;
/// The number of values of each axis.
const SIZES: [usize; AXES] = [VERSIONS.len(), MACHINES.len(), 2, 2, 2, 2, 2, 2];

/// One combination: a QEMU, a machine, and a balloon with these properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    position: [usize; AXES],
    pub(super) version: Version,
    pub(super) machine: (&'static str, &'static str),
    pub(super) registers: Registers,
    packed: bool,
    event_idx: bool,
    indirect_desc: bool,
    queue_reset: bool,
    pub(super) in_order: bool,
}

impl Positioned for Cell {
    fn position(&self) -> &[usize] {
        &self.position
    }
}

impl Cell {
    /// Every cell, in a fixed order.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..SIZES.iter().product()).map(Self::numbered).filter(Self::can_be_built)
    }

    fn numbered(number: usize) -> Self {
        let position = digits(number, SIZES);
        let on = |axis: usize| position[axis] == 1;
        Self {
            position,
            version: VERSIONS[position[0]],
            machine: MACHINES[position[1]],
            registers: Registers::ALL[position[2]],
            packed: on(3),
            event_idx: on(4),
            indirect_desc: on(5),
            queue_reset: on(6),
            in_order: on(7),
        }
    }

    fn can_be_built(&self) -> bool {
        let beyond_bit_31 = self.packed || self.queue_reset || self.in_order;
        let missing = self.version == Version::V7_2 && self.in_order;
        !(self.registers == Registers::Legacy && beyond_bit_31 || missing)
    }

    /// QEMU's properties of the balloon.
    pub(super) fn properties(&self) -> String {
        let switch = |on: bool| if on { "on" } else { "off" };
        let mut properties = format!(
            "packed={},event_idx={},indirect_desc={},queue_reset={}",
            switch(self.packed),
            switch(self.event_idx),
            switch(self.indirect_desc),
            switch(self.queue_reset),
        );
        if self.version != Version::V7_2 {
            properties += &format!(",in_order={}", switch(self.in_order));
        }
        properties
    }

    /// The format of the queues.
    pub(super) fn ring(&self) -> &'static str {
        if self.packed { "packed" } else { "split" }
    }

    /// The features that the device offers, and whether this kernel accepts each.
    pub(super) fn features(&self) -> Vec<Feature> {
        let modern = self.registers == Registers::Modern;
        let features = [
            // Name, offered, accepted.
            ("stats_vq", true, true),
            ("any_layout", true, !modern),
            ("notify_on_empty", true, false),
            ("page_poison", true, false),
            ("version_1", modern, true),
            ("event_idx", self.event_idx, true),
            ("indirect_desc", self.indirect_desc, true),
            ("ring_packed", self.packed, true),
            ("ring_reset", self.queue_reset, true),
            ("in_order", self.in_order, true),
        ];
        let offered = features.into_iter().filter(|(_, offered, _)| *offered);
        offered.map(|(name, _, accepted)| Feature { name, accepted }).collect()
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}::mmio_{}::{}::{}::", self.version, self.machine.0, self.registers, self.ring())?;
        let switches = [
            ("event_idx", self.event_idx),
            ("indirect_desc", self.indirect_desc),
            ("queue_reset", self.queue_reset),
            ("in_order", self.in_order),
        ];
        let on: Vec<_> = switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
        formatter.write_str(&if on.is_empty() { "plain".to_string() } else { on.join(",") })
    }
}
