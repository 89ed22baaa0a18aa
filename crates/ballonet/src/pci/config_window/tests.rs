//! Each access step by step, as seen by configuration space.

use core::cell::RefCell;

use super::*;
use crate::pci::Function;
use crate::pci::fake::{FakeConfig, FakeFunction};

/// Records every access to configuration space: `w` or `r`, bits, offset, value. The data register reads 0xa5a5a5a5.
#[derive(Default)]
struct Recorder(RefCell<Vec<(char, u32, u16, u32)>>);

impl Recorder {
    fn read(&self, bits: u32, offset: u16) -> u32 {
        let value = 0xa5a5_a5a5 & u32::MAX >> (32 - bits);
        self.0.borrow_mut().push(('r', bits, offset, value));
        value
    }
}

impl ConfigSpace for Recorder {
    fn size(&self, _: u16, _: u8) -> u16 {
        256
    }
    fn read8(&self, _: Bdf, offset: u16) -> u8 {
        self.read(8, offset) as u8
    }
    fn read16(&self, _: Bdf, offset: u16) -> u16 {
        self.read(16, offset) as u16
    }
    fn read32(&self, _: Bdf, offset: u16) -> u32 {
        self.read(32, offset)
    }
    fn write8(&mut self, _: Bdf, offset: u16, value: u8) {
        self.0.get_mut().push(('w', 8, offset, value.into()));
    }
    fn write16(&mut self, _: Bdf, offset: u16, value: u16) {
        self.0.get_mut().push(('w', 16, offset, value.into()));
    }
    fn write32(&mut self, _: Bdf, offset: u16, value: u32) {
        self.0.get_mut().push(('w', 32, offset, value));
    }
}

/// The window to 0x38 bytes at 0x100 of BAR 4, through a capability at 0x84.
fn window() -> ConfigWindow {
    let (config, bdf) = FakeConfig::with(FakeFunction::new(0x1af4, 0x1045, 0).capability(0x84, 0x09, &[20, 5]));
    let function = Function::probe(&config, bdf).unwrap();
    let access = function.capability(&config, 0x09).unwrap().unwrap();
    ConfigWindow::new(access, 4, 0x100, 0x38)
}

#[test]
fn bar_offset_and_width_are_written_before_the_data_is_touched() {
    let (mut config, window) = (Recorder::default(), window());
    let steps = |config: &mut Recorder| core::mem::take(config.0.get_mut());
    let selected = |offset, width| [('w', 8, 0x88, 4), ('w', 32, 0x8c, offset), ('w', 32, 0x90, width)];
    assert_eq!(window.read(&mut config, 0x37, 1), 0xa5);
    assert_eq!(steps(&mut config), [&selected(0x137, 1)[..], &[('r', 8, 0x94, 0xa5)]].concat());
    assert_eq!(window.read(&mut config, 0x12, 2), 0xa5a5);
    assert_eq!(steps(&mut config), [&selected(0x112, 2)[..], &[('r', 16, 0x94, 0xa5a5)]].concat());
    assert_eq!(window.read(&mut config, 0x34, 4), 0xa5a5_a5a5);
    assert_eq!(steps(&mut config), [&selected(0x134, 4)[..], &[('r', 32, 0x94, 0xa5a5_a5a5)]].concat());
    window.write(&mut config, 0, 1, 1);
    assert_eq!(steps(&mut config), [&selected(0x100, 1)[..], &[('w', 8, 0x94, 1)]].concat());
    window.write(&mut config, 0x16, 2, 2);
    assert_eq!(steps(&mut config), [&selected(0x116, 2)[..], &[('w', 16, 0x94, 2)]].concat());
    window.write(&mut config, 0x20, 4, 3);
    assert_eq!(steps(&mut config), [&selected(0x120, 4)[..], &[('w', 32, 0x94, 3)]].concat());
}

#[test]
fn an_access_outside_the_structure_never_reaches_the_device() {
    for (offset, width) in [(0x38, 1), (0x37, 2), (0x35, 4), (0x11, 2), (0x12, 4), (usize::MAX, 1), (0xffff_fffc, 4)] {
        let outcome = std::panic::catch_unwind(|| {
            let (mut config, window) = (Recorder::default(), window());
            window.read(&mut config, offset, width)
        });
        assert!(outcome.is_err(), "{width} bytes at {offset:#x}");
    }
}
