//! Addresses are assigned without overlap, inside windows opened for them, and nothing else changes.

use proptest::prelude::*;

use super::*;
use crate::pci::fake::{FakeConfig, FakeFunction, Wire};
use crate::pci::{Bars, BusRange, Function};

fn bdf(bus: u8, device: u8) -> Bdf {
    Bdf::new(0, bus, device, 0).unwrap()
}

fn range(first: u64, last: u64) -> AddressRange {
    AddressRange::inclusive(first, last).unwrap()
}

/// The windows of a microvm.
fn microvm() -> HostWindows {
    HostWindows {
        io: vec![],
        memory: vec![range(0xC000_0000, 0xDFFF_FFFF)],
        memory64: vec![range(0xC0_0000_0000, 0x13F_FFFF_FFFF)],
    }
}

/// The windows of a PC.
fn pc() -> HostWindows {
    HostWindows {
        io: vec![range(0xC000, 0xFEFF)],
        memory: vec![range(0x8000_0000, 0xAFFF_FFFF), range(0xC000_0000, 0xFEBF_FFFF)],
        memory64: vec![range(0x40_0000_0000, 0xFF_FFFF_FFFF)],
    }
}

/// A virtio function as in QEMU, without addresses.
fn virtio() -> FakeFunction {
    FakeFunction::new(0x1AF4, 0x1045, 0).memory32(1, 0, 0x1000).memory64(4, 0, 0x4000, true)
}

fn machine() -> (FakeConfig, Wire) {
    let (mut config, root) = FakeConfig::new(0x1000);
    config.add(root, 0, 0, FakeFunction::new(0x8086, 0x29C0, 0x06_00_00));
    config.changes_expected = true;
    (config, root)
}

fn assign(config: &mut FakeConfig, host: &HostWindows) -> (Tree, Assignment) {
    let mut tree = Tree::walk(config, &[BusRange::SEGMENT_0]).unwrap();
    tree.size_bars(config);
    let assignment = tree.assign_addresses(config, host).unwrap();
    check(config, &tree, host);
    (tree, assignment)
}

/// Checks every BAR with an address: aligned, without overlap, forwarded by every bridge, and really at that address.
fn check(config: &FakeConfig, tree: &Tree, host: &HostWindows) {
    let mut taken: Vec<(Bar, AddressRange)> = Vec::new();
    for node in tree.nodes() {
        for bar in node.bars.iter() {
            let Some(range) = bar.range() else { continue };
            assert_eq!(range.first() % bar.size, 0, "{bar}");
            let low = config.read32(node.bdf(), 0x10 + 4 * u16::from(bar.index));
            assert_eq!(u64::from(low) & !0xF, range.first() & 0xFFFF_FFF0, "{bar}");
            for (other, used) in taken.iter().filter(|(other, _)| other.is_io() == bar.is_io()) {
                assert!(!used.overlaps(range), "{bar} and {other}");
            }
            for bridge in tree.bridges_above(node.bdf()) {
                let windows = BridgeWindows::read(config, bridge.bdf());
                let mut on = if bar.is_io() { vec![windows.io] } else { vec![windows.memory, windows.prefetchable] };
                on.retain(|window| window.is_some_and(|window| window.contains(range)));
                assert_eq!(on.len(), 1, "{bar} through {}", bridge.bdf());
                assert!(
                    bar.is_io()
                        || matches!(bar.kind, BarKind::Memory { prefetchable: true, .. })
                        || on[0] == windows.memory,
                    "{bar} would be prefetched"
                );
            }
            let host = if bar.is_io() { host.io.clone() } else { [&host.memory[..], &host.memory64[..]].concat() };
            assert!(host.iter().any(|window| window.contains(range)), "{bar} outside the host's windows");
            assert!(bar.is_64_bit() || range.last() >> 32 == 0, "{bar} above 4 GiB");
            taken.push((*bar, range));
        }
    }
}

