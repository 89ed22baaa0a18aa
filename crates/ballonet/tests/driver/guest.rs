//! A guest with the driver: started, run as a kernel runs it, and checked at the end.

use ballonet::balloon::{Balloon, BalloonError, BalloonQueue, Changes, Next, Options, Reclaimed};
use ballonet::pci::Bdf;
use ballonet::virtio::{InterruptMode, RingFormat, TransportKind};

use ballonet_models::{Allocated, Behaviour, Bus, HostSide, Machine, ModelPlatform};

/// RAM of an ordinary guest, in MiB.
const RAM: u32 = 64;
/// Rounds after which a guest counts as never idle.
const PATIENCE: u32 = 1_000_000;

/// A machine with a balloon and its driver.
pub struct Guest {
    pub machine: Machine,
    pub platform: ModelPlatform,
    at: Bdf,
    balloon: Option<Balloon<ModelPlatform>>,
    /// All changes that polls reported.
    pub changes: Changes,
    /// Frames that the driver left in the balloon at shutdown.
    left: u32,
}

/// A driver that failed to start.
pub struct Failure {
    pub error: BalloonError,
    machine: Machine,
    platform: ModelPlatform,
    at: Bdf,
}

/// Starts the driver, or panics.
#[track_caller]
pub fn bring_up(behaviour: Behaviour) -> Guest {
    bring_up_with(behaviour, |_| {})
}

/// Starts the driver after `prepare` has changed the machine, or panics.
#[track_caller]
pub fn bring_up_with(behaviour: Behaviour, prepare: impl FnOnce(&Machine)) -> Guest {
    expect_up(try_with(behaviour, prepare))
}

/// Starts the driver with this much RAM, in MiB, or panics.
#[track_caller]
pub fn bring_up_sized(ram: u32, behaviour: Behaviour) -> Guest {
    expect_up(start(ram, behaviour, Options::default(), |_| {}))
}

/// The guest; panics with the reason if the driver failed to start.
#[track_caller]
pub fn expect_up(outcome: Result<Guest, Box<Failure>>) -> Guest {
    outcome.unwrap_or_else(|failure| panic!("{}", failure.error))
}

/// Starts the driver after `prepare` has changed the machine.
pub fn try_with(behaviour: Behaviour, prepare: impl FnOnce(&Machine)) -> Result<Guest, Box<Failure>> {
    start(RAM, behaviour, Options::default(), prepare)
}

/// Starts the driver with only this interrupt mode allowed.
pub fn try_forced(
    behaviour: Behaviour,
    mode: InterruptMode,
    prepare: impl FnOnce(&Machine),
) -> Result<Guest, Box<Failure>> {
    let mut options = Options::default();
    options.interrupts = Some(mode);
    start(RAM, behaviour, options, prepare)
}

/// Starts the driver with this queue format.
pub fn try_ring(behaviour: Behaviour, ring: Option<RingFormat>) -> Result<Guest, Box<Failure>> {
    let mut options = Options::default();
    options.ring = ring;
    start(RAM, behaviour, options, |_| {})
}

/// Starts the driver with options set by `choose`, or panics.
#[track_caller]
pub fn bring_up_as(behaviour: Behaviour, choose: impl FnOnce(&mut Options)) -> Guest {
    let mut options = Options::default();
    choose(&mut options);
    expect_up(start(RAM, behaviour, options, |_| {}))
}

/// Starts the driver with these options and this much RAM, in MiB.
pub fn try_options(ram: u32, behaviour: Behaviour, options: Options) -> Result<Guest, Box<Failure>> {
    start(ram, behaviour, options, |_| {})
}

/// Starts the driver with only this transport allowed; `choose` may set more options.
pub fn try_by(
    behaviour: Behaviour,
    transport: TransportKind,
    choose: impl FnOnce(&mut Options),
) -> Result<Guest, Box<Failure>> {
    let mut options = Options::default();
    options.transport = Some(transport);
    choose(&mut options);
    start(RAM, behaviour, options, |_| {})
}

/// Starts the driver with options set by `choose`.
pub fn try_chosen(behaviour: Behaviour, choose: impl FnOnce(&mut Options)) -> Result<Guest, Box<Failure>> {
    let mut options = Options::default();
    choose(&mut options);
    start(RAM, behaviour, options, |_| {})
}

