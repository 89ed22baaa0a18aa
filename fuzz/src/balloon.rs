//! The whole driver, from configuration space up, against a device that keeps the rules until it lies.
//!
//! Whatever the device does, every call ends in bounded time, and no frame is lost or has two owners. At the end all
//! memory is returned, except that of a device that does not reset. While the device is honest, the driver breaks no
//! rule that the model checks, and the balloon meets its target exactly.

use arbitrary::Arbitrary;
use ballonet::balloon::{Balloon, Next};
use ballonet::pci::Bdf;
use ballonet::virtio::InterruptMode;
use ballonet_models::{Allocated, Bus, Lie, Machine, ModelPlatform};

pub use crate::guest::{Mmio, Setup};

use crate::expect_printable;
use crate::guest::NamedLie;

/// A sequence of events.
#[derive(Debug, Arbitrary)]
pub struct Course {
    setup: Setup,
    steps: Vec<Step>,
}

/// The same for a device on MMIO.
#[derive(Debug, Arbitrary)]
pub struct MmioCourse {
    mmio: Mmio,
    course: Course,
}

/// An event.
#[derive(Debug, Arbitrary)]
enum Step {
    Poll,
    /// Runs the kernel's loop until it is idle.
    Settle,
    Target(u32),
    /// A target near the memory that is available.
    Near(u16),
    /// The device stops completing requests, or resumes.
    Stall(bool),
    /// The next used entry is wrong.
    Lie(u8),
    /// The device writes a used entry with any contents.
    Forge {
        queue: u8,
        id: u16,
        length: u32,
        advance: u16,
    },
    /// A register reads wrong.
    Register(NamedLie),
    /// The device writes to shared memory: a 16-bit word.
    Write {
        offset: u32,
        value: u16,
    },
    NeedsReset,
    Vanish,
    Pass(u32),
    Sleep,
    Look,
    Report,
    MemoryFreed,
    Affinity(u8),
    /// The driver is torn down and another starts.
    Restart,
    /// The host asks for hints.
    Hint(u8),
    /// The host asks for statistics.
    Statistics,
    /// The kernel runs out of memory and reclaims hinted pages.
    Relinquish(u16),
}

/// The most steps of a course that run.
const STEPS_MAX: usize = 200;
/// Limits of one driver call: register accesses and nanoseconds. A reset may take two seconds.
const ACCESSES_MAX: u64 = 400_000;
const TIME_MAX: u64 = 8_000_000_000;
/// An honest device's balloon must settle within this number of rounds.
const ROUNDS_MAX: u32 = 50_000;

/// Brings a driver up and tears it down, twice.
pub fn run_probe(setup: &Setup) {
    let mut trial = Trial::new(setup);
    trial.start();
    trial.stop();
    trial.start();
    trial.stop();
}

/// Runs a course.
pub fn run(course: &Course) {
    run_steps(Trial::new(&course.setup), course);
}

/// The same on MMIO.
pub fn run_mmio(MmioCourse { mmio, course }: &MmioCourse) {
    run_steps(Trial::on_mmio(&course.setup, mmio), course);
}

fn run_steps(mut trial: Trial<'_>, course: &Course) {
    trial.start();
    for step in course.steps.iter().take(STEPS_MAX) {
        trial.step(step);
    }
    trial.settle();
    trial.stop();
}

struct Trial<'a> {
    setup: &'a Setup,
    machine: Machine,
    platform: ModelPlatform,
    at: Bdf,
    driver: Option<Balloon<ModelPlatform>>,
    /// Frames that the last driver left in the balloon.
    left: u32,
    honest: bool,
    stalled: bool,
}

impl<'a> Trial<'a> {
    fn new(setup: &'a Setup) -> Self {
        let (machine, platform, at) = setup.build();
        Self { setup, machine, platform, at, driver: None, left: 0, honest: setup.is_honest(), stalled: false }
    }

    fn on_mmio(setup: &'a Setup, mmio: &Mmio) -> Self {
        let (machine, platform, at) = setup.build_on_mmio(mmio);
        let honest = setup.is_honest() && mmio.is_honest();
        Self { setup, machine, platform, at, driver: None, left: 0, honest, stalled: false }
    }

