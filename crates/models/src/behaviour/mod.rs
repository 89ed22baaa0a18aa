//! The behaviour of a device: its offer, its speed, and how it misbehaves.

mod entropy;
mod layout;
mod mmio;
mod other;
mod quirks;
mod schedule;
mod weakness;

pub use entropy::Entropy;
pub use layout::{Bar, Capability, Layout, Region, Structure};
pub use mmio::MmioRegisters;
pub use other::Other;
pub use quirks::{ActualWrites, Chains, Discards, Long, Quirks, RegisterQuirks, Resets};

pub use schedule::Schedule;
pub use weakness::{Harm, Weakness};

pub(crate) use entropy::next_random;
pub(crate) use other::write;

use ballonet::memory::REGION_FRAMES;

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
    /// By the specification's fixed numbers, with gaps of size 0.
    Fixed,
    /// Densely over the accepted features, as Alioth; the surplus queues complete every request without effect.
    Negotiated,
}

/// A register that reads wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterLie {
    pub structure: Structure,
    /// From the start of the structure, in bytes.
    pub offset: u64,
    /// Reads that are answered truthfully first.
    pub after: u32,
    /// Wrong answers after those; `u32::MAX` for no end.
    pub times: u32,
    pub value: u32,
}

impl RegisterLie {
    /// The wrong answer to this read, if it is due.
    pub(crate) fn answer(&mut self) -> Option<u32> {
        if self.after > 0 {
            self.after -= 1;
            return None;
        }
        if self.times != u32::MAX {
            self.times = self.times.checked_sub(1)?;
        }
        Some(self.value)
    }
}

/// How long the host takes to reclaim memory, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// A frame that was written since the host last reclaimed it.
    pub written: u64,
    /// A frame without host memory behind it.
    pub empty: u64,
    /// A 2 MiB region in a report.
    pub region: u64,
}

impl Costs {
    /// The cost of a request of these frames.
    pub(crate) fn of_request(self, pfns: &[u32], inflating: bool, bus: &Bus) -> u64 {
        let written = |pfn: &&u32| inflating && !bus.ram.untouched(**pfn);
        let count = pfns.iter().filter(written).count() as u64;
        count * self.written + (pfns.len() as u64 - count) * self.empty
    }

    /// The cost of a report of these frames.
    pub(crate) fn of_report(self, pfns: &[u32]) -> u64 {
        (pfns.len() as u64).div_ceil(REGION_FRAMES.into()) * self.region
    }
}

/// Everything that a test may choose about a device.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// `None` for a balloon.
    pub entropy: Option<Entropy>,
    /// A device that is neither a balloon nor an entropy source.
    pub other: Option<Other>,
    pub device_id: u16,
    pub revision: u8,
    pub features: u64,
    /// Feature bits that only the legacy interface offers.
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
    /// Firmware left the BARs without addresses.
    pub unplaced: bool,
    /// The command register as firmware left it.
    pub command: u16,
    pub handling: Handling,
    /// Maximum service time of a request after its kick was handled, in nanoseconds; the schedule chooses.
    pub service: u64,
    /// Maximum delay of an interrupt in nanoseconds; the schedule chooses.
    pub interrupt_delay: u64,
    pub schedule: Schedule,
    /// How long the host works on a request; `None`: see `service`.
    pub costs: Option<Costs>,
    /// Deviations from the specification, and choices that it leaves open.
    pub quirks: Quirks,

    /// The device status before the driver first resets it.
    pub first_status: u8,
    /// Duration of a reset in nanoseconds; `u64::MAX`: it never completes.
    pub reset_time: u64,
    /// Duration of the reset of one queue.
    pub queue_reset_time: u64,
    /// `FEATURES_OK` does not stick.
    pub refuses_features: bool,
    /// Vector assignments (0 is the first ever) that read back as `NO_VECTOR`.
    pub refused_vectors: Vec<u32>,
    /// How many reads of device config are each followed by a change of it.
    pub churn: u32,
    /// Additional cost of each `now()` and `relax()` in nanoseconds: a host that steals CPU time.
    pub stolen: u64,
    /// Register accesses after which the device is removed and reads as all ones.
    pub removed_after: Option<u64>,
    /// Register reads, counted from 0 over the device's life, in whose answer these bits are inverted.
    pub twists: Vec<(u64, u32)>,
    /// As `twists`, for reads of configuration space.
    pub config_twists: Vec<(u64, u32)>,
    /// Bytes of configuration space that are wrong from the start: offset and value.
    pub config_patches: Vec<(u8, u8)>,
    /// Registers that read wrong.
    pub register_lies: Vec<RegisterLie>,
    /// With `IN_ORDER`: one used entry returns all requests that are done at a time.
    pub batches: bool,
    /// Used length that each completion claims.
    pub claims: u32,
    /// Completions after which the device tells the lie.
    pub lie: Option<(u64, Lie)>,
    /// Completions after which the device stalls.
    pub stalls_after: Option<u64>,
    /// Completions since the last reset after which the device raises `DEVICE_NEEDS_RESET` and stalls.
    pub needs_reset_after: Option<u64>,
    /// How often that happens.
    pub needs_resets: u32,
    /// Nanoseconds between spurious interrupts.
    pub spurious: Option<u64>,
    /// The host keeps changing its target: maximum interval in nanoseconds, and the seed of the random choices.
    pub moves: Option<(u64, u64)>,
    /// The bug that the device has, if any.
    pub bug: Option<Bug>,
    /// A weakness against hostile drivers.
    pub weakness: Option<Weakness>,
    /// A wrong `num_queues`.
    pub num_queues: Option<u16>,
    /// A wrong `queue_size` before the driver writes it.
    pub size_lie: Option<u16>,
    /// A wrong `queue_notify_off`.
    pub notify_off: Option<u16>,
    /// `queue_notify_off` of each queue is this many times its index.
    pub notify_stride: u16,
}

