//! Everything that is parsed from configuration space: the walk through bridges, BARs, capabilities, MSI-X, and the
//! addresses assigned from them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use arbitrary::Arbitrary;
use ballonet::pci::listing::{Details, Line};
use ballonet::pci::{AddressRange, Bars, Bdf, BusRange, Function, HostWindows, Msix, Node, Tree};
use ballonet::virtio::spec::{DeviceType, Features};
use ballonet::virtio::{self, DeviceOptions, Setup};

use crate::expect_printable;
use crate::mapper::{Mapper, contains, expect_inside};
use crate::pci::{BARS, Capability, Noise, Registers, Space};

/// A machine's configuration space.
#[derive(Debug, Arbitrary)]
pub struct Machine<'a> {
    extended: bool,
    functions: Vec<Place<'a>>,
    /// Segment, first bus, and number of further buses.
    ranges: Vec<(bool, u8, u8)>,
    noise: Vec<Noise>,
    /// The highest number of address bits of a BAR.
    address_bits: u8,
}

/// A function and where it is.
#[derive(Debug, Arbitrary)]
pub struct Place<'a> {
    segment: bool,
    bus: u8,
    device: u8,
    function: u8,
    parts: Parts<'a>,
}

/// What a function is made of.
#[derive(Debug, Arbitrary)]
pub struct Parts<'a> {
    identity: Identity,
    multifunction: bool,
    pin: u8,
    command: u16,
    bars: [Bar; 6],
    /// Capabilities, each with a misplaced offset or a wrong link where given.
    capabilities: Vec<(Option<u8>, Option<u8>, Capability<'a>)>,
    patches: Vec<(u16, u8)>,
}

/// What the function claims to be.
#[derive(Debug, Arbitrary)]
enum Identity {
    Balloon,
    TransitionalBalloon,
    HostBridge,
    Bridge { buses: [u8; 3], windows: [u32; 5], loose: bool },
    RootPort { buses: [u8; 3] },
    Other { vendor: u16, device: u16, class: u32 },
}

/// A BAR. Sizes are powers of two.
#[derive(Debug, Arbitrary)]
enum Bar {
    None,
    Io {
        address: u16,
        size: u8,
    },
    Memory32 {
        address: u32,
        size: u8,
    },
    /// Also takes the next register, whatever was meant to be there.
    Memory64 {
        address: u64,
        size: u8,
    },
    Raw {
        value: u32,
        mask: u32,
    },
}

/// Walks the buses, sizes BARs, assigns addresses, and parses all capabilities.
pub fn run(machine: &Machine<'_>) {
    let mut space = Space::new(if machine.extended { 4096 } else { 256 }, machine.noise.clone());
    for place in machine.functions.iter().take(24) {
        // A few buses, so that bridges lead to something.
        let bdf = Bdf::new(place.segment.into(), place.bus % 8, place.device % 32, place.function % 8);
        space.functions.insert(bdf.expect("a function number"), place.parts.registers());
    }
    let before = space.functions.clone();
    let mut ranges: Vec<_> = machine.ranges.iter().take(4).filter_map(range).collect();
    ranges.push(BusRange::SEGMENT_0);

    let mut tree = Tree::walk(&mut space, &ranges).expect("there is heap");
    tree.size_bars(&mut space);
    // Each bus once: two segments of 256 buses with 256 functions, and a few reads for each absent function.
    assert!(space.accesses.get() < 2 * 65536 * 2 + 4096 * tree.nodes().len() as u64 + 4096, "{:?}", space.accesses);
    check_tree(&tree);
    if space.is_quiet() {
        check_untouched(&before, &space);
    }
    let windows = HostWindows::from_gaps(&[], &[], &[], machine.address_bits).expect("there is heap");
    let assignment = tree.assign_addresses(&mut space, &windows).expect("there is heap");
    if space.is_quiet() {
        check_placed(&before, &space, &tree, &assignment.placed, &windows);
    }
    for node in tree.nodes() {
        read_all(&mut space, node);
        tree.open_path(&mut space, node.bdf());
    }
    let mut text = String::new();
    for error in tree.errors() {
        write!(text, "{error}").expect("a string takes everything");
    }
    for error in &assignment.errors {
        write!(text, "{error}").expect("a string takes everything");
    }
    assert!(!text.contains(|c: char| c.is_ascii_control()));
}

fn range(&(segment, first, more): &(bool, u8, u8)) -> Option<BusRange> {
    BusRange::new(segment.into(), first, first.saturating_add(more))
}

