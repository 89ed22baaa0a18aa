//! A kernel with the driver, run by polling as these kernels do.

use std::ops::Range;

use ballonet::balloon::{Balloon, BalloonError, BalloonStatus, Changes, Next, Options, Progress};
use ballonet::pci::Bdf;
use ballonet_models::{Balloon as Device, Behaviour, Bus, HostSide, Machine};

use super::kernel::Kernel;
use super::world;

/// Polls after which a guest counts as never idle.
const PATIENCE: u32 = 100_000;

/// A started driver.
pub struct Guest<K: Kernel> {
    machine: Machine,
    at: Bdf,
    platform: K::Platform,
    balloon: Balloon<K::Platform>,
}

impl<K: Kernel> Guest<K> {
    /// Starts the driver on a new machine.
    pub fn start(behaviour: Behaviour) -> Result<Self, BalloonError> {
        Self::start_refused(behaviour, 0..0)
    }

    /// The same with these allocations refused.
    pub fn start_refused(behaviour: Behaviour, refused: Range<usize>) -> Result<Self, BalloonError> {
        let (machine, at) = world::install(behaviour);
        let (mut platform, device) = K::start(&machine, at);
        world::refuse(refused);
        let balloon = Balloon::probe(&mut platform, device, Options::new("balloon"))?;
        Ok(Self { machine, at, platform, balloon })
    }

    fn device<T>(&self, look: impl FnOnce(&mut Device, &mut Bus) -> T) -> T {
        self.machine.balloon(self.at, look)
    }

    pub fn status(&self) -> BalloonStatus {
        self.balloon.status()
    }

    pub fn set_target(&self, pages: u32) {
        self.device(|device, bus| device.set_target(pages, bus));
    }

    #[track_caller]
    pub fn poll(&mut self) -> Progress {
        self.balloon.poll(&mut self.platform).expect("it runs")
    }

    pub fn memory_freed(&mut self) {
        self.balloon.memory_freed();
    }

    pub fn reset(&mut self) -> Result<(), BalloonError> {
        self.balloon.reset(&mut self.platform)
    }

    /// Polls until nothing more happens.
    pub fn settle(&mut self) -> Result<(), BalloonError> {
        let mut quiet = 0;
        for _ in 0..PATIENCE {
            let progress = self.balloon.poll(&mut self.platform)?;
            let busy = progress.next == Next::Now || progress.changes != Changes::empty();
            quiet = if self.machine.sleep() || busy { 0 } else { quiet + 1 };
            if quiet == 3 {
                return Ok(());
            }
        }
        panic!("the guest does not come to rest: {:?}", self.status());
    }

    /// The host sets a target, and driver, device, host and kernel agree that it is reached.
    #[track_caller]
    pub fn follow(&mut self, pages: u32) {
        self.set_target(pages);
        self.settle().expect("it runs");
        self.machine.expect_no_missteps();
        // After a reset the model does not know the sides of the frames that this kernel has given to its driver.
        let has = |side| self.machine.bus(|bus| bus.ram.count_host(side));
        let host = has(HostSide::Ballooned) + has(HostSide::Unknown);
        let told = self.device(|device, _| device.actual());
        assert_eq!((host, told, self.status().actual), (pages.into(), pages, pages.into()), "host, told, driver");
        // A chunk of 64 frames goes back as a whole.
        let taken = world::frames_taken();
        assert!(taken >= pages && taken < pages + 64, "{taken} frames are allocated for {pages}");
    }

    /// The host asks for statistics; returns them by tag.
    #[track_caller]
    pub fn ask_statistics(&mut self) -> Vec<(u16, u64)> {
        let before = self.device(|device, _| device.reports.len());
        assert!(self.device(Device::request_statistics), "the device has no statistics buffer");
        self.settle().expect("it runs");
        let reports = self.device(|device, _| device.reports.clone());
        assert_eq!(reports.len(), before + 1);
        reports.into_iter().next_back().unwrap_or_default()
    }

    /// Ends the driver, which leaves nothing behind.
    #[track_caller]
    pub fn finish(mut self) {
        self.follow(0);
        assert_eq!(self.balloon.shutdown(&mut self.platform), 0);
        drop(self.platform);
        world::expect_clean();
    }
}
