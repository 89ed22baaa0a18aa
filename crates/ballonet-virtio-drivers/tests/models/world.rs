//! The machine of the models as a kernel with `virtio-drivers`' traits has it. Functions of a `Hal` have no `self`, so
//! each test's thread has one machine.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr::NonNull;

use ballonet::balloon::Statistics;
use ballonet::balloon::wire::Tag;
use ballonet::memory::{FrameRun, PageFrames};
use ballonet::pci::{Bdf, ConfigSpace};
use ballonet::platform::{DmaMemory, Platform, RegisterWindow};
use ballonet_models::{Allocated, Behaviour, Machine, ModelPlatform};
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE};
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// Registers of the models.
pub type ModelRegisters = <ModelPlatform as Platform>::Registers;

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

struct World {
    machine: Machine,
    model: ModelPlatform,
    /// Memory of [`Rings`], by address.
    memory: BTreeMap<u64, <ModelPlatform as Platform>::Memory>,
    /// Frames of [`Pages`], by address.
    runs: BTreeMap<u64, FrameRun>,
    /// Allocations since [`refuse`], and those that fail.
    asked: usize,
    refused: Range<usize>,
}

fn with<T>(look: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(|world| look(world.as_mut().expect("a machine")))
}

/// A new machine with one balloon, in place of the last one.
pub fn install(behaviour: Behaviour) -> (Machine, Bdf) {
    let (machine, at) = Machine::with_balloon(64, behaviour);
    let (model, memory) = (ModelPlatform::new(&machine), BTreeMap::new());
    let world = World { machine: machine.clone(), model, memory, runs: BTreeMap::new(), asked: 0, refused: 0..0 };
    WORLD.set(Some(world));
    (machine, at)
}

/// Has these of the coming allocations fail, counted from 0.
pub fn refuse(which: Range<usize>) {
    with(|world| (world.asked, world.refused) = (0, which));
}

/// Whether the first of these allocations was asked for.
pub fn was_refused() -> bool {
    with(|world| world.asked > world.refused.start)
}

/// Panics unless everything that was allocated has been released, and the driver kept all rules.
#[track_caller]
pub fn expect_clean() {
    with(|world| {
        world.machine.expect_no_missteps();
        world.model.frames.expect_whole();
        assert_eq!(world.machine.allocated(), Allocated::default());
        assert_eq!((world.memory.len(), world.runs.len()), (0, 0), "of rings, of frames");
    });
}

/// Frames that the kernel has allocated for the balloon.
pub fn frames_taken() -> u32 {
    with(|world| world.runs.values().map(|run| run.count()).sum())
}

/// The machine's clock.
pub fn now() -> u64 {
    with(|world| world.model.now())
}

/// What the kernel measures of its memory, in bytes.
pub fn figures() -> [(Tag, u64); 3] {
    with(|world| {
        let (free, total) = (world.model.frames.free() * 4096, world.model.frames.total() * 4096);
        [(Tag::Free, free), (Tag::Total, total), (Tag::Available, free)]
    })
}

/// The same as the driver is given it.
pub fn statistics() -> Statistics {
    figures().into_iter().fold(Statistics::default(), |some, (tag, value)| some.with(tag, value))
}

/// A busy wait.
pub fn relax() {
    with(|world| world.model.relax());
}

/// Registers at `window`, as far as they are the device's.
pub fn map(window: RegisterWindow) -> Option<ModelRegisters> {
    with(|world| world.model.map(window).ok())
}

/// Ends a mapping.
pub fn unmap(registers: ModelRegisters) {
    with(|world| world.model.unmap(registers));
}

impl World {
    fn refuses(&mut self) -> bool {
        self.asked += 1;
        self.refused.contains(&(self.asked - 1))
    }

    /// Where guest memory is in this program.
    fn pointer(&self, address: u64) -> NonNull<u8> {
        let place = self.machine.bus(|bus| bus.ram.memory().get_host_address(GuestAddress(address)));
        NonNull::new(place.expect("it is in RAM")).expect("mapped memory")
    }

