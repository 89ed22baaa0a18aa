//! The header is read correctly, and the command register changed without side effects.

use super::*;
use crate::pci::fake::{FakeConfig, FakeFunction};

fn balloon() -> FakeFunction {
    FakeFunction::new(0x1AF4, 0x1045, 0x00_FF_00).raw(0x2C, 0x1100_1AF4).pin(2)
}

#[test]
fn a_header_is_read_field_by_field() {
    let (config, bdf) = FakeConfig::with(balloon().multifunction());
    let function = Function::probe(&config, bdf).unwrap();
    assert_eq!((function.vendor, function.device, function.revision), (0x1AF4, 0x1045, 1));
    assert_eq!(function.class, ClassCode { base: 0x00, sub: 0xFF, interface: 0 });
    assert_eq!(function.layout, HeaderLayout::Endpoint);
    assert!(function.multifunction);
    assert_eq!(function.subsystem, Some(Subsystem { vendor: 0x1AF4, device: 0x1100 }));
    assert_eq!(function.interrupt_pin, Some(InterruptPin::B));
}

#[test]
fn an_empty_slot_and_an_unreachable_bus_have_no_function() {
    let (config, bdf) = FakeConfig::with(balloon());
    assert!(Function::probe(&config, Bdf::new(0, 0, 4, 0).unwrap()).is_none());
    assert!(Function::probe(&config, Bdf::new(9, 0, 3, 0).unwrap()).is_none());
    assert!(Function::probe(&config, bdf).is_some());
}

#[test]
fn changing_the_command_register_leaves_the_status_bits_set() {
    let (mut config, bdf) = FakeConfig::with(balloon().status(Status::WRITE_ONE_TO_CLEAR));
    let function = Function::probe(&config, bdf).unwrap();
    let before = function.enable(&mut config, Command::MEMORY | Command::BUS_MASTER);
    assert_eq!(before, Command::empty());
    assert_eq!(function.command(&config), Command::MEMORY | Command::BUS_MASTER);
    function.set_intx(&mut config, false);
    assert!(function.command(&config).contains(Command::INTX_DISABLE));
    function.set_intx(&mut config, true);
    function.disable(&mut config, Command::MEMORY | Command::BUS_MASTER);
    assert_eq!(function.command(&config), Command::empty());
    assert!(function.status(&config).contains(Status::WRITE_ONE_TO_CLEAR));
}

#[test]
fn the_fake_objects_to_a_32_bit_write_of_the_command_register() {
    let (mut config, bdf) = FakeConfig::with(balloon().status(Status::DETECTED_PARITY_ERROR));
    let dword = config.read32(bdf, COMMAND);
    config.write32(bdf, COMMAND, dword);
    assert_eq!(core::mem::take(&mut config.violations).len(), 1);
}

#[test]
fn a_command_that_does_not_change_is_not_written() {
    let (mut config, bdf) = FakeConfig::with(balloon().command(Command::MEMORY));
    let function = Function::probe(&config, bdf).unwrap();
    function.enable(&mut config, Command::MEMORY);
    assert_eq!(config.writes, 0);
}

#[test]
fn a_function_that_was_pulled_out_is_not_present() {
    let (mut config, bdf) = FakeConfig::with(balloon());
    let function = Function::probe(&config, bdf).unwrap();
    assert!(function.is_present(&config));
    config.unplug_all();
    assert!(!function.is_present(&config));
}
