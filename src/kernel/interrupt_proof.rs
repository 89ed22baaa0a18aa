//! Whether a device's interrupts arrive. Messages can be lost on their way, for instance at an IOMMU that blocks them,
//! and a line may lead nowhere. Then only reading the device shows what happened: so until its first interrupt it is read
//! now and then.

use core::fmt;

use log::{info, warn};

/// How often a device is read until its first interrupt, in nanoseconds: every 2 s.
const LOOK: u64 = 2_000_000_000;
/// How long an interrupt may be late before it counts as lost: 1 s.
const LATE: u64 = 1_000_000_000;

/// A change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// An interrupt is lost: the device must be polled.
    Lost,
    /// Interrupts arrive after all.
    Arrived,
}

impl Turn {
    /// Logs it for the device of this name, which interrupts by `mode`.
    pub(super) fn report(self, name: &str, mode: &dyn fmt::Display) {
        match self {
            Self::Lost => warn!(
                "{name}: none of its interrupts ({mode}) has arrived, although it had reason to send one: it is polled. The usual \
                 cause: an IOMMU that blocks its messages"
            ),
            Self::Arrived => info!("{name}: its interrupts arrive now; it is polled no longer"),
        }
    }
}

/// The proof of one device.
#[derive(Debug, Default)]
pub(super) struct InterruptProof {
    /// An interrupt has come.
    proven: bool,
    /// When to read the device next; 0 before the first poll.
    next: u64,
    /// When something was found that an interrupt should have announced.
    missed: Option<u64>,
    reported: bool,
}

impl InterruptProof {
    /// When to read the device, in nanoseconds; `None` once an interrupt has come.
    pub(super) fn next_look(&self) -> Option<u64> {
        (!self.proven).then_some(self.next)
    }

    /// Whether the device must be read now.
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.next_look().is_some_and(|moment| now >= moment)
    }

    /// Whether something was found that no interrupt had announced: the device is polled.
    pub(super) fn is_missed(&self) -> bool {
        self.missed.is_some()
    }

    /// After a poll: `interrupts` have come in all, and the poll found something `unannounced`.
    pub(super) fn note(&mut self, now: u64, interrupts: u64, unannounced: bool) -> Option<Turn> {
        if interrupts > 0 {
            self.proven = true;
            self.missed = None;
            return core::mem::take(&mut self.reported).then_some(Turn::Arrived);
        }
        // The first poll finds what had happened before the device could interrupt.
        let is_first = core::mem::replace(&mut self.next, now + LOOK) == 0;
        if unannounced && !is_first {
            self.missed.get_or_insert(now);
        }
        let lost = !self.reported && self.missed.is_some_and(|moment| now.saturating_sub(moment) >= LATE);
        self.reported |= lost;
        lost.then_some(Turn::Lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_device_is_read_until_its_first_interrupt() {
        let mut proof = InterruptProof::default();
        assert_eq!(proof.next_look(), Some(0));
        assert_eq!(proof.note(3, 0, false), None);
        assert_eq!((proof.next_look(), proof.is_missed()), (Some(3 + LOOK), false));
        assert_eq!(proof.note(4, 1, false), None);
        assert_eq!((proof.next_look(), proof.is_missed()), (None, false));
    }

    #[test]
    fn a_lost_interrupt_is_reported_once_and_so_is_its_end() {
        let mut proof = InterruptProof::default();
        let turns: Vec<_> = (0..5).map(|second| proof.note(second * SECOND, 0, second == 1)).collect();
        assert_eq!(turns, [None, None, Some(Turn::Lost), None, None]);
        assert!(proof.is_missed());
        assert_eq!(proof.note(6 * SECOND, 1, false), Some(Turn::Arrived));
        assert_eq!((proof.note(7 * SECOND, 1, true), proof.is_missed()), (None, false));
    }

    /// A look may come between the change and its interrupt.
    #[test]
    fn a_late_interrupt_is_not_a_lost_one() {
        let mut proof = InterruptProof::default();
        assert_eq!((proof.note(SECOND, 0, true), proof.is_missed()), (None, false), "it was there before");
        assert_eq!((proof.note(3 * SECOND, 0, true), proof.is_missed()), (None, true));
        assert_eq!((proof.note(3 * SECOND + 10, 1, false), proof.is_missed()), (None, false));
    }
}
