//! Measurements of the device: how it takes frames fastest. They survive resets, because the device stays the same.

use super::chain_support::{ChainSupport, ChainTrial};
use super::kick_limit::KickLimit;
use super::path::{Path, PathRates, PathTrial};
use super::request_shape::RequestShape;

/// How much may be put into a queue now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendLimit {
    pub(crate) frames: u64,
    /// Of each request.
    pub(crate) descriptors: usize,
    pub(crate) requests: u16,
}

/// The measurements, and the user's choice of request shape.
#[derive(Debug)]
pub(crate) struct Tuning {
    forced: Option<RequestShape>,
    pub(crate) chains: ChainTrial,
    pub(crate) path: PathTrial,
    pub(crate) kicks: KickLimit,
}

/// How frames go to the host at present, and the measurements behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendStrategy {
    /// How the frame numbers of a request are split over descriptors.
    pub request: RequestShape,
    /// How the device reads several descriptors. Not measured if the user chose the shape.
    pub chains: ChainSupport,
    /// The path of memory that could be reported first; `None` if nothing is reported.
    pub path: Option<Path>,
    /// The rate of each path, if measured.
    pub rates: Option<PathRates>,
}

impl Tuning {
    /// Nothing is measured. `forced`: the shape of requests, if the user chose it.
    pub(crate) const fn new(forced: Option<RequestShape>) -> Self {
        Self { forced, chains: ChainTrial::new(), path: PathTrial::new(), kicks: KickLimit::new() }
    }

    /// Whether to try, with `frames` to inflate, if the device reads all of `most` descriptors.
    pub(crate) const fn tries_chains(&self, frames: u64, most: usize) -> bool {
        self.forced.is_none() && most > 1 && self.chains.is_due(frames)
    }

    /// Descriptors of a request, at most `most`.
    pub(crate) const fn descriptors(&self, most: usize) -> usize {
        let several = self.forced.is_some() || matches!(self.chains.known(), ChainSupport::Read);
        if several { most } else { 1 }
    }

    /// The limit for `frames` in requests of at most `most` descriptors, `before` of which were added since the last
    /// kick.
    pub(crate) const fn limit(&self, frames: u64, most: usize, before: u16) -> SendLimit {
        let requests = self.kicks.requests().saturating_sub(before);
        SendLimit { frames, descriptors: self.descriptors(most), requests }
    }

    /// The strategy if requests can have `most` descriptors.
    pub(crate) fn strategy(&self, most: usize, reports: bool) -> SendStrategy {
        let shape = self.forced.unwrap_or(RequestShape::REGION);
        let request = shape.within(self.descriptors(most) as u16);
        let (path, rates) = (reports.then_some(self.path.path()), self.path.rates());
        SendStrategy { request, chains: self.chains.known(), path, rates }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{FrameRun, Pfn};

    #[test]
    fn several_descriptors_are_for_devices_known_to_read_them_or_forced() {
        let mut measured = Tuning::new(None);
        assert_eq!((measured.descriptors(2), measured.strategy(2, false).request), (1, RequestShape::default()));
        assert!(measured.tries_chains(512, 2) && !measured.tries_chains(512, 1) && !measured.tries_chains(511, 2));
        let region = FrameRun::new(Pfn(0), 512).unwrap();
        measured.chains.given(region, 0);
        measured.chains.taken();
        measured.chains.asked_back(512);
        measured.chains.returned(region, 0);
        assert_eq!((measured.descriptors(2), measured.strategy(2, false).request), (2, RequestShape::REGION));
        let forced = Tuning::new(RequestShape::new(64, 8));
        assert!(!forced.tries_chains(1 << 20, 8));
        assert_eq!((forced.descriptors(8), forced.descriptors(4)), (8, 4));
        assert_eq!(forced.strategy(8, true).path, Some(Path::ReportFirst));
    }
}
