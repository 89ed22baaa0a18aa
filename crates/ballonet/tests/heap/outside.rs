//! A platform whose own allocations neither count nor fail.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use ballonet::balloon::{BalloonPlatform, Statistics};
use ballonet::memory::{FrameContents, FrameRun, IdleRun, PageFrames, ReportFrames};
use ballonet::pci::{Bdf, ConfigSpace};
use ballonet::platform::{
    AffinityError, DmaExhausted, DmaMemory, Handled, Handler, InterruptLine, MapError, MsiMessage, Platform,
    RegisterWindow, Registers, Vector, VectorError,
};
use ballonet_models::{Frames, Machine, ModelPlatform};

use super::failing::outside;

/// A part of the platform.
pub struct Outside<T>(pub T);

/// Methods that only forward their arguments.
macro_rules! pass_on {
    ($($name:ident(&self $(, $argument:ident: $type:ty)*) $(-> $result:ty)?;)*) => {
        $(fn $name(&self $(, $argument: $type)*) $(-> $result)? { outside(|| self.0.$name($($argument),*)) })*
    };
    ($($name:ident(&mut self $(, $argument:ident: $type:ty)*) $(-> $result:ty)?;)*) => {
        $(fn $name(&mut self $(, $argument: $type)*) $(-> $result)? { outside(|| self.0.$name($($argument),*)) })*
    };
}

impl<T: Registers> Registers for Outside<T> {
    pass_on! {
        len(&self) -> usize;
        read8(&self, offset: usize) -> u8;
        read16(&self, offset: usize) -> u16;
        read32(&self, offset: usize) -> u32;
    }
    pass_on! {
        write8(&mut self, offset: usize, value: u8);
        write16(&mut self, offset: usize, value: u16);
        write32(&mut self, offset: usize, value: u32);
    }
}

impl<T: DmaMemory> DmaMemory for Outside<T> {
    pass_on! {
        device_address(&self) -> u64;
        len(&self) -> usize;
        load16(&self, offset: usize) -> u16;
        load32(&self, offset: usize) -> u32;
        load64(&self, offset: usize) -> u64;
        read_bytes(&self, offset: usize, bytes: &mut [u8]);
    }
    pass_on! {
        store16(&mut self, offset: usize, value: u16);
        store32(&mut self, offset: usize, value: u32);
        store64(&mut self, offset: usize, value: u64);
        write_bytes(&mut self, offset: usize, bytes: &[u8]);
    }
}

impl<T: ReportFrames + FrameContents> PageFrames for Outside<T> {
    pass_on! {
        device_address(&self, run: FrameRun) -> u64;
    }
    pass_on! {
        take_free(&mut self, most: u32) -> Option<FrameRun>;
        confirm_ballooned(&mut self, run: FrameRun);
        take_ballooned(&mut self, most: u32) -> Option<FrameRun>;
        release(&mut self, run: FrameRun);
    }
    fn reporting(&mut self) -> Option<&mut dyn ReportFrames> {
        Some(self)
    }
    fn contents(&mut self) -> Option<&mut dyn FrameContents> {
        Some(self)
    }
}

impl<T: ReportFrames + FrameContents> ReportFrames for Outside<T> {
    pass_on! {
        unreported(&self) -> u64;
    }
    pass_on! {
        take_unreported(&mut self, most: u32, age: u32) -> Option<FrameRun>;
        age(&mut self);
        release_reported(&mut self, run: FrameRun);
        take_backed(&mut self, most: u32) -> Option<FrameRun>;
        take_idle(&mut self, most: u32, keep: u64) -> Option<IdleRun>;
    }
}

impl<T: ReportFrames + FrameContents> FrameContents for Outside<T> {
    pass_on! {
        marks(&self, run: FrameRun) -> u32;
    }
    pass_on! {
        fill(&mut self, run: FrameRun, byte: u8);
        mark(&mut self, run: FrameRun) -> bool;
    }
}

/// Configuration space of the models.
pub struct Config(RefCell<ModelPlatform>);

