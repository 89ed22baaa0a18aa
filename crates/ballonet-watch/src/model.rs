//! Guests over time: figures, samples, events. Pure: no clock, no I/O.

use std::collections::VecDeque;

/// Samples kept per guest: more than an hour at one per second.
const KEPT_SAMPLES: usize = 4000;
/// Events kept per guest.
const KEPT_MARKS: usize = 500;

/// The kind of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes at a moment.
    Bytes,
    /// Bytes per second.
    Rate,
    /// Bytes since the guest's start; they only grow.
    TotalBytes,
    /// A count since the guest's start.
    Total,
    /// Seconds since 1970.
    Time,
}

macro_rules! figures {
    ($($name:ident $word:literal $unit:ident $help:literal;)+) => {
        /// A figure of a guest. Its word names it in records and, with a prefix and its unit, in Prometheus.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Figure { $(#[doc = $help] $name,)+ }

        impl Figure {
            /// All of them, in the order of a record's columns.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)+];
            /// Its name in records.
            pub(crate) const fn word(self) -> &'static str { match self { $(Self::$name => $word,)+ } }
            /// Its kind.
            pub(crate) const fn unit(self) -> Unit { match self { $(Self::$name => Unit::$unit,)+ } }
            /// Its description.
            pub(crate) const fn help(self) -> &'static str { match self { $(Self::$name => $help,)+ } }
        }
    };
}

figures! {
    Rss "rss" Bytes "Resident memory of the QEMU process, by /proc.";
    Pss "pss" Bytes "Proportional set size: each shared page counts by its share.";
    Ram "ram" Bytes "Resident memory behind the guest's RAM alone.";
    Swapped "swapped" Bytes "Memory of the QEMU process that is swapped out.";
    Size "size" Bytes "The guest's RAM, of memory that was plugged in too.";
    Actual "actual" Bytes "What the balloon leaves the guest, by query-balloon.";
    Target "target" Bytes "The size that the host asked for, if known.";
    StatFree "stat_free" Bytes "Free memory by the guest's statistics.";
    StatTotal "stat_total" Bytes "All memory by the guest's statistics.";
    StatAvailable "stat_available" Bytes "Memory available without swapping, by the guest's statistics.";
    StatCaches "stat_caches" Bytes "Memory in disk caches by the guest's statistics.";
    StatSwapIn "stat_swap_in" TotalBytes "Memory swapped in, by the guest's statistics.";
    StatSwapOut "stat_swap_out" TotalBytes "Memory swapped out, by the guest's statistics.";
    StatMajorFaults "stat_major_faults" Total "Page faults that read a disk, by the guest's statistics.";
    StatMinorFaults "stat_minor_faults" Total "Other page faults, by the guest's statistics.";
    StatTime "stat_time" Time "When the guest sent its statistics.";
    Used "used" Bytes "Memory in use, by ballonet's console.";
    Free "free" Bytes "Free memory, by ballonet's console.";
    Reported "reported" TotalBytes "Free memory reported to the host, by ballonet's events.";
    Hinted "hinted" Bytes "Memory hinted as free to a migration, by ballonet's events.";
    Kicks "kicks" Total "Notifications to the device, by ballonet's console.";
    Interrupts "interrupts" Total "Interrupts of the balloon, by ballonet's console.";
    InflateRate "inflate_rate" Rate "Memory inflated per second, since the previous sample.";
    DeflateRate "deflate_rate" Rate "Memory deflated per second, since the previous sample.";
}

const COUNT: usize = Figure::ALL.len();

/// All figures at a moment; unknown ones are missing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// Seconds since the program's start.
    pub(crate) at: f64,
    values: [Option<u64>; COUNT],
}

impl Sample {
    /// A sample without figures.
    pub(crate) const fn new(at: f64) -> Self {
        Self { at, values: [None; COUNT] }
    }

    /// One figure.
    pub(crate) const fn get(&self, figure: Figure) -> Option<u64> {
        self.values[figure as usize]
    }

    /// Sets one figure.
    pub(crate) const fn set(&mut self, figure: Figure, value: Option<u64>) {
        self.values[figure as usize] = value;
    }

    /// Host memory for the guest: for its RAM if known, otherwise for the whole process.
    pub(crate) fn host(&self) -> Option<u64> {
        self.get(Figure::Ram).or_else(|| self.get(Figure::Rss))
    }

    /// Memory that the guest can still use: available memory if its statistics give it, otherwise free memory.
    pub(crate) fn available(&self) -> Option<u64> {
        self.get(Figure::StatAvailable).or_else(|| self.get(Figure::StatFree))
    }

    /// Sets both rates, from the previous sample.
    pub(crate) fn set_rates(&mut self, before: &Self) {
        let (Some(old), Some(new)) = (before.get(Figure::Actual), self.get(Figure::Actual)) else { return };
        let seconds = self.at - before.at;
        if seconds > 0.0 {
            let rate = |bytes: u64| Some((bytes as f64 / seconds) as u64);
            self.set(Figure::InflateRate, rate(old.saturating_sub(new)));
            self.set(Figure::DeflateRate, rate(new.saturating_sub(old)));
        }
    }
}

