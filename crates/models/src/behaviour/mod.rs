//! The habits of a device: what it offers, how fast it is, and in what way it misbehaves.

mod entropy;
mod layout;
mod mmio;
mod quirks;
mod schedule;

pub use entropy::Entropy;
pub use layout::{Bar, Capability, Layout, Region, Structure};
pub use mmio::MmioRegisters;
pub use quirks::{ActualWrites, Chains, Discards, Long, Quirks, RegisterQuirks, Resets};

pub use schedule::Schedule;

pub(crate) use entropy::next_random;

use crate::bug::Bug;
use crate::feature;
use crate::queue::Lie;
use crate::world::Bus;

/// When a kick is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// Before the store returns, as QEMU up to 9.2.
    AtOnce,
    /// This many nanoseconds later, as a main loop or another thread does.
    Later(u64),
}

/// How queues are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbering {
    /// Densely over the offered features, as QEMU, Firecracker and Cloud Hypervisor.
    Dense,
    /// As the specification has it, with gaps of size 0.
    Fixed,
    /// Densely over the accepted features, as Alioth; those that are left over complete what comes, and do nothing.
    Negotiated,
}

/// How long the host takes to take memory away, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// A frame that somebody has written to since it was taken away last.
    pub written: u64,
    /// A frame with nothing behind it.
    pub empty: u64,
    /// A 2 MiB region in a report.
    pub region: u64,
}

impl Costs {
    /// What a request of these frames costs.
    pub(crate) fn of_request(self, pfns: &[u32], inflating: bool, bus: &Bus) -> u64 {
        let written = |pfn: &&u32| inflating && !bus.ram.untouched(**pfn);
        let count = pfns.iter().filter(written).count() as u64;
        count * self.written + (pfns.len() as u64 - count) * self.empty
    }

    /// What a report of these frames costs.
    pub(crate) fn of_report(self, pfns: &[u32]) -> u64 {
        (pfns.len() as u64).div_ceil(512) * self.region
    }
}

/// Everything about a device that a test may choose.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// `None` for a balloon.
    pub entropy: Option<Entropy>,
    pub device_id: u16,
    pub revision: u8,
    pub features: u64,
    /// Bits that only the legacy interface offers, where there is one.
    pub legacy_features: u64,
    pub numbering: Numbering,
    /// Its registers are on MMIO, and there is no PCI function.
    pub mmio: Option<MmioRegisters>,
    /// Size of inflate, deflate and statistics queues.
    pub queue_size: u16,
    /// Number of MSI-X vectors; `None` without MSI-X.
    pub vectors: Option<u16>,
    /// Whether the function has an interrupt pin.
    pub pin: bool,
    pub layout: Layout,
    /// Firmware has left the BARs without addresses.
    pub unplaced: bool,
    /// The command register as firmware leaves it.
    pub command: u16,
    pub handling: Handling,
    /// The most nanoseconds that a request takes after its kick has been handled; the schedule chooses.
    pub service: u64,
    /// The most nanoseconds that an interrupt takes to arrive; the schedule chooses.
    pub interrupt_delay: u64,
    pub schedule: Schedule,
    /// How long requests take the host; `None` where `service` says it.
    pub costs: Option<Costs>,
    /// What it does otherwise than the specification says, or that this leaves open.
    pub quirks: Quirks,

    /// The device status before the driver first resets it.
    pub first_status: u8,
    /// Nanoseconds from the request of a reset until it shows as done; `u64::MAX` for never.
    pub reset_time: u64,
    /// The same of one queue.
    pub queue_reset_time: u64,
    /// `FEATURES_OK` does not stick.
    pub refuses_features: bool,
    /// Vector assignments (0 is the first ever) that read back as `NO_VECTOR`.
    pub refused_vectors: Vec<u32>,
    /// Reads of device config after each of which the configuration changes.
    pub churn: u32,
    /// Nanoseconds that each `now()` and `relax()` costs on top: a host that takes the CPU away.
    pub stolen: u64,
    /// Register accesses after which the device is gone: all ones from then on.
    pub removed_after: Option<u64>,
    /// Reads of registers (0 is the first ever) whose answer has these bits turned over.
    pub twists: Vec<(u64, u32)>,
    /// The same of reads of configuration space.
    pub config_twists: Vec<(u64, u32)>,
    /// Where requests are used in order: whether one entry stands for all that are done at a time.
    pub batches: bool,
    /// What each completion claims to have written.
    pub claims: u32,
    /// Completions after which the lie is told.
    pub lie: Option<(u64, Lie)>,
    /// Completions after which nothing is completed any more.
    pub stalls_after: Option<u64>,
    /// Completions, since the last reset, after which `DEVICE_NEEDS_RESET` is raised and nothing is completed any more.
    pub needs_reset_after: Option<u64>,
    /// How often that happens.
    pub needs_resets: u32,
    /// Nanoseconds between interrupts raised for no reason.
    pub spurious: Option<u64>,
    /// The most nanoseconds between two words of the host on the target; a generator with this seed chooses.
    pub moves: Option<(u64, u64)>,
    /// A bug that the device has.
    pub bug: Option<Bug>,
    /// `num_queues` as read, if it is not the truth.
    pub num_queues: Option<u16>,
    /// `queue_size` as read before it is written, if it is not the truth.
    pub size_lie: Option<u16>,
    /// `queue_notify_off` as read, if it is not the truth.
    pub notify_off: Option<u16>,
    /// `queue_notify_off` of each queue is this many times its index.
    pub notify_stride: u16,
}

