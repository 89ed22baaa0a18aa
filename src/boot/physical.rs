//! Reads of physical memory that firmware or a loader has written: the parsers' only access to the machine.

use derive_more::{Display, Error};
use zerocopy::{FromBytes, IntoBytes};

use ballonet::memory::PhysAddr;

/// Physical memory, where it can be read.
///
/// The kernel implements it over mapped memory, tests over a slice ([`MemoryImage`]).
pub trait PhysicalMemory {
    /// Copies `bytes.len()` bytes from `address` on, of any alignment.
    ///
    /// # Errors
    /// When any of the bytes is outside memory that can be read; `bytes` may then hold anything.
    fn read(&self, address: PhysAddr, bytes: &mut [u8]) -> Result<(), Unreadable>;

    /// Reads a structure whose fields are plain bytes. `address` is as firmware gave it, so it may be any number.
    ///
    /// # Errors
    /// When it is not an address or the structure is not all in memory that can be read.
    fn read_value<T: FromBytes + IntoBytes>(&self, address: u64) -> Result<T, Unreadable>
    where
        Self: Sized,
    {
        let mut value = T::new_zeroed();
        let unreadable = Unreadable { address, length: size_of::<T>() };
        let start = PhysAddr::new(address).ok_or(unreadable)?;
        self.read(start, value.as_mut_bytes())?;
        Ok(value)
    }
}

impl<M: PhysicalMemory> PhysicalMemory for &M {
    fn read(&self, address: PhysAddr, bytes: &mut [u8]) -> Result<(), Unreadable> {
        (*self).read(address, bytes)
    }
}

/// Physical memory that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
#[display("{length} bytes at physical address {address:#x} cannot be read")]
pub struct Unreadable {
    /// Their address.
    pub address: u64,
    /// Their number.
    pub length: usize,
}

/// Physical memory held in a slice: for tests, fuzzers, and dumps of other machines.
#[derive(Debug, Clone, Copy)]
pub struct MemoryImage<'a> {
    base: u64,
    bytes: &'a [u8],
}

impl<'a> MemoryImage<'a> {
    /// Memory that consists of `bytes`, the first of them at `base`.
    pub const fn new(base: PhysAddr, bytes: &'a [u8]) -> Self {
        Self { base: base.as_u64(), bytes }
    }

    fn get(&self, address: u64, length: usize) -> Option<&'a [u8]> {
        let offset = usize::try_from(address.checked_sub(self.base)?).ok()?;
        self.bytes.get(offset..offset.checked_add(length)?)
    }
}

impl PhysicalMemory for MemoryImage<'_> {
    fn read(&self, address: PhysAddr, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let address = address.as_u64();
        let source = self.get(address, bytes.len()).ok_or(Unreadable { address, length: bytes.len() })?;
        bytes.copy_from_slice(source);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_answers_only_inside_itself() {
        let bytes = [1u8, 2, 3, 4];
        let image = MemoryImage::new(PhysAddr::new(0x1000).unwrap(), &bytes);
        assert_eq!(image.read_value::<[u8; 4]>(0x1000), Ok([1, 2, 3, 4]));
        assert_eq!(image.read_value::<[u8; 2]>(0x1002), Ok([3, 4]));
        for address in [0, 0xfff, 0x1003, 0x1004, u64::MAX - 1, u64::MAX] {
            assert_eq!(image.read_value::<[u8; 2]>(address), Err(Unreadable { address, length: 2 }));
        }
    }
}
