//! The parts over memory of the test host: bounds, widths, and target addresses.

use core::ptr::NonNull;

use super::{EcamConfig, Kernel, RawMemory, RawPlatform, RawRegisters};
use crate::pci::{Bdf, BusRange, ConfigSpace};
use crate::platform::{DmaMemory, Handled, Handler, Platform, RegisterWindow, Registers};

/// Aligned memory of the test's own, leaked: nothing else reaches it.
fn memory(words: usize) -> NonNull<u8> {
    NonNull::from(vec![0u64; words].leak()).cast()
}

fn panics(action: impl FnOnce()) -> bool {
    std::panic::catch_unwind(core::panic::AssertUnwindSafe(action)).is_err()
}

#[test]
fn registers_are_accessed_by_their_width_and_within_the_window() {
    // SAFETY: 16 bytes of this test's own.
    let mut registers = unsafe { RawRegisters::memory(memory(2), 14) };
    registers.write32(0, 0x0403_0201);
    registers.write16(12, 0x0605);
    assert_eq!((registers.read8(2), registers.read16(2), registers.read32(0)), (3, 0x0403, 0x0403_0201));
    assert_eq!((registers.len(), registers.read8(13)), (14, 6));
    assert!(panics(|| registers.write32(12, 0)), "it leaves the window");
    assert!(panics(|| _ = registers.read16(1)), "it is off its boundary");
    assert!(panics(|| _ = registers.read8(usize::MAX)));
}

#[test]
fn a_window_may_begin_unaligned_but_accesses_must_be_aligned() {
    // SAFETY: 14 of 16 bytes of this test's own.
    let mut registers = unsafe { RawRegisters::memory(memory(2).add(2), 14) };
    registers.write16(0, 1);
    registers.write32(2, 2);
    assert_eq!((registers.read16(0), registers.read32(2)), (1, 2));
    assert!(panics(|| registers.write32(0, 0)), "it is off the boundary");
}

#[test]
fn memory_is_zeroed_and_stores_stay_in_bounds() {
    let start = memory(2);
    // SAFETY: 16 bytes of this test's own.
    let mut memory = unsafe {
        start.write_bytes(0xAA, 16);
        RawMemory::new(start, 0x1_0000_0000, 12)
    };
    assert_eq!((memory.device_address(), memory.len(), memory.load64(0)), (0x1_0000_0000, 12, 0));
    memory.store64(0, 0x0807_0605_0403_0201);
    memory.write_bytes(9, &[10, 11, 12]);
    let mut bytes = [0; 5];
    memory.read_bytes(7, &mut bytes);
    assert_eq!((bytes, memory.load16(2), memory.load32(8)), ([8, 0, 10, 11, 12], 0x0403, 0x0C0B_0A00));
    assert!(panics(|| _ = memory.load64(8)), "it leaves the memory");
    assert!(panics(|| memory.write_bytes(11, &[0, 0])), "it leaves the memory");
    assert!(panics(|| memory.read_bytes(usize::MAX, &mut [0])));
    memory.write_bytes(12, &[]);
}

#[test]
fn ecam_reaches_each_function_of_its_buses_and_no_other() {
    let buses = BusRange::new(1, 2, 3).unwrap();
    let start = memory(2 * EcamConfig::BYTES_PER_BUS / 8);
    // SAFETY: two buses of this test's own.
    let mut config = unsafe { EcamConfig::new(start, buses) };
    let function = |segment, bus| Bdf::new(segment, bus, 31, 7).unwrap();
    config.write32(function(1, 3), 0xFFC, 0x0403_0201);
    // SAFETY: the last four bytes of the region.
    let last = unsafe { start.add(2 * EcamConfig::BYTES_PER_BUS - 4).cast::<u32>().read() };
    assert_eq!((last, config.read16(function(1, 3), 0xFFE)), (0x0403_0201, 0x0403));
    for outside in [function(0, 3), function(1, 1), function(1, 4)] {
        config.write8(outside, 0, 0);
        assert_eq!((config.read32(outside, 0), config.size(outside.segment(), outside.bus())), (u32::MAX, 0));
    }
    assert_eq!(config.size(1, 2), 4096);
    assert!(panics(|| _ = config.read32(function(1, 2), 0xFFE)));
}

/// A kernel that maps nothing above 4 GiB, and counts its allocations.
#[derive(Default)]
struct Host {
    mapped: usize,
    allocated: usize,
}

