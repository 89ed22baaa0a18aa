//! Windows of device registers, in memory, in port space, and behind a device's own window in configuration space.

use core::ptr::NonNull;

use volatile::VolatilePtr;
use x86_64::instructions::port::Port;

use crate::machine::devices::config_paths::{ORDER, Paths};
use ballonet::pci::ConfigWindow;
use ballonet::platform::{RegisterWindow, Registers};

/// A mapped window of registers. Its length was checked when it was made; each access is checked against it.
#[derive(Debug)]
pub(crate) struct Window {
    place: Place,
    length: usize,
    /// The window of a device that it maps, if it is one.
    claim: Option<RegisterWindow>,
}

#[derive(Debug)]
enum Place {
    Memory(NonNull<u8>),
    Ports(u16),
    /// No place of its own: each access is a sequence of those to configuration space.
    Config(Paths, ConfigWindow),
}

// SAFETY: a window is the only value through which its registers are reached, and they do not care which CPU asks.
unsafe impl Send for Window {}
// SAFETY: through a shared window registers can only be read, which the bus serialises.
unsafe impl Sync for Window {}

impl Window {
    /// Registers in memory.
    ///
    /// # Safety
    /// `start` is mapped, uncached and writable, for `length` bytes, aligned to 4 bytes or as the registers are, for as
    /// long as the window lives; and reading or writing there has no effect on memory that Rust knows of.
    pub(crate) unsafe fn memory(start: NonNull<u8>, length: usize) -> Self {
        Self { place: Place::Memory(start), length, claim: None }
    }

    /// Registers in port space.
    ///
    /// # Safety
    /// The ports from `base` on, `length` of them, belong to a device that cannot harm memory that Rust knows of.
    pub(crate) unsafe fn ports(base: u16, length: usize) -> Self {
        Self { place: Place::Ports(base), length, claim: None }
    }

    /// Registers that are reached through configuration space.
    pub(crate) fn through_config(paths: Paths, window: ConfigWindow) -> Self {
        Self { place: Place::Config(paths, window), length: window.length as usize, claim: None }
    }

    /// The same, known to map this window of a device.
    pub(crate) fn of_device(self, claim: RegisterWindow) -> Self {
        Self { claim: Some(claim), ..self }
    }

    /// The window of a device that it maps, if it is one.
    pub(crate) fn claim(&self) -> Option<&RegisterWindow> {
        self.claim.as_ref()
    }

    /// Where the window is mapped, if it is in memory.
    pub(crate) fn pointer(&self) -> Option<NonNull<u8>> {
        match self.place {
            Place::Memory(start) => Some(start),
            Place::Ports(_) | Place::Config(..) => None,
        }
    }

    #[inline]
    fn check(&self, offset: usize, size: usize) {
        if !offset.is_multiple_of(size) || self.length.checked_sub(offset).is_none_or(|left| left < size) {
            beyond(size, offset, self.length);
        }
    }
}

/// Apart from where registers are accessed, so that those places hold nothing but the check.
#[cold]
#[inline(never)]
#[track_caller]
fn beyond(size: usize, offset: usize, length: usize) -> ! {
    panic!("register access of {size} bytes at {offset:#x} in a window of {length:#x}");
}

/// Keeps slow accesses out of the fast path, where a kick is one store.
#[cold]
#[inline(never)]
fn slowly<T>(action: impl FnOnce() -> T) -> T {
    action()
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        #[inline]
        fn $read(&self, offset: usize) -> $type {
            self.check(offset, size_of::<$type>());
            match &self.place {
                // SAFETY: in bounds and aligned by the check; the window's maker vouches for the rest.
                Place::Memory(start) => unsafe { VolatilePtr::new(start.add(offset).cast::<$type>()).read() },
                // SAFETY: likewise; the port belongs to the window's device.
                Place::Ports(base) => unsafe { Port::new(*base + offset as u16).read() },
                // The handle is copied: what it leads to is shared by everybody, in order.
                Place::Config(paths, window) => {
                    slowly(|| ORDER.with(|()| window.read(&mut paths.clone(), offset, size_of::<$type>()) as $type))
                }
            }
        }

        #[inline]
        fn $write(&mut self, offset: usize, value: $type) {
            self.check(offset, size_of::<$type>());
            match &mut self.place {
                // SAFETY: in bounds and aligned by the check; the window's maker vouches for the rest.
                Place::Memory(start) => unsafe { VolatilePtr::new(start.add(offset).cast::<$type>()).write(value) },
                // SAFETY: likewise; the port belongs to the window's device.
                Place::Ports(base) => unsafe { Port::new(*base + offset as u16).write(value) },
                Place::Config(paths, window) => {
                    slowly(|| ORDER.with(|()| window.write(paths, offset, size_of::<$type>(), value.into())))
                }
            }
        }
    };
}

impl Registers for Window {
    fn len(&self) -> usize {
        self.length
    }

    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);
}
