//! How many requests go to the device by one kick.
//!
//! There are devices that serve a kick before its store returns, on the CPU that made it, and others that serve it beside
//! the CPU. The latter are best given all there is room for. With the former the CPU stands still for as long as it takes,
//! no interrupt gets through, and more in flight speeds nothing up: they are given as much as they do within a few
//! milliseconds. Which of the two a device is shows when a kick returns.

/// The longest that a kick should hold the CPU up, in nanoseconds: 4 ms.
const LONGEST: u64 = 4_000_000;
/// The shortest that makes up for the interruption: 1 ms.
const SHORTEST: u64 = 1_000_000;
/// Requests by the first kick to a device that turns out to serve it at once.
const FIRST: u16 = 8;

/// The batch.
#[derive(Debug)]
pub(super) struct Batch {
    at_once: bool,
    requests: u16,
}

impl Batch {
    /// Nothing is known of the device.
    pub(super) const fn new() -> Self {
        // What a device is that serves kicks at once is seen at the first; until then as little goes as if it were one.
        Self { at_once: true, requests: FIRST }
    }

    /// The most requests by one kick.
    pub(super) const fn requests(&self) -> u16 {
        if self.at_once { self.requests } else { u16::MAX }
    }

    /// A kick for `sent` requests, with none in flight before, returned after `held` nanoseconds. `served`: the device had
    /// done them by then, or a good share of them.
    pub(super) const fn kicked(&mut self, sent: u16, held: u64, served: bool) {
        self.at_once = served;
        if !served {
            return;
        }
        if held > LONGEST && self.requests > 1 {
            self.requests /= 2;
        } else if held < SHORTEST && sent >= self.requests {
            self.requests = self.requests.saturating_mul(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: u64 = 400_000;

    #[test]
    fn a_device_beside_the_cpu_gets_all_there_is() {
        let mut batch = Batch::new();
        assert_eq!(batch.requests(), 8);
        batch.kicked(8, 10_000, false);
        assert_eq!(batch.requests(), u16::MAX);
        batch.kicked(64, 1 << 40, false);
        assert_eq!(batch.requests(), u16::MAX, "a CPU that was taken away by the host proves nothing");
    }

    #[test]
    fn a_device_that_serves_kicks_at_once_gets_what_it_does_in_a_few_milliseconds() {
        for (request, expected) in [(REQUEST, 8), (4 * REQUEST, 2), (REQUEST / 40, 128), (100 * REQUEST, 1), (1, 32768)]
        {
            let mut batch = Batch::new();
            for _ in 0..40 {
                let sent = batch.requests();
                batch.kicked(sent, u64::from(sent) * request, true);
            }
            assert_eq!(batch.requests().min(32768), expected, "{request} ns a request");
        }
    }

    #[test]
    fn a_few_requests_that_take_no_time_are_no_reason_for_more() {
        let mut batch = Batch::new();
        batch.kicked(7, 1000, true);
        assert_eq!(batch.requests(), 8);
    }

    #[test]
    fn a_device_may_turn_out_to_be_the_other_kind() {
        let mut batch = Batch::new();
        batch.kicked(8, 1000, false);
        batch.kicked(64, 30_000_000, true);
        assert_eq!(batch.requests(), 4);
        batch.kicked(4, 10_000, false);
        assert_eq!(batch.requests(), u16::MAX);
    }
}
