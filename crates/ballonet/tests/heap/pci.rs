//! The walk through PCI and the addresses of BARs, with each allocation failing in turn.

use std::collections::BTreeSet;

use ballonet::balloon;
use ballonet::pci::{AddressRange, Assignment, Bdf, BridgeError, BusRange, ConfigSpace, HostWindows, Tree};
use ballonet::platform::OutOfMemory;

use super::{Outcome, each, failing};

/// Registers of a function, and which of their bits can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Function {
    words: [u32; 64],
    writable: [u32; 64],
}

impl Function {
    fn new(id: u32, class: u32) -> Self {
        let mut function = Self { words: [0; 64], writable: [0; 64] };
        (function.words[0], function.words[2], function.writable[1]) = (id, class << 8, 0x7);
        function
    }

    /// A BAR whose address has these bits.
    fn bar(mut self, index: usize, kind: u32, address: u32) -> Self {
        (self.words[4 + index], self.writable[4 + index]) = (kind, address);
        self
    }

    /// A balloon: 4 KiB of memory, and 16 KiB that may be above 4 GiB.
    fn balloon() -> Self {
        Self::new(0x1045_1af4, 0x00ff_0000).bar(1, 0, 0xffff_f000).bar(4, 0xc, 0xffff_c000).bar(5, 0, u32::MAX)
    }

    /// A bridge whose numbers and windows are not set up.
    fn bridge() -> Self {
        let mut bridge = Self::new(0x0001_1b36, 0x0006_0400);
        bridge.words[3] = 1 << 16;
        for (word, bits) in [(6, 0x00ff_ffff), (7, 0xf0f0), (8, 0xfff0_fff0), (9, 0xfff0_fff0), (10, !0), (11, !0)] {
            bridge.writable[word] = bits;
        }
        // Closed: each base is above its limit. The prefetchable one may be above 4 GiB.
        for (word, closed) in [(7, 0x00f0), (8, 0x0000_fff0), (9, 0x0001_fff1)] {
            bridge.words[word] = closed;
        }
        bridge
    }
}

/// On bus 0 a host bridge, network devices, and a bridge to a bus with a balloon. Nothing of it is on the heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bus {
    root: [Option<Function>; 32],
    behind: Option<Function>,
}

/// The bridge's device number.
const BRIDGE: u8 = 20;

impl Bus {
    fn new() -> Self {
        let mut root = [None; 32];
        root[0] = Some(Function::new(0x29c0_8086, 0x0006_0000));
        for card in &mut root[1..13] {
            *card = Some(Function::new(0x1041_1af4, 0x0002_0000).bar(0, 0, 0xffff_0000).bar(2, 1, 0xffe0));
        }
        // There is no room for this one.
        root[13] = Some(Function::new(0x1041_1af4, 0x0002_0000).bar(0, 0, 0x8000_0000));
        root[usize::from(BRIDGE)] = Some(Function::bridge());
        Self { root, behind: Some(Function::balloon()) }
    }

    fn secondary(&self) -> u8 {
        self.root[usize::from(BRIDGE)].map_or(0, |bridge| (bridge.words[6] >> 8) as u8)
    }

    fn get(&self, at: Bdf) -> Option<&Function> {
        match (at.bus(), at.device(), at.function()) {
            (0, device, 0) => self.root[usize::from(device)].as_ref(),
            (bus, 0, 0) if bus == self.secondary() => self.behind.as_ref(),
            _ => None,
        }
    }

    fn change(&mut self, at: Bdf, offset: u16, mask: u32, value: u32) {
        let behind = at.bus() != 0;
        if self.get(at).is_none() {
            return;
        }
        let function = if behind { self.behind.as_mut() } else { self.root[usize::from(at.device())].as_mut() };
        if let Some(Function { words, writable }) = function {
            let word = usize::from(offset / 4);
            let bits = writable[word] & mask;
            words[word] = words[word] & !bits | value & bits;
        }
    }
}

