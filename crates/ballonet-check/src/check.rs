//! A check: its name, how binding it is, the clause it tests, and its function; and its possible outcomes.

use alloc::format;
use alloc::string::String;
use core::fmt;

use crate::checks::CHAPTERS;
use crate::device::{BALLOON, Kind, PciFunction, TestDevice};
use crate::subject::Identity;
use ballonet::virtio::TransportKind;

/// How binding a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// A MUST of the specification. A device that fails it fails the run.
    Must,
    /// A SHOULD of the specification. A failure is a warning.
    Should,
    /// Not in the specification, but drivers in the field rely on it. A failure is a warning.
    Custom,
}

impl Severity {
    /// The word for it: `must`, `should`, `custom`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::Should => "should",
            Self::Custom => "custom",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// One requirement on a device, and how to test it.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its name: lower-case words joined by hyphens.
    pub name: &'static str,
    /// How binding it is.
    pub severity: Severity,
    /// The section of the specification (virtio 1.4) that requires it.
    pub section: &'static str,
    /// What it requires of the device: a sentence without a full stop.
    pub asks: &'static str,
    pub(crate) run: Run,
    /// The number of the only device type that it is for; `None`: what its chapter says.
    pub(crate) device: Option<u16>,
}

impl Check {
    /// Why it does not apply to a device: by the type or the transport that it or its chapter is for.
    pub(crate) fn misfit(&self, identity: &Identity) -> Option<String> {
        let chapter = CHAPTERS.iter().find(|chapter| chapter.checks.iter().any(|check| check.name == self.name))?;
        if let Some(device) = self.device.or(chapter.device).filter(|device| *device != identity.number) {
            return Some(format!("this is for devices of type {}", Kind::of(device).name));
        }
        let fits = match chapter.bus {
            Bus::Any => true,
            Bus::Pci => matches!(identity.transport, TransportKind::Modern | TransportKind::Legacy),
            Bus::Legacy => identity.transport.is_legacy(),
            Bus::Mmio => matches!(identity.transport, TransportKind::Mmio | TransportKind::MmioLegacy),
        };
        (!fits).then(|| format!("this is not for a device that is driven by {}", identity.transport))
    }
}

/// The interfaces that a chapter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bus {
    Any,
    Pci,
    /// From before version 1, on PCI or MMIO.
    Legacy,
    Mmio,
}

/// The function of a check, by what it needs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Run {
    /// Configuration space alone.
    Function(fn(&PciFunction) -> Verdict),
    /// The device, mapped and reset.
    Device(fn(&mut TestDevice<'_>) -> Verdict),
}

/// A check of a device that was mapped and reset just before.
pub(crate) const fn on_device(
    severity: Severity,
    name: &'static str,
    section: &'static str,
    asks: &'static str,
    run: fn(&mut TestDevice<'_>) -> Verdict,
) -> Check {
    Check { name, severity, section, asks, run: Run::Device(run), device: None }
}

/// The same of a balloon alone.
pub(crate) const fn on_balloon(
    severity: Severity,
    name: &'static str,
    section: &'static str,
    asks: &'static str,
    run: fn(&mut TestDevice<'_>) -> Verdict,
) -> Check {
    Check { name, severity, section, asks, run: Run::Device(run), device: Some(BALLOON) }
}

/// A check of a PCI function's configuration space, in which nothing of the device is used.
pub(crate) const fn on_function(
    severity: Severity,
    name: &'static str,
    section: &'static str,
    asks: &'static str,
    run: fn(&PciFunction) -> Verdict,
) -> Check {
    Check { name, severity, section, asks, run: Run::Function(run), device: None }
}

/// The outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The device meets the requirement.
    Ok,
    /// It does not: what it did instead, with the values.
    Failed(String),
    /// The check could not run: why not.
    Skipped(String),
    /// The tester itself failed: how. This says nothing about the device.
    Trouble(String),
}

/// Why a check ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The device failed it.
    Failed(String),
    /// The check does not apply.
    Skipped(String),
    /// The tester cannot go on, for a reason other than the device.
    Trouble(String),
    /// The device's registers read as all ones: it is gone.
    Gone,
}

/// How a step of a check ends.
pub(crate) type Verdict<T = ()> = Result<T, Stop>;

/// Fails the check unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($detail:tt)+) => {
        if $condition {
        } else {
            return Err($crate::check::Stop::Failed(alloc::format!($($detail)+)));
        }
    };
}

/// Fails the check.
macro_rules! fail {
    ($($detail:tt)+) => {
        return Err($crate::check::Stop::Failed(alloc::format!($($detail)+)))
    };
}

/// Skips the check unless a condition holds.
macro_rules! skip_unless {
    ($condition:expr, $($reason:tt)+) => {
        if $condition {
        } else {
            return Err($crate::check::Stop::Skipped(alloc::format!($($reason)+)));
        }
    };
}

/// Ends the check without a verdict unless a condition holds for which the tester is responsible.
macro_rules! trouble_unless {
    ($condition:expr, $($detail:tt)+) => {
        if $condition {
        } else {
            return Err($crate::check::Stop::Trouble(alloc::format!($($detail)+)));
        }
    };
}

pub(crate) use {ensure, fail, skip_unless, trouble_unless};
