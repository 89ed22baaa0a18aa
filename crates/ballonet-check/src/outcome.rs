//! What a check is, and what can come of it.

use alloc::string::String;
use core::fmt;

/// How binding is what a check asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// A MUST of the specification. A device that fails it fails the run.
    Must,
    /// A SHOULD. A device that fails it is warned of.
    Should,
    /// Not written in the specification, but drivers in the field count on it. A device that fails it is warned of.
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

/// One thing that is asked of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// Its name: lower-case words joined by hyphens.
    pub name: &'static str,
    /// How binding it is.
    pub severity: Severity,
    /// Where the specification (virtio 1.4) says so.
    pub section: &'static str,
    /// What it asks of the device, as a sentence without a full stop.
    pub asks: &'static str,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The device does what it is asked for.
    Ok,
    /// It does not: what it did instead, with the values.
    Failed(String),
    /// It could not be asked: why not.
    Skipped(String),
    /// The tester itself failed at asking: how. Nothing is said of the device.
    Trouble(String),
}

/// Why a check ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// The device failed it.
    Failed(String),
    /// There is nothing to ask.
    Skipped(String),
    /// The tester cannot go on, for a reason that is not the device's.
    Trouble(String),
    /// The device's registers read as all ones: it is gone.
    Gone,
}

/// How a step of a check ends.
pub(super) type Verdict<T = ()> = Result<T, Stop>;

/// Fails the check unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($detail:tt)+) => {
        if $condition {
        } else {
            return Err($crate::outcome::Stop::Failed(alloc::format!($($detail)+)));
        }
    };
}

/// Skips the check unless a condition holds.
macro_rules! needs {
    ($condition:expr, $($reason:tt)+) => {
        if $condition {
        } else {
            return Err($crate::outcome::Stop::Skipped(alloc::format!($($reason)+)));
        }
    };
}

/// Ends the check without a verdict unless a condition holds that is the tester's own to see to.
macro_rules! own {
    ($condition:expr, $($detail:tt)+) => {
        if $condition {
        } else {
            return Err($crate::outcome::Stop::Trouble(alloc::format!($($detail)+)));
        }
    };
}

pub(super) use {ensure, needs, own};
