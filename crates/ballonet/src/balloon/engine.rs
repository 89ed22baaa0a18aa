//! What has been learnt of a device about how it takes frames best. It outlives resets: the device stays what it is.

use super::batch::Batch;
use super::chains::{ChainTrial, Chains};
use super::pace::{Pace, Rates, Way};
use super::send::Limit;
use super::shape::RequestShape;

/// How frames are sent.
#[derive(Debug)]
pub(super) struct Engine {
    forced: Option<RequestShape>,
    pub(super) chains: ChainTrial,
    pub(super) pace: Pace,
    pub(super) batch: Batch,
}

/// How frames go to the host at present, and how that was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// How the frame numbers of a request are laid over descriptors.
    pub request: RequestShape,
    /// What is known of how the device reads several descriptors. Not asked where the shape was chosen.
    pub chains: Chains,
    /// The way of memory that could be reported first; `None` where nothing is reported.
    pub way: Option<Way>,
    /// How fast either way was, if that has been measured.
    pub rates: Option<Rates>,
}

impl Engine {
    /// Nothing is known. `forced`: the shape of requests, if the user chose it.
    pub(super) const fn new(forced: Option<RequestShape>) -> Self {
        Self { forced, chains: ChainTrial::new(), pace: Pace::new(), batch: Batch::new() }
    }

    /// Whether to try out, with this many frames to inflate, that the device reads requests of `most` descriptors in full.
    pub(super) const fn tries_chains(&self, frames: u64, most: usize) -> bool {
        self.forced.is_none() && most > 1 && self.chains.is_due(frames)
    }

    /// Descriptors of a request, of at most `most`.
    pub(super) const fn descriptors(&self, most: usize) -> usize {
        let several = self.forced.is_some() || matches!(self.chains.known(), Chains::Read);
        if several { most } else { 1 }
    }

    /// What may be added to a queue now: frames in requests of at most `most` descriptors, `before` of which were added since the
    /// last kick.
    pub(super) const fn limit(&self, frames: u64, most: usize, before: u16) -> Limit {
        let requests = self.batch.requests().saturating_sub(before);
        Limit { frames, descriptors: self.descriptors(most), requests }
    }

    /// How frames go, if requests can have this many descriptors.
    pub(super) fn manner(&self, most: usize, reports: bool) -> Manner {
        let shape = self.forced.unwrap_or(RequestShape::REGION);
        let request = shape.within(self.descriptors(most) as u16);
        let (way, rates) = (reports.then_some(self.pace.way()), self.pace.rates());
        Manner { request, chains: self.chains.known(), way, rates }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{FrameRun, Pfn};

    #[test]
    fn several_descriptors_are_for_devices_that_are_known_to_read_them_or_were_said_to() {
        let mut found_out = Engine::new(None);
        assert_eq!((found_out.descriptors(2), found_out.manner(2, false).request), (1, RequestShape::default()));
        assert!(found_out.tries_chains(512, 2) && !found_out.tries_chains(512, 1) && !found_out.tries_chains(511, 2));
        let region = FrameRun::new(Pfn::new(0), 512).unwrap();
        found_out.chains.given(region, 0);
        found_out.chains.taken();
        found_out.chains.asked_back(512);
        found_out.chains.returned(region, 0);
        assert_eq!((found_out.descriptors(2), found_out.manner(2, false).request), (2, RequestShape::REGION));
        let forced = Engine::new(RequestShape::new(64, 8));
        assert!(!forced.tries_chains(1 << 20, 8));
        assert_eq!((forced.descriptors(8), forced.descriptors(4)), (8, 4));
        assert_eq!(forced.manner(8, true).way, Some(Way::ReportFirst));
    }
}
