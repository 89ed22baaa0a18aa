//! Windows of device registers, in memory, in port space, and behind a device's own window in configuration space.

use core::ptr::NonNull;

use crate::machine::devices::config_paths::{ORDER, Paths};
use ballonet::pci::ConfigWindow;
use ballonet::platform::{RegisterWindow, Registers};
use ballonet::raw::RawRegisters;

/// A mapped window of registers. Its length was checked when it was made; each access is checked against it.
#[derive(Debug)]
pub(crate) struct Window {
    place: Place,
    /// The device window that it maps, if any.
    claim: Option<RegisterWindow>,
}

#[derive(Debug)]
enum Place {
    /// In memory or in port space.
    Raw(RawRegisters),
    /// Without an address: each access is a sequence of accesses to configuration space.
    Config(Paths, ConfigWindow),
}

impl Window {
    /// Registers in memory.
    ///
    /// # Safety
    /// As [`RawRegisters::memory`].
    pub(crate) const unsafe fn memory(start: NonNull<u8>, length: usize) -> Self {
        // SAFETY: the caller's promise.
        Self { place: Place::Raw(unsafe { RawRegisters::memory(start, length) }), claim: None }
    }

    /// Registers in port space.
    ///
    /// # Safety
    /// As [`RawRegisters::ports`].
    pub(crate) const unsafe fn ports(base: u16, length: usize) -> Self {
        // SAFETY: the caller's promise.
        Self { place: Place::Raw(unsafe { RawRegisters::ports(base, length) }), claim: None }
    }

    /// Registers that are reached through configuration space.
    pub(crate) const fn through_config(paths: Paths, window: ConfigWindow) -> Self {
        Self { place: Place::Config(paths, window), claim: None }
    }

    /// The same, recorded as the mapping of this device window.
    pub(crate) fn of_device(self, claim: RegisterWindow) -> Self {
        Self { claim: Some(claim), ..self }
    }

    /// The device window that it maps, if any.
    pub(crate) fn claim(&self) -> Option<&RegisterWindow> {
        self.claim.as_ref()
    }

    /// Where the window is mapped, if it is in memory.
    pub(crate) fn pointer(&self) -> Option<NonNull<u8>> {
        match &self.place {
            Place::Raw(registers) => registers.pointer(),
            Place::Config(..) => None,
        }
    }
}

/// Keeps slow accesses out of the fast path, in which a kick is one store.
#[cold]
#[inline(never)]
fn slowly<T>(action: impl FnOnce() -> T) -> T {
    action()
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        #[inline]
        fn $read(&self, offset: usize) -> $type {
            match &self.place {
                Place::Raw(registers) => registers.$read(offset),
                // The handle is copied: all copies share one locked access path.
                Place::Config(paths, window) => {
                    slowly(|| ORDER.with(|()| window.read(&mut paths.clone(), offset, size_of::<$type>()) as $type))
                }
            }
        }

        #[inline]
        fn $write(&mut self, offset: usize, value: $type) {
            match &mut self.place {
                Place::Raw(registers) => registers.$write(offset, value),
                Place::Config(paths, window) => {
                    slowly(|| ORDER.with(|()| window.write(paths, offset, size_of::<$type>(), value.into())))
                }
            }
        }
    };
}

impl Registers for Window {
    fn len(&self) -> usize {
        match &self.place {
            Place::Raw(registers) => registers.len(),
            Place::Config(_, window) => window.length as usize,
        }
    }

    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);
}
