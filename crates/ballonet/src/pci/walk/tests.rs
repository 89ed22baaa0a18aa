//! Every function is found once, whatever bridges claim.

use proptest::prelude::*;

use super::*;
use crate::pci::fake::{FakeConfig, FakeFunction, Wire};

fn bdf(bus: u8, device: u8, function: u8) -> Bdf {
    Bdf::new(0, bus, device, function).unwrap()
}

fn endpoint() -> FakeFunction {
    FakeFunction::new(0x1AF4, 0x1045, 0).pin(1)
}

fn host_bridge() -> FakeFunction {
    FakeFunction::new(0x8086, 0x29C0, 0x06_00_00)
}

fn bridge() -> FakeFunction {
    FakeFunction::bridge(0x1B36, 1)
}

fn walk(config: &mut FakeConfig) -> Tree {
    Tree::walk(config, &[BusRange::SEGMENT_0])
}

fn found(tree: &Tree) -> Vec<Bdf> {
    tree.nodes().iter().map(Node::bdf).collect()
}

/// A machine with a host bridge at 00:00.0.
fn machine() -> (FakeConfig, Wire) {
    let (mut config, root) = FakeConfig::new(0x1000);
    config.add(root, 0, 0, host_bridge());
    (config, root)
}

#[test]
fn gaps_and_the_multifunction_bit_are_honoured() {
    let (mut config, root) = machine();
    config.add(root, 31, 0, endpoint().multifunction());
    config.add(root, 31, 3, endpoint());
    config.add(root, 31, 7, endpoint());
    config.add(root, 4, 0, endpoint());
    config.add(root, 4, 1, endpoint());
    config.add(root, 6, 1, endpoint());
    assert_eq!(found(&walk(&mut config)), [bdf(0, 0, 0), bdf(0, 4, 0), bdf(0, 31, 0), bdf(0, 31, 3), bdf(0, 31, 7)]);
}

#[test]
fn bridges_that_firmware_numbered_are_followed_and_left_alone() {
    let (mut config, root) = machine();
    let behind = config.add(root, 1, 0, bridge().buses(0, 5, 7));
    let deeper = config.add(behind, 2, 0, bridge().buses(5, 7, 7));
    config.add(deeper, 9, 0, endpoint());
    let tree = walk(&mut config);
    assert_eq!(found(&tree), [bdf(0, 0, 0), bdf(0, 1, 0), bdf(5, 2, 0), bdf(7, 9, 0)]);
    assert!(tree.errors().is_empty());
    assert_eq!(config.writes, 0);
    assert_eq!(tree.get(bdf(7, 9, 0)).unwrap().upstream, Some(bdf(5, 2, 0)));
    let above: Vec<Bdf> = tree.bridges_above(bdf(7, 9, 0)).map(Node::bdf).collect();
    assert_eq!(above, [bdf(5, 2, 0), bdf(0, 1, 0)]);
}

#[test]
fn bridges_without_numbers_get_them_depth_first() {
    let (mut config, root) = machine();
    let one = config.add(root, 1, 0, bridge());
    let two = config.add(root, 2, 0, bridge());
    let inner = config.add(one, 0, 0, bridge());
    let _empty = config.add(one, 1, 0, bridge());
    config.add(inner, 5, 0, endpoint());
    config.add(two, 6, 0, endpoint());
    let tree = walk(&mut config);
    assert!(tree.errors().is_empty());
    let numbers = |at: Bdf| {
        let numbers = tree.get(at).unwrap().buses.unwrap();
        (numbers.primary, numbers.secondary, numbers.subordinate)
    };
    assert_eq!(numbers(bdf(0, 1, 0)), (0, 1, 3));
    assert_eq!(numbers(bdf(1, 0, 0)), (1, 2, 2));
    assert_eq!(numbers(bdf(1, 1, 0)), (1, 3, 3));
    assert_eq!(numbers(bdf(0, 2, 0)), (0, 4, 4));
    assert!(tree.get(bdf(2, 5, 0)).is_some() && tree.get(bdf(4, 6, 0)).is_some());
    for node in tree.nodes().iter().filter(|node| node.function.is_bridge()) {
        assert_eq!(Some(BusNumbers::read(&config, node.bdf())), node.buses);
    }
    // A second walk finds the same and changes nothing.
    config.writes = 0;
    assert_eq!(found(&walk(&mut config)), found(&tree));
    assert_eq!(config.writes, 0);
}

