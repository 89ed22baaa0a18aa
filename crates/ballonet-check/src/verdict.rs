//! How a check can end: its outcome, how binding the requirement is, how much harm was done, and why a step ends early.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::fmt;

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

/// The outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The device meets the requirement, or serves or ignores a hostile check's request.
    Ok,
    /// It refused a hostile check's write, or returned its buffer unused.
    Refused,
    /// It wants to be reset after a hostile check, and works again after that.
    NeedsReset,
    /// It does not meet the requirement: has what it did instead, with the values.
    Failed(String),
    /// After a hostile check some queue no longer works; the device does not ask for a reset, but one helps. Has which
    /// queue.
    Stalled(String),
    /// It does not work after a hostile check and a reset: has how that shows.
    Wedged(String),
    /// In a hostile check it wrote where it must not: has what was overwritten, where, and with what.
    Corrupted(String),
    /// The check could not run: has why.
    Skipped(String),
    /// The tester itself failed: has how. This says nothing about the device.
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

    /// How binding the violated requirement is, in a check of severity `of_check`. To ask for a needed reset is a
    /// SHOULD (2.1.2).
    pub const fn severity(&self, of_check: Severity) -> Severity {
        match self {
            Self::Stalled(_) => Severity::Should,
            _ => of_check,
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

/// How much harm a hostile check did.
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

/// How a device reacted to a hostile check that it survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// It served or ignored it.
    Ignored,
    /// It refused what was written, or returned the buffer unused.
    Refused,
    /// It wants to be reset.
    NeedsReset,
}

/// Why a check ended early. Boxed, since most steps succeed: a [`Verdict`] without a value fits into a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stop(Box<(Ending, String)>);

/// How a check ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The device failed it.
    Failed,
    /// A hostile check stopped a queue, and the device does not ask for a reset.
    Stalled,
    /// The check does not apply.
    Skipped,
    /// The tester cannot go on, for a reason other than the device.
    Trouble,
    /// The device's registers read as all ones: it is gone.
    Gone,
}

impl Stop {
    // Not inlined: hundreds of steps end in it, and none often.
    #[cold]
    #[inline(never)]
    fn new(ending: Ending, reason: fmt::Arguments<'_>) -> Self {
        Self(Box::new((ending, reason.to_string())))
    }

    pub(crate) fn failed(detail: fmt::Arguments<'_>) -> Self {
        Self::new(Ending::Failed, detail)
    }

    pub(crate) fn stalled(detail: fmt::Arguments<'_>) -> Self {
        Self::new(Ending::Stalled, detail)
    }

    pub(crate) fn skipped(reason: fmt::Arguments<'_>) -> Self {
        Self::new(Ending::Skipped, reason)
    }

    pub(crate) fn trouble(detail: fmt::Arguments<'_>) -> Self {
        Self::new(Ending::Trouble, detail)
    }

    pub(crate) fn gone() -> Self {
        Self::new(Ending::Gone, format_args!("the device is gone: its registers read as all ones"))
    }

    pub(crate) fn ending(&self) -> Ending {
        self.0.0
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.ending() == Ending::Failed
    }

    pub(crate) fn is_skipped(&self) -> bool {
        self.ending() == Ending::Skipped
    }

    /// What happened, for people.
    pub(crate) fn reason(self) -> String {
        self.0.1
    }
}

impl From<Stop> for Outcome {
    fn from(stop: Stop) -> Self {
        let outcome = match stop.ending() {
            Ending::Stalled => Self::Stalled,
            Ending::Skipped => Self::Skipped,
            Ending::Trouble => Self::Trouble,
            Ending::Failed | Ending::Gone => Self::Failed,
        };
        outcome(stop.reason())
    }
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        verdict.map_or_else(Self::from, |()| Self::Ok)
    }
}

/// How a step of a check ends.
pub(crate) type Verdict<T = ()> = Result<T, Stop>;

/// Fails the check unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($detail:tt)+) => {
        if $condition {
        } else {
            return Err($crate::verdict::Stop::failed(format_args!($($detail)+)));
        }
    };
}

/// Fails the check.
macro_rules! fail {
    ($($detail:tt)+) => {
        return Err($crate::verdict::Stop::failed(format_args!($($detail)+)))
    };
}

/// Skips the check unless a condition holds.
macro_rules! skip_unless {
    ($condition:expr, $($reason:tt)+) => {
        if $condition {
        } else {
            return Err($crate::verdict::Stop::skipped(format_args!($($reason)+)));
        }
    };
}

/// Ends the check without a verdict unless a condition holds for which the tester is responsible.
macro_rules! trouble_unless {
    ($condition:expr, $($detail:tt)+) => {
        if $condition {
        } else {
            return Err($crate::verdict::Stop::trouble(format_args!($($detail)+)));
        }
    };
}

pub(crate) use {ensure, fail, skip_unless, trouble_unless};
