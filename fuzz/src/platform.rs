//! The kernel around the driver: a machine with one PCI device, its memory, frames, vectors, and time, which passes with each
//! access. Between any two accesses interrupts arrive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use ballonet::balloon::wire::Tag;
use ballonet::balloon::{MemoryStatistics, Statistics};
use ballonet::memory::{FrameRun, Pfn};
use ballonet::pci::{Bdf, ConfigSpace};
use ballonet::platform::{
    DmaExhausted, Filler, Handler, InterruptLine, MapError, MsiMessage, PageFrames, Platform, RegisterWindow,
    Registers as RegistersTrait, Vector, VectorError,
};

use crate::device::Device;
use crate::dma::{Piece, Pool};
use crate::frames::Frames;
use crate::pci::Space;

/// What an access costs in nanoseconds, and what a look at the clock or a turn of a waiting loop does.
const ACCESS: u64 = 10_000;
const WAIT: u64 = 200_000;

/// A vector or an attachment to the line.
#[derive(Default)]
struct Entry {
    message: bool,
    /// Not there while it runs.
    handler: Option<Handler>,
}

/// All of the machine.
#[derive(Default)]
pub struct World {
    pub space: Space,
    pub device: Device,
    pub pool: Pool,
    pub frames: Frames,
    pub now: u64,
    pub accesses: u64,
    vectors: BTreeMap<u32, Entry>,
    next_vector: u32,
    mappings: BTreeMap<u64, RegisterWindow>,
    next_mapping: u64,
    in_handler: bool,
    /// Vectors that can be had.
    pub vector_limit: u8,
    /// Interrupts that nobody asked for: which vector, after so many more accesses.
    pub storms: Vec<(u16, u8)>,
    /// Windows that cannot be mapped: by count.
    pub map_limit: Option<u8>,
}

/// A handle on the machine, for a driver and its interrupt handlers.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("nobody panics with the machine locked")
    }

    /// Time passes, and interrupts arrive.
    fn touch(&self, nanoseconds: u64) {
        let number = {
            let mut world = self.lock();
            world.now += nanoseconds;
            world.accesses += 1;
            if world.in_handler { None } else { world.due() }
        };
        if let Some(number) = number {
            self.deliver(number);
        }
    }

    /// Runs the handler of a vector.
    fn deliver(&self, number: u32) {
        let handler = {
            let mut world = self.lock();
            let handler = world.vectors.get_mut(&number).and_then(|entry| entry.handler.take());
            world.in_handler = handler.is_some();
            handler
        };
        let Some(mut handler) = handler else { return };
        let _ = handler();
        let mut world = self.lock();
        world.in_handler = false;
        if let Some(entry) = world.vectors.get_mut(&number) {
            entry.handler = Some(handler);
        }
    }
}

impl World {
    /// The vector to deliver next.
    fn due(&mut self) -> Option<u32> {
        if let Some((after, which)) = self.storms.last_mut() {
            if *after > 0 {
                *after -= 1;
            } else {
                let which = usize::from(*which);
                self.storms.pop();
                let at = which.checked_rem(self.vectors.len())?;
                return self.vectors.keys().nth(at).copied();
            }
        }
        let control = self.space.functions.values().next().map_or(0, |registers| registers.msix_control());
        if let Some(data) = self.device.next_message(control) {
            return Some(data).filter(|number| self.vectors.get(number).is_some_and(|entry| entry.message));
        }
        let line = self.vectors.iter().find(|(_, entry)| !entry.message).map(|(number, _)| *number);
        let off = self.space.functions.values().next().is_none_or(|registers| registers.command() & 1 << 10 != 0);
        line.filter(|_| !off && control >> 15 == 0 && self.device.pulls_line())
    }

    fn insert(&mut self, handler: Handler, message: bool) -> Result<Vector, VectorError> {
        if self.vectors.len() >= usize::from(self.vector_limit) {
            return Err(VectorError::Exhausted(self.vector_limit.into()));
        }
        let number = 0x30 + self.next_vector;
        self.next_vector += 1;
        self.vectors.insert(number, Entry { message, handler: Some(handler) });
        let message = message.then_some(MsiMessage { address: 0xfee0_0000, data: number });
        Ok(Vector { number, message })
    }