impl Behaviour {
    /// A device that strictly follows the specification: MSI-X with 8 vectors, every feature of the balloon's basic
    /// operation, requests served after 20 µs.
    pub fn conforming() -> Self {
        Self {
            entropy: None,
            other: None,
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
            config_patches: Vec::new(),
            register_lies: Vec::new(),
            batches: false,
            claims: 0,
            lie: None,
            stalls_after: None,
            needs_reset_after: None,
            needs_resets: 1,
            spurious: None,
            moves: None,
            bug: None,
            weakness: None,
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

    /// The same device on MMIO, with registers of version 2. It interrupts by a line.
    pub fn on_mmio(self) -> Self {
        const BUS_MASTER: u16 = 1 << 2;
        let mmio = Some(MmioRegisters::modern());
        // On MMIO it has the interrupt status even without an ISR byte on PCI: otherwise the driver could not tell why
        // it interrupts.
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

    /// An entropy device; everything that is not specific to balloons applies. It has no device-type features and no
    /// device configuration.
    pub fn entropy(self, seed: u64) -> Self {
        let mut layout = self.layout.without(4);
        layout.regions.retain(|region| region.structure != Structure::Device);
        let device_id = if self.device_id == 0x1002 { 0x1005 } else { 0x1044 };
        let features = self.features & !feature::OF_DEVICE_TYPE;
        Self { entropy: Some(Entropy::new(seed)), device_id, features, layout, ..self }
    }

    /// A block device of 64 sectors, each with distinct bytes.
    pub fn block(self, read_only: bool) -> Self {
        let disk = (0..64 * 512_u32).map(|at| (at / 512 * 7 + at) as u8).collect();
        self.of_type(Other::Block { disk, read_only })
    }

    /// A console with one port, and room for two.
    pub fn console(self) -> Self {
        self.of_type(Other::Console { printed: Vec::new(), messages: Vec::new() })
    }

    /// A network device that receives nothing.
    pub fn network(self) -> Self {
        self.of_type(Other::Network { sent: Vec::new() })
    }

    fn of_type(self, other: Other) -> Self {
        let device_id = if self.device_id < 0x1040 { other.transitional() } else { 0x1040 + other.number() };
        let features = self.features & !feature::OF_DEVICE_TYPE | other.features();
        Self { other: Some(other), device_id, features, ..self }
    }

    /// The number of its type.
    pub(crate) fn number(&self) -> u16 {
        match &self.other {
            Some(other) => other.number(),
            None if self.entropy.is_some() => 4,
            None => 5,
        }
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

    /// A reset: with the bug for it, the entropy sequence starts over.
    pub(crate) fn forget(&mut self) {
        if self.has(Bug::RandomStartsOver) {
            self.entropy.iter_mut().for_each(Entropy::start_over);
        }
    }

    /// The same device with a bug.
    pub fn with_bug(self, bug: Bug) -> Self {
        Self { bug: Some(bug), ..self }
    }

    /// The same with packed rings offered.
    pub fn packed(self) -> Self {
        Self { features: self.features | feature::RING_PACKED, ..self }
    }

    /// The same with `IN_ORDER`; `batches`: one used entry returns several requests.
    pub fn in_order(self, batches: bool) -> Self {
        Self { features: self.features | feature::IN_ORDER, batches, ..self }
    }

    /// The same with other features offered.
    pub fn with_features(self, features: u64) -> Self {
        Self { features, ..self }
    }
}
