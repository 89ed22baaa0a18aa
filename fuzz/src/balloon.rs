//! The whole driver, from configuration space up, against a device that works by the rules until it lies.
//!
//! Whatever the device does: every call ends, in bounded time; no frame is lost or in two hands; in the end all is given
//! back, but for memory of a device that would not be reset, which is cut off from it instead. As long as the device is
//! honest, the balloon meets its target exactly.

use arbitrary::Arbitrary;
use ballonet::balloon::{Balloon, BalloonError, Next, Options, ReportPolicy, RequestShape};
use ballonet::pci::Bdf;
use ballonet::virtio::spec::Features;
use ballonet::virtio::{InterruptMode, RingFormat, TransportKind};

use crate::device::{Lie, Make};
use crate::dma::Pool;
use crate::frames::{self, Frames};
use crate::pci::{Noise, Space};
use crate::platform::{TestPlatform, World};

/// A machine with a balloon, and what is asked of its driver.
#[derive(Debug, Arbitrary)]
pub struct Setup {
    make: Make,
    lies: Vec<Lie>,
    noise: Vec<Noise>,
    /// Interrupts that nobody asked for: after so many accesses, which vector.
    storms: Vec<(u16, u8)>,
    limits: Limits,
    choices: Choices,
    floor: u16,
    longest_run: u8,
}

/// What the platform has to give, where that is limited.
#[derive(Debug, Arbitrary)]
struct Limits {
    vectors: Option<u8>,
    memory: Option<u8>,
    mappings: Option<u8>,
}

/// [`Options`].
#[derive(Debug, Arbitrary)]
struct Choices {
    transport: Option<bool>,
    interrupts: Option<u8>,
    ring: Option<bool>,
    declined: u64,
    adopted: u16,
    window: u16,
    /// Age, threshold, budget of [`ReportPolicy`].
    reporting: Option<(u64, u64, u64)>,
    /// Frames a descriptor and descriptors a request.
    shape: Option<(u16, u16)>,
    queue_size: Option<u16>,
    poison: Option<u8>,
}

/// A course of events.
#[derive(Debug, Arbitrary)]
pub struct Course {
    setup: Setup,
    steps: Vec<Step>,
}

/// What happens.
#[derive(Debug, Arbitrary)]
enum Step {
    Poll,
    /// The kernel's loop, and the device with it, until nothing happens any more.
    Settle,
    Target(u32),
    /// A target that there is memory for, or nearly.
    Near(u16),
    /// The device takes what is available on a queue, and returns one request of it.
    Take(u8),
    Return {
        queue: u8,
        which: u8,
        length: u32,
    },
    Serve,
    /// It does what it must not: a used entry, anything anywhere, a register, status bits.
    Forge {
        queue: u8,
        id: u16,
        length: u32,
        advance: u16,
    },
    Write {
        piece: u8,
        offset: u16,
        value: u16,
    },
    Lie(Lie),
    Status(u8),
    Vanish,
    Pass(u32),
    Look,
    Report,
    MemoryFreed,
    Affinity(u8),
    /// The driver goes, and another takes over.
    Restart,
    /// The host asks for hints.
    Hint(u8),
    /// The kernel runs out of memory and wants back what is hinted.
    Relinquish(u16),
}

/// Steps that are taken.
const MOST: usize = 200;
/// What one call of the driver may take at most: accesses, and nanoseconds. A reset is waited for for two seconds.
const ACCESSES: u64 = 200_000;
const TIME: u64 = 8_000_000_000;
/// Rounds after which an honest device's balloon that has not settled never will.
const PATIENCE: u32 = 50_000;

/// Brings a driver up and takes it away, twice.
pub fn run_probe(setup: &Setup) {
    let mut trial = Trial::new(setup);
    trial.start();
    trial.stop();
    trial.start();
    trial.stop();
}

/// Runs a course of events.
pub fn run(course: &Course) {
    let mut trial = Trial::new(&course.setup);
    trial.start();
    for step in course.steps.iter().take(MOST) {
        trial.step(step);
    }
    trial.settle();
    trial.stop();
}

struct Trial<'a> {
    setup: &'a Setup,
    platform: TestPlatform,
    at: Bdf,
    driver: Option<Balloon<TestPlatform>>,
    /// Frames that the last driver left in the balloon.
    left: u32,
    /// What the command register held without a driver, as far as the driver changes it.
    command: u16,
    /// Frames that are lost to a device that would not be reset.
    lost: u64,
    /// Whether memory is lost to it as well.
    leaked: bool,
}

