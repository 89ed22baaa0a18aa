//! Events that answer commands of the console.

use core::fmt;

use super::declare::events;
use super::field::{Bytes, Field, Frames, Nanoseconds, declare};
use super::spec::{Event, EventSpec};
use crate::console::json::Object;

events! {
    /// A line of an answer that has no event of its own.
    "console" => ConsoleLine<'e> {
        text: &'e dyn fmt::Display, "the line";
    }

    /// `irq`: an interrupt vector, or a line.
    "irq" => Irq<'e> {
        name: &'e str, "the device and what interrupts";
        count: u64, "interrupts so far";
        cpu: Option<u32>, "the CPU that a vector interrupts";
    }

    /// `irq`: interrupts of a vector on one CPU.
    "irq-cpu" => IrqCpu<'e> {
        name: &'e str, "the device and what interrupts";
        cpu: u32, "the CPU";
        count: u64, "interrupts that came to it";
    }

    /// `cpus`: a CPU.
    "processor" => Processor {
        number: u32, "the CPU";
        apic_id: u32, "the id of its local APIC";
        interrupts: u64, "interrupts that came to it";
        jobs: u64, "jobs that it ran";
        slept: Nanoseconds, "time asleep";
        up: Nanoseconds, "time since it started";
    }

    /// `affinity`: a queue interrupts another CPU.
    "affinity" => Affinity<'e> {
        name: &'e str, "the balloon";
        queue: &'e str, "the queue";
        cpu: u32, "the CPU";
    }

    /// `mem`: page frames by state.
    "memory" => Memory {
        total: Frames, "all frames";
        free: Frames, "free frames";
        used: Frames, "frames in use";
        ballooned: Frames, "frames in the balloon";
        reserved: Frames, "frames that are never allocated";
        refused: u64, "operations on frames that were refused";
        sound: bool, "whether the allocator's records agree with each other";
    }

    /// `mem hold` and `mem release`: memory held.
    "held" => Held<'e> {
        bytes: Bytes, "held now";
        reason: Option<&'e dyn fmt::Display>, "why that is less than requested";
    }

    /// `mem verify`: the contents of memory held.
    "verify" => Verify {
        ok: bool, "whether all words are as written";
        bytes: Bytes, "verified";
        bad: u64, "words that differ";
    }

    /// A program that uses memory (`work`) has entered a phase.
    "work" => Work<'e> {
        kind: &'e str, "`sawtooth`, `steady`, `churn` or `verify`";
        phase: &'e str, "the phase";
        bytes: Bytes, "allocated now";
        size: Bytes, "the most that it allocates";
        allocations: u64, "allocations so far";
        failures: u64, "those that failed";
        bad: u64, "words that were not as written";
        rounds: u64, "rounds done";
    }

    /// `stats`: a driver's counters.
    "stats" => Stats<'e> {
        name: &'e str, "the balloon";
        kicks: u64, "notifications to the device";
        interrupts: u64, "interrupts from it";
        inflated: Frames, "frames given to the host";
        deflated: Frames, "frames taken back";
        reported: Frames, "frames reported as free";
        reports: u64, "reports";
    }

    /// `cpu`: how long the boot CPU was awake.
    "cpu" => Cpu {
        up: Nanoseconds, "time since the kernel's entry";
        awake: Nanoseconds, "part of that time not asleep";
    }

    /// `latency stop`: the durations of allocations.
    "latency" => Latency {
        count: u64, "allocations";
        failed: u64, "those that failed";
        p50: Nanoseconds, "half took up to this";
        p99: Nanoseconds, "99 % took up to this";
        p999: Nanoseconds, "99.9 % took up to this";
        max: Nanoseconds, "the longest";
    }

    /// `random`: bytes from an entropy device.
    "random" => Random<'e> {
        count: u64, "bytes received";
        bytes: &'e dyn fmt::Display, "the bytes, in hexadecimal digits";
    }

    /// `resources`: all that can leak.
    "resources" => ResourceCounts {
        free: Frames, "free frames";
        used: Frames, "frames in use";
        ballooned: Frames, "frames in balloons";
        orphans: Frames, "ballooned frames whose balloon is gone";
        dma: u64, "regions of DMA memory";
        vectors: u64, "interrupt vectors of devices";
        lines: u64, "interrupt lines of devices";
        mappings: u64, "mappings of device registers";
        heap: Bytes, "heap in use";
        heap_mapped: Bytes, "memory mapped for small heap blocks; it does not shrink";
        balloons: u64, "balloons with a driver";
    }
}
