//! Four guests in a budget of half their memory, steered by the policy; and the same four without.

use std::thread;
use std::time::{Duration, Instant};

use crate::cli;
use crate::demo::{PATIENCE, take, wait};
use crate::failure::Outcome;
use crate::guest::Guest;
use crate::host::HostState;
use crate::launch::{Launched, Launcher};
use crate::panel::{Layer, Panel, Stroke};
use crate::plain::say_beside;
use crate::plot::{self, SIZE, stacked};
use crate::policy::Limits;
use crate::record::{Recorder, Track};
use crate::steer::{Steering, keep, track};
use crate::units::{MIB, mib};

/// Guests in each set, and the RAM of each.
const COUNT: usize = 4;
const RAM: u64 = 256 * MIB;
/// Half the sum of the guests' RAM.
const BUDGET: u64 = COUNT as u64 * RAM / 2;
/// The least that a guest keeps.
const FLOOR: u64 = 32 * MIB;
/// Minimum time per round: a guest sends statistics once a second.
const TICK: Duration = Duration::from_secs(1);
/// Rounds per tooth of the saw, and what a program allocates in each: 138 MiB in all.
const PERIOD: u64 = 24;
const STEP: u64 = 6 * MIB;
/// Default duration: two and a half teeth.
const DURATION: Duration = Duration::from_secs(60);

/// A set of guests with the same programs.
struct Set {
    title: &'static str,
    guests: Vec<Guest>,
    tracks: Vec<Track>,
    steering: Option<Steering>,
    _processes: Vec<Launched>,
}

/// Runs both sets side by side and draws them.
pub(crate) fn demo(options: &cli::Demo) -> Outcome {
    let launch = &options.launch;
    let launcher = Launcher::prepare(&launch.root, launch.kernel.as_deref(), launch.release)?;
    let limits = Limits { budget: BUDGET, hysteresis: 2 * MIB, reserve: 0 };
    let steering = Steering::new(limits, vec![(FLOOR, RAM); COUNT], false);
    let mut sets = [
        Set::start(&launcher, "with", "With the policy: four guests of 256 MiB in 512 MiB", Some(steering))?,
        Set::start(&launcher, "without", "Without it, each guest keeps what it once used", None)?,
    ];
    let mut recorder = options.outputs.record.as_deref().map(Recorder::create).transpose()?;
    run(&mut sets, &mut recorder, options.duration.unwrap_or(DURATION))?;
    let mut outputs = options.outputs.clone();
    if outputs.svg.is_none() && outputs.png.is_none() {
        outputs.svg = Some("density.svg".into());
    }
    sets.iter_mut().flat_map(|set| &mut set.guests).for_each(Guest::quit);
    // A closed pipe leaves the picture to draw.
    let _ = say_beside(&sets.each_ref().map(Set::summary).join("\n"), &outputs);
    let panels: Vec<_> = sets.iter().map(Set::panel).collect();
    plot::write_panels("Host memory of four guests in a budget, with the policy and without", &panels, &outputs)
}

