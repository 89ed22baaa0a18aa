//! When the driver writes the balloon's size to the field `actual`: once for several requests (virtio 1.4, 5.5.6),
//! because each store causes a VM exit.

/// The longest that a size is held back while the balloon moves, in nanoseconds: 20 ms.
const LONGEST: u64 = 20_000_000;

/// The size last written, and when the next one is due.
#[derive(Debug, Default)]
pub(crate) struct ReportedSize {
    /// In frames; `None` before the first write.
    written: Option<u32>,
    /// The size has changed since; on the platform's clock.
    due: Option<u64>,
}

impl ReportedSize {
    /// Whether `size`, in frames, must be written `now`. `moves`: requests are in flight or about to be sent, so that
    /// another change follows.
    pub(crate) fn is_due(&mut self, size: u32, moves: bool, now: impl FnOnce() -> u64) -> bool {
        if self.written == Some(size) {
            self.due = None;
            return false;
        }
        if self.written.is_none() || !moves {
            return true;
        }
        let now = now();
        now >= *self.due.get_or_insert(now.saturating_add(LONGEST))
    }

    /// `size` was written.
    pub(crate) fn wrote(&mut self, size: u32) {
        *self = Self { written: Some(size), due: None };
    }

    /// When a size that is held back is due.
    pub(crate) const fn deadline(&self) -> Option<u64> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_size_are_written_at_once() {
        let mut size = ReportedSize::default();
        assert!(size.is_due(0, true, || 0));
        size.wrote(0);
        assert!(!size.is_due(0, false, || 0));
        assert!(size.is_due(7, false, || 0));
        assert_eq!(size.deadline(), None);
    }

    #[test]
    fn sizes_on_the_way_are_written_every_20_ms() {
        let mut size = ReportedSize::default();
        size.wrote(0);
        let mut written = Vec::new();
        for millisecond in 0..=100_u32 {
            if size.is_due(millisecond + 1, true, || u64::from(millisecond) * 1_000_000) {
                size.wrote(millisecond + 1);
                written.push(millisecond);
            }
        }
        assert_eq!(written, [20, 41, 62, 83]);
    }

    #[test]
    fn a_delayed_size_has_a_deadline_until_it_is_written_or_changes_back() {
        let mut size = ReportedSize::default();
        size.wrote(5);
        assert!(!size.is_due(6, true, || 3));
        assert_eq!(size.deadline(), Some(3 + LONGEST));
        assert!(!size.is_due(7, true, || 9));
        assert_eq!(size.deadline(), Some(3 + LONGEST), "a later change does not put it off");
        assert!(!size.is_due(5, true, || 10));
        assert_eq!(size.deadline(), None);
        assert!(!size.is_due(6, true, || 11));
        assert!(size.is_due(6, true, || 11 + LONGEST));
        size.wrote(6);
        assert_eq!(size.deadline(), None);
    }
}
