//! Applies the policy: samples guests, decides, and sets targets, round by round.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::cli;
use crate::failure::Outcome;
use crate::find;
use crate::guest::Guest;
use crate::host::HostState;
use crate::model::{Figure, Mark, Sample};
use crate::plain::say_beside;
use crate::plot;
use crate::policy::{Limits, Seen, decide};
use crate::record::{Recorder, Track};
use crate::units::mib;
use crate::watch::stop_on_signals;

/// Interval between checks for signals.
const GLANCE: Duration = Duration::from_millis(50);

/// Tracks what a guest uses, although its statistics are older than its other figures.
#[derive(Debug, Default)]
struct Need {
    /// Bytes that the guest's own total leaves out, such as its kernel's image.
    overhead: u64,
    /// `stat_time` and `actual` of the previous sample.
    before: Option<(u64, u64)>,
}

impl Need {
    /// Bytes in use. Total and available memory are from one sample. The overhead is what the balloon leaves minus the
    /// total, taken while the balloon is at rest.
    fn of(&mut self, sample: &Sample) -> Option<u64> {
        let (time, actual) = (sample.get(Figure::StatTime)?, sample.get(Figure::Actual)?);
        let (total, available) = (sample.get(Figure::StatTotal)?, sample.available()?);
        if self.before.is_some_and(|(old, size)| time > old && size == actual) {
            self.overhead = actual.saturating_sub(total);
        }
        if self.before.is_none_or(|(old, _)| time > old) {
            self.before = Some((time, actual));
        }
        Some(total.saturating_sub(available) + self.overhead)
    }
}

/// A guest's bounds: floor and ceiling in bytes.
pub(crate) type Bounds = (u64, u64);

/// State from round to round.
pub(crate) struct Steering {
    limits: Limits,
    bounds: Vec<Bounds>,
    needs: Vec<Need>,
    targets: Vec<Option<u64>>,
    dry: bool,
}

/// A change of a target: which guest, from and to how many bytes.
pub(crate) type Change = (usize, u64, u64);

impl Steering {
    /// Steers guests with these bounds.
    pub(crate) fn new(limits: Limits, bounds: Vec<Bounds>, dry: bool) -> Self {
        let needs = bounds.iter().map(|_| Need::default()).collect();
        let targets = vec![None; bounds.len()];
        Self { limits, bounds, needs, targets, dry }
    }

    /// Decides by these samples and sets targets.
    pub(crate) fn round(&mut self, guests: &mut [Guest], samples: &[Sample], host: HostState) -> Vec<Change> {
        // Guests without a balloon or without answers cannot be steered, but what they have counts.
        let mut limits = self.limits;
        let mut seen = Vec::new();
        for (number, sample) in samples.iter().enumerate() {
            let Some(actual) = sample.get(Figure::Actual) else {
                limits.budget = limits.budget.saturating_sub(sample.host().unwrap_or_default());
                continue;
            };
            let (floor, ceiling) = self.bounds[number];
            let target = self.targets[number].unwrap_or(actual);
            seen.push((number, Seen { actual, need: self.needs[number].of(sample), target, floor, ceiling }));
        }
        let all: Vec<Seen> = seen.iter().map(|(_, seen)| *seen).collect();
        let mut changes = Vec::new();
        for ((number, seen), target) in seen.into_iter().zip(decide(limits, host, &all)) {
            // If QEMU did not accept a target, the next round tries again.
            if target != seen.target && (self.dry || guests[number].set_target(target).is_ok()) {
                if !self.dry {
                    self.targets[number] = Some(target);
                }
                changes.push((number, seen.target, target));
            }
        }
        changes
    }
}

/// Keeps guests within a budget.
pub(crate) fn policy(options: &cli::Policy) -> Outcome {
    let start = Instant::now();
    let mut guests = crate::connect(&find::addresses(&options.sockets, &options.pid, &[])?, start)?;
    let bounds = bounds(options, &guests)?;
    let limits = Limits { budget: options.budget, hysteresis: options.hysteresis, reserve: options.reserve };
    let mut steering = Steering::new(limits, bounds, options.dry_run);
    let mut recorder = options.outputs.record.as_deref().map(Recorder::create).transpose()?;
    let mut tracks: Vec<_> = guests.iter().map(|guest| track(&guest.name)).collect();
    let stop = stop_on_signals()?;
    let mut due = start;
    let mut kept = Ok(());
    while !stop.load(Ordering::Relaxed) && options.duration.is_none_or(|duration| start.elapsed() < duration) {
        if Instant::now() < due {
            thread::sleep(GLANCE.min(due.saturating_duration_since(Instant::now())));
            continue;
        }
        due = (due + options.interval).max(Instant::now());
        let samples: Vec<_> = guests.iter_mut().map(Guest::sample).collect();
        let host = HostState::read();
        let changes = steering.round(&mut guests, &samples, host);
        let spoken = say_beside(&line(&guests, &samples, &changes, host, options), &options.outputs);
        kept = keep(&mut tracks, &mut recorder, &mut guests, samples);
        // Nobody reads on, or no guest is left.
        if spoken.is_err() || kept.is_err() || guests.iter().all(Guest::has_ended) {
            break;
        }
    }
    guests.iter_mut().for_each(Guest::leave);
    kept?;
    plot::write(&tracks, &options.outputs)
}

