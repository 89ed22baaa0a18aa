//! The results of a measurement: for each leg of a request's way, the times that requests took.

use alloc::vec::Vec;

/// Times of one leg, in the clock's unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series(Vec<u64>);

impl Series {
    /// With room for this many, so that recording one always takes the same time.
    pub(super) fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    pub(super) fn note(&mut self, ticks: u64) {
        self.0.push(ticks);
    }

    pub(super) fn sort(&mut self) {
        self.0.sort_unstable();
    }

    /// The shortest; 0 if there are none.
    pub fn minimum(&self) -> u64 {
        self.0.first().copied().unwrap_or_default()
    }

    /// The median, the upper of two; 0 if there are none.
    pub fn median(&self) -> u64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }
}

/// Each leg of a request's way there and back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// Adding a request to the queue, publishing it, and kicking the device, until the kick's store is done.
    pub add_kick: Series,
    /// From enabling interrupts until the request is popped: entry, handler, return, taking the bits that the
    /// handler set, popping. Without interrupts: polling and popping.
    pub interrupt_pop: Series,
    /// From before the request was added until it was popped, including the device's work.
    pub round_trip: Series,
}

impl Figures {
    pub(super) fn with_capacity(count: usize) -> Self {
        let series = || Series::with_capacity(count);
        Self { add_kick: series(), interrupt_pop: series(), round_trip: series() }
    }

    pub(super) fn sorted(mut self) -> Self {
        for series in [&mut self.add_kick, &mut self.interrupt_pop, &mut self.round_trip] {
            series.sort();
        }
        self
    }

    /// The legs with their names, in order.
    pub fn legs(&self) -> [(&'static str, &Series); 3] {
        [("add_kick", &self.add_kick), ("interrupt_pop", &self.interrupt_pop), ("round_trip", &self.round_trip)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_has_its_least_and_its_middle() {
        let mut figures = Figures::with_capacity(4);
        for ticks in [9, 3, 1, 7] {
            figures.round_trip.note(ticks);
        }
        let figures = figures.sorted();
        assert_eq!((figures.round_trip.minimum(), figures.round_trip.median()), (1, 7));
        assert_eq!((figures.add_kick.minimum(), figures.add_kick.median()), (0, 0));
    }
}