/// Starts the driver with options set by `choose`, after `prepare` has changed the machine.
pub fn try_choosing(
    behaviour: Behaviour,
    choose: impl FnOnce(&mut Options),
    prepare: impl FnOnce(&Machine),
) -> Result<Guest, Box<Failure>> {
    let mut options = Options::default();
    choose(&mut options);
    start(RAM, behaviour, options, prepare)
}

fn start(
    ram: u32,
    behaviour: Behaviour,
    options: Options,
    prepare: impl FnOnce(&Machine),
) -> Result<Guest, Box<Failure>> {
    let (machine, at) = Machine::with_balloon(ram, behaviour);
    prepare(&machine);
    let mut platform = ModelPlatform::new(&machine);
    match Balloon::probe(&mut platform, machine.handle(at), options) {
        Ok(balloon) => Ok(Guest { machine, platform, at, balloon: Some(balloon), changes: Changes::empty(), left: 0 }),
        Err(error) => Err(Box::new(Failure { error, machine, platform, at })),
    }
}

impl Guest {
    pub fn driver(&self) -> &Balloon<ModelPlatform> {
        self.balloon.as_ref().expect("the driver has not been shut down")
    }

    pub fn mode(&self) -> InterruptMode {
        self.driver().status().interrupts
    }

    /// Moves a queue's interrupt to another CPU.
    pub fn move_queue(&mut self, queue: &'static str, cpu: u32) -> Result<(), BalloonError> {
        let balloon = self.balloon.as_mut().expect("the driver has not been shut down");
        balloon.set_queue_affinity(&mut self.platform, queue, cpu)
    }

    /// The CPU that a queue interrupts.
    pub fn cpu_of(&self, queue: &str) -> Option<u32> {
        self.driver().queue_affinity(&self.platform, queue)
    }

    /// Waits until all handlers have finished.
    pub fn synchronize(&mut self) {
        self.balloon.as_ref().expect("the driver has not been shut down").synchronize(&mut self.platform);
    }

    pub fn transport(&self) -> TransportKind {
        self.driver().status().transport
    }

    pub fn driver_mut(&mut self) -> &mut Balloon<ModelPlatform> {
        self.balloon.as_mut().expect("the driver has not been shut down")
    }

    /// Reads or changes the device.
    pub fn device<T>(&self, look: impl FnOnce(&mut ballonet_models::Balloon, &mut Bus) -> T) -> T {
        self.machine.balloon(self.at, look)
    }

    /// One round of the kernel's main loop: polls if there is a reason, otherwise sleeps. `true` if anything
    /// happened.
    fn step(&mut self) -> Result<bool, BalloonError> {
        let balloon = self.balloon.as_mut().expect("the driver has not been shut down");
        if !balloon.is_pending() && balloon.status().interrupts != InterruptMode::Polling {
            let slept = self.machine.sleep();
            return Ok(slept || self.driver().is_pending());
        }
        let progress = balloon.poll(&mut self.platform)?;
        self.changes |= progress.changes;
        // An interrupt storm keeps the driver pending forever: a round without effect counts as nothing.
        let effect = progress.next == Next::Now || progress.changes != Changes::empty();
        Ok(self.machine.sleep() || effect)
    }

    /// Reclaims memory for a failing allocation.
    pub fn reclaim(&mut self, frames: u64) -> Reclaimed {
        let balloon = self.balloon.as_mut().expect("the driver has not been shut down");
        balloon.reclaim(&mut self.platform, frames)
    }

    /// Allocates all free memory in pieces, as a busy program does.
    pub fn hold_all(&mut self) {
        for piece in [512, 32, 1] {
            while self.platform.frames.hold(piece) {}
        }
    }

    /// Polls once without sleeping. Returns when to poll next.
    #[track_caller]
    pub fn poll_once(&mut self) -> Next {
        let balloon = self.balloon.as_mut().expect("the driver has not been shut down");
        balloon.poll(&mut self.platform).expect("the driver runs").next
    }

    /// Runs the kernel for this many rounds.
    pub fn try_run_steps(&mut self, rounds: u32) -> Result<(), BalloonError> {
        (0..rounds).try_for_each(|_| self.step().map(drop))
    }

    #[track_caller]
    pub fn run_steps(&mut self, rounds: u32) {
        self.try_run_steps(rounds).expect("the driver runs");
    }

