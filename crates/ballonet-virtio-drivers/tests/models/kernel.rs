//! The two kinds of kernels: one has a `Hal`, the other but a `Transport`.

use ballonet::balloon::{BalloonPlatform, Statistics};
use ballonet::pci::Bdf;
use ballonet::platform::{DmaExhausted, MapError, Platform, RegisterWindow, Registers};
use ballonet::raw::RawMemory;
use ballonet::virtio::DeviceHandle;
use ballonet_models::Machine;
use ballonet_virtio_drivers::{HalConfig, HalFrames, HalPlatform, TransportPlatform};

use super::transport::ModelTransport;
use super::world::{self, Config, ModelRegisters, Pages, Rings};

/// The most frames of a balloon.
const LIMIT: u32 = 10_000;

/// A kernel of one of the kinds.
pub trait Kernel {
    type Platform: BalloonPlatform;
    /// Its platform, and the balloon at `at` as the driver is given it.
    fn start(machine: &Machine, at: Bdf) -> (Self::Platform, DeviceHandle);
}

/// A kernel with a `Hal`.
pub struct WithHal;

/// [`HalPlatform`], but with the models' registers: those are no memory, to which a pointer could lead. Whatever is
/// mapped is mapped by both.
pub struct Modelled(HalPlatform<Rings, Config, HalFrames<Pages>>);

impl Kernel for WithHal {
    type Platform = Modelled;

    fn start(machine: &Machine, at: Bdf) -> (Modelled, DeviceHandle) {
        let platform = HalPlatform::new(Config, HalFrames::new(LIMIT), world::now);
        (Modelled(platform.with_statistics(world::statistics)), machine.handle(at))
    }
}

impl Platform for Modelled {
    type Config = HalConfig<Config>;
    type Registers = ModelRegisters;
    type Memory = RawMemory;

    fn config(&mut self) -> &mut HalConfig<Config> {
        self.0.config()
    }
    fn map(&mut self, window: RegisterWindow) -> Result<ModelRegisters, MapError> {
        let raw = self.0.map(window)?;
        let pointer = (!window.io).then_some(window.address);
        assert_eq!(raw.pointer().map(|pointer| pointer.addr().get() as u64), pointer, "{window}");
        assert_eq!(raw.len() as u64, window.length, "{window}");
        world::map(window).ok_or(MapError { window, reason: "the model does not map it" })
    }
    fn unmap(&mut self, registers: ModelRegisters) {
        world::unmap(registers);
    }
    fn allocate_dma(&mut self, size: usize, align: usize) -> Result<RawMemory, DmaExhausted> {
        self.0.allocate_dma(size, align)
    }
    fn release_dma(&mut self, memory: RawMemory) {
        self.0.release_dma(memory);
    }
    fn now(&self) -> u64 {
        self.0.now()
    }
    fn relax(&self) {
        world::relax();
    }
}

impl BalloonPlatform for Modelled {
    type Frames = HalFrames<Pages>;

    fn frames(&mut self) -> &mut HalFrames<Pages> {
        self.0.frames()
    }
    fn statistics(&self) -> Statistics {
        self.0.statistics()
    }
}

/// A kernel with a `Transport` to its balloon.
pub struct WithTransport;

impl Kernel for WithTransport {
    type Platform = TransportPlatform<Rings, ModelTransport, HalFrames<Pages>>;

    fn start(machine: &Machine, at: Bdf) -> (Self::Platform, DeviceHandle) {
        let platform = TransportPlatform::new(ModelTransport::new(machine, at), HalFrames::new(LIMIT), world::now);
        let device = platform.device();
        (platform.with_statistics(world::statistics), device)
    }
}