fn run(sets: &mut [Set], recorder: &mut Option<Recorder>, duration: Duration) -> Outcome {
    let start = Instant::now();
    sets.iter_mut().flat_map(|set| &mut set.guests).for_each(|guest| guest.restart_clock(start));
    eprintln!("eight guests run for {} rounds of a second", duration.as_secs());
    let mut due = start;
    // Counts rounds, not seconds: on a slow machine the programs are slow too.
    for round in 0..duration.as_secs() {
        for set in &mut *sets {
            set.step(round)?;
            set.look(recorder)?;
        }
        due = (due + TICK).max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// Bytes that a program holds in a round: a saw, each guest a quarter of a tooth behind the one before.
fn program(guest: usize, round: u64) -> u64 {
    let offset = guest as u64 * PERIOD / COUNT as u64;
    let place = (round + offset) % PERIOD;
    // A program that starts in the middle of a tooth starts from 0, too.
    place.min(round) * STEP
}

impl Set {
    fn start(launcher: &Launcher, word: &str, title: &'static str, steering: Option<Steering>) -> Outcome<Self> {
        // Without reporting: only the balloon returns memory.
        let memory = format!("{}M", RAM / MIB);
        let options = [("MEMORY", memory.as_str()), ("BALLOON", "virtio-balloon-pci,deflate-on-oom=on")];
        let mut guests = Vec::new();
        let mut processes = Vec::new();
        for number in 0..COUNT {
            let name = format!("{word}-{}", number + 1);
            let (process, guest) = launcher.start(&name, &options, &[], Instant::now())?;
            processes.push(process);
            guests.push(guest);
        }
        for guest in &mut guests {
            wait(guest, "to start", |guest| guest.kernel.is_ready())?;
        }
        let tracks = guests.iter().map(|guest| track(&guest.name)).collect();
        Ok(Self { title, guests, tracks, steering, _processes: processes })
    }

    fn step(&mut self, round: u64) -> Outcome {
        for (number, guest) in self.guests.iter_mut().enumerate() {
            let held = if round == 0 { 0 } else { program(number, round - 1) };
            take(guest, held, program(number, round))?;
            guest.refresh(PATIENCE);
        }
        Ok(())
    }

    fn look(&mut self, recorder: &mut Option<Recorder>) -> Outcome {
        let samples: Vec<_> = self.guests.iter_mut().map(Guest::sample).collect();
        if let Some(steering) = &mut self.steering {
            steering.round(&mut self.guests, &samples, HostState::default());
        }
        keep(&mut self.tracks, recorder, &mut self.guests, samples)
    }

    /// Host memory of all guests, round by round.
    fn sums(&self) -> impl Iterator<Item = u64> {
        let rounds = self.tracks.iter().map(|track| track.samples.len()).min().unwrap_or_default();
        (0..rounds).map(|round| self.tracks.iter().filter_map(|track| track.samples[round].host()).sum())
    }

    fn summary(&self) -> String {
        let most: u64 = self.sums().max().unwrap_or_default();
        let over = self.sums().filter(|sum| *sum > BUDGET).count();
        let refused: u64 = self.guests.iter().map(|guest| guest.kernel.refused()).sum();
        let reclaims: u64 = self.guests.iter().map(|guest| guest.kernel.reclaims()).sum();
        let held: u64 = self.guests.iter().map(|guest| guest.kernel.holds()).sum();
        format!(
            "{}: at most {} MiB of the host in a budget of {} MiB, over it in {over} of {} rounds; {held} allocations, {refused} \
             failed, {reclaims} served by reclaim",
            self.title,
            mib(most),
            mib(BUDGET),
            self.sums().count(),
        )
    }

    fn panel(&self) -> Panel {
        let mut layers = stacked(&self.tracks);
        for (number, layer) in layers.iter_mut().enumerate() {
            layer.name = format!("guest {}", number + 1);
        }
        let times = layers.first().map(|layer| layer.points.iter().map(|point| point.0)).into_iter().flatten();
        let points = times.map(|time| (time, BUDGET as f64 / MIB as f64, 0.0)).collect();
        layers.push(Layer { name: "budget".into(), colour: SIZE, stroke: Stroke::Dashed, points });
        Panel { title: self.title.into(), layers, events: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_alternate_and_together_need_less_than_the_budget() {
        let most = (0..3 * PERIOD).map(|round| (0..COUNT).map(|guest| program(guest, round)).sum::<u64>()).max();
        assert!(most.is_some_and(|most| most < BUDGET * 9 / 10), "{most:?}");
        let peak = |guest| (0..3 * PERIOD).map(|round| program(guest, round)).max().unwrap_or_default();
        let peaks: u64 = (0..COUNT).map(peak).sum();
        assert!(peaks > BUDGET, "without the policy the budget is too small: {peaks}");
        assert_eq!((0..COUNT).map(|guest| program(guest, 0)).sum::<u64>(), 0, "all start at 0");
    }
}
