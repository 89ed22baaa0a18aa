//! Finding a balloon on PCI.

use crate::pci::{Bdf, BusRange, ConfigSpace, Node, Tree};
use crate::virtio::spec::DeviceType;

/// The first balloon on segment 0, with the bridges above it opened. Reads only the headers of other functions.
///
/// Its BARs must have addresses: if firmware assigned none, [`Tree::assign_addresses`] does.
pub fn find<C: ConfigSpace>(config: &mut C) -> Option<Bdf> {
    let tree = Tree::walk(config, &[BusRange::SEGMENT_0]);
    let is_balloon = |node: &&Node| DeviceType::BALLOON.is_function(node.function.vendor, node.function.device);
    let balloon = tree.nodes().iter().find(is_balloon)?.bdf();
    tree.open_path(config, balloon);
    Some(balloon)
}
