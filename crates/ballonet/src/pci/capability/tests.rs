//! Walks of capability lists end, whatever the links say.

use proptest::prelude::*;

use super::*;
use crate::pci::fake::{FakeConfig, FakeFunction};

fn endpoint() -> FakeFunction {
    FakeFunction::new(0x1AF4, 0x1045, 0)
}

/// The list of `fake`: offsets, IDs, and the error at its end.
fn list(fake: FakeFunction) -> (Vec<(u16, u8)>, Option<CapabilityError>) {
    let (config, bdf) = FakeConfig::with(fake);
    let function = Function::probe(&config, bdf).unwrap();
    let items: Vec<_> = function.capabilities(&config).collect();
    let errors: Vec<_> = items.iter().filter_map(|item| item.err()).collect();
    assert!(errors.len() <= 1 && items.iter().rev().skip(1).all(Result::is_ok), "an error is the last item");
    (items.iter().flatten().map(|item| (item.offset, item.id)).collect(), errors.first().copied())
}

#[test]
fn a_list_is_walked_in_its_order_with_the_low_bits_of_links_masked() {
    let fake = endpoint().capability(0x84, 9, &[]).capability(0x40, 0x11, &[]).byte(0x34, 0x87);
    assert_eq!(list(fake), (vec![(0x84, 9), (0x40, 0x11)], None));
}

#[test]
fn without_the_status_bit_there_is_no_list() {
    assert_eq!(list(endpoint().byte(0x34, 0x40).byte(0x40, 9)), (vec![], None));
}

#[test]
fn a_link_back_is_a_loop() {
    let (items, error) = list(endpoint().capability(0x40, 1, &[]).capability(0x50, 5, &[]).byte(0x51, 0x40));
    assert_eq!(items, [(0x40, 1), (0x50, 5)]);
    assert!(matches!(error, Some(CapabilityError::Loop { pointer: 0x40, .. })));
    let (items, error) = list(endpoint().capability(0x40, 1, &[]).byte(0x41, 0x40));
    assert_eq!(items.len(), 1);
    assert!(matches!(error, Some(CapabilityError::Loop { pointer: 0x40, .. })));
}

#[test]
fn a_link_into_the_header_ends_the_list() {
    let (items, error) = list(endpoint().capability(0x40, 1, &[]).byte(0x41, 0x3C));
    assert_eq!(items.len(), 1);
    assert_eq!(error.unwrap().to_string(), "00:03.0: capability link to 0x3c, inside the header");
    // With its low bits masked, this link is 0 and ends the list.
    assert_eq!(list(endpoint().capability(0x40, 1, &[]).byte(0x41, 3)).1, None);
}

#[test]
fn the_longest_list_has_48_capabilities() {
    let fake = (0x40..=0xFC).step_by(4).fold(endpoint(), |fake, offset| fake.capability(offset, 9, &[]));
    let (items, error) = list(fake);
    assert_eq!((items.len(), error), (48, None));
}

#[test]
fn a_function_that_goes_away_is_named() {
    let (items, error) = list(endpoint().capability(0x40, 1, &[]).byte(0x41, 0xFC).byte(0xFC, 0xFF).byte(0xFD, 0xFF));
    assert_eq!(items.len(), 1);
    assert!(matches!(error, Some(CapabilityError::Gone { .. })));
}

#[test]
fn a_cardbus_bridge_has_its_list_elsewhere() {
    let fake = endpoint().capability(0x80, 1, &[]).byte(0x34, 0).byte(0x0E, 2).byte(0x14, 0x80);
    assert_eq!(list(fake), (vec![(0x80, 1)], None));
    assert_eq!(list(endpoint().capability(0x80, 1, &[]).byte(0x0E, 0x55)), (vec![], None));
}

#[test]
fn fields_beyond_the_end_are_refused() {
    let (config, bdf) = FakeConfig::with(endpoint().capability(0xF8, 9, &[0x10]));
    let function = Function::probe(&config, bdf).unwrap();
    let capability = function.capability(&config, id::VENDOR).unwrap().unwrap();
    assert_eq!(capability.read32(&config, 4), Ok(0));
    assert!(matches!(capability.read32(&config, 8), Err(CapabilityError::Truncated { at: 8, size: 4, .. })));
    assert!(matches!(capability.read8(&config, 255), Err(CapabilityError::Truncated { .. })));
    assert!(matches!(capability.vendor_header(&config), Err(CapabilityError::Truncated { size: 0x10, .. })));
}

#[test]
fn searching_finds_the_first_and_reports_a_list_that_breaks_off_before() {
    let fake = endpoint().capability(0x40, 9, &[1]).capability(0x50, 9, &[2]).byte(0x51, 0x40);
    let (config, bdf) = FakeConfig::with(fake);
    let function = Function::probe(&config, bdf).unwrap();
    assert_eq!(function.capability(&config, 9).unwrap().unwrap().offset, 0x40);
    assert!(matches!(function.capability(&config, 0x11), Err(CapabilityError::Loop { .. })));
}

proptest! {
    #[test]
    fn any_bytes_make_a_list_that_ends(bytes in proptest::collection::vec(any::<u8>(), 0x1000)) {
        let fake = bytes.iter().enumerate().skip(0x10).fold(endpoint(), |fake, (at, byte)| fake.byte(at, *byte));
        let (config, bdf) = FakeConfig::with(fake.status(Status::CAPABILITY_LIST).byte(0x0E, bytes[0] & 3));
        let function = Function::probe(&config, bdf).unwrap();
        let items: Vec<_> = function.capabilities(&config).collect();
        prop_assert!(items.len() <= 49);
        for capability in items.into_iter().flatten() {
            prop_assert!(capability.offset >= 0x40 && capability.offset % 4 == 0);
            let _ = capability.vendor_header(&config);
        }
    }
}
