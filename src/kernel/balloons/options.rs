//! Converts the command line's options into the driver's.

use ballonet::balloon::{Options, ReportPolicy};
use ballonet::memory::FRAME_SIZE;
use ballonet::virtio::spec::Features;

use crate::boot::{AccessChoice, KernelOptions};

/// Nanoseconds in a millisecond.
const MILLISECOND: u64 = 1_000_000;

/// The options of a balloon's driver, except its name.
pub(crate) fn driver_options(options: &KernelOptions<'_>) -> Options {
    let mut driver = Options::default();
    driver.transport = options.transport;
    driver.through_config = options.access == AccessChoice::Window;
    driver.interrupts = options.irq;
    driver.ring = options.ring;
    driver.declined = Features::from_bits_retain(options.declined_features);
    driver.reporting = ReportPolicy {
        age: options.report_age * MILLISECOND,
        threshold: options.report_threshold / FRAME_SIZE,
        budget: options.report_budget / FRAME_SIZE,
    };
    driver.oom.cooldown = options.oom_cooldown * MILLISECOND;
    driver.poison = options.poison;
    driver.shape = options.request;
    driver.queue_size = options.queue_size;
    driver
}