    /// Runs the kernel until nothing more happens.
    pub fn try_run(&mut self) -> Result<(), BalloonError> {
        let mut quiet = 0;
        for _ in 0..PATIENCE {
            quiet = if self.step()? { 0 } else { quiet + 1 };
            if quiet == 3 {
                self.machine.each_balloon(ballonet_models::Balloon::check_idle);
                return Ok(());
            }
        }
        panic!("the guest never becomes idle: {:?}", self.driver().status());
    }

    #[track_caller]
    pub fn run(&mut self) {
        if let Err(error) = self.try_run() {
            panic!("{error}; missteps: {:#?}", self.machine.missteps());
        }
    }

    /// Lets time pass: the kernel sleeps between events and the driver's deadlines.
    #[track_caller]
    pub fn wait(&mut self, nanoseconds: u64) {
        let end = self.machine.now() + nanoseconds;
        loop {
            self.run();
            let balloon = self.balloon.as_ref().expect("the driver has not been shut down");
            let deadline = balloon.deadline(&mut self.platform).filter(|deadline| *deadline < end);
            let now = self.machine.now();
            self.machine.pass(deadline.unwrap_or(end).saturating_sub(now));
            if deadline.is_none() {
                return;
            }
            let balloon = self.balloon.as_mut().expect("the driver has not been shut down");
            balloon.poll(&mut self.platform).map(drop).expect("the driver runs");
        }
    }

    /// The host sets a target, and the balloon follows it exactly.
    #[track_caller]
    pub fn follow(&mut self, pages: u32) {
        self.device(|b, bus| b.set_target(pages, bus));
        self.run();
        self.expect_balloon(pages.into());
    }

    /// As [`Guest::follow`], while hints or reports may be in flight.
    #[track_caller]
    pub fn follow_to(&mut self, pages: u64) {
        self.device(|b, bus| b.set_target(pages as u32, bus));
        self.run();
        self.machine.expect_no_missteps();
        assert_eq!(self.driver().status().actual, pages, "{:?}", self.driver().status());
    }

    /// Reclaims hinted frames for a kernel out of memory. Returns the number of frames.
    pub fn relinquish(&mut self, frames: u64) -> u64 {
        let balloon = self.balloon.as_mut().expect("the driver has not been shut down");
        balloon.relinquish_hinted(&mut self.platform, frames)
    }

    /// Panics unless the allocator, the driver, the device and the host agree on a balloon of `pages`.
    #[track_caller]
    pub fn expect_balloon(&self, pages: u64) {
        self.machine.expect_no_missteps();
        self.platform.frames.expect_whole();
        let host = self.machine.bus(|bus| bus.ram.count_host(HostSide::Ballooned));
        let told = u64::from(self.device(|b, _| b.actual()));
        let status = self.driver().status();
        assert_eq!((host, told, status.actual), (pages, pages, pages), "host, told, driver ({status:?})");
        assert_eq!(self.platform.frames.in_flight(), 0, "frames in flight when idle");
    }

    /// Resets the device.
    pub fn reset(&mut self) -> Result<(), BalloonError> {
        self.balloon.as_mut().expect("the driver has not been shut down").reset(&mut self.platform)
    }

    /// Resets one of its queues.
    pub fn reset_queue(&mut self, queue: BalloonQueue) -> Result<(), BalloonError> {
        self.balloon.as_mut().expect("the driver has not been shut down").reset_queue(&mut self.platform, queue)
    }

    /// Freezes the device.
    pub fn freeze(&mut self) -> Result<(), BalloonError> {
        self.balloon.as_mut().expect("the driver has not been shut down").freeze(&mut self.platform)
    }

    /// Restores a frozen device.
    pub fn restore(&mut self) -> Result<(), BalloonError> {
        self.balloon.as_mut().expect("the driver has not been shut down").restore(&mut self.platform)
    }

    /// Shuts the driver down.
    pub fn shut_down(&mut self) {
        if let Some(balloon) = self.balloon.take() {
            self.left = balloon.shutdown(&mut self.platform);
        }
    }

