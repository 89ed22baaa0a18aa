//! Sizing detects every kind of BAR and leaves no trace; the fake checks the latter.

use proptest::prelude::*;

use super::*;
use crate::pci::Status;
use crate::pci::fake::{FakeConfig, FakeFunction};

fn endpoint() -> FakeFunction {
    FakeFunction::new(0x1AF4, 0x1045, 0)
}

fn size(fake: FakeFunction) -> Bars {
    let (mut config, bdf) = FakeConfig::with(fake);
    let function = Function::probe(&config, bdf).unwrap();
    Bars::size(&mut config, &function)
}

#[test]
fn every_kind_of_bar_is_recognised_and_sized() {
    let fake = endpoint()
        .io(0, 0xC040, 0x20)
        .memory32(1, 0xFEBD_1000, 0x1000)
        .memory64(2, 0x70_0000_0000, 0x4000, true)
        .bar(5, 0xA_0002, 0x000F_0000)
        .command(Command::IO | Command::MEMORY | Command::BUS_MASTER)
        .status(Status::WRITE_ONE_TO_CLEAR);
    let bars = size(fake);
    let bar = |index| *bars.get(index).unwrap();
    assert_eq!((bar(0).kind, bar(0).address, bar(0).size), (BarKind::Io, 0xC040, 0x20));
    let kind = |width, prefetchable| BarKind::Memory { width, prefetchable };
    assert_eq!((bar(1).kind, bar(1).size), (kind(MemoryWidth::Bits32, false), 0x1000));
    assert_eq!((bar(2).kind, bar(2).size), (kind(MemoryWidth::Bits64, true), 0x4000));
    assert_eq!(bar(2).address, 0x70_0000_0000);
    assert_eq!((bar(5).kind, bar(5).size), (kind(MemoryWidth::Below1MiB, false), 0x1_0000));
    assert!(matches!(bars.get(3), Err(BarError::UpperHalf { bar: 3, .. })));
    assert!(matches!(bars.get(4), Err(BarError::Unimplemented { bar: 4, .. })));
    assert!(matches!(bars.get(6), Err(BarError::NoSuchRegister { bar: 6, .. })));
    assert!(matches!(bars.get(7), Err(BarError::NoSuchRegister { bar: 7, .. })));
    assert_eq!((bars.iter().count(), bars.errors().count()), (4, 0));
}

#[test]
fn the_type_is_that_of_the_register_as_found() {
    let bars = size(
        endpoint()
            .memory64(0, 0x70_0000_0000, 0x8_0000, true)
            .memory32(2, 0xFEBD_1000, 0x1000)
            .io(3, 0xC040, 0x20)
            .bare_sizes(),
    );
    let bar = |index| *bars.get(index).unwrap();
    let kind = |width, prefetchable| BarKind::Memory { width, prefetchable };
    assert_eq!((bar(0).kind, bar(0).address, bar(0).size), (kind(MemoryWidth::Bits64, true), 0x70_0000_0000, 0x8_0000));
    assert!(matches!(bars.get(1), Err(BarError::UpperHalf { bar: 1, .. })));
    assert_eq!((bar(2).kind, bar(2).size), (kind(MemoryWidth::Bits32, false), 0x1000));
    assert_eq!((bar(3).kind, bar(3).address, bar(3).size), (BarKind::Io, 0xC040, 0x20));
}

#[test]
fn a_register_that_keeps_all_ones_has_no_size() {
    for index in [0, 4] {
        let bars = size(endpoint().bar(index, 0, u32::MAX));
        assert!(matches!(bars.get(index as u8), Err(BarError::BadSize { mask: 0xFFFF_FFFF, .. })));
    }
    let bars = size(endpoint().bar(0, 0x4, u32::MAX).bar(1, 0, u32::MAX));
    assert!(matches!(bars.get(0), Err(BarError::BadSize { mask: u64::MAX, .. })));
}

#[test]
fn large_64_bit_bars_are_sized_up_to_2_to_the_52() {
    for shift in [4, 31, 32, 33, 40, 52] {
        let bars = size(endpoint().memory64(0, 0, 1 << shift, false));
        assert_eq!(bars.get(0).unwrap().size, 1 << shift);
    }
    let bars = size(endpoint().memory64(0, 0, 1 << 53, false));
    assert!(matches!(bars.get(0), Err(BarError::BadSize { mask: 0xFFE0_0000_0000_0000, .. })));
}

#[test]
fn an_io_bar_may_decode_16_bits_only() {
    let bars = size(endpoint().bar(0, 0xC001, 0xFFF0));
    assert_eq!((bars.get(0).unwrap().size, bars.get(0).unwrap().address), (0x10, 0xC000));
}