impl ConfigSpace for Config {
    fn size(&self, segment: u16, bus: u8) -> u16 {
        outside(|| self.0.borrow_mut().config().size(segment, bus))
    }
    fn read8(&self, function: Bdf, offset: u16) -> u8 {
        outside(|| self.0.borrow_mut().config().read8(function, offset))
    }
    fn read16(&self, function: Bdf, offset: u16) -> u16 {
        outside(|| self.0.borrow_mut().config().read16(function, offset))
    }
    fn read32(&self, function: Bdf, offset: u16) -> u32 {
        outside(|| self.0.borrow_mut().config().read32(function, offset))
    }
    fn write8(&mut self, function: Bdf, offset: u16, value: u8) {
        outside(|| self.0.get_mut().config().write8(function, offset, value));
    }
    fn write16(&mut self, function: Bdf, offset: u16, value: u16) {
        outside(|| self.0.get_mut().config().write16(function, offset, value));
    }
    fn write32(&mut self, function: Bdf, offset: u16, value: u32) {
        outside(|| self.0.get_mut().config().write32(function, offset, value));
    }
}

type Window = Outside<<ModelPlatform as Platform>::Registers>;

/// The models' platform. Configuration space and frames, which a driver gets by reference, use other handles to the
/// same machine.
pub struct Shielded {
    pub frames: Outside<Frames>,
    model: ModelPlatform,
    config: Config,
    /// The handlers of lines by vector, to be returned.
    lines: BTreeMap<u32, Line>,
}

/// A line's handler, which the models run until it is detached.
type Line = Arc<Mutex<Option<Handler<Window>>>>;

impl Shielded {
    pub fn new(machine: &Machine) -> Self {
        let new = || ModelPlatform::new(machine);
        Self {
            frames: Outside(new().frames),
            model: new(),
            config: Config(RefCell::new(new())),
            lines: BTreeMap::new(),
        }
    }
}

impl Platform for Shielded {
    type Config = Config;
    type Registers = Window;
    type Memory = Outside<<ModelPlatform as Platform>::Memory>;

    fn config(&mut self) -> &mut Config {
        &mut self.config
    }
    fn map(&mut self, window: RegisterWindow) -> Result<Window, MapError> {
        outside(|| self.model.map(window).map(Outside))
    }
    fn unmap(&mut self, registers: Window) {
        outside(|| self.model.unmap(registers.0));
    }
    fn allocate_dma(&mut self, size: usize, align: usize) -> Result<Self::Memory, DmaExhausted> {
        outside(|| self.model.allocate_dma(size, align).map(Outside))
    }
    fn release_dma(&mut self, memory: Self::Memory) {
        outside(|| self.model.release_dma(memory.0));
    }
    fn allocate_vector(
        &mut self,
        name: fmt::Arguments<'_>,
        mut handler: Handler<Window>,
    ) -> Result<Vector, VectorError> {
        outside(|| self.model.allocate_vector(name, Handler::new(move || handler.run())))
    }
    fn release_vector(&mut self, vector: Vector) {
        outside(|| self.model.release_vector(vector));
    }
    fn attach_line(
        &mut self,
        line: InterruptLine,
        name: fmt::Arguments<'_>,
        handler: Handler<Window>,
    ) -> Result<Vector, (VectorError, Handler<Window>)> {
        outside(|| {
            let ours: Line = Arc::new(Mutex::new(Some(handler)));
            let theirs = Arc::clone(&ours);
            let run = move || theirs.lock().expect("no handler panicked").as_mut().map_or(Handled::No, Handler::run);
            match self.model.attach_line(line, name, Handler::new(run)) {
                Ok(vector) => {
                    self.lines.insert(vector.number, ours);
                    Ok(vector)
                }
                Err((error, _)) => {
                    Err((error, ours.lock().expect("no handler panicked").take().expect("not taken before")))
                }
            }
        })
    }
    fn detach_line(&mut self, vector: Vector) -> Option<Handler<Window>> {
        outside(|| {
            let line = self.lines.remove(&vector.number)?;
            drop(self.model.detach_line(vector));
            line.lock().expect("no handler panicked").take()
        })
    }
    fn set_vector_affinity(&mut self, vector: &Vector, cpu: u32) -> Result<MsiMessage, AffinityError> {
        outside(|| self.model.set_vector_affinity(vector, cpu))
    }
    fn vector_affinity(&self, vector: &Vector) -> u32 {
        outside(|| self.model.vector_affinity(vector))
    }
    fn now(&self) -> u64 {
        outside(|| self.model.now())
    }
    fn relax(&self) {
        outside(|| self.model.relax());
    }
}

impl BalloonPlatform for Shielded {
    type Frames = Outside<Frames>;

    fn frames(&mut self) -> &mut Outside<Frames> {
        &mut self.frames
    }
    fn statistics(&self) -> Statistics {
        outside(|| self.model.statistics())
    }
}