#[test]
fn new_bus_numbers_avoid_those_from_firmware() {
    let (mut config, root) = machine();
    let new = config.add(root, 1, 0, bridge());
    let old = config.add(root, 2, 0, bridge().buses(0, 1, 4));
    let inner = config.add(old, 0, 0, bridge());
    config.add(new, 0, 0, endpoint());
    config.add(inner, 0, 0, endpoint());
    let tree = walk(&mut config);
    assert!(tree.errors().is_empty());
    assert_eq!(tree.get(bdf(0, 1, 0)).unwrap().buses.unwrap().secondary, 5);
    assert_eq!(tree.get(bdf(1, 0, 0)).unwrap().buses.unwrap().secondary, 2);
    assert!(tree.get(bdf(5, 0, 0)).is_some() && tree.get(bdf(2, 0, 0)).is_some());
}

#[test]
fn impossible_bus_numbers_are_named_and_the_rest_is_walked() {
    for (secondary, subordinate) in [(5, 4), (1, 255)] {
        let (mut config, root) = machine();
        let good = config.add(root, 1, 0, bridge().buses(0, 1, 1));
        config.add(root, 2, 0, bridge().buses(0, secondary, subordinate));
        config.add(good, 0, 0, endpoint());
        let tree = walk(&mut config);
        assert!(matches!(tree.errors(), [BridgeError::BadBusNumbers { .. }]), "{secondary}-{subordinate}");
        assert_eq!(tree.errors()[0].to_string().split(':').next(), Some("00"));
        assert!(tree.get(bdf(1, 0, 0)).is_some());
    }
}

#[test]
fn a_bridge_that_leads_back_is_not_followed() {
    let (mut config, root) = machine();
    let behind = config.add(root, 1, 0, bridge().buses(0, 1, 4));
    config.add(behind, 0, 0, bridge().buses(1, 1, 4));
    config.add(behind, 1, 0, bridge().buses(1, 2, 9));
    config.add(behind, 2, 0, bridge().buses(1, 3, 4));
    let tree = walk(&mut config);
    assert_eq!(tree.errors().iter().map(BridgeError::place).collect::<Vec<_>>(), [bdf(1, 0, 0), bdf(1, 1, 0)]);
    assert_eq!(tree.nodes().len(), 5);
}

#[test]
fn bridges_that_share_a_number_are_not_both_followed() {
    let (mut config, root) = machine();
    config.add(root, 1, 0, bridge().buses(0, 2, 4));
    config.add(root, 2, 0, bridge().buses(0, 3, 5));
    config.add(root, 3, 0, bridge().buses(0, 1, 2));
    let tree = walk(&mut config);
    assert_eq!(tree.errors().len(), 2);
    assert!(tree.get(bdf(0, 1, 0)).unwrap().buses.is_some());
}

#[test]
fn a_bridge_for_which_no_number_is_left_is_named() {
    let (mut config, root) = machine();
    let behind = config.add(root, 1, 0, bridge().buses(0, 1, 1));
    config.add(behind, 0, 0, bridge());
    let tree = walk(&mut config);
    assert!(matches!(tree.errors(), [BridgeError::NoBusNumber { .. }]));
    assert_eq!(config.writes, 0);
}

#[test]
fn three_hundred_bridges_in_a_row_end_with_the_numbers() {
    let (mut config, mut wire) = machine();
    for _ in 0..300 {
        wire = config.add(wire, 1, 0, FakeFunction::root_port());
    }
    let tree = walk(&mut config);
    // Behind a root port there is only device 0, so the chain ends at once; with plain bridges it is as long as
    // possible.
    assert_eq!(tree.nodes().len(), 2);
    let (mut config, mut wire) = machine();
    for _ in 0..300 {
        wire = config.add(wire, 1, 0, bridge());
    }
    let tree = walk(&mut config);
    assert_eq!(tree.nodes().len(), 257);
    assert!(matches!(tree.errors(), [BridgeError::NoBusNumber { .. }]));
}

#[test]
fn only_device_0_is_probed_behind_a_root_port() {
    let (mut config, root) = machine();
    let behind = config.add(root, 1, 0, FakeFunction::root_port().buses(0, 1, 1));
    config.add(behind, 0, 0, endpoint());
    walk(&mut config);
    assert!(config.reads.get() < 80, "{} reads", config.reads.get());
}

#[test]
fn other_root_buses_are_found_where_there_are_expander_bridges() {
    let (mut config, root) = machine();
    config.add(root, 3, 0, FakeFunction::new(0x1B36, 0x9, 0x06_00_00));
    let unnumbered = config.add(root, 4, 0, bridge());
    let other = config.root(0, 0x80);
    let behind = config.add(other, 0, 0, bridge().buses(0x80, 0x81, 0x81));
    config.add(behind, 1, 0, endpoint());
    config.add(unnumbered, 1, 0, endpoint());
    let tree = walk(&mut config);
    assert_eq!(found(&tree)[3..], [bdf(1, 1, 0), bdf(0x80, 0, 0), bdf(0x81, 1, 0)]);
    assert_eq!(tree.get(bdf(0x80, 0, 0)).unwrap().upstream, None);
    assert_eq!(tree.get(bdf(0x81, 1, 0)).unwrap().upstream, Some(bdf(0x80, 0, 0)));
}