impl ConfigSpace for Bus {
    fn size(&self, segment: u16, _bus: u8) -> u16 {
        if segment == 0 { 256 } else { 0 }
    }
    fn read8(&self, function: Bdf, offset: u16) -> u8 {
        (self.read32(function, offset & !3) >> (8 * (offset & 3))) as u8
    }
    fn read16(&self, function: Bdf, offset: u16) -> u16 {
        (self.read32(function, offset & !3) >> (8 * (offset & 3))) as u16
    }
    fn read32(&self, function: Bdf, offset: u16) -> u32 {
        self.get(function).map_or(u32::MAX, |function| function.words[usize::from(offset / 4)])
    }
    fn write8(&mut self, function: Bdf, offset: u16, value: u8) {
        let shift = 8 * (offset & 3);
        self.change(function, offset, 0xff << shift, u32::from(value) << shift);
    }
    fn write16(&mut self, function: Bdf, offset: u16, value: u16) {
        let shift = 8 * (offset & 3);
        self.change(function, offset, 0xffff << shift, u32::from(value) << shift);
    }
    fn write32(&mut self, function: Bdf, offset: u16, value: u32) {
        self.change(function, offset, u32::MAX, value);
    }
}

fn outcome<T>(result: &Result<T, OutOfMemory>) -> Outcome {
    match result {
        Ok(_) => Outcome::Less,
        Err(error) => Outcome::Error(error.to_string()),
    }
}

/// Each allocation fails with an error that names it; there are at least `least`.
#[track_caller]
fn expect_errors((count, outcomes): (usize, BTreeSet<Outcome>), least: usize) {
    let named = |outcome: &Outcome| matches!(outcome, Outcome::Error(text) if text.ends_with(" bytes of heap"));
    assert!(count >= least && outcomes.iter().all(named), "{count} allocations, {outcomes:?}");
}

#[test]
fn a_search_for_the_balloon_names_the_heap_that_is_missing() {
    let at = Bdf::new(0, 1, 0, 0);
    let found = each("find", |number| {
        let mut bus = Bus::new();
        let (result, failed) = failing(number, || balloon::find(&mut bus));
        assert_eq!(failed, result.is_err());
        assert_eq!(balloon::find(&mut bus), Ok(at), "there is heap again");
        failed.then(|| outcome(&result))
    });
    expect_errors(found, 4);
}

fn walk(bus: &mut Bus) -> Result<Tree, OutOfMemory> {
    let mut tree = Tree::walk(bus, &[BusRange::SEGMENT_0])?;
    tree.size_bars(bus);
    Ok(tree)
}

/// Windows of the host, and all BARs in them.
fn assign(bus: &mut Bus, tree: &mut Tree) -> Result<Assignment, OutOfMemory> {
    let ram = [AddressRange::new(0, 1 << 31).expect("a range")];
    let used = [AddressRange::new(0xb000_0000, 0x1000_0000).expect("a range")];
    tree.assign_addresses(bus, &HostWindows::from_gaps(&ram, &used, &[], 40)?)
}

#[test]
fn addresses_are_all_planned_before_the_first_is_written() {
    let mut expected = Bus::new();
    let mut tree = walk(&mut expected).expect("there is heap");
    let whole = assign(&mut expected, &mut tree).expect("there is heap");
    assert_eq!((whole.placed.len(), whole.opened.len(), whole.errors.len()), (26, 2, 1), "{whole:?}");
    let assigned = each("assign", |number| {
        let mut bus = Bus::new();
        let mut tree = walk(&mut bus).expect("there is heap");
        let before = bus;
        let (result, failed) = failing(number, || assign(&mut bus, &mut tree));
        assert_eq!(failed, result.is_err());
        if failed {
            assert_eq!(bus, before, "nothing is written");
            assert_eq!(assign(&mut bus, &mut tree).as_ref(), Ok(&whole), "there is heap again");
        }
        assert_eq!(bus, expected);
        failed.then(|| outcome(&result))
    });
    expect_errors(assigned, 20);
}

#[test]
fn a_look_behind_a_bridge_finds_all_or_says_why_not() {
    let bridge = Bdf::new(0, 0, BRIDGE, 0).expect("a function number");
    let looked = each("rescan", |number| {
        let mut bus = Bus::new();
        let mut tree = walk(&mut bus).expect("there is heap");
        let functions = tree.nodes().len();
        let (result, failed) = failing(number, || tree.rescan(&mut bus, bridge));
        let missing = result.map_err(|error| match error {
            BridgeError::Memory { bridge: named, missing } if named == bridge => missing,
            other => panic!("{other}"),
        });
        assert_eq!((failed, tree.nodes().len()), (missing.is_err(), functions - usize::from(failed)));
        assert_eq!(tree.rescan(&mut bus, bridge), Ok(1), "there is heap again");
        failed.then(|| outcome(&missing))
    });
    expect_errors(looked, 2);
}