fn check_tree(tree: &Tree) {
    let known: BTreeSet<Bdf> = tree.nodes().iter().map(Node::bdf).collect();
    assert_eq!(known.len(), tree.nodes().len(), "a function comes twice");
    assert!(tree.nodes().is_sorted_by_key(Node::bdf));
    for node in tree.nodes() {
        assert!(node.upstream.is_none_or(|bridge| known.contains(&bridge)));
        assert!(tree.bridges_above(node.bdf()).count() <= 256, "{} is below itself", node.bdf());
        for bar in node.bars.iter() {
            assert!(bar.size.is_power_of_two());
        }
    }
}

/// Sizing leaves no trace: BARs, command and status are unchanged. Bridges may have got bus numbers.
fn check_untouched(before: &BTreeMap<Bdf, Registers>, space: &Space) {
    for (bdf, registers) in before {
        let now = &space.functions[bdf];
        for at in (0..0x40).step_by(4).filter(|at| !(0x18..0x1c).contains(at)) {
            assert_eq!(now.read(at, 4), registers.read(at, 4), "{bdf}: register {at:#x}");
        }
        let bridge = registers.read(0x0e, 1) & 0x7f == 1;
        assert!(bridge || now.read(BARS + 8, 4) == registers.read(BARS + 8, 4), "{bdf}: BAR2");
    }
}

/// Each assigned address lies in a window of the bridge above and overlaps no other.
fn check_placed(
    before: &BTreeMap<Bdf, Registers>,
    space: &Space,
    tree: &Tree,
    placed: &[ballonet::pci::Bar],
    windows: &HostWindows,
) {
    let range = |bar: &ballonet::pci::Bar| bar.range();
    for (index, bar) in placed.iter().enumerate() {
        let own = range(bar).expect("a BAR that was placed has an address");
        assert!(own.first().is_multiple_of(bar.size), "{own} of {}", bar.size);
        let upstream = tree.get(bar.function).and_then(|node| node.upstream);
        let allowed = windows_above(space, upstream, bar.is_io(), windows);
        assert!(allowed.iter().any(|window| contains(*window, own)), "{own} is in no window");
        // The type is that of the register as found: a strange one may have type bits that can be written.
        let found = before[&bar.function].read(BARS + 4 * usize::from(bar.index), 4);
        assert!(found & 0x7 == 0x4 || own.last() <= u32::MAX.into(), "{own} for a BAR of 32 bits");
        for other in placed.iter().skip(index + 1).filter(|other| other.is_io() == bar.is_io()) {
            let other = range(other).expect("a BAR that was placed has an address");
            assert!(!own.overlaps(other), "{own} and {other} were given out: {placed:?}");
        }
        let others = tree.nodes().iter().flat_map(|node| node.bars.iter());
        let others = others.filter(|other| other.is_io() == bar.is_io());
        for other in others.filter(|other| (other.function, other.index) != (bar.function, bar.index)) {
            let overlaps = other.range().is_some_and(|other| own.overlaps(other));
            assert!(!overlaps, "{bar:?} overlaps {other:?}");
        }
    }
}

/// The windows of the bridge above a function, or of the host bridge.
fn windows_above(space: &Space, upstream: Option<Bdf>, io: bool, host: &HostWindows) -> Vec<AddressRange> {
    let Some(bridge) = upstream else {
        return if io { host.io.clone() } else { [&host.memory[..], &host.memory64[..]].concat() };
    };
    let read = |at| u64::from(space.read(bridge, at, 4));
    // Base and limit of I/O ports, memory and prefetchable memory, with their upper halves where there are such
    // (PCI-to-PCI bridges 1.2, 3.2.5).
    let (ports, ports_upper) = (read(0x1c), read(0x30));
    let (memory, prefetchable) = (read(0x20), read(0x24));
    let pages = |register: u64| ((register & 0xfff0) << 16, register & 0xfff0_0000 | 0xf_ffff);
    let wide = |register: u64| u64::from(register & 0xf == 1);
    let io_window = (
        ((ports & 0xf0) << 8) | (wide(ports) * ((ports_upper & 0xffff) << 16)),
        (ports & 0xf000) | 0xfff | (wide(ports) * (ports_upper >> 16 << 16)),
    );
    let (base, limit) = pages(prefetchable);
    let high = (base | (wide(prefetchable) * (read(0x28) << 32)), limit | (wide(prefetchable) * (read(0x2c) << 32)));
    let windows = if io { vec![io_window] } else { vec![pages(memory), high] };
    // One at 0 is closed.
    let open = windows.into_iter().filter(|(base, _)| *base != 0);
    open.filter_map(|(base, limit)| AddressRange::inclusive(base, limit)).collect()
}