#[test]
fn assigned_bus_numbers_end_before_the_next_root_bus() {
    let (mut config, mut wire) = machine();
    config.add(wire, 3, 0, FakeFunction::new(0x1B36, 0x9, 0x06_00_00));
    let other = config.root(0, 0x10);
    config.add(other, 0, 0, endpoint());
    for _ in 0..20 {
        wire = config.add(wire, 1, 0, bridge());
    }
    let tree = walk(&mut config);
    assert!(matches!(tree.errors(), [BridgeError::NoBusNumber { bridge }] if bridge.bus() == 0xF));
    assert_eq!(tree.get(bdf(0, 1, 0)).unwrap().buses.unwrap().subordinate, 0xF);
    assert_eq!(tree.get(bdf(0x10, 0, 0)).unwrap().upstream, None);
}

#[test]
fn every_segment_is_walked_and_unreachable_ones_are_skipped() {
    let (mut config, root) = machine();
    config.add(root, 1, 0, endpoint());
    let far = config.root(2, 0x10);
    config.add(far, 1, 0, endpoint());
    let ranges = [(0, 0, 255), (2, 0x10, 0x1F), (3, 0, 255), (0, 0, 255)];
    let ranges = ranges.map(|(segment, first, last)| BusRange::new(segment, first, last).unwrap());
    let tree = Tree::walk(&mut config, &ranges);
    assert_eq!(tree.nodes().len(), 3);
    assert!(tree.get(Bdf::new(2, 0x10, 1, 0).unwrap()).is_some());
}

#[test]
fn the_path_to_a_device_can_be_opened() {
    let (mut config, root) = machine();
    let behind = config.add(root, 1, 0, bridge().buses(0, 1, 1));
    config.add(behind, 2, 0, endpoint());
    config.changes_expected = true;
    let tree = walk(&mut config);
    tree.open_path(&mut config, bdf(1, 2, 0));
    assert_eq!(config.read16(bdf(0, 1, 0), 4), 7);
    assert_eq!(config.read16(bdf(1, 2, 0), 4), 0);
}

#[test]
fn an_ordinary_machine_costs_few_accesses() {
    let (mut config, root) = machine();
    for device in 1..8 {
        config.add(
            root,
            device,
            0,
            endpoint().memory64(4, 0xFE00_0000, 0x4000, true).command(super::super::Command::MEMORY),
        );
    }
    let mut tree = walk(&mut config);
    tree.size_bars(&mut config);
    let accesses = config.reads.get() + config.writes;
    assert!(accesses < 400, "{accesses} accesses");
}

/// Bridges behind bridges, with arbitrary numbers.
fn hostile() -> impl Strategy<Value = Vec<(u8, u8, bool, [u8; 3], u8)>> {
    proptest::collection::vec((any::<u8>(), 0..32_u8, any::<bool>(), any::<[u8; 3]>(), 0..4_u8), 0..24)
}

proptest! {
    #[test]
    fn any_tree_is_walked_once_and_to_an_end(functions in hostile()) {
        let (mut config, root) = machine();
        let mut wires = vec![root];
        for (wire, device, is_bridge, numbers, kind) in functions {
            let wire = wires[usize::from(wire) % wires.len()];
            if !is_bridge {
                config.add(wire, device, 0, endpoint());
                continue;
            }
            let [primary, secondary, subordinate] = numbers;
            let fake = match kind {
                0 => bridge(),
                1 => FakeFunction::root_port(),
                2 => bridge().buses(primary, secondary % 8, subordinate % 16),
                _ => bridge().buses(primary, secondary, subordinate),
            };
            wires.push(config.add(wire, device, 0, fake));
        }
        let tree = walk(&mut config);
        let found = found(&tree);
        prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "each once, in order");
        for node in tree.nodes() {
            let above = node.upstream.and_then(|bridge| tree.get(bridge));
            prop_assert_eq!(above.is_none(), node.bdf().bus() == 0);
            if let Some(numbers) = above.and_then(|node| node.buses) {
                prop_assert_eq!(numbers.secondary, node.bdf().bus());
            }
        }
        let mut tree = tree;
        tree.size_bars(&mut config);
    }
}

/// Configuration space in which every function of every bus responds.
struct Everything;

