//! Events of `mode=check` and `mode=bench`.

use core::fmt;

use super::declare::events;
use super::field::{Bytes, Decimal, Field, declare};
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
        verdict: &'e str, "`ok`, `failed`, `skipped` or `trouble`; of a hostile check also `refused`, `needs-reset`, `stalled`, `wedged` or `corrupted`";
        tier: Option<&'e str>, "of a hostile check: the harm done, `none`, `device` or `memory`";
        detail: Option<&'e str>, "what the device did, if it failed";
        asks: Option<&'e str>, "what the specification requires, or what a hostile check does, if it failed";
        breaks: Option<&'e str>, "of a hostile check: the rule for drivers that it breaks, if it failed";
        skipped: Option<&'e str>, "why the check was skipped";
        trouble: Option<&'e str>, "why the tester could not check";
    }

    /// A check requests an action of the host, one of those in `host=` on the command line.
    "host" => Host<'e> {
        action: &'e str, "`target`: only set the target; `statistics`: ask the device for statistics, until the check ends; `pause`: pause the virtual machine, and resume it; `restore`: save its state, and continue from that in a new process; `unplug`: ask the guest to let go of the device; `plug`: once it has, plug the same device in";
        device: &'e dyn fmt::Display, "the device's address, on PCI or MMIO";
        target: Option<Bytes>, "the balloon's size that the host must then request, which tells the check that the action is done; not of `unplug` and `plug`, which the device's slot shows";
    }

    /// The end of `mode=check`.
    "checks" => Checks<'e> {
        ok: bool, "whether every device passed every MUST";
        passed: u32, "checks passed, including hostile ones that the device survived";
        refused: u32, "hostile checks that the device refused";
        needed_reset: u32, "hostile checks after which the device asked for a reset, and recovered";
        failed: u32, "checks of a MUST failed";
        harmed: u32, "hostile checks among them";
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
