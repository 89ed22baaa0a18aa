//! A check: its name, how binding it is, the clause it tests, and its function; and its possible outcomes.
//!
//! A lawful check keeps to the specification and asks whether the device does. A hostile one breaks a clause that binds
//! the driver, and asks whether device and VMM survive.

use alloc::string::String;
use core::fmt;

use crate::device::{Attacker, BALLOON, PciFunction, TestDevice};
use ballonet::virtio::spec::Features;

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
    /// What it requires of the device, or in a hostile check what the driver does: a sentence without a full stop.
    pub asks: &'static str,
    /// In a hostile check: the rule for drivers that it breaks.
    pub breaks: Option<&'static str>,
    pub(crate) run: Run,
    /// The number of the only device type that it is for; `None`: what its chapter says.
    pub(crate) device: Option<u16>,
}

impl Check {
    /// Whether the check breaks the specification on purpose.
    pub const fn is_hostile(&self) -> bool {
        self.breaks.is_some()
    }
}

/// The interfaces that a chapter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bus {
    Any,
    Pci,
    /// PCI since version 1.
    Modern,
    /// From before version 1, on PCI or MMIO.
    Legacy,
    /// The same on PCI alone, and on MMIO alone.
    Ports,
    LegacyMmio,
    Mmio,
}

/// A rule for drivers, and the section that has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clause {
    pub(crate) section: &'static str,
    pub(crate) text: &'static str,
}

/// The function of a check, by what it needs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Run {
    /// Configuration space alone.
    Function(fn(&PciFunction) -> Verdict),
    /// The device, mapped and reset.
    Device(fn(&mut TestDevice<'_>) -> Verdict),
    /// The device, mapped and reset, to be attacked.
    Hostile(Attack),
}

/// A breach of a rule for drivers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attack {
    /// Against a queue of a device that works, with these features beyond the least.
    Ring(Features, fn(&mut Attacker<'_, '_>) -> Verdict),
    /// Against registers.
    Registers(fn(&mut TestDevice<'_>) -> Verdict<Reaction>),
}

/// What a device made of a breach that it survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// It served or ignored it.
    Ignored,
    /// It refused what was written, or returned the buffer unused.
    Refused,
    /// It wants to be reset.
    NeedsReset,
}

/// A check of a device that was mapped and reset just before.
pub(crate) const fn on_device(
    severity: Severity,
    name: &'static str,
    section: &'static str,
    asks: &'static str,
    run: fn(&mut TestDevice<'_>) -> Verdict,
) -> Check {
    Check { name, severity, section, asks, breaks: None, run: Run::Device(run), device: None }
}

/// The same of a balloon alone.
pub(crate) const fn on_balloon(
    severity: Severity,
    name: &'static str,
    section: &'static str,
    asks: &'static str,
    run: fn(&mut TestDevice<'_>) -> Verdict,
) -> Check {
    Check { device: Some(BALLOON), ..on_device(severity, name, section, asks, run) }
}

/// A check of a PCI function's configuration space, in which nothing of the device is used.
pub(crate) const fn on_function(
    severity: Severity,
    name: &'static str,
    section: &'static str,
    asks: &'static str,
    run: fn(&PciFunction) -> Verdict,
) -> Check {
    Check { name, severity, section, asks, breaks: None, run: Run::Function(run), device: None }
}

/// A hostile check. What it demands of the device are MUSTs: after a reset it is as new, and it writes only where it
/// may.
pub(crate) const fn hostile(name: &'static str, clause: Clause, asks: &'static str, attack: Attack) -> Check {
    let Clause { section, text } = clause;
    Check { name, severity: Severity::Must, section, asks, breaks: Some(text), run: Run::Hostile(attack), device: None }
}

/// The outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The device meets the requirement, or serves or ignores what a hostile check does.
    Ok,
    /// It refused a hostile check's write, or returned its buffer unused.
    Refused,
    /// It wants to be reset after a hostile check, and works again after that.
    NeedsReset,
    /// It does not meet the requirement: what it did instead, with the values.
    Failed(String),
    /// After a hostile check it serves some queue no more, and does not ask for a reset, which helps: which queue.
    Stalled(String),
    /// After a hostile check and a reset it does not work: how that shows.
    Wedged(String),
    /// In a hostile check it wrote where it must not: what was overwritten, where, and with what.
    Corrupted(String),
    /// The check could not run: why not.
    Skipped(String),
    /// The tester itself failed: how. This says nothing about the device.
    Trouble(String),
}

impl Outcome {
    /// The word for it in every format.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::NeedsReset => "needs-reset",
            Self::Failed(_) => "failed",
            Self::Stalled(_) => "stalled",
            Self::Wedged(_) => "wedged",
            Self::Corrupted(_) => "corrupted",
            Self::Skipped(_) => "skipped",
            Self::Trouble(_) => "trouble",
        }
    }

    /// What the device did wrong, if it did.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Failed(detail) | Self::Stalled(detail) | Self::Wedged(detail) | Self::Corrupted(detail) => {
                Some(detail)
            }
            Self::Ok | Self::Refused | Self::NeedsReset | Self::Skipped(_) | Self::Trouble(_) => None,
        }
    }

    /// How binding the requirement is that it does not meet. That a device asks for a reset which it needs is a SHOULD
    /// (2.1.2).
    pub const fn severity(&self, check: &Check) -> Severity {
        match self {
            Self::Stalled(_) => Severity::Should,
            _ => check.severity,
        }
    }

    /// How much harm was done.
    pub const fn tier(&self) -> Tier {
        match self {
            Self::Corrupted(_) => Tier::Memory,
            Self::Wedged(_) => Tier::Device,
            _ => Tier::None,
        }
    }
}

/// How much harm a driver can do by a breach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// None.
    None,
    /// The device is down.
    Device,
    /// The VMM is down, hangs or spins.
    Vmm,
    /// Memory of the guest or the VMM is overwritten.
    Memory,
}

impl Tier {
    /// The word for it: `none`, `device`, `vmm`, `memory`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Device => "device",
            Self::Vmm => "vmm",
            Self::Memory => "memory",
        }
    }
}

/// Why a check ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The device failed it.
    Failed(String),
    /// A hostile check stopped a queue, and the device does not ask for a reset.
    Stalled(String),
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