impl ConfigSpace for Everything {
    fn size(&self, _: u16, _: u8) -> u16 {
        256
    }
    fn read8(&self, function: Bdf, offset: u16) -> u8 {
        self.read32(function, offset & !3).to_le_bytes()[usize::from(offset & 3)]
    }
    fn read16(&self, function: Bdf, offset: u16) -> u16 {
        (self.read32(function, offset & !3) >> (8 * (offset & 2))) as u16
    }
    fn read32(&self, function: Bdf, offset: u16) -> u32 {
        match offset {
            0x00 => 0x1045_1AF4,
            // Host bridges, so that every bus may be a root.
            0x08 => u32::from(function.device() < 2) * 0x0600_0000,
            0x0C => 0x0080_0000,
            _ => 0,
        }
    }
    fn write8(&mut self, _: Bdf, _: u16, _: u8) {}
    fn write16(&mut self, _: Bdf, _: u16, _: u16) {}
    fn write32(&mut self, _: Bdf, _: u16, _: u32) {}
}

#[test]
fn functions_beyond_the_limit_are_ignored_and_reported_once() {
    let ranges: Vec<_> = (0..4).map(|segment| BusRange::new(segment, 0, 255).unwrap()).collect();
    let tree = Tree::walk(&mut Everything, &ranges);
    assert!((4000..=MOST_FUNCTIONS).contains(&tree.nodes().len()), "{}", tree.nodes().len());
    let errors = tree.errors();
    assert!(matches!(errors, [BridgeError::TooManyFunctions { most: MOST_FUNCTIONS, .. }]), "{errors:?}");
}

#[test]
fn devices_behind_a_port_are_added_and_removed() {
    let (mut config, root) = machine();
    let port = config.add(root, 1, 0, FakeFunction::root_port());
    let other = config.add(root, 2, 0, FakeFunction::root_port());
    config.add(other, 0, 0, endpoint());
    config.changes_expected = true;
    let mut tree = walk(&mut config);
    let before = found(&tree);
    let numbers = tree.get(bdf(0, 1, 0)).unwrap().buses.unwrap();
    assert_eq!(tree.rescan(&mut config, bdf(0, 1, 0)), Ok(0));

    config.add(port, 0, 0, endpoint().multifunction().memory32(0, 0, 0x1000));
    config.add(port, 0, 3, endpoint());
    assert_eq!(tree.rescan(&mut config, bdf(0, 1, 0)), Ok(2));
    assert_eq!(tree.get(bdf(0, 1, 0)).unwrap().buses, Some(numbers), "the port keeps its numbers");
    let come = [bdf(numbers.secondary, 0, 0), bdf(numbers.secondary, 0, 3)];
    assert_eq!(tree.behind(bdf(0, 1, 0)).map(Node::bdf).collect::<Vec<_>>(), come);
    assert!(tree.nodes().is_sorted_by_key(Node::bdf));
    assert_eq!(tree.get(come[0]).unwrap().bars.iter().count(), 1, "its BARs are sized");
    assert_eq!(tree.rescan(&mut config, bdf(0, 1, 0)), Ok(2), "a second look finds the same");
    assert_eq!(tree.nodes().len(), before.len() + 2);

    let gone = tree.remove_behind(bdf(0, 1, 0));
    assert_eq!(gone.iter().map(|function| function.bdf).collect::<Vec<_>>(), come);
    assert_eq!(found(&tree), before);
}

#[test]
fn a_bridge_plugged_behind_a_port_without_spare_numbers_is_reported_until_removed() {
    let (mut config, root) = machine();
    let port = config.add(root, 1, 0, FakeFunction::root_port().buses(0, 5, 5));
    let mut tree = walk(&mut config);
    config.add(port, 0, 0, bridge());
    assert_eq!(tree.rescan(&mut config, bdf(0, 1, 0)), Ok(1));
    assert_eq!(tree.errors(), [BridgeError::NoBusNumber { bridge: bdf(5, 0, 0) }]);
    tree.remove_behind(bdf(0, 1, 0));
    assert_eq!(tree.errors(), []);
}

#[test]
fn a_bridge_plugged_behind_a_port_with_spare_numbers_is_walked() {
    let (mut config, root) = machine();
    let port = config.add(root, 1, 0, FakeFunction::root_port().buses(0, 5, 8));
    let mut tree = walk(&mut config);
    let behind = config.add(port, 0, 0, bridge());
    config.add(behind, 4, 0, endpoint());
    assert_eq!(tree.rescan(&mut config, bdf(0, 1, 0)), Ok(2));
    assert_eq!(tree.errors(), []);
    assert_eq!(tree.behind(bdf(0, 1, 0)).last().map(Node::bdf), Some(bdf(6, 4, 0)));
}

#[test]
fn only_a_bridge_that_was_walked_can_be_rescanned() {
    let (mut config, root) = machine();
    config.add(root, 3, 0, endpoint());
    let mut tree = walk(&mut config);
    for bridge in [bdf(0, 3, 0), bdf(0, 9, 0)] {
        assert_eq!(tree.rescan(&mut config, bridge), Err(BridgeError::NotWalked { bridge }));
    }
    assert_eq!(tree.nodes().len(), 2);
}
