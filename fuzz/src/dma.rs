//! Memory that driver and device share, and who has it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use ballonet::platform::{DmaExhausted, DmaMemory};

/// Where the first piece of memory is; a page at least is between any two.
const START: u64 = 0x10_0000;

type Bytes = Arc<Mutex<Vec<u8>>>;

fn lock(bytes: &Bytes) -> MutexGuard<'_, Vec<u8>> {
    bytes.lock().expect("nobody panics with memory locked")
}

/// All the memory there is.
#[derive(Debug, Default)]
pub struct Pool {
    pieces: BTreeMap<u64, Bytes>,
    /// Pieces that can still be had, if there is a limit.
    left: Option<u8>,
}

/// A piece of it. Accesses out of bounds or misaligned panic, as the contract has it.
#[derive(Debug)]
pub struct Piece {
    start: u64,
    bytes: Bytes,
}

impl Pool {
    /// Memory of which only so many pieces can be had; `None`: any number.
    pub fn limited(left: Option<u8>) -> Self {
        Self { pieces: BTreeMap::new(), left }
    }

    /// Takes a zeroed piece.
    ///
    /// # Errors
    /// When as many pieces have been taken as there are.
    pub fn allocate(&mut self, size: usize, align: usize) -> Result<Piece, DmaExhausted> {
        assert!(size > 0 && align.is_power_of_two(), "{size} bytes aligned to {align}");
        self.left = match self.left {
            Some(0) => return Err(DmaExhausted { size, align }),
            left => left.map(|left| left - 1),
        };
        let end = self.pieces.last_key_value().map_or(START, |(start, bytes)| start + lock(bytes).len() as u64);
        let start = (end + 4096).next_multiple_of(align as u64);
        let bytes = Arc::new(Mutex::new(vec![0; size]));
        self.pieces.insert(start, bytes.clone());
        Ok(Piece { start, bytes })
    }

    /// Takes a piece back, for good.
    pub fn release(&mut self, piece: &Piece) {
        assert!(self.pieces.remove(&piece.start).is_some(), "{:#x} is released twice", piece.start);
    }

    /// Pieces taken and not given back.
    pub fn taken(&self) -> usize {
        self.pieces.len()
    }

    /// Reads as a device does: `None` outside of memory, or across its end.
    pub fn read<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let (start, bytes) = self.pieces.range(..=address).next_back()?;
        let at = usize::try_from(address - start).ok()?;
        lock(bytes).get(at..at.checked_add(N)?)?.try_into().ok()
    }

    /// Writes as a device does; nothing happens outside of memory.
    pub fn write<const N: usize>(&self, address: u64, value: [u8; N]) {
        let Some((start, bytes)) = self.pieces.range(..=address).next_back() else { return };
        if let Some(place) = lock(bytes).get_mut((address - start) as usize..).and_then(|b| b.get_mut(..N)) {
            place.copy_from_slice(&value);
        }
    }

    /// Reads 16 bits; 0 outside of memory.
    pub fn read16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.read(address).unwrap_or_default())
    }

    /// Reads 32 bits; 0 outside of memory.
    pub fn read32(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.read(address).unwrap_or_default())
    }

    /// Reads 64 bits; 0 outside of memory.
    pub fn read64(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.read(address).unwrap_or_default())
    }

    /// An address in the piece with this number, modulo what there is.
    pub fn anywhere(&self, piece: u8, offset: u16) -> Option<u64> {
        let (start, bytes) = self.pieces.iter().nth(usize::from(piece).checked_rem(self.pieces.len())?)?;
        Some(start + u64::from(offset) % lock(bytes).len() as u64)
    }
}

impl Piece {
    fn load<const N: usize>(&self, offset: usize) -> [u8; N] {
        assert!(offset.is_multiple_of(N), "misaligned load at {offset:#x}");
        lock(&self.bytes)[offset..offset + N].try_into().expect("as long as it is")
    }

    fn store<const N: usize>(&mut self, offset: usize, value: [u8; N]) {
        assert!(offset.is_multiple_of(N), "misaligned store at {offset:#x}");
        lock(&self.bytes)[offset..offset + N].copy_from_slice(&value);
    }
}

impl DmaMemory for Piece {
    fn device_address(&self) -> u64 {
        self.start
    }

    fn len(&self) -> usize {
        lock(&self.bytes).len()
    }

    fn load16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.load(offset))
    }

    fn load32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.load(offset))
    }

    fn load64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.load(offset))
    }

    fn store16(&mut self, offset: usize, value: u16) {
        self.store(offset, value.to_le_bytes());
    }

    fn store32(&mut self, offset: usize, value: u32) {
        self.store(offset, value.to_le_bytes());
    }

    fn store64(&mut self, offset: usize, value: u64) {
        self.store(offset, value.to_le_bytes());
    }

    fn write_bytes(&mut self, offset: usize, bytes: &[u8]) {
        lock(&self.bytes)[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn read_bytes(&self, offset: usize, bytes: &mut [u8]) {
        bytes.copy_from_slice(&lock(&self.bytes)[offset..offset + bytes.len()]);
    }
}
