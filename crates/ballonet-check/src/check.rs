//! A check: its name, how binding it is, the clause it tests, and its function.
//!
//! A lawful check keeps to the specification and asks whether the device does. A hostile one breaks a clause that binds
//! the driver, and asks whether device and VMM survive.

use crate::device::{Attacker, BALLOON, PciFunction, TestDevice};
use ballonet::virtio::spec::Features;

// What the functions of checks use.
pub(crate) use crate::verdict::{Reaction, Severity, Stop, Verdict, ensure, fail, skip_unless};

/// One requirement on a device, and how to test it.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its name: lower-case words joined by hyphens.
    pub name: &'static str,
    /// How binding it is.
    pub severity: Severity,
    /// The section of the specification (virtio 1.4) that requires it.
    pub section: &'static str,
    /// What it requires of the device; in a hostile check, what the driver does: a sentence without a full stop.
    pub asks: &'static str,
    /// In a hostile check: the rule for drivers that it breaks.
    pub breaks: Option<&'static str>,
    pub(crate) run: Run,
    /// The number of the only device type that it is for; `None`: as its chapter says.
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
    /// The legacy interface, on PCI or MMIO.
    Legacy,
    /// The same on PCI only, and on MMIO only.
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
    /// Against a queue of a running device, with these features beyond the least.
    Ring(Features, fn(&mut Attacker<'_, '_>) -> Verdict),
    /// Against registers.
    Registers(fn(&mut TestDevice<'_>) -> Verdict<Reaction>),
}

/// How many quiet times the VMM gets to react to a breach of registers, and to one of a ring once another queue has
/// answered.
const REACTION: u64 = 10;
const REACTION_BESIDE: u64 = 2;

impl Attack {
    /// Breaks the rule; returns how the device reacts.
    pub(crate) fn make(self, device: &mut TestDevice<'_>) -> Verdict<Reaction> {
        let (reaction, raced) = match self {
            Self::Registers(act) => {
                device.try_start()?;
                device.stop()?;
                (act(device)?, false)
            }
            Self::Ring(features, act) => {
                let mut attacker = Attacker::new(device, features)?;
                act(&mut attacker)?;
                let raced = attacker.finish()?;
                if !device.wants_reset()? {
                    device.probe_beside()?;
                }
                (Reaction::Ignored, raced)
            }
        };
        // On a busy host the VMM may not have run yet. A queue that answered beside the attack shows that it has.
        let quiet_times = if matches!(self, Self::Registers(_)) { REACTION } else { REACTION_BESIDE };
        let needs_reset = device.settle(quiet_times, TestDevice::wants_reset)?;
        // Whether the device met a change in flight says who was faster, and nothing about the device.
        Ok(if needs_reset && !raced { Reaction::NeedsReset } else { reaction })
    }
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

/// A hostile check. Its demands are MUSTs: the device works after a reset, and writes only where it may.
pub(crate) const fn hostile(name: &'static str, clause: Clause, asks: &'static str, attack: Attack) -> Check {
    let Clause { section, text } = clause;
    Check { name, severity: Severity::Must, section, asks, breaks: Some(text), run: Run::Hostile(attack), device: None }
}
