//! The use of a balloon in one picture: the same program in two guests, only one of which reports free memory to the
//! host.

use std::thread;
use std::time::{Duration, Instant};

use crate::bars::used;
use crate::cli;
use crate::failure::Outcome;
use crate::guest::Guest;
use crate::launch::{Launched, Launcher};
use crate::model::Sample;
use crate::panel::{Layer, Panel, Stroke};
use crate::plain::say_beside;
use crate::plot::{self, HOST, USE, layer};
use crate::record::{Recorder, Track};
use crate::steer::{keep, track};
use crate::units::{MIB, mib};

/// Default duration.
const DURATION: Duration = Duration::from_secs(30);
/// Time between two steps of the program.
const TICK: Duration = Duration::from_millis(250);
/// Teeth of the saw, each higher than the one before.
const TEETH: u32 = 5;
/// The part of a tooth in which the program holds memory; in the rest it holds none.
const RISE: f64 = 0.7;
/// Height of the first tooth, and how much higher each later one is.
const FIRST: u64 = 64 * MIB;
const MORE: u64 = 32 * MIB;
/// The longest time that a guest may take to start or to do a step.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Each guest's balloon. Kernel and QEMU are the same.
const GUESTS: [(&str, &str); 2] =
    [("with-balloon", "virtio-balloon-pci,free-page-reporting=on,deflate-on-oom=on"), ("without-balloon", "none")];

/// Runs the demonstration and draws it.
pub(crate) fn demo(options: &cli::Demo) -> Outcome {
    let launch = &options.launch;
    let launcher = Launcher::prepare(&launch.root, launch.kernel.as_deref(), launch.release)?;
    let mut started = Vec::new();
    for (name, balloon) in GUESTS {
        started.push(launcher.start(name, &[("MEMORY", "256M"), ("BALLOON", balloon)], &[], Instant::now())?);
    }
    let (processes, mut guests): (Vec<Launched>, Vec<Guest>) = started.into_iter().unzip();
    let (tracks, program) = run(&mut guests, options)?;
    guests.iter_mut().for_each(Guest::quit);
    drop(processes);
    let mut outputs = options.outputs.clone();
    // A closed pipe leaves the picture to draw.
    let _ = say_beside(&tracks.iter().map(summary).collect::<Vec<_>>().join("\n"), &outputs);
    if outputs.svg.is_none() && outputs.png.is_none() {
        outputs.svg = Some("demo.svg".into());
    }
    plot::write_panels("Host memory of a guest with a balloon and of one without", &panels(&tracks, &program), &outputs)
}

/// Memory held by the programs, as points of a layer: seconds, MiB, and a base of 0.
type Program = Vec<(f64, f64, f64)>;

