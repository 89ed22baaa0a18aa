//! What a kernel that uses `virtio-drivers` already has: a `Hal`, and configuration space access.

use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use machine::port;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE};

/// Pages that the kernel can allocate: at most 256 MiB.
const PAGES: usize = 65536;
static START: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
/// A byte for each page: whether it is allocated.
static TAKEN: [AtomicU8; PAGES] = [const { AtomicU8::new(0) }; PAGES];

/// Makes all pages of `ram` available for allocation.
pub fn init(ram: Range<u64>) {
    START.store(ram.start, Ordering::Relaxed);
    COUNT.store(PAGES.min((ram.end - ram.start) as usize / PAGE_SIZE), Ordering::Relaxed);
}

/// Number of allocated pages.
pub fn allocated() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

/// The pages from `first` on.
fn pages(first: usize, count: usize) -> &'static [AtomicU8] {
    &TAKEN[first..first + count]
}

pub struct KernelHal;

// SAFETY: each page has one owner; memory and registers are mapped one to one.
unsafe impl Hal for KernelHal {
    fn dma_alloc(count: usize, _direction: BufferDirection) -> (u64, NonNull<u8>) {
        let (mut first, total) = (0, COUNT.load(Ordering::Relaxed));
        while first + count <= total {
            let Some(taken) = pages(first, count).iter().rposition(|page| page.load(Ordering::Relaxed) != 0) else {
                pages(first, count).iter().for_each(|page| page.store(1, Ordering::Relaxed));
                ALLOCATED.fetch_add(count, Ordering::Relaxed);
                let address = START.load(Ordering::Relaxed) + (first * PAGE_SIZE) as u64;
                let pointer = machine::mapped(address, count * PAGE_SIZE).expect("memory is mapped");
                // SAFETY: nothing else uses these pages.
                unsafe { pointer.write_bytes(0, count * PAGE_SIZE) };
                return (address, pointer);
            };
            first += taken + 1;
        }
        (0, NonNull::dangling())
    }
    unsafe fn dma_dealloc(address: u64, _pointer: NonNull<u8>, count: usize) -> i32 {
        let first = (address - START.load(Ordering::Relaxed)) as usize / PAGE_SIZE;
        pages(first, count).iter().for_each(|page| page.store(0, Ordering::Relaxed));
        ALLOCATED.fetch_sub(count, Ordering::Relaxed);
        0
    }
    unsafe fn mmio_phys_to_virt(address: u64, size: usize) -> NonNull<u8> {
        machine::mapped(address, size).expect("registers are below 4 GiB")
    }
    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> u64 {
        buffer.addr().get() as u64
    }
    unsafe fn unshare(_address: u64, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}

/// Configuration space by the ports 0xCF8 and 0xCFC.
pub struct Ports;

fn select(function: DeviceFunction, offset: u8) {
    let DeviceFunction { bus, device, function } = function;
    let devfn = u32::from(device) << 11 | u32::from(function) << 8;
    // SAFETY: this only selects a register.
    unsafe { port::write32(0xCF8, 1 << 31 | u32::from(bus) << 16 | devfn | u32::from(offset)) };
}

impl ConfigurationAccess for Ports {
    fn read_word(&self, function: DeviceFunction, offset: u8) -> u32 {
        select(function, offset);
        // SAFETY: reading configuration space changes nothing.
        unsafe { port::read32(0xCFC) }
    }
    fn write_word(&mut self, function: DeviceFunction, offset: u8, value: u32) {
        select(function, offset);
        // SAFETY: the driver requests this write.
        unsafe { port::write32(0xCFC, value) };
    }
    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}