impl<'a> Trial<'a> {
    fn new(setup: &'a Setup) -> Self {
        let at = Bdf::new(0, 0, 3, 0).expect("a function number");
        let mut space = Space::new(256, setup.noise.clone());
        let (mut device, registers) = setup.make.build(setup.lies.clone());
        device.honest &= space.is_quiet();
        space.functions.insert(at, registers);
        let left = u32::from(setup.choices.adopted) % (frames::TOTAL / 2);
        let mut frames = Frames::default();
        frames.leave_ballooned(left);
        frames.floor = u32::from(setup.floor) % (frames::TOTAL / 4);
        frames.longest = u32::from(setup.longest_run).max(1) * 4;
        let mut world = World::default();
        (world.space, world.device, world.frames) = (space, device, frames);
        world.pool = Pool::limited(setup.limits.memory);
        world.vector_limit = setup.limits.vectors.unwrap_or(64);
        world.map_limit = setup.limits.mappings;
        world.storms = setup.storms.clone();
        let command = setup.make.command();
        Self { setup, platform: TestPlatform::new(world), at, driver: None, left, command, lost: 0, leaked: false }
    }

    fn options(&self) -> Options {
        let choices = &self.setup.choices;
        let mut options = Options::new("fuzz");
        options.transport =
            choices.transport.map(|legacy| if legacy { TransportKind::Legacy } else { TransportKind::Modern });
        options.interrupts = choices.interrupts.map(|mode| InterruptMode::LADDER[usize::from(mode) % 4]);
        options.ring = choices.ring.map(|packed| if packed { RingFormat::Packed } else { RingFormat::Split });
        options.declined = Features::from_bits_retain(choices.declined);
        options.adopted = self.left;
        options.window = choices.window;
        if let Some(shape) = choices.shape.and_then(|(frames, descriptors)| RequestShape::new(frames, descriptors)) {
            options.shape = Some(shape);
        }
        options.poison = choices.poison;
        options.queue_size = choices.queue_size.unwrap_or(options.queue_size);
        if let Some((age, threshold, budget)) = choices.reporting {
            options.reporting = ReportPolicy { age, threshold, budget };
        }
        options
    }