impl Behaviour {
    /// A device that follows the specification to the letter: MSI-X with 8 vectors, each feature that the balloon's
    /// basic operation knows, requests served after a little while.
    pub fn conforming() -> Self {
        Self {
            entropy: None,
            device_id: 0x1045,
            revision: 1,
            features: feature::VERSION_1
                | feature::EVENT_IDX
                | feature::INDIRECT_DESC
                | feature::MUST_TELL_HOST
                | feature::STATS_VQ
                | feature::DEFLATE_ON_OOM,
            legacy_features: 1 << 24 | feature::ANY_LAYOUT | 1 << 30,
            numbering: Numbering::Fixed,
            mmio: None,
            queue_size: 64,
            vectors: Some(8),
            pin: true,
            layout: Layout::qemu(true),
            unplaced: false,
            command: 0,
            handling: Handling::Later(20_000),
            service: 0,
            interrupt_delay: 0,
            schedule: Schedule::default(),
            costs: None,
            quirks: Quirks::NONE,
            first_status: 0x0f,
            reset_time: 20_000,
            queue_reset_time: 20_000,
            refuses_features: false,
            refused_vectors: Vec::new(),
            churn: 0,
            stolen: 0,
            removed_after: None,
            twists: Vec::new(),
            config_twists: Vec::new(),
            batches: false,
            claims: 0,
            lie: None,
            stalls_after: None,
            needs_reset_after: None,
            needs_resets: 1,
            spurious: None,
            moves: None,
            bug: None,
            num_queues: None,
            size_lie: None,
            notify_off: None,
            notify_stride: 1,
        }
    }

    /// The same device with a legacy interface besides its modern one. Its layout is QEMU's.
    pub fn transitional(self) -> Self {
        let layout = Layout::qemu(self.vectors.is_some()).with_legacy();
        let vectors = self.vectors;
        Self { device_id: 0x1002, revision: 0, layout, ..self }.with_vectors(vectors)
    }

    /// The same device with a legacy interface only.
    pub fn legacy(self) -> Self {
        let layout = Layout::legacy(self.vectors.is_some());
        Self { device_id: 0x1002, revision: 0, layout, ..self }
    }

    /// The same device on MMIO, with registers of version 2: it interrupts by a line.
    pub fn on_mmio(self) -> Self {
        const BUS_MASTER: u16 = 1 << 2;
        let mmio = Some(MmioRegisters::modern());
        // What is without ISR byte on PCI has its bits here, or nobody could tell why it interrupts.
        let quirks = Quirks { no_isr: false, ..self.quirks };
        Self { mmio, quirks, pin: true, command: BUS_MASTER, ..self.with_vectors(None) }
    }

    /// The same device on MMIO, with the legacy registers of version 1.
    pub fn on_legacy_mmio(self) -> Self {
        let new = self.on_mmio();
        Self { mmio: Some(MmioRegisters::legacy()), ..new }
    }

    /// The same device with a window in configuration space to its structures.
    pub fn with_pci_access(self) -> Self {
        Self { layout: self.layout.with_pci_access(), ..self }
    }

    /// An entropy device, to which all applies that is not about balloons. It has no features and no configuration of its own.
    pub fn entropy(self, seed: u64) -> Self {
        let mut layout = self.layout.without(4);
        layout.regions.retain(|region| region.structure != Structure::Device);
        let device_id = if self.device_id == 0x1002 { 0x1005 } else { 0x1044 };
        let features = self.features & !feature::OF_DEVICE_TYPE;
        Self { entropy: Some(Entropy::new(seed)), device_id, features, layout, ..self }
    }

    /// The same with another number of MSI-X vectors.
    pub fn with_vectors(mut self, vectors: Option<u16>) -> Self {
        self.vectors = vectors;
        if vectors.is_none() {
            self.layout.capabilities.retain(|c| !matches!(c, Capability::Msix { .. }));
        }
        self
    }

    /// Whether it has this bug.
    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The same device with a bug.
    pub fn with_bug(self, bug: Bug) -> Self {
        Self { bug: Some(bug), ..self }
    }

    /// The same with packed rings offered.
    pub fn packed(self) -> Self {
        Self { features: self.features | feature::RING_PACKED, ..self }
    }

    /// The same with requests used in order, by an entry for each or for as many as there are.
    pub fn in_order(self, batches: bool) -> Self {
        Self { features: self.features | feature::IN_ORDER, batches, ..self }
    }

    /// The same with other features offered.
    pub fn with_features(self, features: u64) -> Self {
        Self { features, ..self }
    }
}