#[test]
fn addresses_from_firmware_are_kept() {
    let (mut config, root) = machine();
    let command = Command::MEMORY | Command::IO | Command::BUS_MASTER;
    let assigned = FakeFunction::new(0x1AF4, 0x1002, 0)
        .io(0, 0xC040, 0x20)
        .memory32(1, 0xFEBD_1000, 0x1000)
        .memory64(4, 0xFE00_0000, 0x4000, true)
        .command(command);
    config.add(root, 3, 0, assigned);
    let port = FakeFunction::root_port().buses(0, 1, 1).memory_window(0xFE80_0000, 0xFE9F_FFFF).command(command);
    let behind = config.add(root, 4, 0, port);
    config.add(behind, 0, 0, FakeFunction::new(0x1AF4, 0x1045, 0).memory32(1, 0xFE80_0000, 0x1000).command(command));
    config.changes_expected = false;
    let mut tree = Tree::walk(&mut config, &[BusRange::SEGMENT_0]).unwrap();
    tree.size_bars(&mut config);
    config.writes = 0;
    assert_eq!(tree.assign_addresses(&mut config, &pc()).unwrap(), Assignment::default());
    assert_eq!(config.writes, 0);
}

#[test]
fn a_microvm_gets_all_its_memory_bars_and_no_ports() {
    let (mut config, root) = machine();
    config.add(root, 1, 0, virtio());
    config.add(root, 2, 0, virtio().io(0, 0, 0x20));
    let (tree, assignment) = assign(&mut config, &microvm());
    assert_eq!(assignment.placed.len(), 4);
    assert!(matches!(assignment.errors[..], [AssignError::NoRoom(bar)] if bar.is_io()));
    assert_eq!(tree.get(bdf(0, 1)).unwrap().bars.get(4).unwrap().range().unwrap().first(), 0xC0_0000_0000);
    assert_eq!(tree.get(bdf(0, 1)).unwrap().bars.get(1).unwrap().range().unwrap().first(), 0xC000_0000);
    assert_eq!(config.read16(bdf(0, 1), 4), 0, "decoding is as it was");
}

#[test]
fn small_bars_do_not_share_a_page() {
    let (mut config, root) = machine();
    config.add(root, 1, 0, FakeFunction::new(1, 1, 0).memory32(0, 0, 16).memory32(1, 0, 32));
    let (tree, _) = assign(&mut config, &microvm());
    let pages: Vec<u64> = tree.nodes()[1].bars.iter().map(|bar| bar.range().unwrap().first() >> 12).collect();
    assert_eq!(pages, [0xC0000, 0xC0001]);
}

#[test]
fn windows_are_opened_around_the_bars_behind() {
    let (mut config, root) = machine();
    let one = config.add(root, 1, 0, FakeFunction::root_port());
    config.add(one, 0, 0, virtio().io(0, 0, 0x20));
    config.add(root, 2, 0, FakeFunction::root_port());
    let (tree, assignment) = assign(&mut config, &pc());
    assert_eq!(assignment.errors, []);
    let windows = BridgeWindows::read(&config, bdf(0, 1));
    assert_eq!(windows.io, Some(range(0xC000, 0xCFFF)));
    assert_eq!(windows.memory, Some(range(0x8000_0000, 0x800F_FFFF)));
    assert_eq!(windows.prefetchable, Some(range(0x40_0000_0000, 0x40_000F_FFFF)));
    assert_eq!(config.read16(bdf(0, 1), 4), 7);
    assert_eq!(BridgeWindows::read(&config, bdf(0, 2)), BridgeWindows::default());
    assert_eq!(config.read16(bdf(0, 2), 4), 0);
    assert_eq!(tree.get(bdf(1, 0)).unwrap().bars.iter().filter(|bar| bar.range().is_some()).count(), 3);
}

