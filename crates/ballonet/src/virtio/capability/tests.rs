//! Capability lists: valid ones, and broken ones.

use proptest::prelude::*;

use super::*;
use crate::pci::Command;
use crate::pci::fake::{FakeConfig, FakeFunction};

/// A function with memory in BARs 1 and 4 (64 bits), ports in BAR 2, nothing assigned in BAR 3.
fn function() -> FakeFunction {
    FakeFunction::new(0x1af4, 0x1045, 0xff00)
        .memory32(1, 0xfe00_0000, 0x1000)
        .io(2, 0xc000, 0x100)
        .memory32(3, 0, 0x1000)
        .memory64(4, 0x80_0000_0000, 0x4000, true)
        .command(Command::IO | Command::MEMORY)
}

/// The bytes of a virtio capability from its length on.
fn body(kind: u8, bar: u8, offset: u32, length: u32, more: &[u32]) -> Vec<u8> {
    let mut body = vec![(16 + 4 * more.len()) as u8, kind, bar, 0, 0, 0];
    for word in [offset, length].iter().chain(more) {
        body.extend(word.to_le_bytes());
    }
    body
}

/// Adds the capabilities in sequence, from 0x40 on.
fn with(function: FakeFunction, bodies: &[Vec<u8>]) -> FakeFunction {
    let mut offset = 0x40;
    bodies.iter().fold(function, |function, body| {
        let function = function.capability(offset, 0x09, body);
        offset += (body.len() as u8 + 2).next_multiple_of(4);
        function
    })
}

fn find(function: FakeFunction) -> Result<Option<Capabilities>, CapabilityError> {
    let (mut config, bdf) = FakeConfig::with(function);
    let function = Function::probe(&config, bdf).unwrap();
    let bars = Bars::size(&mut config, &function);
    let writes = config.writes;
    let found = Capabilities::find(&config, &function, &bars);
    assert_eq!(config.writes, writes, "capabilities are read only");
    found
}

fn common() -> Vec<u8> {
    body(1, 4, 0, 0x1000, &[])
}
fn isr() -> Vec<u8> {
    body(3, 4, 0x1000, 0x1000, &[])
}
fn device() -> Vec<u8> {
    body(4, 4, 0x2000, 0x1000, &[])
}
fn notify() -> Vec<u8> {
    body(2, 4, 0x3000, 0x1000, &[4])
}

/// A device like QEMU's, with `more` capabilities before the usual ones.
fn after(more: &[Vec<u8>]) -> Capabilities {
    let mut bodies = more.to_vec();
    bodies.extend([common(), isr(), device(), notify()]);
    find(with(function(), &bodies)).unwrap().unwrap()
}

/// Without one of the usual structures, but with `other` in its place.
fn instead(kind: CapabilityType, other: &[Vec<u8>]) -> Result<Option<Capabilities>, CapabilityError> {
    let usual = [(CapabilityType::Common, common()), (CapabilityType::Isr, isr()), (CapabilityType::Notify, notify())];
    let mut bodies = other.to_vec();
    bodies.extend(usual.into_iter().filter(|(usual, _)| *usual != kind).map(|(_, body)| body));
    find(with(function(), &bodies))
}

fn address(place: StructureLocation) -> u64 {
    place.window.expect("it can be mapped").address
}

#[test]
fn the_structures_of_a_usual_device_are_found() {
    let found = after(&[]);
    assert_eq!((address(found.common), found.common.length), (0x80_0000_0000, 0x1000));
    assert_eq!(address(found.isr), 0x80_0000_1000);
    assert_eq!(address(found.device.unwrap()), 0x80_0000_2000);
    assert_eq!((address(found.notify.place), found.notify.multiplier), (0x80_0000_3000, 4));
    assert_eq!((found.pci_access, found.shared_memory.len(), found.vendor_data.len()), (None, 0, 0));
}

#[test]
fn a_function_without_virtio_capabilities_is_not_a_modern_device() {
    assert_eq!(find(function()), Ok(None));
    assert_eq!(find(function().capability(0x40, 0x05, &[0; 10])), Ok(None));
}

#[test]
fn the_first_usable_one_of_a_type_wins() {
    let ports = body(2, 2, 0, 4, &[0]);
    assert!(after(&[ports]).notify.place.window.unwrap().io);
    let beyond = body(2, 4, 0x4000, 4, &[0]);
    assert_eq!(after(&[beyond]), after(&[]));
}

#[test]
fn reserved_bars_unknown_types_and_unusable_windows_are_skipped() {
    for (what, skipped) in [
        ("BAR 6", body(1, 6, 0, 0x38, &[])),
        ("BAR 7", body(1, 7, 0, 0x38, &[])),
        ("BAR 255", body(1, 255, 0, 0x38, &[])),
        ("a BAR that is not there", body(1, 0, 0, 0x38, &[])),
        ("the upper half of a BAR", body(1, 5, 0, 0x38, &[])),
        ("a BAR without an address", body(1, 3, 0, 0x38, &[])),
        ("type 0", body(0, 1, 0, 0x38, &[])),
        ("type 6", body(6, 1, 0, 0x38, &[])),
        ("type 255", body(255, 1, 0, 0x38, &[])),
        ("too small", body(1, 1, 0, 0x37, &[])),
        ("empty", body(1, 1, 0, 0, &[])),
        ("misaligned", body(1, 1, 2, 0x38, &[])),
        ("half outside", body(1, 1, 0xfd0, 0x38, &[])),
        ("outside", body(1, 1, 0x1000, 0x38, &[])),
        ("far outside", body(1, 1, 0xffff_fffc, 0xffff_ffff, &[])),
    ] {
        assert_eq!(after(&[skipped]), after(&[]), "{what}");
    }
}