/// Something that happened to a guest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mark {
    /// Seconds since the program's start.
    pub(crate) at: f64,
    /// `target`, `report`, `reset`, `migration`, `reclaim` and the like.
    pub(crate) kind: String,
    /// The event in some words.
    pub(crate) text: String,
}

impl Mark {
    /// An event at a moment.
    pub(crate) fn new(at: f64, kind: &str, text: impl Into<String>) -> Self {
        Self { at, kind: kind.into(), text: text.into() }
    }
}

/// The state of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// No sample was taken yet.
    Unknown,
    /// As QEMU reports it: `running`, `paused` and others.
    Runs(String),
    /// QEMU does not answer.
    Silent,
    /// QEMU has ended, and why we think so.
    Ended(String),
}

/// A guest's history.
#[derive(Debug)]
pub(crate) struct History {
    /// Its name for people.
    pub(crate) name: String,
    /// Its state.
    pub(crate) state: State,
    /// PID of QEMU, if known.
    pub(crate) pid: Option<u32>,
    /// Why figures are missing.
    pub(crate) note: Option<String>,
    /// The interval of its statistics in seconds, if it has any; 0 for never.
    pub(crate) statistics: Option<u64>,
    samples: VecDeque<Sample>,
    marks: VecDeque<Mark>,
}

impl History {
    /// A guest without samples.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            state: State::Unknown,
            pid: None,
            note: None,
            statistics: None,
            samples: VecDeque::new(),
            marks: VecDeque::new(),
        }
    }

    /// Adds a sample.
    pub(crate) fn push(&mut self, sample: Sample) {
        self.samples.push_back(sample);
        if self.samples.len() > KEPT_SAMPLES {
            self.samples.pop_front();
        }
    }

    /// Adds an event.
    pub(crate) fn mark(&mut self, mark: Mark) {
        self.marks.push_back(mark);
        if self.marks.len() > KEPT_MARKS {
            self.marks.pop_front();
        }
    }

    /// The newest sample.
    pub(crate) fn last(&self) -> Option<&Sample> {
        self.samples.back()
    }

    /// The newest value of a figure.
    pub(crate) fn figure(&self, figure: Figure) -> Option<u64> {
        self.last().and_then(|sample| sample.get(figure))
    }

    /// All samples, the oldest first.
    pub(crate) const fn samples(&self) -> &VecDeque<Sample> {
        &self.samples
    }

    /// All events, the oldest first.
    pub(crate) const fn marks(&self) -> &VecDeque<Mark> {
        &self.marks
    }

    /// Whether QEMU has ended.
    pub(crate) const fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }
}

/// The sum of a figure over samples; `None` if none of them has it.
pub(crate) fn total<'a>(samples: impl Iterator<Item = &'a Sample>, of: impl Fn(&Sample) -> Option<u64>) -> Option<u64> {
    samples.filter_map(of).reduce(u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: f64, actual: u64) -> Sample {
        let mut sample = Sample::new(at);
        sample.set(Figure::Actual, Some(actual));
        sample
    }

    #[test]
    fn rates_are_by_time() {
        let (before, mut after) = (sample(1.0, 1000), sample(3.0, 400));
        after.set_rates(&before);
        assert_eq!((after.get(Figure::InflateRate), after.get(Figure::DeflateRate)), (Some(300), Some(0)));
        let mut later = sample(4.0, 500);
        later.set_rates(&after);
        assert_eq!((later.get(Figure::InflateRate), later.get(Figure::DeflateRate)), (Some(0), Some(100)));
        let mut same = sample(4.0, 900);
        same.set_rates(&later);
        assert_eq!(same.get(Figure::DeflateRate), None, "no time has passed");
    }

    #[test]
    fn words_are_distinct() {
        let mut words: Vec<_> = Figure::ALL.iter().map(|figure| figure.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), COUNT);
    }

    #[test]
    fn a_sum_is_of_the_known_figures() {
        let samples = [sample(0.0, 100), Sample::new(0.0), sample(0.0, 30)];
        assert_eq!(total(samples.iter(), |sample| sample.get(Figure::Actual)), Some(130));
        assert_eq!(total(samples.iter(), Sample::host), None);
    }

    #[test]
    fn a_history_is_bounded() {
        let mut guest = History::new("a");
        for number in 0..KEPT_SAMPLES + 10 {
            guest.push(Sample::new(number as f64));
            guest.mark(Mark::new(number as f64, "target", ""));
        }
        assert_eq!((guest.samples().len(), guest.marks().len()), (KEPT_SAMPLES, KEPT_MARKS));
        assert_eq!(guest.last().map(|sample| sample.at), Some((KEPT_SAMPLES + 9) as f64));
    }
}