#[test]
fn windows_that_reset_left_at_0_are_closed_before_the_bridge_decodes() {
    let (mut config, root) = machine();
    let behind = config.add(root, 1, 0, FakeFunction::bridge(1, 1));
    config.add(behind, 1, 0, FakeFunction::new(1, 1, 0).memory32(0, 0, 0x1000));
    assign(&mut config, &pc());
    let io = config.read16(bdf(0, 1), 0x1C);
    assert!(io & 0xF0 > io >> 8 & 0xF0, "{io:#x}");
    let prefetchable = config.read32(bdf(0, 1), 0x24);
    assert!(prefetchable & 0xFFF0 > prefetchable >> 16, "{prefetchable:#x}");
}

#[test]
fn opening_an_io_window_leaves_the_secondary_status_alone() {
    let (mut config, root) = machine();
    let behind = config.add(root, 1, 0, FakeFunction::bridge(1, 1).byte(0x1F, 0xF9));
    config.add(behind, 1, 0, FakeFunction::new(1, 1, 0).io(0, 0, 0x100));
    let (_, assignment) = assign(&mut config, &pc());
    assert_eq!(assignment.errors, []);
    assert_eq!(config.read8(bdf(0, 1), 0x1F), 0xF9);
}

#[test]
fn nested_bridges_get_nested_windows() {
    let (mut config, root) = machine();
    let outer = config.add(root, 1, 0, FakeFunction::bridge(1, 1));
    let inner = config.add(outer, 1, 0, FakeFunction::bridge(1, 1));
    config.add(inner, 1, 0, virtio());
    config.add(inner, 2, 0, FakeFunction::new(1, 1, 0).memory32(0, 0, 0x40_0000).memory32(1, 0, 0x10));
    config.add(outer, 2, 0, virtio());
    let (_, assignment) = assign(&mut config, &pc());
    assert_eq!(assignment.errors, []);
    assert_eq!(assignment.placed.len(), 6);
    let (above, below) = (BridgeWindows::read(&config, bdf(0, 1)), BridgeWindows::read(&config, bdf(1, 1)));
    assert!(above.memory.unwrap().contains(below.memory.unwrap()));
    assert!(above.prefetchable.unwrap().contains(below.prefetchable.unwrap()));
    assert_eq!(below.memory.unwrap(), range(0x8000_0000, 0x804F_FFFF));
}

#[test]
fn no_bar_goes_above_4_gib_behind_a_bridge_without_64_bit_windows() {
    let (mut config, root) = machine();
    let narrow = config.add(root, 1, 0, FakeFunction::bridge(1, 1).raw(0x24, 0).writable(0x28, 0).writable(0x2C, 0));
    let wide = config.add(narrow, 1, 0, FakeFunction::bridge(1, 1));
    config.add(wide, 1, 0, virtio());
    let (tree, assignment) = assign(&mut config, &pc());
    assert_eq!(assignment.errors, []);
    assert!(tree.get(bdf(2, 1)).unwrap().bars.get(4).unwrap().range().unwrap().last() < 1 << 32);
}

#[test]
fn a_64_bit_bar_that_must_not_be_prefetched_stays_below_4_gib_behind_a_bridge() {
    let (mut config, root) = machine();
    let behind = config.add(root, 1, 0, FakeFunction::bridge(1, 1));
    config.add(behind, 1, 0, FakeFunction::new(1, 1, 0).memory64(0, 0, 0x4000, false));
    config.add(root, 2, 0, FakeFunction::new(1, 1, 0).memory64(0, 0, 0x4000, false));
    let (tree, _) = assign(&mut config, &pc());
    assert!(tree.get(bdf(1, 1)).unwrap().bars.get(0).unwrap().range().unwrap().last() < 1 << 32);
    assert!(tree.get(bdf(0, 2)).unwrap().bars.get(0).unwrap().range().unwrap().last() > 1 << 32);
}