    /// Panics unless all that was taken was given back, but for memory if that is allowed to be missing.
    pub fn expect_nothing_taken(&self, memory_may_leak: bool) {
        assert_eq!((self.vectors.len(), self.mappings.len()), (0, 0), "vectors and mappings left");
        assert!(memory_may_leak || self.pool.taken() == 0, "{} pieces of memory left", self.pool.taken());
    }
}

/// The platform.
#[derive(Default)]
pub struct TestPlatform {
    pub shared: Shared,
    config: Config,
}

impl TestPlatform {
    pub fn new(world: World) -> Self {
        let shared = Shared(Arc::new(Mutex::new(world)));
        Self { config: Config(shared.clone()), shared }
    }

    /// What a device does with memory.
    pub fn with_pool<T>(&self, act: impl FnOnce(&Pool) -> T) -> T {
        act(&self.shared.lock().pool)
    }

    pub fn expect_nothing_taken(&self) {
        self.shared.lock().expect_nothing_taken(false);
    }
}

/// Configuration space.
#[derive(Clone, Default)]
pub struct Config(Shared);

impl Config {
    fn read(&self, function: Bdf, offset: u16, width: u16) -> u32 {
        self.0.touch(ACCESS);
        self.0.lock().space.read(function, offset, width)
    }

    fn write(&mut self, function: Bdf, offset: u16, width: u16, value: u32) {
        self.0.lock().space.write(function, offset, width, value);
        self.0.touch(ACCESS);
    }
}

impl ConfigSpace for Config {
    fn size(&self, segment: u16, _bus: u8) -> u16 {
        if segment == 0 { self.0.lock().space.size } else { 0 }
    }

    fn read8(&self, function: Bdf, offset: u16) -> u8 {
        self.read(function, offset, 1) as u8
    }

    fn read16(&self, function: Bdf, offset: u16) -> u16 {
        self.read(function, offset, 2) as u16
    }

    fn read32(&self, function: Bdf, offset: u16) -> u32 {
        self.read(function, offset, 4)
    }

    fn write8(&mut self, function: Bdf, offset: u16, value: u8) {
        self.write(function, offset, 1, value.into());
    }

    fn write16(&mut self, function: Bdf, offset: u16, value: u16) {
        self.write(function, offset, 2, value.into());
    }

    fn write32(&mut self, function: Bdf, offset: u16, value: u32) {
        self.write(function, offset, 4, value);
    }
}

/// A mapped window. Accesses out of bounds or misaligned panic, as the contract has it.
pub struct Registers {
    shared: Shared,
    window: RegisterWindow,
    mapping: u64,
}

impl Registers {
    fn address(&self, offset: usize, width: u8) -> u64 {
        let fits = offset.checked_add(width.into()).is_some_and(|end| end <= self.window.length as usize);
        assert!(fits && offset.is_multiple_of(width.into()), "{}: {width} bytes at {offset:#x}", self.window);
        self.window.address + offset as u64
    }

    fn read(&self, offset: usize, width: u8) -> u32 {
        let address = self.address(offset, width);
        self.shared.touch(ACCESS);
        let mut world = self.shared.lock();
        let World { device, space, .. } = &mut *world;
        device.read(address, width, space)
    }

    fn write(&mut self, offset: usize, width: u8, value: u32) {
        let address = self.address(offset, width);
        {
            let mut world = self.shared.lock();
            let World { device, space, .. } = &mut *world;
            device.write((address, width), value, space);
        }
        self.shared.touch(ACCESS);
    }
}

impl RegistersTrait for Registers {
    fn len(&self) -> usize {
        self.window.length as usize
    }

    fn read8(&self, offset: usize) -> u8 {
        self.read(offset, 1) as u8
    }

    fn read16(&self, offset: usize) -> u16 {
        self.read(offset, 2) as u16
    }

    fn read32(&self, offset: usize) -> u32 {
        self.read(offset, 4)
    }

    fn write8(&mut self, offset: usize, value: u8) {
        self.write(offset, 1, value.into());
    }

    fn write16(&mut self, offset: usize, value: u16) {
        self.write(offset, 2, value.into());
    }

    fn write32(&mut self, offset: usize, value: u32) {
        self.write(offset, 4, value);
    }
}

