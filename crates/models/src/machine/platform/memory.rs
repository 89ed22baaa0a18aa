//! DMA memory of the machine.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ballonet::platform::DmaMemory;
use vm_memory::{AtomicAccess, Bytes, GuestAddress, GuestMemoryMmap};

use super::MEMORY;
use crate::machine::Machine;

/// DMA memory in guest RAM.
pub struct ModelDma {
    pub(super) machine: Machine,
    pub(super) memory: Arc<GuestMemoryMmap>,
    pub(super) start: u64,
    pub(super) size: usize,
}

impl ModelDma {
    fn at(&self, offset: usize, len: usize) -> GuestAddress {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.size), "DMA access at {offset:#x}+{len:#x}");
        GuestAddress(self.start + offset as u64)
    }

    fn aligned(&self, offset: usize, len: usize) -> GuestAddress {
        assert!(offset.is_multiple_of(len), "misaligned DMA access at {offset:#x}");
        self.at(offset, len)
    }

    fn load<T: AtomicAccess>(&self, offset: usize) -> T {
        self.machine.touch(MEMORY);
        self.memory.load(self.aligned(offset, size_of::<T>()), Ordering::Relaxed).expect("DMA memory in RAM")
    }

    fn store<T: AtomicAccess>(&mut self, offset: usize, value: T) {
        self.memory.store(value, self.aligned(offset, size_of::<T>()), Ordering::Relaxed).expect("DMA memory in RAM");
        self.machine.touch(MEMORY);
    }
}

impl DmaMemory for ModelDma {
    fn device_address(&self) -> u64 {
        self.start
    }

    fn len(&self) -> usize {
        self.size
    }

    fn load16(&self, offset: usize) -> u16 {
        self.load(offset)
    }

    fn load32(&self, offset: usize) -> u32 {
        self.load(offset)
    }

    fn load64(&self, offset: usize) -> u64 {
        self.load(offset)
    }

    fn store16(&mut self, offset: usize, value: u16) {
        self.store(offset, value);
    }

    fn store32(&mut self, offset: usize, value: u32) {
        self.store(offset, value);
    }

    fn store64(&mut self, offset: usize, value: u64) {
        self.store(offset, value);
    }

    fn write_bytes(&mut self, offset: usize, bytes: &[u8]) {
        self.memory.write_slice(bytes, self.at(offset, bytes.len())).expect("DMA memory in RAM");
        self.machine.touch(MEMORY);
    }

    fn read_bytes(&self, offset: usize, bytes: &mut [u8]) {
        self.memory.read_slice(bytes, self.at(offset, bytes.len())).expect("DMA memory in RAM");
        self.machine.touch(MEMORY);
    }
}
