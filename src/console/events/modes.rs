//! Events of `mode=check` and `mode=bench`.

use core::fmt;

use super::declare::events;
use super::field::{Decimal, Field, declare};
use super::spec::{Event, EventSpec};
use crate::console::json::Object;

events! {
    /// A check begins. If no `check` event follows, it stopped the machine.
    "check-started" => CheckStarted<'e> {
        name: &'e str, "the check";
        device: &'e dyn fmt::Display, "the device's address, on PCI or MMIO";
    }

    /// The outcome of a check of a device.
    "check" => Check<'e> {
        name: &'e str, "the check";
        severity: &'e str, "`must`, `should` or `custom`";
        section: &'e str, "the section of the virtio specification";
        device: &'e dyn fmt::Display, "the device's address, on PCI or MMIO";
        ok: bool, "false if the device failed it";
        detail: Option<&'e str>, "what the device did, if it failed";
        asks: Option<&'e str>, "what the specification requires, if it failed";
        skipped: Option<&'e str>, "why the check was skipped";
        trouble: Option<&'e str>, "why the tester could not check";
    }

    /// The end of `mode=check`.
    "checks" => Checks<'e> {
        ok: bool, "whether every device passed every MUST";
        passed: u32, "checks passed";
        failed: u32, "checks of a MUST failed";
        warned: u32, "other checks failed";
        skipped: u32, "checks skipped";
        troubled: u32, "checks that the tester could not perform";
        ended: Option<&'e str>, "why the run stopped early";
    }

    /// A figure of `mode=bench`.
    "bench" => Bench<'e> {
        device: &'e str, "the balloon, or what else was measured";
        name: &'e str, "the figure";
        value: Decimal, "its value";
        unit: &'e str, "its unit";
    }
}
