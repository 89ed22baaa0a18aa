//! A machine with a balloon, for fuzzing its driver: the device and its lies, the platform's limits, and the driver's
//! options.

use arbitrary::Arbitrary;
use ballonet::balloon::{Options, ReportPolicy, RequestShape};
use ballonet::pci::Bdf;
use ballonet::virtio::spec::Features;
use ballonet::virtio::{InterruptMode, RingFormat, TransportKind};
use ballonet_models::{
    Behaviour, Capability, Handling, Machine, ModelPlatform, RegisterLie, Schedule, Structure, feature,
};

/// RAM in MiB: more frames than a device can have in flight.
const RAM: u32 = 16;
/// Nanoseconds that one clock read or one turn of a waiting loop takes: large, so that waits of seconds end soon.
const WAIT: u64 = 200_000;
/// Features that a driver must accept if offered.
const MANDATORY: u64 = feature::VERSION_1 | feature::ACCESS_PLATFORM | feature::ANY_LAYOUT;
/// I/O and memory decoding, and bus mastering.
const COMMAND: u8 = 7;
/// The highest number of frames that the platform keeps back.
const FLOOR_MAX: u16 = 512;

/// Registers of both interfaces that the device may lie in: structure and offset.
const REGISTERS: [(Structure, u64); 45] = {
    use Structure::{Common, Device, Isr, Legacy, MsixTable, PendingBits};
    [
        (Common, 0x00),
        (Common, 0x04),
        (Common, 0x08),
        (Common, 0x0c),
        (Common, 0x10),
        (Common, 0x12),
        (Common, 0x14),
        (Common, 0x15),
        (Common, 0x16),
        (Common, 0x18),
        (Common, 0x1a),
        (Common, 0x1c),
        (Common, 0x1e),
        (Common, 0x20),
        (Common, 0x28),
        (Common, 0x30),
        (Common, 0x38),
        (Common, 0x3a),
        (Common, 0x3c),
        (Isr, 0),
        (Device, 0),
        (Device, 4),
        (Device, 8),
        (Device, 12),
        (MsixTable, 0),
        (MsixTable, 4),
        (MsixTable, 8),
        (MsixTable, 12),
        (MsixTable, 16),
        (MsixTable, 28),
        (MsixTable, 44),
        (PendingBits, 0),
        (Legacy, 0x00),
        (Legacy, 0x04),
        (Legacy, 0x08),
        (Legacy, 0x0c),
        (Legacy, 0x0e),
        (Legacy, 0x10),
        (Legacy, 0x12),
        (Legacy, 0x13),
        (Legacy, 0x14),
        (Legacy, 0x16),
        (Legacy, 0x18),
        (Legacy, 0x1c),
        (Legacy, 0x20),
    ]
};

/// A machine with a balloon.
#[derive(Debug, Arbitrary)]
pub struct Setup {
    device: Make,
    limits: Limits,
    choices: Choices,
    floor: u16,
}

/// The interfaces of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
enum Interfaces {
    Modern,
    Transitional,
    Legacy,
    Mmio,
    LegacyMmio,
}

/// The device.
#[derive(Debug, Arbitrary)]
struct Make {
    interfaces: Interfaces,
    /// Features that the device does not offer.
    missing: u64,
    /// Sizes of the page queues, the hinting queue and the reporting queue.
    sizes: [u8; 3],
    vectors: Option<u8>,
    pin: bool,
    stride: u8,
    /// The command register as firmware left it.
    command: u8,
    /// Whether an in-order device completes several requests by one used entry.
    batches: bool,
    /// Delay until the device handles a kick, in units of 100 ns; `None`: before the store returns.
    delay: Option<u16>,
    /// The longest service time of a request, in µs; `schedule` chooses the actual times.
    service: u8,
    schedule: Vec<u16>,
    lies: Lies,
}

/// Where the device lies or fails.
#[derive(Debug, Arbitrary)]
struct Lies {
    /// Registers that read wrong: the number of right reads before, and the bits to invert.
    registers: Vec<(u16, u32)>,
    /// The same for configuration space.
    config: Vec<(u16, u32)>,
    /// Bytes of configuration space that are wrong from the start.
    patches: Vec<(u8, u8)>,
    named: Vec<NamedLie>,
    /// Capabilities with a wrong offset and length.
    capabilities: Vec<(u8, u32, u32)>,
    last_link: Option<u8>,
    refuses_features: bool,
    refused_vectors: Vec<u8>,
    /// Interval of spurious interrupts, in units of 50 µs.
    spurious: Option<u8>,
    /// Whether a reset never completes.
    never_reset: bool,
    removed_after: Option<u16>,
}

/// A register that reads wrong for a number of reads, after a number of right ones.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct NamedLie {
    register: u8,
    after: u8,
    times: u8,
    value: u32,
}