// SAFETY: it returns leaked memory.
unsafe impl Kernel for Host {
    fn map(&mut self, address: u64, length: usize) -> Option<NonNull<u8>> {
        self.mapped += 1;
        (address < 1 << 32).then(|| memory(length.div_ceil(8)))
    }
    fn unmap(&mut self, _start: NonNull<u8>, _length: usize) {
        self.mapped -= 1;
    }
    fn allocate_dma(&mut self, size: usize, align: usize) -> Option<(NonNull<u8>, u64)> {
        // Whole frames to share are refused, as by a kernel that has none.
        self.allocated += usize::from(align == 8);
        (align == 8).then(|| (memory(size.div_ceil(8)), 0x5000))
    }
    fn release_dma(&mut self, _start: NonNull<u8>, device: u64, size: usize) {
        assert_eq!((device, size), (0x5000, 100));
        self.allocated -= 1;
    }
    fn now(&self) -> u64 {
        7
    }
}

#[test]
fn a_platform_releases_everything_and_reports_what_the_kernel_refused() {
    // SAFETY: one bus of this test's own.
    let config = unsafe { EcamConfig::new(memory(EcamConfig::BYTES_PER_BUS / 8), BusRange::new(0, 0, 0).unwrap()) };
    let mut platform = RawPlatform::new(Host::default(), config);
    let window = |address, length| RegisterWindow {
        device: Bdf::new(0, 0, 1, 0).unwrap().into(),
        bar: Some(0),
        io: false,
        address,
        length,
    };
    let registers = platform.map(window(0xFEB0_0004, 1)).unwrap();
    assert_eq!(registers.len(), 1);
    platform.unmap(registers);
    assert_eq!(platform.kernel.mapped, 0);
    assert_eq!(platform.map(window(1 << 32, 4)).unwrap_err().window.address, 1 << 32);
    let ports = RegisterWindow { io: true, ..window(0xFFFF, 2) };
    assert!(platform.map(ports).is_err(), "ports end at 0xFFFF");

    let memory = platform.allocate_dma(100, 2).unwrap();
    assert_eq!((memory.len(), memory.device_address()), (100, 0x5000));
    platform.release_dma(memory);
    assert_eq!((platform.kernel.allocated, platform.now()), (0, 7));
    assert_eq!(platform.allocate_dma(4096, 4096).unwrap_err().align, 4096);
    assert!(platform.allocate_vector(format_args!("a"), Handler::new(|| Handled::No)).is_err());
}

/// A kernel that gives DMA memory by frames.
struct ByFrames(Vec<u64>);

// SAFETY: it returns leaked memory.
unsafe impl Kernel for ByFrames {
    fn map(&mut self, _address: u64, _length: usize) -> Option<NonNull<u8>> {
        None
    }
    fn allocate_dma(&mut self, size: usize, align: usize) -> Option<(NonNull<u8>, u64)> {
        let device = (1..).map(|number| number << 12).find(|device| !self.0.contains(device))?;
        assert_eq!(4096 % align, 0);
        self.0.push(device);
        let start = memory(2 * 512 * size.div_ceil(4096));
        let skipped = start.addr().get().wrapping_neg() % 4096;
        // SAFETY: one more frame was allocated than asked for.
        Some((unsafe { start.add(skipped) }, device))
    }
    fn release_dma(&mut self, start: NonNull<u8>, device: u64, size: usize) {
        assert_eq!((start.addr().get() % 4096, size % 4096), (0, 0), "frames come back as they were given");
        let place = self.0.iter().position(|given| *given == device).expect("it was given");
        self.0.remove(place);
    }
    fn now(&self) -> u64 {
        0
    }
}

#[test]
fn small_blocks_share_frames_that_are_freed_with_their_last_block() {
    // SAFETY: one bus of this test's own.
    let config = unsafe { EcamConfig::new(memory(EcamConfig::BYTES_PER_BUS / 8), BusRange::new(0, 0, 0).unwrap()) };
    let mut platform = RawPlatform::new(ByFrames(Vec::new()), config);
    let blocks: Vec<_> = [(100, 2), (16, 64), (1, 1), (2048, 2048), (1024, 16)]
        .into_iter()
        .map(|(size, align)| {
            let mut block = platform.allocate_dma(size, align).unwrap();
            assert_eq!((block.len(), block.device_address() % align as u64), (size, 0));
            assert_eq!(block.device_address() % 4096, block.pointer().addr().get() as u64 % 4096);
            block.write_bytes(0, &vec![0xFF; size]);
            block
        })
        .collect();
    assert_eq!(platform.kernel.0.len(), 2, "the first three share a frame, and the largest");
    for (number, block) in (0..).zip(&blocks) {
        for other in &blocks[number + 1..] {
            let (a, b) = (block.device_address(), other.device_address());
            assert!(a + block.len() as u64 <= b || b + other.len() as u64 <= a, "{a:#x} and {b:#x} overlap");
        }
    }
    let large = platform.allocate_dma(4096, 4096).unwrap();
    assert_eq!(platform.kernel.0.len(), 3);
    platform.release_dma(large);
    blocks.into_iter().rev().for_each(|block| platform.release_dma(block));
    assert_eq!(platform.kernel.0, [0; 0]);
}