#[test]
fn the_last_register_cannot_start_a_64_bit_bar() {
    let bars = size(endpoint().bar(5, 0x4, 0xFFFF_C000));
    assert!(matches!(bars.get(5), Err(BarError::NoUpperHalf { bar: 5, .. })));
    assert_eq!(bars.errors().count(), 1);
}

#[test]
fn a_bridge_has_two_bars() {
    let bars = size(FakeFunction::bridge(0x1B36, 0xC).memory64(0, 0xFE00_0000, 0x1000, false));
    assert_eq!(bars.get(0).unwrap().size, 0x1000);
    assert!(matches!(bars.get(2), Err(BarError::NoSuchRegister { .. })));
    let bars = size(FakeFunction::bridge(0x1B36, 0xC).bar(1, 0x4, 0xFFFF_0000));
    assert!(matches!(bars.get(1), Err(BarError::NoUpperHalf { bar: 1, .. })));
}

#[test]
fn sizes_that_are_no_power_of_two_are_named() {
    for mask in [0xFFFF_5000, 0x8000_1000, 0xF0F0_0000] {
        let bars = size(endpoint().bar(0, 0, mask));
        assert!(matches!(bars.get(0), Err(BarError::BadSize { .. })), "{mask:#x}");
    }
    let bars = size(endpoint().bar(0, 0x8, 0));
    assert_eq!(bars.get(0).unwrap_err().to_string(), "00:03.0 BAR0 has no sane size: writable address bits 0x0");
}

#[test]
fn reserved_types_are_named() {
    for bits in [0x6, 0x3, 0x7] {
        let bars = size(endpoint().bar(0, bits, 0xFFFF_0000));
        assert!(matches!(bars.get(0), Err(BarError::ReservedType { .. })), "{bits:#x}");
    }
}

#[test]
fn host_bridges_are_not_touched() {
    let (mut config, bdf) = FakeConfig::with(FakeFunction::new(0x8086, 0x29C0, 0x06_00_00).memory32(0, 0, 0x1000));
    let function = Function::probe(&config, bdf).unwrap();
    let bars = Bars::size(&mut config, &function);
    assert_eq!(config.writes, 0);
    assert!(matches!(bars.get(0), Err(BarError::NotSized { .. })));
    assert!(matches!(bars.get(6), Err(BarError::NoSuchRegister { .. })));
}

#[test]
fn decoding_is_not_switched_where_it_is_off() {
    let (mut config, bdf) = FakeConfig::with(endpoint().memory32(0, 0, 0x1000));
    let function = Function::probe(&config, bdf).unwrap();
    Bars::size(&mut config, &function);
    // All ones into six registers; the one that is implemented is restored.
    assert_eq!(config.writes, 7);
}

#[test]
fn the_fake_objects_to_sizing_with_decoding_on() {
    let (mut config, bdf) = FakeConfig::with(endpoint().memory32(0, 0xFE00_0000, 0x1000).command(Command::MEMORY));
    config.write32(bdf, BASE_ADDRESS_0, u32::MAX);
    config.write32(bdf, BASE_ADDRESS_0, 0xFE00_0000);
    assert!(!core::mem::take(&mut config.violations).is_empty());
}

#[test]
fn a_function_pulled_out_has_no_bars() {
    let (mut config, bdf) = FakeConfig::with(endpoint().memory32(0, 0xFE00_0000, 0x1000));
    let function = Function::probe(&config, bdf).unwrap();
    config.unplug_all();
    assert_eq!(Bars::size(&mut config, &function).iter().count(), 0);
}

#[test]
fn a_bar_that_does_not_keep_its_address_counts_as_having_none() {
    let (mut config, bdf) = FakeConfig::with(endpoint().bar(0, 0, 0x10));
    config.changes_expected = true;
    let function = Function::probe(&config, bdf).unwrap();
    let mut bars = Bars::size(&mut config, &function);
    assert_eq!(bars.get(0).unwrap().size, 0x10);
    assert_eq!(bars.place(&mut config, &function, 0, 0xFE00_0000), Some(0));
    assert!(bars.get(0).unwrap().window(0, 4).is_err());
}

proptest! {
    #[test]
    fn any_bars_are_sized_and_put_back(
        values in any::<[u32; 6]>(), masks in any::<[u32; 6]>(), command in any::<u16>(), layout in 0..4_u8,
    ) {
        let fake = (0..).zip(values.into_iter().zip(masks))
            .fold(endpoint(), |fake, (index, (value, mask))| fake.bar(index, value, mask))
            .command(Command::from_bits_retain(command & 0x547))
            .status(Status::WRITE_ONE_TO_CLEAR)
            .byte(0x0E, layout);
        let bars = size(fake);
        for bar in bars.iter() {
            prop_assert!(bar.size.is_power_of_two() && bar.size <= LARGEST);
            prop_assert!(bar.is_io() || bar.size >= 16);
        }
    }
}