impl Platform for TestPlatform {
    type Config = Config;
    type Registers = Registers;
    type Memory = Piece;

    fn config(&mut self) -> &mut Config {
        &mut self.config
    }

    fn map(&mut self, window: RegisterWindow) -> Result<Registers, MapError> {
        let mut world = self.shared.lock();
        assert!(window.length > 0 && window.address.checked_add(window.length).is_some(), "{window}");
        match world.map_limit {
            Some(0) => return Err(MapError { window, reason: "there is no room" }),
            limit => world.map_limit = limit.map(|limit| limit - 1),
        }
        let mapping = world.next_mapping;
        world.next_mapping += 1;
        world.mappings.insert(mapping, window);
        Ok(Registers { shared: self.shared.clone(), window, mapping })
    }

    fn unmap(&mut self, registers: Registers) {
        self.shared.lock().mappings.remove(&registers.mapping).expect("a mapping ends once");
    }

    fn allocate_dma(&mut self, size: usize, align: usize) -> Result<Piece, DmaExhausted> {
        self.shared.lock().pool.allocate(size, align)
    }

    fn release_dma(&mut self, memory: Piece) {
        self.shared.lock().pool.release(&memory);
    }

    fn allocate_vector(&mut self, _name: String, handler: Handler) -> Result<Vector, VectorError> {
        self.shared.lock().insert(handler, true)
    }

    fn attach_line(&mut self, _: InterruptLine, _name: String, handler: Handler) -> Result<Vector, VectorError> {
        self.shared.lock().insert(handler, false)
    }

    fn release_vector(&mut self, vector: Vector) {
        let entry = self.shared.lock().vectors.remove(&vector.number);
        // Dropped with the machine unlocked: handlers hold registers.
        drop(entry.expect("a vector is released once"));
    }

    fn now(&self) -> u64 {
        self.shared.touch(WAIT);
        self.shared.lock().now
    }

    fn relax(&self) {
        self.shared.touch(WAIT);
    }
}

impl PageFrames for TestPlatform {
    fn take_free(&mut self, most: u32) -> Option<FrameRun> {
        self.shared.lock().frames.take_free(most)
    }

    fn confirm_ballooned(&mut self, run: FrameRun) {
        let mut world = self.shared.lock();
        let World { frames, device, .. } = &mut *world;
        run.pfns().for_each(|pfn| device.expect_returned(pfn.as_u32()));
        frames.confirm_ballooned(run);
    }

    fn take_ballooned(&mut self, most: u32) -> Option<FrameRun> {
        self.shared.lock().frames.take_ballooned(most)
    }

    fn release(&mut self, run: FrameRun) {
        let mut world = self.shared.lock();
        let World { frames, device, .. } = &mut *world;
        run.pfns().for_each(|pfn| device.expect_returned(pfn.as_u32()));
        frames.release(run);
    }

    fn ballooned(&self) -> u64 {
        self.shared.lock().frames.ballooned()
    }

    fn take_unreported(&mut self, most: u32, age: u32) -> Option<FrameRun> {
        self.shared.lock().frames.take_unreported(most, age)
    }

    fn release_reported(&mut self, run: FrameRun) {
        let mut world = self.shared.lock();
        let World { frames, device, .. } = &mut *world;
        run.pfns().for_each(|pfn| device.expect_returned(pfn.as_u32()));
        frames.release_reported(run);
    }

    fn unreported(&self) -> u64 {
        self.shared.lock().frames.unreported()
    }

    fn age_free_memory(&mut self) {
        self.shared.lock().frames.grow_older();
    }

    fn filler() -> Option<Filler<Self>> {
        Some(|platform, run, _| {
            let mut world = platform.shared.lock();
            let World { frames, device, .. } = &mut *world;
            for pfn in run.pfns().map(Pfn::as_u32) {
                assert!(frames.is_drivers(pfn), "frame {pfn:#x} is not the driver's to fill");
                device.expect_returned(pfn);
            }
        })
    }
}

impl MemoryStatistics for TestPlatform {
    fn statistics(&self) -> Statistics {
        let world = self.shared.lock();
        let free = world.frames.free() * 4096;
        Statistics::new().with(Tag::Free, free).with(Tag::Available, free)
    }
}
