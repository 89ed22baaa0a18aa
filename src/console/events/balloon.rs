//! Events of balloons: their life, their movements, and what went wrong.

use core::fmt;

use super::declare::events;
use super::field::{Bytes, Field, Frames, MibPerSecond, declare};
use super::spec::{Event, EventSpec};
use crate::console::json::Object;

events! {
    /// A balloon's driver is ready.
    "ready" => Ready<'e> {
        name: &'e str, "the balloon";
        device: &'e dyn fmt::Display, "its address, on PCI or MMIO";
        irq: &'e str, "`msix`, `msix-shared`, `intx` or `poll`";
        transport: &'e str, "`modern`, `legacy`, `mmio` or `mmio-legacy`";
        ring: &'e str, "`split` or `packed`";
        features: &'e [&'e str], "the negotiated virtio features that have a name";
        target: Bytes, "the size that the host asks for";
        actual: Bytes, "the balloon's size";
    }

    /// A balloon's target or size has changed.
    "balloon" => Moved {
        target: Bytes, "the size that the host asks for";
        actual: Bytes, "the balloon's size";
    }

    /// A balloon stops short of its target; a warning in text.
    "short" => Short<'e> {
        target: Bytes, "the size that the host asks for";
        actual: Bytes, "the balloon's size";
        message: &'e str, "why";
    }

    /// Free memory was reported to the host.
    "report" => Reported<'e> {
        name: &'e str, "the balloon";
        bytes: Bytes, "reported since the start";
    }

    /// A round of free page hints has ended.
    "hint" => Hinted<'e> {
        name: &'e str, "the balloon";
        id: u32, "the host's id of the round";
        bytes: Bytes, "hinted in the round";
        outcome: &'e str, "`complete`, `stopped`, `done` or `superseded`";
    }

    /// The host no longer needs hints: hinted memory is free again.
    "unhint" => Unhinted<'e> {
        name: &'e str, "the balloon";
    }

    /// Failing allocations reclaimed memory from a balloon, or tried to.
    "oom-reclaim" => OomReclaim<'e> {
        name: &'e str, "the balloon";
        reclaims: u64, "allocations that asked for memory, since the start";
        failed: u64, "those that got too little";
        bytes: Bytes, "reclaimed since the start";
        actual: Bytes, "the balloon's size";
        error: Option<&'e dyn fmt::Display>, "why the last one got too little";
    }

    /// How the driver sends frames to the host has changed.
    "strategy" => Strategy<'e> {
        name: &'e str, "the balloon";
        request: &'e dyn fmt::Display, "frame numbers per descriptor, `x`, descriptors per request";
        chains: &'e str, "whether the device reads requests of several descriptors";
        path: &'e str, "`direct`, or `report-first`";
        report_first: Option<MibPerSecond>, "the rate measured with reporting first";
        direct: Option<MibPerSecond>, "the rate measured without reporting first";
    }

    /// The device, or one queue of it, was reset and works again.
    "reset" => Reset<'e> {
        name: &'e str, "the balloon";
        reason: &'e str, "why";
        inflating: Frames, "frames in flight to the host";
        deflating: Frames, "frames in flight from the host";
        actual: Bytes, "the balloon's size";
        queue: Option<&'e str>, "the queue, if only that was reset";
    }

    /// The device was reset and stays stopped.
    "freeze" => Freeze<'e> {
        name: &'e str, "the balloon";
        target: Bytes, "the size that the host asked for";
        actual: Bytes, "the balloon's size";
    }

    /// A frozen device runs again.
    "restore" => Restore<'e> {
        name: &'e str, "the balloon";
        target: Bytes, "the size that the host asks for";
        actual: Bytes, "the balloon's size";
    }

    /// The driver gave up on the device.
    "failed" => Failed<'e> {
        name: &'e str, "the balloon";
        error: &'e dyn fmt::Display, "why";
    }

    /// The device has returned no requests for seconds, although its registers respond.
    "silent" => Silent<'e> {
        name: &'e str, "the balloon";
        inflating: Bytes, "in flight to the host";
        deflating: Bytes, "in flight from the host";
        reporting: Bytes, "in flight as reports";
        answers: u64, "requests that it returned before";
        message: &'e str, "the same as text, with the usual causes";
    }

    /// A silent device returns requests again.
    "answers" => Answers<'e> {
        name: &'e str, "the balloon";
    }

    /// A balloon's device is gone, or was given up.
    "removed" => Removed<'e> {
        name: &'e str, "the balloon";
        device: &'e dyn fmt::Display, "its address, on PCI or MMIO";
        ballooned: Bytes, "memory that stays with the host until another balloon adopts it";
    }
}
