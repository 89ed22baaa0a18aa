//! Memory shared by driver and device, made of the model checker's atomics. Every load and store is relaxed; a load
//! may see any store that is not ordered before a later one.
//!
//! Each field is one atomic of its width. An access of another width, or outside the fields, panics.

use std::collections::BTreeMap;
use std::sync::Arc;

use ballonet::platform::DmaMemory;
use loom::sync::atomic::Ordering::Relaxed;
use loom::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

/// The width of a field.
#[derive(Debug, Clone, Copy)]
pub enum Width {
    Two,
    Four,
    Eight,
}

#[derive(Debug)]
enum Cell {
    Two(AtomicU16),
    Four(AtomicU32),
    Eight(AtomicU64),
}

/// One side's handle to the memory.
#[derive(Debug, Clone)]
pub struct Memory {
    cells: Arc<BTreeMap<usize, Cell>>,
    bytes: usize,
}

impl Memory {
    /// Zeroed memory of `bytes` with `fields` at these offsets.
    pub fn new(bytes: usize, fields: impl IntoIterator<Item = (usize, Width)>) -> Self {
        let cells = fields.into_iter().map(|(offset, width)| {
            let cell = match width {
                Width::Two => Cell::Two(AtomicU16::new(0)),
                Width::Four => Cell::Four(AtomicU32::new(0)),
                Width::Eight => Cell::Eight(AtomicU64::new(0)),
            };
            (offset, cell)
        });
        Self { cells: Arc::new(cells.collect()), bytes }
    }

    fn two(&self, offset: usize) -> &AtomicU16 {
        match self.cells.get(&offset) {
            Some(Cell::Two(cell)) => cell,
            other => panic!("2 bytes at {offset:#x}, where there is {other:?}"),
        }
    }

    fn four(&self, offset: usize) -> &AtomicU32 {
        match self.cells.get(&offset) {
            Some(Cell::Four(cell)) => cell,
            other => panic!("4 bytes at {offset:#x}, where there is {other:?}"),
        }
    }

    fn eight(&self, offset: usize) -> &AtomicU64 {
        match self.cells.get(&offset) {
            Some(Cell::Eight(cell)) => cell,
            other => panic!("8 bytes at {offset:#x}, where there is {other:?}"),
        }
    }
}

impl DmaMemory for Memory {
    fn device_address(&self) -> u64 {
        0
    }

    fn len(&self) -> usize {
        self.bytes
    }

    fn load16(&self, offset: usize) -> u16 {
        self.two(offset).load(Relaxed)
    }

    fn load32(&self, offset: usize) -> u32 {
        self.four(offset).load(Relaxed)
    }

    fn load64(&self, offset: usize) -> u64 {
        self.eight(offset).load(Relaxed)
    }

    fn store16(&mut self, offset: usize, value: u16) {
        self.two(offset).store(value, Relaxed);
    }

    fn store32(&mut self, offset: usize, value: u32) {
        self.four(offset).store(value, Relaxed);
    }

    fn store64(&mut self, offset: usize, value: u64) {
        self.eight(offset).store(value, Relaxed);
    }

    fn write_bytes(&mut self, _offset: usize, _bytes: &[u8]) {
        unreachable!("a queue writes fields");
    }

    fn read_bytes(&self, _offset: usize, _bytes: &mut [u8]) {
        unreachable!("a queue reads fields");
    }
}