#[test]
fn a_bar_without_room_above_4_gib_goes_below() {
    let (mut config, root) = machine();
    config.add(root, 1, 0, FakeFunction::new(1, 1, 0).memory64(0, 0, 0x1000_0000, true));
    let host = HostWindows { memory64: vec![range(0x40_0000_0000, 0x40_00FF_FFFF)], ..pc() };
    let (tree, assignment) = assign(&mut config, &host);
    assert_eq!(assignment.errors, []);
    assert_eq!(tree.nodes()[1].bars.get(0).unwrap().range().unwrap().first(), 0x8000_0000);
}

#[test]
fn a_window_opened_by_firmware_is_kept_and_assigned_from() {
    let (mut config, root) = machine();
    let command = Command::MEMORY | Command::BUS_MASTER;
    let port = FakeFunction::root_port().buses(0, 1, 1).memory_window(0xFE80_0000, 0xFE8F_FFFF).command(command);
    let behind = config.add(root, 1, 0, port.raw(0x24, 0x0001_FFF1));
    let multi = FakeFunction::new(1, 1, 0).multifunction().memory32(0, 0xFE80_0000, 0x1000).command(Command::MEMORY);
    config.add(behind, 0, 0, multi);
    config.add(behind, 0, 1, FakeFunction::new(1, 2, 0).memory32(0, 0, 0x1000));
    let (tree, assignment) = assign(&mut config, &pc());
    assert_eq!((assignment.placed.len(), assignment.opened.len()), (1, 0));
    assert_eq!(assignment.placed[0].range().unwrap().first(), 0xFE80_1000);
    assert_eq!(BridgeWindows::read(&config, bdf(0, 1)).memory, Some(range(0xFE80_0000, 0xFE8F_FFFF)));
    assert_eq!(tree.errors(), []);
}

#[test]
fn new_addresses_keep_clear_of_bars_and_windows_in_use() {
    let (mut config, root) = machine();
    let on = Command::MEMORY | Command::IO;
    config.add(
        root,
        1,
        0,
        FakeFunction::new(1, 1, 0).memory32(0, 0x8000_0000, 0x1000).io(1, 0xC000, 0x100).command(on),
    );
    let port = FakeFunction::root_port().buses(0, 1, 1).memory_window(0x8010_0000, 0x801F_FFFF).command(on);
    config.add(root, 2, 0, port);
    config.add(root, 3, 0, FakeFunction::new(1, 1, 0).memory32(0, 0, 0x10_0000).io(1, 0, 0x100).memory32(2, 0, 0x1000));
    let (tree, assignment) = assign(&mut config, &pc());
    assert_eq!(assignment.errors, []);
    let first = |index| tree.get(bdf(0, 3)).unwrap().bars.get(index).unwrap().range().unwrap().first();
    assert_eq!((first(0), first(1), first(2)), (0x8020_0000, 0xC100, 0x8000_1000));
}

#[test]
fn the_address_of_an_undecoded_bar_counts_only_if_usable() {
    let (mut config, root) = machine();
    // One in a window, one in RAM, one overlapping the first.
    config.add(root, 1, 0, FakeFunction::new(1, 1, 0).memory32(0, 0x9000_0000, 0x1000));
    config.add(root, 2, 0, FakeFunction::new(1, 1, 0).memory32(0, 0x0100_0000, 0x1000));
    config.add(root, 3, 0, FakeFunction::new(1, 1, 0).memory32(0, 0x9000_0000, 0x1000));
    config.add(root, 4, 0, FakeFunction::new(1, 1, 0).memory64(0, 0xFFFF_FFFF_FFFF_0000, 0x1000, true));
    let (tree, assignment) = assign(&mut config, &pc());
    assert_eq!(assignment.placed.iter().map(|bar| bar.function.device()).collect::<Vec<_>>(), [4, 2, 3]);
    assert_eq!(tree.nodes()[1].bars.get(0).unwrap().range().unwrap().first(), 0x9000_0000);
}