    fn allocate_memory(&mut self, bytes: usize) -> Option<u64> {
        if self.refuses() {
            return None;
        }
        let memory = self.model.allocate_dma(bytes, PAGE_SIZE).ok()?;
        let address = memory.device_address();
        self.memory.insert(address, memory);
        Some(address)
    }

    fn allocate_frames(&mut self, count: u32) -> Option<u64> {
        if self.refuses() {
            return None;
        }
        let run = self.model.frames.take_free(count)?;
        if run.count() < count {
            self.model.frames.release(run);
            return None;
        }
        let address = run.address();
        self.runs.insert(address, run);
        Some(address)
    }
}

/// An allocation as [`Hal::dma_alloc`] returns it.
fn allocation(world: &World, address: Option<u64>) -> (u64, NonNull<u8>) {
    address.map_or((0, NonNull::dangling()), |address| (address, world.pointer(address)))
}

/// What rings and buffers are made of.
#[derive(Debug)]
pub struct Rings;

// SAFETY: the memory is the machine's, which gives each part of it to one owner, zeroed.
unsafe impl Hal for Rings {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (u64, NonNull<u8>) {
        with(|world| {
            let address = world.allocate_memory(pages * PAGE_SIZE);
            allocation(world, address)
        })
    }
    unsafe fn dma_dealloc(address: u64, pointer: NonNull<u8>, pages: usize) -> i32 {
        with(|world| {
            let memory = world.memory.remove(&address).expect("it was allocated");
            assert_eq!((memory.len(), world.pointer(address)), (pages * PAGE_SIZE, pointer));
            world.model.release_dma(memory);
        });
        0
    }
    /// Registers of the models are no memory: the pointer is there to be compared, and nobody follows it.
    unsafe fn mmio_phys_to_virt(address: u64, _size: usize) -> NonNull<u8> {
        NonNull::without_provenance(usize::try_from(address).ok().and_then(|it| it.try_into().ok()).expect("a BAR"))
    }
    unsafe fn share(_buffer: NonNull<[u8]>, _direction: BufferDirection) -> u64 {
        unreachable!("the driver has buffers of its own")
    }
    unsafe fn unshare(_address: u64, _buffer: NonNull<[u8]>, _direction: BufferDirection) {
        unreachable!("the driver has buffers of its own")
    }
}

/// What the balloon moves: the model's page frames, which it checks apart from DMA memory.
#[derive(Debug)]
pub struct Pages;

// SAFETY: as for `Rings`; nobody reads these frames, so they need not be zeroed.
unsafe impl Hal for Pages {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (u64, NonNull<u8>) {
        with(|world| {
            let address = world.allocate_frames(pages as u32);
            allocation(world, address)
        })
    }
    unsafe fn dma_dealloc(address: u64, pointer: NonNull<u8>, pages: usize) -> i32 {
        with(|world| {
            let run = world.runs.remove(&address).expect("it was allocated");
            assert_eq!((run.count() as usize, world.pointer(address)), (pages, pointer));
            world.model.frames.release(run);
        });
        0
    }
    unsafe fn mmio_phys_to_virt(_address: u64, _size: usize) -> NonNull<u8> {
        unreachable!("frames have no registers")
    }
    unsafe fn share(_buffer: NonNull<[u8]>, _direction: BufferDirection) -> u64 {
        unreachable!("frames are no buffers")
    }
    unsafe fn unshare(_address: u64, _buffer: NonNull<[u8]>, _direction: BufferDirection) {
        unreachable!("frames are no buffers")
    }
}

/// The machine's configuration space.
#[derive(Debug)]
pub struct Config;

fn function(place: DeviceFunction) -> Bdf {
    Bdf::new(0, place.bus, place.device, place.function).expect("a function number")
}

impl ConfigurationAccess for Config {
    fn read_word(&self, place: DeviceFunction, offset: u8) -> u32 {
        with(|world| world.model.config().read32(function(place), offset.into()))
    }
    fn write_word(&mut self, place: DeviceFunction, offset: u8, value: u32) {
        with(|world| world.model.config().write32(function(place), offset.into(), value));
    }
    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}