/// An empty track.
pub(crate) fn track(name: &str) -> Track {
    Track { name: name.into(), samples: Vec::new(), marks: Vec::new() }
}

/// Records samples and events.
pub(crate) fn keep(
    tracks: &mut [Track],
    recorder: &mut Option<Recorder>,
    guests: &mut [Guest],
    samples: Vec<Sample>,
) -> Outcome {
    for ((track, guest), sample) in tracks.iter_mut().zip(guests).zip(samples) {
        let marks: Vec<Mark> = guest.take_marks();
        if let Some(recorder) = recorder {
            recorder.sample(&track.name, &sample)?;
            marks.iter().try_for_each(|mark| recorder.mark(&track.name, mark))?;
        }
        track.samples.push(sample);
        track.marks.extend(marks);
    }
    Ok(())
}

/// Each guest's floor and ceiling. Errors name the options that conflict.
fn bounds(options: &cli::Policy, guests: &[Guest]) -> Outcome<Vec<Bounds>> {
    for (name, ..) in &options.guest {
        if !guests.iter().any(|guest| guest.name == *name) {
            let names: Vec<_> = guests.iter().map(|guest| guest.name.as_str()).collect();
            return Err(format!("--guest {name}: no such guest; there are {}", names.join(", ")).into());
        }
    }
    let one = |guest: &Guest| {
        let size = guest.size().unwrap_or(u64::MAX);
        let own = options.guest.iter().find(|(name, ..)| *name == guest.name);
        let (floor, ceiling) =
            own.map_or((options.floor, options.ceiling.unwrap_or(size)), |(_, floor, ceiling)| (*floor, *ceiling));
        let ceiling = ceiling.min(size);
        (floor.min(ceiling), ceiling)
    };
    let bounds: Vec<Bounds> = guests.iter().map(one).collect();
    let floors: u64 = bounds.iter().map(|(floor, _)| floor).sum();
    if floors > options.budget {
        return Err(format!(
            "--budget {} MiB: less than the floors of {} guests, {} MiB together",
            mib(options.budget),
            bounds.len(),
            mib(floors)
        )
        .into());
    }
    Ok(bounds)
}

/// A round as a line.
fn line(guests: &[Guest], samples: &[Sample], changes: &[Change], host: HostState, options: &cli::Policy) -> String {
    let sum = |of: &dyn Fn(&Sample) -> Option<u64>| mib(samples.iter().filter_map(of).sum());
    let pressure = host.pressure.map_or_else(|| "-".into(), |percent| format!("{percent:.1} %"));
    let mut text = format!(
        "{:.1} s: host memory {} MiB, balloons leave {} of {} MiB; PSI {pressure}",
        samples.first().map_or(0.0, |sample| sample.at),
        sum(&Sample::host),
        sum(&|sample| sample.get(Figure::Actual)),
        mib(options.budget),
    );
    let verb = if options.dry_run { "would go" } else { "goes" };
    for (number, from, to) in changes {
        text.push_str(&format!("; {} {verb} from {} to {} MiB", guests[*number].name, mib(*from), mib(*to)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(time: u64, actual: u64, total: u64, available: u64) -> Sample {
        let mut sample = Sample::new(0.0);
        sample.set(Figure::StatTime, Some(time));
        sample.set(Figure::Actual, Some(actual));
        sample.set(Figure::StatTotal, Some(total));
        sample.set(Figure::StatAvailable, Some(available));
        sample
    }

    #[test]
    fn a_need_does_not_mix_moments() {
        let mut need = Need::default();
        assert_eq!(need.of(&sample(1, 100, 90, 50)), Some(40), "the overhead is not known yet");
        assert_eq!(need.of(&sample(2, 100, 90, 50)), Some(50), "the guest's total leaves out 10");
        // The balloon has moved, and the statistics are old: what the guest uses has not changed.
        assert_eq!(need.of(&sample(2, 60, 90, 50)), Some(50));
        assert_eq!(need.of(&sample(3, 60, 50, 10)), Some(50));
        assert_eq!(need.of(&Sample::new(0.0)), None);
    }
}