#[test]
fn a_bar_without_room_is_named_and_the_others_go_on() {
    let (mut config, root) = machine();
    let behind = config.add(root, 1, 0, FakeFunction::bridge(1, 1));
    config.add(behind, 1, 0, FakeFunction::new(1, 1, 0).memory32(0, 0, 0x4000_0000).memory32(1, 0, 0x1000));
    config.add(root, 2, 0, FakeFunction::new(1, 1, 0).memory32(0, 0, 0x8000_0000).memory32(1, 0, 0x1000));
    let (_, assignment) = assign(&mut config, &microvm());
    assert_eq!(assignment.placed.len(), 2);
    let named: Vec<u64> = assignment
        .errors
        .iter()
        .map(|error| match error {
            AssignError::NoRoom(bar) => bar.size,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(named, [0x8000_0000, 0x4000_0000]);
}

#[test]
fn a_bar_that_does_not_keep_its_address_is_named() {
    let (mut config, root) = machine();
    config.add(root, 1, 0, FakeFunction::new(1, 1, 0).bar(0, 0, 0xF000).memory32(1, 0, 0x1000));
    let (_, assignment) = assign(&mut config, &microvm());
    assert!(matches!(assignment.errors[..], [AssignError::NotKept { .. }]), "{:?}", assignment.errors);
    assert_eq!(assignment.placed.len(), 1);
}

#[test]
fn a_bridge_without_an_io_window_gets_no_ports_behind_it() {
    let (mut config, root) = machine();
    let behind = config.add(root, 1, 0, FakeFunction::bridge(1, 1).byte(0x1C, 0).byte(0x1D, 0).writable(0x1C, 0));
    config.add(behind, 1, 0, FakeFunction::new(1, 1, 0).io(0, 0, 0x20).memory32(1, 0, 0x1000));
    let (_, assignment) = assign(&mut config, &pc());
    assert!(matches!(assignment.errors[..], [AssignError::NoRoom(bar)] if bar.is_io()));
    assert_eq!(assignment.placed.len(), 1);
}

#[test]
fn a_bar_that_must_be_below_1_mib_is_reported() {
    let (mut config, root) = machine();
    config.add(root, 1, 0, FakeFunction::new(1, 1, 0).bar(0, 2, 0xF_0000));
    let (_, assignment) = assign(&mut config, &pc());
    assert!(matches!(assignment.errors[..], [AssignError::NoRoom(_)]));
}

#[test]
fn a_second_run_has_nothing_to_do() {
    let (mut config, root) = machine();
    let behind = config.add(root, 1, 0, FakeFunction::root_port());
    config.add(behind, 0, 0, virtio());
    config.add(root, 2, 0, virtio().io(0, 0, 0x40));
    let (mut tree, _) = assign(&mut config, &pc());
    config.checkpoint();
    config.writes = 0;
    assert_eq!(tree.assign_addresses(&mut config, &pc()).unwrap(), Assignment::default());
    assert_eq!(config.writes, 0);
}

#[derive(Debug, Clone)]
struct Part {
    wire: u8,
    device: u8,
    is_bridge: bool,
    bars: Vec<(u8, u32)>,
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let bars = proptest::collection::vec((0..5_u8, 4..30_u32), 0..3);
    let part = (any::<u8>(), 1..32_u8, any::<bool>(), bars);
    let part = part.prop_map(|(wire, device, is_bridge, bars)| Part { wire, device, is_bridge, bars });
    proptest::collection::vec(part, 0..20)
}

fn with_bars(fake: FakeFunction, bars: &[(u8, u32)], most: u16) -> FakeFunction {
    let mut index = 0;
    bars.iter().fold(fake, |fake, (kind, order)| {
        let (at, wide) = (index, *kind >= 3);
        index += if wide { 2 } else { 1 };
        if index > most {
            return fake;
        }
        match kind {
            0 => fake.io(at, 0, 1 << (order % 8 + 2)),
            1 => fake.memory32(at, 0, 1 << order),
            2 => fake.bar(at, 8, !((1 << order) - 1)),
            3 => fake.memory64(at, 0, 1 << order, false),
            _ => fake.memory64(at, 0, 1 << (order + 4), true),
        }
    })
}

#[test]
fn a_bar_without_room_loses_an_address_that_may_be_assigned_to_another() {
    let (mut config, root) = machine();
    // A BAR of half of all ports, for which there is no place. The other BAR has many.
    let function = FakeFunction::new(0x1AF4, 0x1002, 0).io(0, 0x8000, 0x8000).io(2, 0, 0x100);
    config.add(root, 3, 0, function);
    let (tree, assignment) = assign(&mut config, &pc());
    assert!(matches!(assignment.errors[..], [AssignError::NoRoom(bar)] if bar.index == 0));
    let bars = tree.get(bdf(0, 3)).unwrap().bars;
    assert_eq!(bars.get(0).unwrap().range(), None);
    assert_eq!(bars.get(2).unwrap().range(), Some(range(0xC000, 0xC0FF)));
    // A driver that sizes the BARs anew sees the same.
    let function = Function::probe(&config, bdf(0, 3)).unwrap();
    assert_eq!(Bars::size(&mut config, &function).get(0).unwrap().range(), None);
}

#[test]
fn nothing_is_placed_behind_a_bridge_that_does_not_keep_its_window() {
    let (mut config, root) = machine();
    // Its memory window stays at zero.
    let behind = config.add(root, 1, 0, FakeFunction::bridge(1, 1).writable(0x20, 0));
    config.add(behind, 1, 0, FakeFunction::new(1, 1, 0).memory32(1, 0, 0x1000));
    let (tree, assignment) = assign(&mut config, &pc());
    let [AssignError::WindowNotKept { space: Space::Memory, .. }, AssignError::NoRoom(bar)] = assignment.errors[..]
    else {
        panic!("{:?}", assignment.errors);
    };
    assert_eq!((bar.index, assignment.placed.len()), (1, 0));
    assert_eq!(tree.get(bar.function).unwrap().bars.get(1).unwrap().range(), None);
}

#[test]
fn windows_of_a_bridge_that_overlap_do_not_give_one_address_twice() {
    let (mut config, root) = machine();
    let bridge = FakeFunction::bridge(1, 1).memory_window(0xC000_0000, 0xC0FF_FFFF).raw(0x24, 0xC0F0_C000);
    let behind = config.add(root, 1, 0, bridge.buses(0, 1, 1));
    config.add(behind, 1, 0, FakeFunction::new(1, 1, 0).memory32(1, 0, 0x1000).memory64(2, 0, 0x1000, true));
    let mut tree = Tree::walk(&mut config, &[BusRange::SEGMENT_0]).unwrap();
    tree.size_bars(&mut config);
    let assignment = tree.assign_addresses(&mut config, &pc()).unwrap();
    let [Some(first), Some(second)] = assignment.placed.iter().map(Bar::range).collect::<Vec<_>>()[..] else {
        panic!("{assignment:?}");
    };
    assert!(!first.overlaps(second), "{first} and {second}");
}

#[test]
fn a_bridge_window_that_is_not_forwarded_above_does_not_assign_addresses_twice() {
    let (mut config, root) = machine();
    // Its window is outside that of the bridge above, and contains addresses that the root bus assigns first.
    let outer = FakeFunction::bridge(1, 1).memory_window(0xC100_0000, 0xC1FF_FFFF);
    let inner = FakeFunction::bridge(1, 2).memory_window(0x8000_0000, 0x800F_FFFF);
    let middle = config.add(root, 1, 0, outer.buses(0, 1, 2));
    let behind = config.add(middle, 1, 0, inner.buses(1, 2, 2));
    config.add(root, 2, 0, FakeFunction::new(1, 1, 0).memory32(0, 0, 0x1000));
    config.add(behind, 1, 0, FakeFunction::new(1, 3, 0).memory32(0, 0, 0x1000));
    let mut tree = Tree::walk(&mut config, &[BusRange::SEGMENT_0]).unwrap();
    tree.size_bars(&mut config);
    let assignment = tree.assign_addresses(&mut config, &pc()).unwrap();
    let placed: Vec<_> = assignment.placed.iter().filter_map(Bar::range).collect();
    assert_eq!(placed.len(), 2, "{assignment:?}");
    assert!(!placed[0].overlaps(placed[1]), "{} and {}", placed[0], placed[1]);
}

proptest! {
    #[test]
    fn any_unassigned_machine_gets_addresses_that_work(parts in parts(), small in any::<bool>()) {
        let (mut config, root) = machine();
        let mut wires = vec![root];
        let mut slots = std::collections::BTreeSet::new();
        for part in parts {
            let wire = usize::from(part.wire) % wires.len();
            if !slots.insert((wire, part.device)) {
                continue;
            }
            let (fake, most) = match part.is_bridge {
                true => (FakeFunction::bridge(1, 1), 2),
                false => (FakeFunction::new(1, 2, 0), 6),
            };
            let behind = config.add(wires[wire], part.device, 0, with_bars(fake, &part.bars, most));
            if part.is_bridge {
                wires.push(behind);
            }
        }
        let host = if small { microvm() } else { pc() };
        let (tree, assignment) = assign(&mut config, &host);
        let wanted = tree.nodes().iter().map(|node| node.bars.iter().count()).sum::<usize>();
        prop_assert_eq!(assignment.placed.len() + assignment.errors.len(), wanted);
    }
}

#[test]
fn a_device_plugged_behind_an_empty_port_gets_addresses_each_time() {
    for host in [microvm(), pc()] {
        let (mut config, root) = machine();
        let port = config.add(root, 1, 0, FakeFunction::root_port());
        let (mut tree, _) = assign(&mut config, &host);
        let behind = config.add(port, 0, 0, virtio());
        for _ in 0..3 {
            assert_eq!(tree.rescan(&mut config, bdf(0, 1)), Ok(1));
            tree.assign_addresses(&mut config, &host).unwrap();
            check(&config, &tree, &host);
            assert!(tree.behind(bdf(0, 1)).all(|node| node.bars.iter().all(|bar| bar.range().is_some())));
            // The function is removed and comes back as after a reset.
            tree.remove_behind(bdf(0, 1));
            config.reset(behind);
        }
    }
}

#[test]
fn thousands_of_bars_that_fit_nowhere_do_not_take_a_pass_each() {
    // A thousand functions with six BARs each: behind a bridge whose window is closed, and behind one that firmware
    // opened.
    for opened in [false, true] {
        let (mut config, root) = machine();
        for device in 1..=4 {
            let mut bridge = FakeFunction::bridge(0x1B36, 0x0001);
            if opened {
                bridge = bridge
                    .memory_window(0x8000_0000 + (u32::from(device) << 20), 0x800F_FFFF + (u32::from(device) << 20));
            }
            let wire = config.add(root, device, 0, bridge);
            for (device, number) in (0..32).flat_map(|device| (0..8).map(move |number| (device, number))) {
                let function = (0..6).fold(FakeFunction::new(0x1AF4, 0x1045, 0).multifunction(), |function, bar| {
                    function.memory32(bar, 0, 0x1_0000 << (number % 6))
                });
                config.add(wire, device, number, function);
            }
        }
        let mut tree = Tree::walk(&mut config, &[BusRange::SEGMENT_0]).unwrap();
        tree.size_bars(&mut config);
        let assignment = tree.assign_addresses(&mut config, &pc()).unwrap();
        let wanted: usize = tree.nodes().iter().map(|node| node.bars.iter().count()).sum();
        assert_eq!(wanted, 4 * 256 * 6);
        assert!(!assignment.placed.is_empty());
        assert_eq!(assignment.placed.len() + assignment.errors.len(), wanted);
    }
}
