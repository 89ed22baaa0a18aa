//! Finding a balloon on PCI.

use crate::pci::{Bdf, BusRange, ConfigSpace, Node, Tree};
use crate::virtio::spec::DeviceType;

/// The first balloon on segment 0, with the bridges above it opened. Of other functions only the headers are read.
///
/// Its BARs must have addresses: where firmware gave none, [`Tree::assign_addresses`] does.
pub fn find<C: ConfigSpace>(config: &mut C) -> Option<Bdf> {
    let tree = Tree::walk(config, &[BusRange::SEGMENT_0]);
    let is_balloon = |node: &&Node| matches(node.function.vendor, node.function.device);
    let balloon = tree.nodes().iter().find(is_balloon)?.bdf();
    tree.open_path(config, balloon);
    Some(balloon)
}

/// Whether a PCI function with these IDs is a balloon, for a kernel that has walked PCI itself. No other field counts
/// (virtio 1.4, 4.1.2).
pub const fn matches(vendor: u16, device: u16) -> bool {
    DeviceType::BALLOON.is_function(vendor, device)
}
