//! Events of the machine: its log, its devices, and its end.

use core::fmt;

use super::declare::events;
use super::field::{Addresses, Field, Hex, declare};
use super::spec::{Event, EventSpec};
use crate::console::json::Object;

events! {
    /// A line of the log.
    "log" => LogLine<'e> {
        level: &'e str, "`error`, `warning`, `info` or `debug`";
        message: &'e dyn fmt::Display, "the line";
    }

    /// The clock's source was chosen, or its rate refined. Times in `ms` continue without a jump.
    "clock" => Clock<'e> {
        source: &'e str, "where its rate comes from: `kvmclock`, `hyper-v`, `cpuid-0x15`, `cpuid-0x40000010`, `pm-timer`, `hpet`, `pit`, `cpuid-0x16` or `guess`";
        certainty: &'e str, "`told`, `measured`, or `guessed`";
        hz: u64, "TSC ticks per second";
        ppm: Option<u32>, "the error bound in parts per million, if the rate was measured";
    }

    /// Lines were dropped: the reader of the serial line had stopped.
    "lost" => Lost {
        lines: u64, "how many";
    }

    /// No balloon was found, or none could be started.
    "no-device" => NoDevice<'e> {
        message: &'e str, "what was not found, and what the user can do";
    }

    /// A hot-plug slot has changed its state.
    "slot" => Slot<'e> {
        name: &'e str, "the slot";
        port: &'e dyn fmt::Display, "the PCI address of its port";
        state: &'e dyn fmt::Display, "its state";
    }

    /// The power button was pressed.
    "power-button" => PowerButton {
        presses: u64, "presses so far";
    }

    /// Non-maskable interrupts arrived; the kernel continues.
    "nmi" => Nmi {
        count: u64, "how many so far";
        interrupted: Hex, "the address of the code that the last one interrupted";
    }

    /// The cause of the fault that follows, if the kernel knows it.
    "cause" => Cause<'e> {
        message: &'e dyn fmt::Display, "the cause";
    }

    /// An exception that ends the kernel.
    "fault" => Fault<'e> {
        cpu: u32, "the CPU";
        vector: u32, "the exception";
        name: &'e str, "its name";
        error_code: Hex, "its error code";
        address: Hex, "the address that a page fault accessed";
        rip: Hex, "address of the instruction";
        rsp: Hex, "stack pointer";
        rflags: Hex, "flags";
        rax: Hex, "register";
        rbx: Hex, "register";
        rcx: Hex, "register";
        rdx: Hex, "register";
        rsi: Hex, "register";
        rdi: Hex, "register";
        rbp: Hex, "register";
        r8: Hex, "register";
        r9: Hex, "register";
        r10: Hex, "register";
        r11: Hex, "register";
        r12: Hex, "register";
        r13: Hex, "register";
        r14: Hex, "register";
        r15: Hex, "register";
        backtrace: Addresses<'e>, "return addresses";
    }

    /// A panic, which ends the kernel.
    "panic" => Panic<'e> {
        cpu: u32, "the CPU";
        message: &'e dyn fmt::Display, "why";
        file: Option<&'e str>, "the source file";
        line: Option<u32>, "the line in it";
        backtrace: Addresses<'e>, "return addresses";
    }

    /// The kernel ends: through `isa-debug-exit` if there is one, otherwise by ACPI power-off.
    "exit" => Exit {
        status: u32, "QEMU's exit status: 33 after success, 35 after failure";
    }
}