impl NamedLie {
    /// The lie as the model takes it.
    pub fn lie(self) -> RegisterLie {
        let (structure, offset) = REGISTERS[usize::from(self.register) % REGISTERS.len()];
        let times = if self.times < 0xf0 { self.times.into() } else { u32::MAX };
        RegisterLie { structure, offset, after: self.after.into(), times, value: self.value }
    }
}

/// What is particular to a device on MMIO, and its wrong registers.
#[derive(Debug, Arbitrary)]
pub struct Mmio {
    legacy: bool,
    magic: Option<u32>,
    version: Option<u32>,
    placeholder: bool,
    size: Option<u32>,
    in_use: u32,
    status: u32,
    no_queue_reset: bool,
}

impl Mmio {
    /// Whether all registers are right.
    pub fn is_honest(&self) -> bool {
        let Self { magic, version, placeholder, size, in_use, status, no_queue_reset, .. } = *self;
        let found = magic.is_none() && version.is_none() && !placeholder;
        found && size.is_none() && in_use == 0 && status == 0 && !no_queue_reset
    }

    fn behaviour(&self, device: Behaviour) -> Behaviour {
        let mut behaviour = if self.legacy { device.on_legacy_mmio() } else { device.on_mmio() };
        if let Some(registers) = &mut behaviour.mmio {
            registers.magic = self.magic.unwrap_or(registers.magic);
            (registers.version_lie, registers.placeholder) = (self.version, self.placeholder);
            (registers.size_lie, registers.in_use) = (self.size, self.in_use);
            (registers.status_junk, registers.no_queue_reset) = (self.status, self.no_queue_reset);
        }
        behaviour
    }
}

/// The platform's limits.
#[derive(Debug, Arbitrary)]
struct Limits {
    vectors: Option<u8>,
    messages: bool,
    lines: bool,
    memory: Option<u8>,
    /// The first request that the platform refuses without reason, and how many more.
    refused: Option<(u8, u8)>,
}

/// [`Options`].
#[derive(Debug, Arbitrary)]
struct Choices {
    transport: Option<bool>,
    interrupts: Option<u8>,
    ring: Option<bool>,
    declined: u64,
    window: u16,
    /// Age, threshold and budget of [`ReportPolicy`].
    reporting: Option<(u64, u64, u64)>,
    /// Frames per descriptor and descriptors per request.
    shape: Option<(u16, u16)>,
    queue_size: Option<u16>,
    poison: Option<u8>,
}

impl Setup {
    /// The machine and the address of its balloon.
    pub fn build(&self) -> (Machine, ModelPlatform, Bdf) {
        let (machine, at) = Machine::with_balloon(RAM, self.device.behaviour());
        let Limits { vectors, messages, lines, memory, refused } = self.limits;
        machine.limit(vectors.unwrap_or(64).into(), messages, lines);
        if let Some(pieces) = memory {
            machine.limit_dma(pieces.into());
        }
        if let Some((first, count)) = refused {
            machine.refuse(first.into()..u64::from(first) + u64::from(count));
        }
        let mut platform = ModelPlatform::new(&machine);
        platform.frames.set_floor((self.floor % FLOOR_MAX).into());
        (machine, platform, at)
    }

    /// The same machine with its balloon on MMIO.
    pub fn build_on_mmio(&self, mmio: &Mmio) -> (Machine, ModelPlatform, Bdf) {
        let (machine, platform, at) = self.build();
        machine.plug(at, mmio.behaviour(self.device.behaviour()));
        (machine, platform, at)
    }

    /// Whether the device follows all rules from the start, and the driver may use it.
    pub fn is_honest(&self) -> bool {
        let Lies { registers, config, capabilities, last_link, refuses_features, refused_vectors, .. } =
            &self.device.lies;
        let Lies { patches, named, .. } = &self.device.lies;
        let Lies { spurious, never_reset, removed_after, .. } = self.device.lies;
        let quiet = registers.is_empty() && config.is_empty() && capabilities.is_empty() && last_link.is_none();
        let works = !refuses_features && refused_vectors.is_empty() && !never_reset && removed_after.is_none();
        quiet
            && works
            && patches.is_empty()
            && named.is_empty()
            && spurious.is_none()
            && self.choices.declined & MANDATORY == 0
    }

    /// Whether configuration space always reads true.
    pub fn config_is_true(&self) -> bool {
        let Lies { registers, config, patches, .. } = &self.device.lies;
        config.is_empty() && registers.is_empty() && patches.is_empty()
    }

    /// The firmware's decode and bus master bits of the command register. `None` on MMIO, which has no such register.
    pub fn command(&self) -> Option<u16> {
        let on_mmio = matches!(self.device.interfaces, Interfaces::Mmio | Interfaces::LegacyMmio);
        (!on_mmio).then_some(u16::from(self.device.command & COMMAND))
    }