    fn device<T>(&self, look: impl FnOnce(&mut ballonet_models::Balloon, &mut Bus) -> T) -> T {
        self.machine.balloon(self.at, look)
    }

    /// Runs `act` on the driver and asserts that it ends within the limits.
    fn bounded<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let before = (self.device(|device, _| device.accesses()), self.machine.now());
        let outcome = act(self);
        let after = (self.device(|device, _| device.accesses()), self.machine.now());
        let spent = (after.0 - before.0, after.1 - before.1);
        assert!(spent.0 < ACCESSES_MAX && spent.1 < TIME_MAX, "{} accesses, {} ns", spent.0, spent.1);
        self.platform.frames.expect_whole();
        if self.honest {
            self.machine.expect_no_missteps();
        } else if self.setup.config_is_true() {
            // Whatever capabilities and registers say, the driver maps nothing outside a BAR.
            let missteps = self.machine.missteps();
            assert!(missteps.iter().all(|misstep| misstep.clause != "PCI-MAP"), "{missteps:#?}");
        }
        outcome
    }

    fn start(&mut self) {
        let options = self.setup.options(self.left);
        match self.bounded(|trial| Balloon::probe(&mut trial.platform, trial.machine.handle(trial.at), options)) {
            Ok(driver) => self.driver = Some(driver),
            Err(error) => {
                expect_printable(&error);
                self.expect_clean();
            }
        }
    }

    fn stop(&mut self) {
        if let Some(driver) = self.driver.take() {
            self.left = self.bounded(|trial| driver.shutdown(&mut trial.platform));
            self.expect_clean();
        }
        // Frames that were being deflated are lost with a device that does not stop; the host may still own them.
        let (left, ballooned) = (u64::from(self.left), self.platform.frames.ballooned_frames());
        let lost = self.platform.frames.in_flight();
        assert!((ballooned..=ballooned + lost).contains(&left), "{left} frames left in a balloon of {ballooned}");
    }

    /// Checks, without a driver, that nothing is allocated and no frame is in flight.
    fn expect_clean(&self) {
        let Allocated { vectors, mappings, dma } = self.machine.allocated();
        assert_eq!((vectors, mappings), (0, 0), "vectors and mappings left");
        // Memory shared with a device that does not reset stays allocated.
        if self.honest {
            assert_eq!((dma, self.platform.frames.in_flight()), (0, 0), "memory left with an honest device");
        }
        self.expect_restored();
    }

    /// The command register is as firmware left it. A device that did not stop stays disconnected from the bus.
    fn expect_restored(&self) {
        let (now, gone) = self.device(|device, _| (device.config.decoding(), device.gone()));
        // MMIO has no command register.
        let on_mmio = self.device(|device, _| device.behaviour.mmio.is_some());
        let Some(before) = self.setup.command().filter(|_| !gone && !on_mmio && self.setup.config_is_true()) else {
            return;
        };
        let kept = if self.honest { 7 } else { 3 };
        assert_eq!(now & kept, before & kept, "the command register");
        assert!(self.machine.allocated().dma == 0 || now & 4 == 0, "a device that did not stop masters the bus");
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Poll => drop(self.poll()),
            Step::Settle => self.settle(),
            Step::Pass(nanoseconds) => self.machine.pass(nanoseconds.into()),
            Step::Sleep => drop(self.machine.sleep()),
            Step::Restart => {
                self.stop();
                self.start();
            }
            Step::Look | Step::Report | Step::MemoryFreed | Step::Affinity(_) | Step::Relinquish(_) => self.nudge(step),
            _ => self.host(step),
        }
    }

    /// The kernel calls the driver.
    fn nudge(&mut self, step: &Step) {
        let Some(driver) = &mut self.driver else { return };
        match step {
            Step::Look => driver.recheck(),
            Step::Report => {
                let reports = driver.report_now();
                assert!(!reports || driver.is_pending());
            }
            Step::Relinquish(frames) => {
                let hinted = driver.status().hinted;
                let back = driver.relinquish_hinted(&mut self.platform, u64::from(*frames));
                assert_eq!(driver.status().hinted, hinted - back);
            }
            Step::Affinity(cpu) => drop(driver.set_queue_affinity(&mut self.platform, "inflate", u32::from(cpu % 5))),
            _ => drop(driver.memory_freed()),
        }
    }

    /// The host or its device does something.
    fn host(&mut self, step: &Step) {
        let frames = self.platform.frames.total() as u32;
        match *step {
            Step::Target(pages) => self.device(|device, bus| device.set_target(pages, bus)),
            Step::Near(pages) => self.device(|device, bus| device.set_target(u32::from(pages) % (frames + 64), bus)),
            Step::Hint(command) => self.device(|device, bus| device.command_hints(u32::from(command % 6), bus)),
            Step::Statistics => drop(self.device(|device, bus| device.request_statistics(bus))),
            Step::Stall(stalled) => {
                self.stalled = stalled;
                self.device(|device, _| device.stall_from_now(stalled));
            }
            _ => {
                self.honest = false;
                self.lie(step);
            }
        }
    }

    fn lie(&self, step: &Step) {
        self.device(|device, bus| match *step {
            Step::Lie(which) => device.behaviour.lie = Some((0, Lie::ALL[usize::from(which) % Lie::ALL.len()])),
            Step::Forge { queue, id, length, advance } => {
                let queue = device.common.queues.iter_mut().filter(|queue| queue.enabled).nth(usize::from(queue % 5));
                if let Some(queue) = queue {
                    queue.forge_used(id.into(), length, advance, bus);
                }
            }
            Step::Register(lie) => device.behaviour.register_lies.push(lie.lie()),
            Step::Write { offset, value } => bus.ram.scribble(offset, value),
            Step::NeedsReset => device.raise_needs_reset(bus),
            _ => device.unplug(),
        });
    }

    /// Polls once. After an error the driver is finished.
    fn poll(&mut self) -> Option<Next> {
        let mut driver = self.driver.take()?;
        let next = match self.bounded(|trial| driver.poll(&mut trial.platform)) {
            Ok(progress) => {
                assert!(driver.status().failed.is_none());
                Some(progress.next)
            }
            Err(error) => {
                expect_printable(&error);
                assert!(!self.honest, "{error}, of an honest device");
                assert_eq!(driver.status().failed, Some(error));
                assert!(!driver.is_pending() && !driver.memory_freed(), "a driver that gave up wants nothing");
                self.expect_clean();
                None
            }
        };
        let _ = driver.deadline(&mut self.platform);
        let status = driver.status();
        assert!(status.failed.is_none() || status.inflating + status.deflating == 0);
        assert_eq!(driver.status().failed.is_some(), driver.queues().next().is_none());
        self.driver = Some(driver);
        next
    }

    /// The kernel's loop: polls when there is reason to, otherwise sleeps.
    fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            let Some(driver) = self.driver.as_ref().filter(|driver| driver.status().failed.is_none()) else { return };
            let polling = driver.status().interrupts == InterruptMode::Polling;
            let next = if polling || driver.is_pending() { self.poll() } else { None };
            let busy = self.machine.sleep();
            self.machine.pass(1000);
            quiet = if busy || next == Some(Next::Now) { 0 } else { quiet + 1 };
            if quiet > 4 {
                return self.expect_settled();
            }
        }
        assert!(!self.honest || self.stalled, "{:?}", self.driver.as_ref().map(Balloon::status));
    }

    /// An honest device's balloon has reached the host's target, as far as there is memory.
    fn expect_settled(&self) {
        let Some(driver) = self.driver.as_ref().filter(|_| self.honest && !self.stalled) else { return };
        let (status, frames) = (driver.status(), &self.platform.frames);
        let (target, actual) = self.device(|device, _| (device.target(), device.actual()));
        let expected = u64::from(target).min(self.setup.frames(&self.platform) - status.hinted);
        assert_eq!((status.inflating, status.deflating), (0, 0), "{status:?}");
        assert_eq!((status.actual, frames.ballooned_frames()), (expected, expected), "{status:?}");
        assert_eq!(u64::from(actual), expected, "what the host was told");
        assert_eq!(frames.in_flight(), status.hinted);
    }
}