#[test]
fn a_capability_shorter_than_its_type_is_skipped_and_a_longer_one_is_fine() {
    let mut short = body(1, 1, 0, 0x38, &[]);
    short[0] = 15;
    assert_eq!(after(&[short]), after(&[]));
    let mut notify_without_multiplier = body(2, 1, 0, 0x38, &[]);
    notify_without_multiplier[0] = 16;
    assert_eq!(after(&[notify_without_multiplier]), after(&[]));
    let long = body(1, 1, 0, 0x38, &[7, 7, 7]);
    assert_eq!(after(&[long]).common.bar, 1);
}

#[test]
fn a_huge_structure_is_valid_and_only_the_needed_part_is_mapped() {
    let huge = after(&[body(1, 4, 0x100, u32::MAX, &[]), body(2, 4, 0, u32::MAX, &[4])]);
    assert_eq!((address(huge.common), huge.common.length), (0x80_0000_0100, 0x1000));
    assert_eq!(huge.notify.place.length, 0x4000, "as far as the BAR goes");
}

#[test]
fn a_structure_that_is_missing_is_named() {
    for kind in [CapabilityType::Common, CapabilityType::Notify, CapabilityType::Isr] {
        let error = instead(kind, &[]).unwrap_err();
        assert!(matches!(error, CapabilityError::Missing { kind: missing, .. } if missing == kind), "{error}");
    }
    let config = with(function(), &[common(), isr(), notify()]);
    assert_eq!(find(config).unwrap().unwrap().device, None, "not every device has a configuration");
}

#[test]
fn a_list_that_loops_counts_up_to_the_loop() {
    // The last capability links back to the first.
    let whole = with(function(), &[common(), isr(), device(), notify()]);
    let looping = whole.byte(0x40 + 0x10 * 3 + 1, 0x40);
    assert_eq!(find(looping), Ok(Some(after(&[]))));
    // So does the first, before the others were seen.
    let looping = with(function(), &[common(), isr(), device(), notify()]).byte(0x41, 0x40);
    assert!(matches!(find(looping), Err(CapabilityError::List(pci::CapabilityError::Loop { .. }))));
}

#[test]
fn a_capability_that_runs_past_the_end_of_configuration_space_is_skipped() {
    for start in (0xc0..=0xfc).step_by(4) {
        let bodies = [common(), isr(), device(), notify()];
        let room = 0x100 - start - 2;
        let mut cut = body(8, 4, 0, 0x1000, &[0, 0]);
        cut.truncate(room);
        let whole = cut.len() == 22;
        let found = find(with(function(), &bodies).capability(start as u8, 0x09, &cut)).unwrap().unwrap();
        assert_eq!(found.shared_memory.len(), usize::from(whole), "at {start:#x}");
    }
}

#[test]
fn shared_memory_has_64_bit_offsets_and_may_occur_several_times() {
    let mut second = body(8, 4, 0x2000, 0x1000, &[0, 0]);
    second[3] = 7;
    let far = body(8, 4, 0, 0x1000, &[1, 0]);
    let long = body(8, 4, 0, 0x1000, &[0, 1]);
    let found = after(&[body(8, 4, 0, 0x1000, &[0, 0]), second, far, long]);
    let regions: Vec<_> = found.shared_memory.iter().map(|region| (region.id, region.window.address)).collect();
    assert_eq!(regions, [(0, 0x80_0000_0000), (7, 0x80_0000_2000)]);
}

#[test]
fn vendor_data_is_found_with_its_vendor() {
    let data = vec![10, 9, 0xf4, 0x1a, 1, 2, 3, 4];
    let found = after(&[data]);
    assert_eq!(found.vendor_data, [VendorData { vendor: 0x1af4, offset: 0x46, length: 4 }]);
}

#[test]
fn the_window_to_bars_is_found_and_not_touched() {
    let found = after(&[body(5, 0, 0, 0, &[0])]);
    assert_eq!(found.pci_access.unwrap().offset, 0x40);
}

