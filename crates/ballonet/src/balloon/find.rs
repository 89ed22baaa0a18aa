//! Finding a balloon on PCI.

use crate::pci::{Bdf, BusRange, ConfigSpace, Node, Tree};
use crate::platform::OutOfMemory;
use crate::virtio::spec::DeviceType;

/// The first balloon on segment 0, with the bridges above it opened; `None` if there is none. Reads only the headers of
/// other functions.
///
/// Its BARs must have addresses: if firmware assigned none, [`Tree::assign_addresses`] does.
///
/// # Errors
/// When the heap has no room for a list of the functions.
pub fn find<C: ConfigSpace>(config: &mut C) -> Result<Option<Bdf>, OutOfMemory> {
    let tree = Tree::walk(config, &[BusRange::SEGMENT_0])?;
    let is_balloon = |node: &&Node| matches(node.function.vendor, node.function.device);
    let balloon = tree.nodes().iter().find(is_balloon).map(Node::bdf);
    if let Some(balloon) = balloon {
        tree.open_path(config, balloon);
    }
    Ok(balloon)
}

/// Whether a PCI function with these IDs is a balloon, for a kernel that has walked PCI itself. No other field counts
/// (virtio 1.4, 4.1.2).
pub const fn matches(vendor: u16, device: u16) -> bool {
    DeviceType::BALLOON.is_function(vendor, device)
}
