//! The options of a balloon driver.

use super::policy::oom_policy::OomPolicy;
use super::policy::report_plan::ReportPolicy;
use super::policy::request_shape::RequestShape;
use super::wire::{FREE_PAGE_HINT, PAGE_REPORTING};
use crate::platform::DeviceName;
use crate::virtio::spec::Features;
use crate::virtio::{DeviceOptions, InterruptMode, RingFormat, TransportKind};

/// The options of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// The device's name, in logs and in the names of its vectors.
    pub name: DeviceName,
    /// The transport to use; `None` for the modern one if the device has it, else the legacy one.
    pub transport: Option<TransportKind>,
    /// Whether to reach the device's registers through configuration space even if they could be mapped (virtio 1.4,
    /// 4.1.4.9). An error if the device has no such window.
    pub through_config: bool,
    /// The interrupt mode to use; `None` for the first that works.
    pub interrupts: Option<InterruptMode>,
    /// The only queue format to accept; `None` for packed queues if the device offers them, as a driver should (6.1),
    /// else split ones.
    pub ring: Option<RingFormat>,
    /// Implemented features not to accept.
    pub declined: Features,
    /// Frames that an earlier driver of this device left ballooned, and this one takes over.
    pub adopted: u32,
    /// The most requests in flight in one direction, 1 to 256. Each takes 1 KiB of DMA memory per 256 frames.
    pub window: u16,
    /// When free memory is reported to the host, if the device has free page reporting.
    pub reporting: ReportPolicy,
    /// How long the balloon stays smaller than the host wants after the guest ran out of memory.
    pub oom: OomPolicy,
    /// The fill value of free frames (`PAGE_POISON`), which is written for the device: frames are filled with it when
    /// they return from the host and before they are reported. With `None`, or if the platform cannot fill frames, the
    /// feature is not accepted.
    pub poison: Option<u8>,
    /// How the frame numbers of a request are split over descriptors; `None` for two full descriptors if the device is
    /// found to read several, else one.
    pub shape: Option<RequestShape>,
    /// The most entries of a queue, at least 1. A legacy device's queues have a fixed size.
    pub queue_size: u16,
    /// How often within [`Options::recovery_window`] a device that needs a reset is reset and started again, before the
    /// driver gives up on it. 0: never.
    pub recoveries: u32,
    /// How long a recovery counts, in nanoseconds.
    pub recovery_window: u64,
}

/// Three recoveries a minute: enough for an occasional fault, and little load from a device that keeps failing.
const RECOVERIES: u32 = 3;
/// A minute, in nanoseconds.
const RECOVERY_WINDOW: u64 = 60_000_000_000;

impl Options {
    /// The default of [`Options::queue_size`]. More would waste memory, because requests in flight are limited.
    pub const QUEUE_SIZE: u16 = 1024;

    /// The defaults, for a device of this name.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self {
            name: name.as_ref().into(),
            transport: None,
            through_config: false,
            interrupts: None,
            ring: None,
            declined: Features::empty(),
            adopted: 0,
            window: 64,
            reporting: ReportPolicy::default(),
            oom: OomPolicy::default(),
            poison: None,
            shape: None,
            queue_size: Self::QUEUE_SIZE,
            recoveries: RECOVERIES,
            recovery_window: RECOVERY_WINDOW,
        }
    }

    /// For a kernel with little memory: about 8 KiB of heap and 4 KiB of DMA memory, the latter in five allocations, at
    /// the price of more kicks. Free memory is neither reported nor hinted. A legacy device's queues keep their size.
    pub fn small(name: impl AsRef<str>) -> Self {
        let shape = RequestShape::new(RequestShape::FRAMES_MAX, 1);
        let declined = FREE_PAGE_HINT | PAGE_REPORTING;
        Self { window: 2, queue_size: 8, shape, declined, ..Self::new(name) }
    }

    /// The options of any virtio device.
    pub(super) fn device(&self) -> DeviceOptions {
        let mut options = DeviceOptions::new(self.name);
        (options.transport, options.through_config) = (self.transport, self.through_config);
        (options.interrupts, options.declined) = (self.interrupts, self.declined);
        options
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new("virtio0")
    }
}