fn run(guests: &mut [Guest], options: &cli::Demo) -> Outcome<(Vec<Track>, Program)> {
    for guest in guests.iter_mut() {
        wait(guest, "to start", |guest| guest.kernel.is_ready())?;
    }
    let start = Instant::now();
    guests.iter_mut().for_each(|guest| guest.restart_clock(start));
    let duration = options.duration.unwrap_or(DURATION);
    let mut tracks: Vec<_> = guests.iter().map(|guest| track(&guest.name)).collect();
    let mut recorder = options.outputs.record.as_deref().map(Recorder::create).transpose()?;
    eprintln!("a program takes and frees memory in two guests for {} s", duration.as_secs());
    let (mut held, mut holds) = (0, Program::new());
    let mut due = start;
    // Counts steps, not seconds: on a slow machine the program is slow too, and still rests long enough.
    let steps = (duration.as_millis() / TICK.as_millis()) as u32;
    for step in 0..steps {
        let wanted = program(f64::from(step) / f64::from(steps));
        for guest in guests.iter_mut() {
            take(guest, held, wanted)?;
            guest.refresh(PATIENCE);
        }
        held = wanted;
        // Held memory as the guests confirm it. Their figure for used memory briefly includes free memory that is
        // being reported.
        holds.push((start.elapsed().as_secs_f64(), mib(held) as f64, 0.0));
        let samples = guests.iter_mut().map(Guest::sample).collect();
        keep(&mut tracks, &mut recorder, guests, samples)?;
        due = (due + TICK).max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok((tracks, holds))
}

/// Bytes that the program holds at this part of the whole run: a saw with growing teeth, in whole MiB.
fn program(part: f64) -> u64 {
    let place = part.clamp(0.0, 1.0) * f64::from(TEETH);
    let (tooth, rise) = (place.floor().min(f64::from(TEETH - 1)), place.fract() / RISE);
    let height = FIRST + tooth as u64 * MORE;
    if rise > 1.0 || part >= 1.0 { 0 } else { (height as f64 * rise) as u64 / MIB * MIB }
}

/// Makes the guest's program hold `wanted` bytes instead of `held`.
pub(crate) fn take(guest: &mut Guest, held: u64, wanted: u64) -> Outcome {
    let held = if wanted < held {
        guest.type_line("mem release");
        0
    } else {
        held
    };
    if wanted > held {
        let before = guest.kernel.holds();
        guest.type_line(&format!("mem hold {}M", mib(wanted - held)));
        wait(guest, "to take memory", |guest| guest.kernel.holds() > before)?;
    }
    Ok(())
}

/// Waits for an event on the guest's serial line.
pub(crate) fn wait(guest: &mut Guest, what: &str, done: impl Fn(&Guest) -> bool) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    while !done(guest) {
        let left = deadline.saturating_duration_since(Instant::now());
        if !guest.listen(left) && Instant::now() >= deadline {
            return Err(format!("{}: waited {} s for it {what}", guest.name, PATIENCE.as_secs()).into());
        }
    }
    Ok(())
}

fn panels(tracks: &[Track], program: &Program) -> Vec<Panel> {
    let titles = [
        "With virtio-balloon, freed memory goes back to the host",
        "The same program without it: freed memory stays taken",
    ];
    let panel = |(track, title): (&Track, &str)| Panel {
        title: title.into(),
        layers: vec![
            layer("host holds", HOST, Stroke::Area, track, Sample::host),
            Layer { name: "program holds".into(), colour: USE, stroke: Stroke::Line, points: program.clone() },
        ]
        .into_iter()
        .map(with_last)
        .collect(),
        events: Vec::new(),
    };
    tracks.iter().zip(titles).map(panel).collect()
}

/// Adds the last value to a layer's label, at which the label stands: the outcome in a figure.
fn with_last(mut layer: Layer) -> Layer {
    let last = layer.points.last().map_or(0.0, |point| point.1);
    layer.name = format!("{} {last:.0} MiB", layer.name);
    layer
}

/// A summary of the picture as text.
fn summary(track: &Track) -> String {
    let most = track.samples.iter().filter_map(Sample::host).max().unwrap_or_default();
    let last = track.samples.iter().rev().find_map(Sample::host).unwrap_or_default();
    let program = track.samples.iter().filter_map(used).max().unwrap_or_default();
    format!(
        "{}: the guest used up to {} MiB; the host had up to {} MiB for it, and {} MiB at the end",
        track.name,
        mib(program),
        mib(most),
        mib(last)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_a_saw_whose_teeth_grow() {
        let heights: Vec<_> = (0..TEETH)
            .map(|tooth| {
                (0..100).map(|step| program((f64::from(tooth) + f64::from(step) / 100.0) / f64::from(TEETH))).max()
            })
            .collect();
        assert!(heights.is_sorted_by(|one, other| one < other), "{heights:?}");
        assert_eq!((program(0.0), program(0.19), program(1.0)), (0, 0, 0));
        // 256 MiB are enough for all of it.
        assert!(heights.last().is_some_and(|most| most.is_some_and(|most| most <= 200 * MIB)), "{heights:?}");
    }
}