#[test]
fn structures_in_a_bar_without_an_address_count_only_with_a_configuration_window() {
    let unplaced = [body(1, 3, 0, 0x38, &[]), body(3, 3, 0x40, 1, &[]), body(2, 3, 0x80, 4, &[0])];
    let whole = |more: &[Vec<u8>]| find(with(function(), &[&unplaced[..], more].concat()));
    assert!(matches!(whole(&[]), Err(CapabilityError::Missing { kind: CapabilityType::Common, .. })));
    let short = vec![16, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(whole(&[short]).is_err(), "a window without its data register is none");
    let found = whole(&[body(5, 0, 0, 0, &[0])]).unwrap().unwrap();
    let places: Vec<_> = found.places().map(|place| (place.bar, place.offset, place.length, place.window)).collect();
    assert_eq!(places, [(3, 0, 0x38, None), (3, 0x80, 4, None), (3, 0x40, 1, None)]);
}

#[test]
fn a_structure_that_can_be_mapped_comes_before_one_that_cannot() {
    // As with `modern-pio-notify=on` on a machine that gives no ports to PCI.
    let found = after(&[body(5, 0, 0, 0, &[0]), body(2, 3, 0, 4, &[0])]);
    assert_eq!((found.notify.place.bar, found.notify.multiplier), (4, 4));
}

#[test]
fn structures_lie_at_any_offset_that_their_type_allows() {
    for (what, found) in [
        ("doorbells", after(&[body(2, 4, 0x0102, 2, &[1])]).notify.place),
        ("the ISR byte", after(&[body(3, 4, 0x0107, 1, &[])]).isr),
        ("common configuration", after(&[body(1, 4, 0x010c, 0x39, &[])]).common),
        ("device configuration", after(&[body(4, 4, 0x3ffc, 4, &[])]).device.unwrap()),
    ] {
        assert!(found.offset == 0x3ffc || found.offset & !0xf == 0x0100, "{what}: {found}");
    }
    for (what, misplaced) in [("doorbells", body(2, 4, 0x0101, 4, &[1])), ("device", body(4, 4, 0x0102, 8, &[]))] {
        assert_eq!(after(&[misplaced]), after(&[]), "{what}");
    }
}

#[test]
fn the_order_of_the_list_does_not_matter() {
    let bodies = [common(), isr(), device(), notify()];
    for first in 0..4 {
        let mut turned = bodies.clone();
        turned.rotate_left(first);
        assert_eq!(find(with(function(), &turned)).unwrap().unwrap(), after(&[]));
        turned.reverse();
        assert_eq!(find(with(function(), &turned)).unwrap().unwrap(), after(&[]));
    }
}

#[test]
fn all_structures_may_lie_in_ports() {
    let bodies =
        [body(1, 2, 0, 0x38, &[]), body(3, 2, 0x38, 1, &[]), body(4, 2, 0x40, 8, &[]), body(2, 2, 0x50, 2, &[0])];
    let found = find(with(function(), &bodies)).unwrap().unwrap();
    assert!(found.places().all(|place| place.window.is_some_and(|window| window.io)));
}

#[test]
fn shared_memory_may_lie_beyond_4_gib_of_its_bar() {
    let function = function().memory64(4, 0x80_0000_0000, 8 << 30, true);
    let region = body(8, 4, 0x1000, 0x2000, &[1, 0]);
    let large = body(8, 4, 0, 0, &[1, 1]);
    let found = find(with(function, &[common(), isr(), notify(), region, large])).unwrap().unwrap();
    let windows: Vec<_> = found.shared_memory.iter().map(|it| (it.window.address, it.window.length)).collect();
    assert_eq!(windows, [(0x81_0000_1000, 0x2000), (0x81_0000_0000, 1 << 32)]);
}

#[test]
fn the_first_sixteen_of_a_repeatable_type_are_kept() {
    let mut function = with(function(), &[common(), isr(), notify()]);
    for index in 0..17 {
        function = function.capability(0x78 + 8 * index, 0x09, &[6, 9, index, 0x1a]);
    }
    let vendors: Vec<_> = find(function).unwrap().unwrap().vendor_data.iter().map(|data| data.vendor).collect();
    assert_eq!(vendors, (0x1a00..0x1a10).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn no_configuration_space_contents_cause_a_panic(
        bytes in prop::collection::vec((0x34usize..0x100, any::<u8>()), 0..200),
        kinds in prop::collection::vec((0usize..12, 0u8..10), 0..12),
    ) {
        let mut function = with(function(), &[common(), isr(), device(), notify()]);
        for (offset, byte) in bytes {
            function = function.byte(offset, byte);
        }
        for (slot, kind) in kinds {
            function = function.byte(0x40 + 16 * slot, 9).byte(0x43 + 16 * slot, kind).byte(0x34, 0x40);
        }
        if let Ok(Some(found)) = find(function) {
            prop_assert!(found.common.length >= 0x38 && found.isr.length >= 1 && found.notify.place.length >= 2);
            let access = found.pci_access.is_some();
            prop_assert!(found.places().all(|place| place.window.is_some() || access && place.bar == 3));
            let windows = found.places().filter_map(|place| place.window);
            for window in windows.chain(found.shared_memory.iter().map(|region| region.window)) {
                let bar = match window.bar {
                    Some(1) => 0xfe00_0000..=0xfe00_1000,
                    Some(2) => 0xc000..=0xc100,
                    Some(4) => 0x80_0000_0000..=0x80_0000_4000,
                    other => panic!("a window of BAR {other:?}"),
                };
                prop_assert!(bar.contains(&window.address) && bar.contains(&(window.address + window.length)));
            }
        }
    }
}
