//! The PCI functions, and the addresses of their registers.

use alloc::vec::Vec;

use crate::acpi::HostBridge;
use crate::boot::RegionKind;
use crate::machine::Machine;
use ballonet::memory::PhysRange;
use ballonet::pci::listing::{Details, Line};
use ballonet::pci::{AddressRange, AssignError, Bdf, BusRange, Function, HostWindows, Node, Tree};
use ballonet::platform::Platform;
use ballonet::virtio::listing;
use log::{info, warn};

/// Walks PCI, assigns addresses to BARs without one, and lists the functions.
pub(crate) fn discover(machine: &mut Machine, verbose: bool) -> Tree {
    let ranges = bus_ranges(machine);
    if ranges.is_empty() {
        warn!("PCI: configuration space is unreachable");
        return Tree::default();
    }
    let mut tree = Tree::walk(machine.config(), &ranges);
    for error in tree.errors() {
        warn!("PCI: {error}");
    }
    tree.size_bars(machine.config());
    let placed = assign(machine, &mut tree, |_| true);
    if placed > 0 {
        info!("PCI: assigned addresses to {placed} BARs to which firmware had given none");
    }
    for node in tree.nodes() {
        list(machine, node, verbose);
    }
    tree
}

/// Assigns addresses to all BARs without one, and reports BAR flaws of the `concerned` functions. Returns the number
/// of BARs assigned.
pub(crate) fn assign(machine: &mut Machine, tree: &mut Tree, concerned: impl Fn(Bdf) -> bool) -> usize {
    let windows = host_windows(machine, tree);
    let assignment = tree.assign_addresses(machine.config(), &windows);
    for error in &assignment.errors {
        match error {
            AssignError::NoRoom(bar) | AssignError::NotKept { bar, .. } if !concerned(bar.function) => {}
            // Without an I/O window, the device still has its memory registers: I/O ports are the legacy way.
            AssignError::NoRoom(bar) if bar.is_io() && windows.io.is_empty() => info!("PCI: no ports for {bar} here"),
            _ => warn!("PCI: {error}"),
        }
    }
    assignment.placed.len()
}

/// Lists a function, with all its details if `verbose`.
pub(crate) fn list(machine: &mut Machine, node: &Node, verbose: bool) {
    info!("PCI {}", Line(&node.function));
    if let Some(kind) = memory_kind(&node.function) {
        info!("PCI {}: there is no driver for {kind}; its memory is not used", node.bdf());
    }
    if verbose {
        let details = Details { config: machine.config(), node, vendor: listing::describe };
        for line in alloc::format!("{details}").lines() {
            info!("{line}");
        }
    }
}

/// The kind of a device that offers memory to the guest, which this kernel does not use.
fn memory_kind(function: &Function) -> Option<&'static str> {
    match (function.vendor, function.device) {
        (0x1AF4, 0x1058) => Some("virtio-mem"),
        (0x1AF4, 0x105B) => Some("virtio-pmem"),
        _ => None,
    }
}

/// The buses to walk: those with mapped configuration space, otherwise those behind the ports.
fn bus_ranges(machine: &mut Machine) -> Vec<BusRange> {
    let config = machine.config();
    let mapped: Vec<_> = config
        .regions()
        .filter_map(|region| BusRange::new(region.segment, region.first_bus, region.last_bus))
        .collect();
    if mapped.is_empty() && config.has_ports() { Vec::from([BusRange::SEGMENT_0]) } else { mapped }
}

/// The addresses available for BARs: those that the host bridge forwards, if it describes them; otherwise all unused
/// ones.
fn host_windows(machine: &mut Machine, tree: &Tree) -> HostWindows {
    let known = tree.nodes().iter().find_map(|node| HostWindows::of_host_bridge(&node.function));
    let told = machine.acpi.as_ref().and_then(|acpi| acpi.host_bridge.as_ref()).map(told_windows);
    told.or(known).unwrap_or_else(|| gaps(machine))
}

fn told_windows(bridge: &HostBridge) -> HostWindows {
    let (memory, memory64) =
        bridge.memory.iter().filter_map(|&range| address_range(range)).partition(|range| range.last() < 1 << 32);
    let io = bridge.ports.iter().filter_map(|&(first, last)| AddressRange::inclusive(first.into(), last.into()));
    // I/O ports below 0x1000 belong to the board, even if the bridge forwards them.
    let io = io.filter(|range| range.first() >= 0x1000 || range.last() > 0x1000);
    let io = io.filter_map(|range| AddressRange::inclusive(range.first().max(0x1000), range.last()));
    HostWindows { io: io.collect(), memory, memory64 }
}

fn gaps(machine: &mut Machine) -> HostWindows {
    let map = &machine.boot_info().memory_map;
    let of = |is_memory: bool| -> Vec<AddressRange> {
        let regions = map.regions().iter().filter(|region| matches!(region.kind, RegionKind::Reserved) != is_memory);
        regions.filter_map(|region| address_range(region.range)).collect()
    };
    let ram = of(true);
    let mut used = of(false);
    let bits = machine.features.physical_bits;
    used.extend(machine.config().regions().filter_map(|region| address_range(region.range)));
    HostWindows::from_gaps(&ram, &used, &[], bits)
}

fn address_range(range: PhysRange) -> Option<AddressRange> {
    AddressRange::new(range.start().as_u64(), range.bytes())
}
