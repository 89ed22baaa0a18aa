//! Windows of device registers, in memory and in port space.

use core::ptr::NonNull;

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
use super::port::PortValue;
use crate::platform::Registers;

/// A window of device registers. Each access is one volatile instruction, after a check of bounds and alignment.
#[derive(Debug)]
pub struct RawRegisters {
    place: Place,
    length: usize,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Memory(NonNull<u8>),
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    Ports(u16),
}

// SAFETY: the callers of `memory` and `ports` promise that the registers are reachable as long as the value lives, from
// any CPU.
unsafe impl Send for RawRegisters {}
// SAFETY: through a shared window registers can only be read; the bus serialises reads, and no memory is written.
unsafe impl Sync for RawRegisters {}

impl RawRegisters {
    /// Registers in memory.
    ///
    /// # Safety
    /// As long as the value lives, `length` bytes from `start` on are mapped, uncached, readable and writable, and
    /// accesses there do not affect memory that Rust knows of.
    pub const unsafe fn memory(start: NonNull<u8>, length: usize) -> Self {
        Self { place: Place::Memory(start), length }
    }

    /// Registers in port space.
    ///
    /// # Safety
    /// The `length` ports from `base` on belong to a device that cannot harm memory that Rust knows of.
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    pub const unsafe fn ports(base: u16, length: usize) -> Self {
        Self { place: Place::Ports(base), length }
    }

    /// Where the window is mapped; `None` if it is in port space.
    pub const fn pointer(&self) -> Option<NonNull<u8>> {
        match self.place {
            Place::Memory(start) => Some(start),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Place::Ports(_) => None,
        }
    }

    /// Checks bounds, and alignment of the address itself: a window may begin off the boundary.
    #[inline]
    #[track_caller]
    fn check(&self, size: usize, offset: usize) {
        let start = self.pointer().map_or(0, |start| start.addr().get());
        if start.wrapping_add(offset) % size != 0 || self.length.checked_sub(offset).is_none_or(|left| left < size) {
            super::beyond(size, offset, self.length);
        }
    }
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        #[inline]
        fn $read(&self, offset: usize) -> $type {
            self.check(size_of::<$type>(), offset);
            match self.place {
                // SAFETY: in bounds and aligned by the check; the maker promised the rest.
                Place::Memory(start) => unsafe { start.add(offset).cast::<$type>().read_volatile() },
                // SAFETY: likewise: the port belongs to the device. It cannot wrap around: see `ports`.
                #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
                Place::Ports(base) => unsafe { <$type>::read(base.wrapping_add(offset as u16)) },
            }
        }

        #[inline]
        fn $write(&mut self, offset: usize, value: $type) {
            self.check(size_of::<$type>(), offset);
            match self.place {
                // SAFETY: in bounds and aligned by the check; the maker promised the rest.
                Place::Memory(start) => unsafe { start.add(offset).cast::<$type>().write_volatile(value) },
                // SAFETY: likewise: the port belongs to the device.
                #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
                Place::Ports(base) => unsafe { value.write(base.wrapping_add(offset as u16)) },
            }
        }
    };
}

impl Registers for RawRegisters {
    fn len(&self) -> usize {
        self.length
    }

    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);
}