    /// Starts a driver again; it adopts the frames that the last one left in the balloon.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.start_again_by(None);
    }

    /// As [`Guest::start_again`], with this transport.
    #[track_caller]
    pub fn start_again_by(&mut self, transport: Option<TransportKind>) {
        let mut options = Options::default();
        options.transport = transport;
        options.adopted = self.left;
        self.balloon = Some(
            Balloon::probe(&mut self.platform, self.machine.handle(self.at), options).expect("the driver starts again"),
        );
    }

    /// Panics unless the driver failed cleanly: device reset, everything released, memory intact.
    #[track_caller]
    pub fn expect_given_up(&self) {
        assert!(self.driver().status().failed.is_some(), "the driver still runs");
        assert!(self.device(|b, _| b.common.failed() || b.gone()), "FAILED was not set");
        self.expect_nothing_allocated();
        self.machine.expect_no_missteps();
        self.platform.frames.expect_whole();
        assert_eq!(self.platform.frames.in_flight(), 0);
    }

    #[track_caller]
    pub fn expect_nothing_allocated(&self) {
        assert_eq!(self.machine.allocated(), Allocated::default());
    }

    /// Shuts the driver down and panics unless everything is as before, except ballooned frames.
    #[track_caller]
    pub fn finish(mut self) {
        self.shut_down();
        self.expect_nothing_allocated();
        self.machine.expect_no_missteps();
        self.platform.frames.expect_whole();
        assert_eq!(self.platform.frames.in_flight(), 0);
        let gone = self.device(|b, _| b.gone());
        assert!(gone || self.device(|b, _| b.common.stopped() && !b.config.msix_enabled()));
        assert!(gone || self.device(|b, _| b.config.decoding() == b.behaviour.command));
        assert_eq!(self.platform.frames.ballooned_frames(), u64::from(self.left));
    }
}

impl Failure {
    /// All values written to the device's status so far.
    pub fn status_writes(&self) -> Vec<u8> {
        self.machine.balloon(self.at, |b, _| b.common.status_writes.clone())
    }

    /// Starts another driver after `change` has repaired the device.
    #[track_caller]
    pub fn try_again(self, change: impl FnOnce(&mut Behaviour)) -> Guest {
        let Self { machine, mut platform, at, .. } = self;
        machine.balloon(at, |b, _| change(&mut b.behaviour));
        let balloon = Balloon::probe(&mut platform, machine.handle(at), Options::default()).expect("the driver starts");
        Guest { machine, platform, at, balloon: Some(balloon), changes: Changes::empty(), left: 0 }
    }

    /// The device's address.
    pub fn at(&self) -> Bdf {
        self.at
    }

    /// Panics unless a failed start returned all mappings, vectors and frames.
    #[track_caller]
    pub fn expect_nothing_mapped(&self) {
        let left = self.machine.allocated();
        assert_eq!((left.vectors, left.mappings), (0, 0), "{}", self.error);
        self.platform.frames.expect_whole();
        assert_eq!(self.platform.frames.free(), self.platform.frames.total());
    }

    /// Panics unless a failed start left nothing behind. `there`: the device responds.
    #[track_caller]
    pub fn expect_clean(&self, there: bool) {
        assert_eq!(self.machine.allocated(), Allocated::default(), "{}", self.error);
        self.machine.expect_no_missteps();
        self.platform.frames.expect_whole();
        assert_eq!(self.platform.frames.free(), self.platform.frames.total());
        self.machine.balloon(self.at, |b, _| {
            // A device whose registers were never reached cannot get FAILED.
            let untouched = b.common.status_writes.is_empty();
            assert!(!there || untouched || b.common.failed(), "{}: FAILED was not set", self.error);
            // As found, except that a device without a reset stays off the bus.
            const BUS_MASTER: u16 = 1 << 2;
            let unreset = b.behaviour.mmio.is_none() && b.behaviour.reset_time == u64::MAX;
            let unreset = if unreset { BUS_MASTER } else { 0 };
            assert!(!there || b.config.decoding() == b.behaviour.command & !unreset, "{}", self.error);
            assert!(!there || !b.config.msix_enabled() && b.config.bars_restored(), "{}", self.error);
        });
    }

    /// Whether FAILED was set.
    pub fn was_told(&self) -> bool {
        self.machine.balloon(self.at, |b, _| b.common.failed())
    }

    /// Whether the device may do DMA.
    pub fn is_bus_master(&self) -> bool {
        self.machine.balloon(self.at, |b, _| b.config.bus_master())
    }

    /// Number of requests to the platform.
    pub fn asked(&self) -> u64 {
        self.machine.asked()
    }
}
