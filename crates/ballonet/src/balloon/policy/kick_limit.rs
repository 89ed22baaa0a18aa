//! How many requests one kick covers.
//!
//! Some devices serve a kick before its store returns, on the CPU that made it; others serve it in parallel. Parallel
//! devices get as many requests as there is room for. Synchronous ones stall the CPU with interrupts blocked, and gain
//! nothing from more requests in flight: they get what they serve within a few milliseconds. When a kick returns, the
//! used ring shows which kind the device is.

/// The longest that a kick should stall the CPU, in nanoseconds: 10 ms, a tick of 100 Hz.
const LONGEST: u64 = 10_000_000;
/// The shortest stall that is worth a kick, in nanoseconds: 4 ms. A kick costs a VM exit.
const SHORTEST: u64 = 4_000_000;
/// Requests of the first kick.
const FIRST: u16 = 8;

/// The limit, and the kind of device.
#[derive(Debug)]
pub(crate) struct KickLimit {
    /// The device serves a kick before it returns.
    is_synchronous: bool,
    requests: u16,
}

impl KickLimit {
    /// Nothing is known of the device.
    pub(crate) const fn new() -> Self {
        // The first kick shows the kind; until then the device counts as a synchronous one.
        Self { is_synchronous: true, requests: FIRST }
    }

    /// The most requests of one kick.
    pub(crate) const fn requests(&self) -> u16 {
        if self.is_synchronous { self.requests } else { u16::MAX }
    }

    /// A kick for `sent` requests, with none in flight before, returned after `stalled` nanoseconds. `served`: by then
    /// the device had completed them, or half of them if more wait.
    pub(crate) const fn kicked(&mut self, sent: u16, stalled: u64, served: bool) {
        self.is_synchronous = served;
        if !served {
            return;
        }
        if stalled > LONGEST && self.requests > 1 {
            self.requests /= 2;
        } else if stalled < SHORTEST && sent >= self.requests {
            self.requests = self.requests.saturating_mul(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: u64 = 400_000;

    #[test]
    fn an_asynchronous_device_gets_all_requests() {
        let mut limit = KickLimit::new();
        assert_eq!(limit.requests(), 8);
        limit.kicked(8, 10_000, false);
        assert_eq!(limit.requests(), u16::MAX);
        limit.kicked(64, 1 << 40, false);
        assert_eq!(limit.requests(), u16::MAX, "a CPU descheduled by the host proves nothing");
    }

    #[test]
    fn a_synchronous_device_gets_what_it_serves_in_a_few_milliseconds() {
        for (request, expected) in
            [(REQUEST, 16), (4 * REQUEST, 4), (REQUEST / 40, 512), (100 * REQUEST, 1), (1, 32768)]
        {
            let mut limit = KickLimit::new();
            for _ in 0..40 {
                let sent = limit.requests();
                limit.kicked(sent, u64::from(sent) * request, true);
            }
            assert_eq!(limit.requests().min(32768), expected, "{request} ns a request");
        }
    }

    #[test]
    fn a_kick_below_the_limit_does_not_raise_it() {
        let mut limit = KickLimit::new();
        limit.kicked(7, 1000, true);
        assert_eq!(limit.requests(), 8);
    }

    #[test]
    fn a_device_may_change_its_kind() {
        let mut limit = KickLimit::new();
        limit.kicked(8, 1000, false);
        limit.kicked(64, 30_000_000, true);
        assert_eq!(limit.requests(), 4);
        limit.kicked(4, 10_000, false);
        assert_eq!(limit.requests(), u16::MAX);
    }
}