    /// The most frames that the balloon can take.
    pub fn frames(&self, platform: &ModelPlatform) -> u64 {
        platform.frames.total() - u64::from(self.floor % FLOOR_MAX)
    }

    /// The driver's options; the driver adopts `adopted` frames.
    pub fn options(&self, adopted: u32) -> Options {
        let choices = &self.choices;
        let mut options = Options::new("fuzz");
        options.transport =
            choices.transport.map(|legacy| if legacy { TransportKind::Legacy } else { TransportKind::Modern });
        options.interrupts = choices.interrupts.map(|mode| InterruptMode::LADDER[usize::from(mode) % 4]);
        options.ring = choices.ring.map(|packed| if packed { RingFormat::Packed } else { RingFormat::Split });
        options.declined = Features::from_bits_retain(choices.declined);
        options.adopted = adopted;
        options.window = choices.window;
        if let Some(shape) = choices.shape.and_then(|(frames, descriptors)| RequestShape::new(frames, descriptors)) {
            options.shape = Some(shape);
        }
        options.poison = choices.poison;
        options.queue_size = choices.queue_size.unwrap_or(options.queue_size).max(1);
        if let Some((age, threshold, budget)) = choices.reporting {
            options.reporting = ReportPolicy { age, threshold, budget };
        }
        options
    }
}

impl Make {
    fn behaviour(&self) -> Behaviour {
        let modern = !matches!(self.interfaces, Interfaces::Legacy | Interfaces::LegacyMmio);
        let offered = (((1 << 44) - 1) & !self.missing) | if modern { feature::VERSION_1 } else { 0 };
        let packed = modern && offered & feature::RING_PACKED != 0;
        let [frames, hints, reports] = self.sizes.map(|size| queue_size(size, packed));
        let mut behaviour = Behaviour::conforming().with_features(offered).with_pci_access();
        behaviour = behaviour.with_vectors(self.vectors.map(|vectors| u16::from(vectors % 9) + 1));
        behaviour = match self.interfaces {
            Interfaces::Modern => behaviour,
            Interfaces::Transitional => behaviour.transitional(),
            Interfaces::Legacy => behaviour.legacy(),
            Interfaces::Mmio => behaviour.on_mmio(),
            Interfaces::LegacyMmio => behaviour.on_legacy_mmio(),
        };
        behaviour.queue_size = frames;
        (behaviour.quirks.hint_size, behaviour.quirks.reporting_size) = (hints, reports);
        behaviour.batches = self.batches;
        behaviour.notify_stride = u16::from(self.stride % 4) + 1;
        if behaviour.mmio.is_none() {
            (behaviour.pin, behaviour.command) = (self.pin, u16::from(self.command & COMMAND));
        }
        behaviour.handling = self.delay.map_or(Handling::AtOnce, |delay| Handling::Later(u64::from(delay) * 100));
        behaviour.service = u64::from(self.service) * 1000;
        behaviour.schedule = Schedule::new(self.schedule.clone());
        behaviour.stolen = WAIT;
        self.lies.tell(&mut behaviour);
        behaviour
    }
}

impl Lies {
    fn tell(&self, behaviour: &mut Behaviour) {
        let twists = |lies: &[(u16, u32)]| lies.iter().map(|(read, bits)| (u64::from(*read), *bits)).collect();
        behaviour.twists = twists(&self.registers);
        behaviour.config_twists = twists(&self.config);
        behaviour.config_patches = self.patches.clone();
        behaviour.register_lies = self.named.iter().map(|lie| lie.lie()).collect();
        for (which, wrong_offset, wrong_length) in &self.capabilities {
            let capabilities = &mut behaviour.layout.capabilities;
            let Some(which) = usize::from(*which).checked_rem(capabilities.len()) else { break };
            if let Capability::Virtio { offset, length, .. } = &mut capabilities[which] {
                (*offset, *length) = (*wrong_offset, *wrong_length);
            }
        }
        behaviour.layout.last_link = self.last_link.unwrap_or(behaviour.layout.last_link);
        behaviour.refuses_features = self.refuses_features;
        behaviour.refused_vectors = self.refused_vectors.iter().map(|vector| u32::from(*vector)).collect();
        behaviour.spurious = self.spurious.map(|units| (u64::from(units) + 1) * 50_000);
        if self.never_reset {
            behaviour.reset_time = u64::MAX;
        }
        behaviour.removed_after = self.removed_after.map(u64::from);
    }
}

fn queue_size(size: u8, packed: bool) -> u16 {
    if packed { u16::from(size) + 1 } else { 1 << (size % 9) }
}