fn read_all(space: &mut Space, node: &Node) {
    let (function, bars) = (node.function, node.bars);
    let mut offsets = BTreeSet::new();
    for capability in function.capabilities(space).flatten() {
        let offset = capability.offset;
        assert!((0x40..0x100).contains(&offset) && offset.is_multiple_of(4));
        assert!(offsets.insert(offset) || !space.is_quiet(), "{offset:#x} comes twice");
    }
    // Opening sizes the BARs anew, and wrong reads may come out otherwise then.
    let known = space.is_quiet().then(|| Bars::size(space, &function));
    let mut mapper = Mapper { space, function, bars: known };
    // Its registers read as all ones, so that the device counts as gone once its structures are mapped.
    let opened = Setup::open(
        &mut mapper,
        function.bdf,
        DeviceOptions::new("fuzzed"),
        DeviceType::BALLOON,
        |_, _| Features::empty(),
        |_, _| {},
    );
    expect_printable(&opened.err().expect("a device that is gone does not open"));
    match Msix::find(space, &function, &bars) {
        Ok(Some(msix)) => {
            assert!((1..=2048).contains(&msix.entries));
            assert_eq!(msix.table.length, 16 * u64::from(msix.entries));
            [msix.table, msix.pending].into_iter().for_each(|window| expect_inside(window, &function, &bars));
        }
        Ok(None) => {}
        Err(error) => expect_printable(&error),
    }
    show(space, &function, node);
}

fn show(space: &Space, function: &Function, node: &Node) {
    let details = Details { config: space, node, vendor: virtio::listing::describe };
    let shown = format!("{}\n{details}", Line(function));
    assert!(shown.lines().all(|line| !line.is_empty() && !line.contains(|c: char| c.is_ascii_control())), "{shown:?}");
}

impl Parts<'_> {
    fn registers(&self) -> Registers {
        let (vendor, device, class) = match self.identity {
            Identity::Balloon => (0x1af4, 0x1045, 0x00_ff00),
            Identity::TransitionalBalloon => (0x1af4, 0x1002, 0x00_ff00),
            Identity::HostBridge => (0x8086, 0x29c0, 0x06_0000),
            Identity::Bridge { .. } => (0x1b36, 0x0001, 0x06_0400),
            Identity::RootPort { .. } => (0x1b36, 0x000c, 0x06_0400),
            Identity::Other { vendor, device, class } => (vendor, device, class),
        };
        let mut registers = Registers::new(vendor, device, class);
        if matches!(self.identity, Identity::TransitionalBalloon) {
            registers.put(8, &[0]);
        }
        registers.put(0x3d, &[self.pin]);
        registers.put(4, &(self.command & 0x0547).to_le_bytes());
        registers.put(0x0e, &[u8::from(self.multifunction) << 7]);
        for (index, bar) in self.bars.iter().enumerate() {
            bar.put(&mut registers, index);
        }
        match self.identity {
            Identity::Bridge { buses, windows, loose } => registers.bridge(buses, windows, loose),
            Identity::RootPort { buses } => {
                registers.bridge(buses, [0x0101, 0, 0x0001_0001, 0, 0], false);
                registers.capability(None, None, 0x10, &[0x42, 0]);
            }
            _ => {}
        }
        for (at, link, capability) in self.capabilities.iter().take(64) {
            let (id, body) = capability.encode();
            registers.capability(*at, *link, id, &body);
        }
        for (at, value) in &self.patches {
            registers.put(usize::from(*at) % 4096, &[*value]);
        }
        registers
    }
}

impl Bar {
    fn put(&self, registers: &mut Registers, index: usize) {
        // The writable address bits of a BAR of this size.
        let mask = |size: u8, least: u8| u64::MAX << least.max(size % 64);
        match *self {
            Self::None => {}
            Self::Io { address, size } => {
                let mask = mask(size % 17, 2) as u32;
                registers.bar(index, u32::from(address) & mask | 1, mask);
            }
            Self::Memory32 { address, size } => {
                let mask = mask(size % 32, 4) as u32;
                registers.bar(index, address & mask, mask);
            }
            Self::Memory64 { address, size } => {
                let mask = mask(size, 4);
                let address = address & mask;
                registers.bar(index, address as u32 | 0xc, mask as u32);
                if index < 5 {
                    registers.bar(index + 1, (address >> 32) as u32, (mask >> 32) as u32);
                }
            }
            Self::Raw { value, mask } => registers.bar(index, value, mask),
        }
    }
}