    /// Has the driver do something, which has to end before long.
    fn bounded<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.spent();
        let outcome = act(self);
        let after = self.spent();
        let spent = (after.0 - before.0, after.1 - before.1);
        assert!(spent.0 < ACCESSES && spent.1 < TIME, "{} accesses, {} ns", spent.0, spent.1);
        outcome
    }

    fn spent(&self) -> (u64, u64) {
        let world = self.platform.shared.lock();
        (world.accesses, world.now)
    }

    fn start(&mut self) {
        let options = self.options();
        let outcome = self.bounded(|trial| Balloon::probe(&mut trial.platform, trial.at, options));
        match outcome {
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
        let world = self.platform.shared.lock();
        // Frames that were on their way back are lost with a device that would not stop; the host may have them still.
        let (left, ballooned) = (u64::from(self.left), world.frames.ballooned());
        assert!((ballooned..=ballooned + self.lost).contains(&left), "{left} frames left in a balloon of {ballooned}");
    }

    /// No driver is there: nothing is taken, and PCI is as it was.
    fn expect_clean(&mut self) {
        let mut world = self.platform.shared.lock();
        // A device that would not stop keeps what it has, for good.
        if world.device.resetting {
            self.leaked |= world.pool.taken() > 0;
            self.lost = world.frames.in_flight();
        }
        assert_eq!(world.frames.in_flight(), self.lost, "frames in flight, and nobody there");
        world.expect_nothing_taken(self.leaked);
        if world.space.is_quiet() && !self.setup.make.is_patched() {
            let registers = &world.space.functions[&self.at];
            let now = registers.command() & 7;
            // One that would not stop is kept from memory, also by those who come after.
            let same = if world.device.resetting { 3 } else { 7 };
            assert_eq!(now & same, self.command & same, "the command register");
            assert!(!self.leaked || now & 4 == 0, "a device that did not stop reaches memory");
            self.command = now;
            assert_eq!(registers.msix_control() >> 15, 0, "MSI-X is still on");
        }
        let World { device, .. } = &mut *world;
        assert!(!device.honest || !self.leaked, "an honest device is reset");
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Poll => drop(self.poll()),
            Step::Settle => self.settle(),
            Step::Target(pages) => self.platform.shared.lock().device.set_target(*pages),
            Step::Near(pages) => {
                let pages = u32::from(*pages) % (frames::TOTAL + 64);
                self.platform.shared.lock().device.set_target(pages);
            }
            Step::Pass(nanoseconds) => self.platform.shared.lock().now += u64::from(*nanoseconds),
            Step::Restart => {
                self.stop();
                self.start();
            }
            Step::Hint(command) => self.platform.shared.lock().device.command_hints(u32::from(command % 6)),
            Step::Look | Step::Report | Step::MemoryFreed | Step::Affinity(_) | Step::Relinquish(_) => self.nudge(step),
            _ => self.device(step),
        }
    }

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
            Step::Affinity(cpu) => {
                let outcome = driver.set_queue_affinity(&mut self.platform, "inflate", u32::from(cpu % 2) * 3);
                assert!(outcome.is_err() || driver.queue_affinity(&self.platform, "inflate") == Some(0));
            }
            _ => drop(driver.memory_freed()),
        }
    }

    fn device(&mut self, step: &Step) {
        let mut world = self.platform.shared.lock();
        let World { device, pool, frames, .. } = &mut *world;
        match *step {
            Step::Take(queue) => drop(device.take(usize::from(queue) % 6, (pool, frames))),
            Step::Return { queue, which, length } => {
                device.put(usize::from(queue) % 6, which.into(), length, pool);
            }
            Step::Serve => drop(device.serve((pool, frames))),
            Step::Forge { queue, id, length, advance } => {
                device.forge(usize::from(queue) % 6, (id.into(), length, advance), pool);
            }
            Step::Write { piece, offset, value } => {
                device.honest = false;
                if let Some(address) = pool.anywhere(piece, offset) {
                    pool.write(address, value.to_le_bytes());
                }
            }
            Step::Lie(ref lie) => device.add_lie(lie.clone()),
            Step::Status(bits) => device.disturb_status(bits),
            _ => device.vanish(),
        }
    }

    /// Polls once. An error is the last that the driver has to say.
    fn poll(&mut self) -> Option<Next> {
        let mut driver = self.driver.take()?;
        let outcome = self.bounded(|trial| driver.poll(&mut trial.platform));
        let next = match outcome {
            Ok(progress) => {
                assert!(driver.failed().is_none());
                Some(progress.next)
            }
            Err(error) => {
                expect_printable(&error);
                assert!(!self.platform.shared.lock().device.honest, "{error}, of an honest device");
                assert_eq!(driver.failed(), Some(error));
                assert!(!driver.is_pending() && !driver.memory_freed(), "a driver that gave up wants nothing");
                self.expect_clean();
                None
            }
        };
        let _ = driver.deadline(&mut self.platform);
        let status = driver.status();
        assert!(driver.failed().is_none() || status.inflating + status.deflating == 0);
        assert_eq!(driver.failed().is_some(), driver.queues().next().is_none());
        self.driver = Some(driver);
        next
    }

    /// The kernel's loop: polls where there is reason to. Between that the device works.
    fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..PATIENCE {
            let Some(driver) = self.driver.as_ref().filter(|driver| driver.failed().is_none()) else { return };
            let polling = driver.interrupt_mode() == InterruptMode::Polling;
            let next = if polling || driver.is_pending() { self.poll() } else { None };
            let busy = {
                let mut world = self.platform.shared.lock();
                let World { device, pool, frames, .. } = &mut *world;
                device.serve((pool, frames))
            };
            // Time passes, and what the device has raised arrives.
            ballonet::platform::Platform::relax(&self.platform);
            quiet = if busy || next == Some(Next::Now) { 0 } else { quiet + 1 };
            if quiet > 4 {
                return self.expect_settled();
            }
        }
        assert!(!self.platform.shared.lock().device.honest, "{:?}", self.driver.as_ref().map(Balloon::status));
    }

    /// The balloon of an honest device is where its host wants it, as far as there is memory.
    fn expect_settled(&self) {
        let world = self.platform.shared.lock();
        let Some(driver) = self.driver.as_ref().filter(|_| world.device.honest) else { return };
        let status = driver.status();
        let most = u64::from(frames::TOTAL - world.frames.floor) - self.lost;
        let expected = u64::from(world.device.target()).min(most);
        assert_eq!((status.inflating, status.deflating), (0, 0), "{status:?}");
        assert_eq!((status.actual, world.frames.ballooned()), (expected, expected), "{status:?}");
        assert_eq!(u64::from(world.device.actual), expected, "what the host was told");
        assert_eq!(world.frames.in_flight(), self.lost + status.hinted);
        assert!(world.device.hints_wanted() || status.hinted == 0, "the host is done with {} frames", status.hinted);
    }
}

/// An error that goes to people: nothing in it may command a terminal.
fn expect_printable(error: &BalloonError) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains(|c: char| c.is_ascii_control()), "{text:?}");
}
