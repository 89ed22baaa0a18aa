//! The axes of the matrix, the combinations that QEMU can build, and the expected result of each.

use std::fmt;

use super::cover::{Positioned, digits};
use crate::support::Version;

/// The machine types, each with PCI: the name in a cell, and QEMU's argument.
pub(super) const MACHINES: [(&str, &str); 3] = [("q35", "q35"), ("pc", "pc"), ("microvm", "microvm,pcie=on")];

const VERSIONS: [Version; 2] = [Version::V7_2, Version::V10_0];
const VECTORS: [u8; 4] = [6, 2, 1, 0];

/// The interfaces of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interface {
    Legacy,
    Transitional,
    Modern,
}

const INTERFACES: [Interface; 3] = [Interface::Legacy, Interface::Transitional, Interface::Modern];

/// The number of values of each axis, in the order of [`Cell`]'s fields.
const SIZES: [usize; AXES] = [VERSIONS.len(), MACHINES.len(), INTERFACES.len(), 2, VECTORS.len(), 2, 2, 2, 2, 2];

/// The number of axes.
const AXES: usize = 10;

/// One combination: a QEMU, a machine, and a balloon with these properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    /// The position of its value on each axis.
    pub(super) position: [usize; AXES],
    pub(super) version: Version,
    /// A name and QEMU's argument for it.
    pub(super) machine: (&'static str, &'static str),
    interface: Interface,
    packed: bool,
    vectors: u8,
    event_idx: bool,
    indirect_desc: bool,
    iommu_platform: bool,
    queue_reset: bool,
    in_order: bool,
}

/// A feature that a device offers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Feature {
    pub(crate) name: &'static str,
    /// Whether the kernel must accept it.
    pub(crate) accepted: bool,
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

    /// The combination with this number: each axis is a digit.
    fn numbered(number: usize) -> Self {
        let position = digits(number, SIZES);
        let on = |axis: usize| position[axis] == 1;
        Self {
            position,
            version: VERSIONS[position[0]],
            machine: MACHINES[position[1]],
            interface: INTERFACES[position[2]],
            packed: on(3),
            vectors: VECTORS[position[4]],
            event_idx: on(5),
            indirect_desc: on(6),
            iommu_platform: on(7),
            queue_reset: on(8),
            in_order: on(9),
        }
    }

    fn can_be_built(&self) -> bool {
        // The legacy interface needs I/O ports, which microvm does not give to PCI, and has 32 feature bits.
        let legacy = self.interface == Interface::Legacy;
        let beyond_bit_31 = self.packed || self.iommu_platform || self.queue_reset || self.in_order;
        // QEMU refuses: a driver without support for it could not use a device behind an IOMMU.
        let refused = self.iommu_platform && self.interface != Interface::Modern;
        // QEMU 7.2 has neither property.
        let missing = self.version == Version::V7_2 && (self.vectors > 0 || self.in_order);
        !(legacy && (self.machine.0 == "microvm" || beyond_bit_31) || refused || missing)
    }

    /// QEMU's properties of the balloon.
    pub(super) fn properties(&self) -> String {
        let switch = |on: bool| if on { "on" } else { "off" };
        let mut properties = format!(
            "disable-legacy={},disable-modern={},packed={},event_idx={},indirect_desc={},iommu_platform={},queue_reset={}",
            switch(self.interface == Interface::Modern),
            switch(self.interface == Interface::Legacy),
            switch(self.packed),
            switch(self.event_idx),
            switch(self.indirect_desc),
            switch(self.iommu_platform),
            switch(self.queue_reset),
        );
        if self.version != Version::V7_2 {
            properties += &format!(",vectors={},in_order={}", self.vectors, switch(self.in_order));
        }
        properties
    }

    /// The transport that the kernel must use: modern where there is one.
    pub(super) fn transport(&self) -> &'static str {
        if self.interface == Interface::Legacy { "legacy" } else { "modern" }
    }

    /// The format of the queues.
    pub(super) fn ring(&self) -> &'static str {
        if self.packed { "packed" } else { "split" }
    }

    /// The step of the interrupt ladder. The balloon has three queues that interrupt, and the configuration change
    /// interrupt.
    pub(super) fn irq(&self) -> &'static str {
        match self.vectors {
            4.. => "msix",
            2.. => "msix-shared",
            _ => "intx",
        }
    }

    /// The features that the device offers and that a driver may want, and whether this kernel accepts each.
    ///
    /// This is the only table of what the kernel implements, as seen from the host.
    pub(super) fn features(&self) -> Vec<Feature> {
        let modern = self.transport() == "modern";
        let features = [
            // Name, offered, accepted.
            ("stats_vq", true, true),
            ("any_layout", true, !modern),
            ("notify_on_empty", true, false),
            ("page_poison", true, false),
            ("version_1", modern, true),
            ("event_idx", self.event_idx, true),
            ("indirect_desc", self.indirect_desc, true),
            ("access_platform", self.iommu_platform, true),
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
        let interface = match self.interface {
            Interface::Legacy => "legacy",
            Interface::Transitional => "transitional",
            Interface::Modern => "modern",
        };
        write!(formatter, "{}::{}::{interface}::{}", self.version, self.machine.0, self.ring())?;
        write!(formatter, "::vectors={}", self.vectors)?;
        let switches = [
            ("event_idx", self.event_idx),
            ("indirect_desc", self.indirect_desc),
            ("iommu_platform", self.iommu_platform),
            ("queue_reset", self.queue_reset),
            ("in_order", self.in_order),
        ];
        switches.iter().filter(|(_, on)| *on).try_for_each(|(name, _)| write!(formatter, ",{name}"))
    }
}
