//! The options of a balloon driver.

use alloc::string::String;

use super::relief::ReliefPolicy;
use super::report_plan::ReportPolicy;
use super::shape::RequestShape;
use crate::virtio::spec::Features;
use crate::virtio::{DeviceOptions, InterruptMode, RingFormat, TransportKind};

/// Choices for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// The device's name, in logs and in its vectors' names.
    pub name: String,
    /// The transport to take; `None` for the modern one where the device has it, and else the legacy one.
    pub transport: Option<TransportKind>,
    /// Whether to reach the device's structures through configuration space even where they could be mapped (virtio 1.4,
    /// 4.1.4.9). An error where there is no window for that.
    pub through_config: bool,
    /// The interrupt mode to take; `None` for the first that works.
    pub interrupts: Option<InterruptMode>,
    /// The format of the queues, and no other; `None` for packed ones where the device offers them, as a driver should
    /// (virtio 1.4, 6.1), and else split ones.
    pub ring: Option<RingFormat>,
    /// Features not to accept although they are implemented.
    pub declined: Features,
    /// Frames that an earlier driver of this device left ballooned, which this one takes over.
    pub adopted: u32,
    /// The most requests in flight in one direction, 1 to 256. Each takes 1 KiB of DMA memory for each 256 frames that it may
    /// have.
    pub window: u16,
    /// When free memory is reported to the host, if the device wants to know.
    pub reporting: ReportPolicy,
    /// How long the balloon stays smaller than the host wants when the guest has run out of memory.
    pub relief: ReliefPolicy,
    /// The fill value of free frames, which the device learns (`PAGE_POISON`): frames are filled with it when they
    /// come back from the host and before they are reported. `None`, as where the platform cannot fill frames: they hold
    /// anything, and the feature is not accepted.
    pub poison: Option<u8>,
    /// How the frame numbers of a request are laid over descriptors; `None` for [`RequestShape::REGION`] where the device
    /// turns out to read several descriptors, and else one of them.
    pub shape: Option<RequestShape>,
    /// The most entries of a queue, at least 1; a smaller queue is made where the device has larger ones. A legacy
    /// device's queues have the size that they have.
    pub queue_size: u16,
    /// How often a device that says that it needs a reset is reset and started again within
    /// [`Options::recovery_window`], before the driver gives up on it. 0: never.
    pub recoveries: u32,
    /// The time for which a recovery counts, in nanoseconds.
    pub recovery_window: u64,
}

/// Three recoveries a minute: enough for a device that stumbles, and no load from one that does nothing else.
const RECOVERIES: u32 = 3;
/// A minute, in nanoseconds.
const RECOVERY_WINDOW: u64 = 60_000_000_000;

impl Options {
    /// The most entries of a queue, unless told otherwise; more would be memory wasted, since requests in flight are
    /// limited anyway.
    pub const QUEUE_SIZE: u16 = 1024;

    /// Choices for a device of this name: all automatic.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            transport: None,
            through_config: false,
            interrupts: None,
            ring: None,
            declined: Features::empty(),
            adopted: 0,
            window: 64,
            reporting: ReportPolicy::default(),
            relief: ReliefPolicy::default(),
            poison: None,
            shape: None,
            queue_size: Self::QUEUE_SIZE,
            recoveries: RECOVERIES,
            recovery_window: RECOVERY_WINDOW,
        }
    }
}

impl Options {
    /// Those that hold for a virtio device of any type.
    pub(super) fn device(&self) -> DeviceOptions {
        let mut options = DeviceOptions::new(self.name.as_str());
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
