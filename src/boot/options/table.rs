//! The options: each row declares the field, its form, the value if it is not given, the key, and what it does.

use core::fmt;

use ballonet::balloon::{OomPolicy, Options, ReportPolicy};
use ballonet::memory::FRAME_SIZE;
use ballonet::virtio::{InterruptMode, RingFormat, TransportKind};

use super::choice::{
    AccessChoice, AffinityChoice, HotplugChoice, LogFormat, Mode, PoweroffChoice, ScreenChoice, TapVersion, Terminal,
};
use super::declare::options;
use super::form::{
    Auto, Checks, Choice, CpuLimit, DeclinedFeatures, DeviceName, FillByte, Form, HostActions, Milliseconds, MmioForm,
    Program, QueueSize, Shape, Size, Switch, TestName, Valid, ValueError,
};
use super::mmio::MmioArguments;

/// Nanoseconds in a millisecond.
const MILLISECOND: u64 = 1_000_000;

options! {
    mode: Choice<Mode> = Mode::Serve, "mode",
        "runs the balloon; tests the device; or measures what a request costs and how fast memory moves. The last two end by themselves";
    irq: Auto<InterruptMode> = None, "irq",
        "forces one kind of interrupts; `auto` takes the first that works, in this order";
    transport: Auto<TransportKind> = None, "transport",
        "virtio-pci interface; `auto` takes the modern one where the device has it";
    access: Choice<AccessChoice> = AccessChoice::Auto, "access",
        "how a modern device's registers are reached: mapped if possible, or all through the window in its configuration space (virtio 1.4, 4.1.4.9)";
    ring: Auto<RingFormat> = None, "ring",
        "format of the queues; `auto` takes packed where the device offers it (`packed=on` in QEMU)";
    declined_features: DeclinedFeatures = 0, "features",
        "virtio features not to accept, such as `-event_idx`";
    queue_size: QueueSize = Options::QUEUE_SIZE, "queue-size",
        "largest size of a queue; a legacy device's queues keep their own";
    request: Shape = None, "request",
        "frame numbers per descriptor, and descriptors per request. `auto`: `256x2`, a whole 2 MiB, if a trial shows that the device reads several descriptors, else `256x1`. Several descriptors form a chain, or an indirect table where the queue is too small for chains";
    report_age: Milliseconds = ReportPolicy::default().age / MILLISECOND, "report-age",
        "how long memory must be free before it is reported to the host";
    report_threshold: Size = ReportPolicy::default().threshold * FRAME_SIZE, "report-threshold",
        "unreported free memory that triggers a report";
    report_budget: Size = ReportPolicy::default().budget * FRAME_SIZE, "report-budget",
        "the most memory reported per second";
    oom_cooldown: Milliseconds = OomPolicy::default().cooldown / MILLISECOND, "oom-cooldown",
        "how long the balloon stays below the host's target after the guest reclaimed memory from it (`deflate_on_oom`); up to 64 times as long if memory keeps running out";
    poison: FillByte = None, "poison",
        "the fill value of free memory. The host is told the value (`page_poison`); memory is filled when it returns from the host and before it is reported. QEMU discards reported memory only with `0x00`. `off`: free memory is not filled, and the feature is declined";
    work: Program = None, "work",
        "runs a program that uses SIZE of memory and verifies a pattern in it: it allocates all of it and frees it, repeatedly; keeps it; allocates and frees random pieces; or allocates, verifies and ends";
    cpus: CpuLimit = None, "cpus",
        "the most CPUs to start (`CPUS=` of `run.sh` sets how many the machine has)";
    affinity: Choice<AffinityChoice> = AffinityChoice::Spread, "affinity",
        "where message-signalled interrupts go: spread evenly over all CPUs, or all to the boot CPU, whose main loop does the work; then no other CPU has to wake it. `mode=check` uses only the boot CPU";
    hotplug: Choice<HotplugChoice> = HotplugChoice::On, "hotplug",
        "hot-plug slots: served with the waits that PCI Express requires (5 s after the button is pressed, 1 s for power to drain), served without them (safe in virtual machines), or left alone";
    poweroff: Choice<PoweroffChoice> = PoweroffChoice::Keep, "poweroff",
        "what happens to ballooned memory at power-off: the host keeps it, or the balloon deflates first, for at most 5 s";
    checks: Checks = None, "checks",
        "which checks `mode=check` runs; all if not given";
    device: DeviceName = DeviceName::BALLOON, "device",
        "which virtio devices `mode=check` tests: all of a type, or one by its address, on PCI (`transport=legacy`: by the legacy interface) or MMIO. The log first says what the checks write outside the guest";
    writes: Switch = false, "writes",
        "lets `mode=check` write sectors of block devices; it puts back what was there, unless the machine stops meanwhile";
    host: HostActions = HostActions::NONE, "host",
        "the actions that the host performs when a check of `mode=check` requests them by a `host` event; set by `ballonet-check`. Without it these checks are skipped";
    tap: Choice<TapVersion> = TapVersion::V13, "tap",
        "version of TAP that `mode=check` writes; Perl's `prove` refuses 14";
    log: Choice<LogFormat> = LogFormat::Text, "log",
        "lines for people, or one JSON object a line with `event` and `ms`";
    term: Choice<Terminal> = Terminal::Plain, "term",
        "whether a terminal is at the other end of the serial line (set by `run.sh`)";
    screen: Choice<ScreenChoice> = ScreenChoice::Auto, "screen",
        "whether the screen is used, if there is one";
    mmio_devices: MmioForm = MmioArguments::new(), "virtio_mmio.device",
        "a virtio-mmio device, in the syntax of Linux: size of its window (with K, M or G), address, interrupt (edge-triggered and active high), and a number that is ignored. If ACPI declares a device at the same address, ACPI's description holds";
    verbose: Switch = false, "verbose",
        "a longer boot log: the memory map, ACPI tables, BARs and capabilities. In a virtual machine the first two are otherwise only on the screen and in the output of `log`";
    test: TestName = None, "test",
        "in the image with the kernel's own tests: runs one test";
    list: Switch = false, "list",
        "in the image with the kernel's own tests: lists them";
}

impl Key {
    /// The key that `word` names.
    pub(crate) fn named(word: &[u8]) -> Option<Self> {
        Self::ALL.iter().copied().find(|key| key.word().as_bytes() == word)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// The value of one option.
struct Value<'o, 'a> {
    options: &'o KernelOptions<'a>,
    key: Key,
}

impl fmt::Display for Value<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options.write(self.key, f)
    }
}

impl<'a> KernelOptions<'a> {
    /// The value of `key`, as it is typed; empty if the option is not given and has no word for that.
    pub fn value(&self, key: Key) -> impl fmt::Display {
        Value { options: self, key }
    }
}

impl fmt::Display for KernelOptions<'_> {
    /// Writes the options that differ from the defaults, as a command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for &key in Key::ALL.iter().filter(|key| !self.is_default(**key)) {
            write!(f, "{space}{key}={}", self.value(key))?;
            space = " ";
        }
        Ok(())
    }
}
