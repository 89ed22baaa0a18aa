//! `ballonet-watch`: shows guests' memory and their balloons live, on the host.
//!
//! `guest` takes a sample (`model`) from a QEMU (`monitor`, `qmp`, `libvirt`), its process (`host`) and, for a ballonet kernel, its serial
//! line (`serial`, `kernel`). `watch` runs a thread per guest (`worker`) and sends samples to the picture (`app`,
//! `view`, `bars`), to lines (`plain`), to a record (`record`), to Prometheus (`metrics`) and to plots (`plot`,
//! `panel`, `canvas`). `policy` decides on targets without I/O; `steer` applies them. `demo` and `density` start
//! guests (`launch`) and draw the result.

#![forbid(unsafe_code)]
// An ordinary program of the host.
#![allow(clippy::std_instead_of_core, clippy::alloc_instead_of_core)]

mod app;
mod bars;
mod canvas;
mod cli;
mod demo;
mod density;
mod failure;
mod find;
mod guest;
mod host;
mod kernel;
mod launch;
mod libvirt;
mod metrics;
mod model;
mod monitor;
mod panel;
mod plain;
mod plot;
mod policy;
mod qmp;
mod record;
mod serial;
mod steer;
mod units;
mod view;
mod watch;
mod worker;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use clap::Parser as _;

use cli::{Attach, Cli, Command, Run};
use failure::Outcome;
use guest::{Address, Guest};
use launch::Launcher;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(options) => run(&options),
        Command::Attach(options) => attach(&options),
        Command::Plot(options) => plot::plot(&options),
        Command::Demo(options) if options.density => density::demo(&options),
        Command::Demo(options) => demo::demo(&options),
        Command::Policy(options) => steer::policy(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // The terminal may have gone.
            let _ = writeln!(io::stderr(), "ballonet-watch: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Run) -> Outcome {
    let launch = &options.launch;
    let launcher = Launcher::prepare(&launch.root, launch.kernel.as_deref(), launch.release)?;
    let start = Instant::now();
    let (_launched, guest) = launcher.start("ballonet", &[], &options.arguments, start)?;
    watch::watch(vec![guest], &options.watch, start, true)
}

fn attach(options: &Attach) -> Outcome {
    let addresses = find::addresses(&options.sockets, &options.pid, &options.serial)?;
    let start = Instant::now();
    let guests = connect(&addresses, start)?;
    watch::watch(guests, &options.watch, start, false)
}

/// Connects to all guests and starts their statistics. Reports and skips guests that fail; it is an error if all fail.
fn connect(addresses: &[Address], start: Instant) -> Outcome<Vec<Guest>> {
    let (mut guests, failures) = distinct(addresses, attach_all(addresses, start));
    if guests.is_empty() {
        return Err(failures.join("\nballonet-watch: ").into());
    }
    failures.iter().for_each(|failure| eprintln!("ballonet-watch: left out: {failure}"));
    guests.iter_mut().for_each(Guest::start_statistics);
    Ok(guests)
}

/// Attaches to all at once, since a QEMU that hangs costs seconds.
fn attach_all(addresses: &[Address], start: Instant) -> Vec<Outcome<Guest>> {
    thread::scope(|scope| {
        let attach = |address| scope.spawn(move || Guest::attach(address, None, start));
        let threads: Vec<_> = addresses.iter().map(attach).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("connecting failed".into()))).collect()
    })
}

/// The guests, without those that another socket has already given: their memory would count twice. And all failures.
fn distinct(addresses: &[Address], outcomes: Vec<Outcome<Guest>>) -> (Vec<Guest>, Vec<String>) {
    let (mut guests, mut failures, mut seen) = (Vec::<Guest>::new(), Vec::new(), Vec::new());
    for (address, outcome) in addresses.iter().zip(outcomes) {
        let socket = address.socket.display();
        match outcome {
            Err(failure) => failures.push(failure.to_string()),
            Ok(Guest { pid: Ok(pid), name, .. }) if seen.contains(&pid) => {
                failures.push(format!("{socket}: {name} is the QEMU of another socket, PID {pid}"));
            }
            Ok(guest) => {
                seen.extend(&guest.pid);
                guests.push(guest);
            }
        }
    }
    (guests, failures)
}
