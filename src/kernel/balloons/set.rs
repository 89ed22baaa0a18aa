//! Every balloon of the machine.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use ballonet::balloon::{Balloon, Options, ReclaimError};
use ballonet::pci::{Bdf, Function, Tree};
use ballonet::platform::{DeviceAddress, Platform};
use ballonet::virtio::DeviceHandle;
use ballonet::virtio::spec::DeviceType;
use log::{error, info};

use super::notices;
use super::options::driver_options;
use super::served::{Action, Served};
use crate::boot::Terminal;
use crate::console::Movement;
use crate::kernel::mmio_devices::MmioFound;
use crate::machine::Machine;
use crate::machine::reclaim::Reclaimed;

/// Every balloon of the machine.
pub(crate) struct Balloons {
    served: Vec<Served>,
    /// Balloons whose drivers did not start.
    refused: usize,
    /// The driver's options, except name and adopted frames.
    options: Options,
    /// Frames that removed balloons left with their hosts: the next balloon adopts them.
    orphans: u64,
    ansi: bool,
}

impl Balloons {
    /// Starts a driver for every balloon, first on PCI, then on MMIO.
    pub(crate) fn start(machine: &mut Machine, tree: &Tree, mmio: &[MmioFound]) -> Self {
        let ansi = machine.options().term == Terminal::Ansi;
        let options = driver_options(machine.options());
        let mut new = Self { served: Vec::new(), refused: 0, options, orphans: 0, ansi };
        for node in tree.nodes() {
            new.add(machine, tree, &node.function);
        }
        for found in mmio.iter().filter(|found| found.is(DeviceType::BALLOON)) {
            new.probe(machine, found.handle());
        }
        new
    }

    /// Starts a driver for a function if it is a balloon. Returns its index among the balloons.
    pub(crate) fn add(&mut self, machine: &mut Machine, tree: &Tree, function: &Function) -> Option<usize> {
        if !DeviceType::BALLOON.is_function(function.vendor, function.device) {
            return None;
        }
        tree.open_path(machine.config(), function.bdf);
        self.probe(machine, function.bdf.into())
    }

    /// Starts a driver for a balloon. Returns its index among the balloons.
    fn probe(&mut self, machine: &mut Machine, device: DeviceHandle) -> Option<usize> {
        // Frame numbers have 32 bits, so no balloon can adopt more.
        let adopted = u32::try_from(self.orphans).unwrap_or(u32::MAX);
        let mut options = self.options.clone();
        options.name = self.free_name().as_str().into();
        options.adopted = adopted;
        match Balloon::probe(machine, device, options) {
            Ok(balloon) => {
                self.orphans -= u64::from(adopted);
                self.served.push(Served::new(balloon));
                Some(self.served.len() - 1)
            }
            Err(error) => {
                self.refused += 1;
                error!("balloon at {}: {error}", device.address());
                None
            }
        }
    }

    /// The first unused name.
    fn free_name(&self) -> String {
        let names = (0..).map(|number| format!("virtio{number}"));
        let mut free = names.filter(|name| self.drivers().all(|driver| driver.name() != name));
        free.next().unwrap_or_default()
    }

    /// Deflates the balloon at `function` completely for its removal. `now` in nanoseconds.
    pub(crate) fn leave(&mut self, function: Bdf, now: u64) {
        self.served
            .iter_mut()
            .filter(|served| served.balloon.status().address == function.into())
            .for_each(|served| served.leave(now));
    }

    /// Deflates every balloon completely before power-off. `now` in nanoseconds.
    pub(crate) fn leave_all(&mut self, now: u64) {
        self.served.iter_mut().for_each(|served| served.leave(now));
    }

    /// Whether all can be removed: each is empty, has failed, or has run out of time.
    pub(crate) fn have_left(&self, now: u64) -> bool {
        self.served.iter().all(|served| served.has_left(now))
    }

    /// Ends the driver at `function` if its balloon is empty, has failed, or has run out of time, or if `at_once`.
    /// Returns whether it has ended.
    pub(crate) fn remove(&mut self, machine: &mut Machine, function: Bdf, at_once: bool) -> bool {
        let Some(place) = self.served.iter().position(|served| served.balloon.status().address == function.into())
        else {
            return true;
        };
        if !at_once && !self.served[place].has_left(machine.now()) {
            return false;
        }
        let balloon = self.served.remove(place).balloon;
        let (name, actual) = (String::from(balloon.name()), balloon.status().actual);
        // Only frames whose inflation was acknowledged are ballooned; requests in flight ended with the device.
        let orphans = u64::from(balloon.shutdown(machine));
        self.orphans += orphans;
        notices::removed(&name, function, orphans, actual);
        true
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.served.is_empty()
    }

    /// Frames that removed balloons left with their hosts.
    pub(crate) fn orphans(&self) -> u64 {
        self.orphans
    }

    /// Balloons whose drivers did not start.
    pub(crate) fn refused(&self) -> usize {
        self.refused
    }

    /// The drivers.
    pub(crate) fn drivers(&self) -> impl Iterator<Item = &Balloon<Machine>> {
        self.served.iter().map(|served| &served.balloon)
    }

    /// The drivers, mutable.
    pub(crate) fn drivers_mut(&mut self) -> impl Iterator<Item = &mut Balloon<Machine>> {
        self.served.iter_mut().map(|served| &mut served.balloon)
    }

    /// Whether one must be served at once. Reliable with interrupts off, right before the CPU sleeps.
    pub(crate) fn is_pending(&self) -> bool {
        self.served.iter().any(|served| served.balloon.is_pending())
    }

    /// Serves each balloon once.
    pub(crate) fn serve(&mut self, machine: &mut Machine) {
        for served in &mut self.served {
            served.serve(machine, self.ansi);
        }
    }

    /// When to serve one without an interrupt, in nanoseconds since entry.
    pub(crate) fn next_poll(&self, machine: &mut Machine) -> Option<u64> {
        self.served.iter().filter_map(|served| served.next_poll(machine)).min()
    }

    /// Reports all free memory to hosts that accept reports. Returns whether one does.
    pub(crate) fn report_now(&mut self) -> bool {
        self.served.iter_mut().filter_map(|served| served.balloon.report_now().then_some(())).count() > 0
    }

    /// A balloon that turned out to be gone; each is returned once.
    pub(crate) fn take_gone(&mut self) -> Option<DeviceAddress> {
        self.served.iter_mut().find_map(Served::take_gone)
    }

    /// Makes the drivers read their devices without an interrupt.
    pub(crate) fn recheck(&mut self) {
        self.served.iter_mut().for_each(|served| served.balloon.recheck());
    }

    /// The movement in progress, if any.
    pub(crate) fn movement(&self) -> Option<Movement> {
        self.served.iter().find_map(|served| served.size.movement())
    }

    /// The movement in progress, otherwise the last one.
    pub(crate) fn last_movement(&self) -> Option<Movement> {
        self.movement().or_else(|| self.served.iter().find_map(|served| served.size.last_movement()))
    }

    /// Memory was freed: a balloon that had stopped for lack of memory may continue.
    pub(crate) fn memory_freed(&mut self) {
        for driver in self.drivers_mut() {
            driver.memory_freed();
        }
    }

    /// Why a balloon last gave less than an allocation needed, if it did.
    pub(crate) fn refusal(&self) -> Option<&ReclaimError> {
        self.served.iter().find_map(|served| served.size.refusal())
    }

    /// Reclaims memory for a failing allocation, from one balloon after the other until there is enough.
    pub(crate) fn reclaim(&mut self, machine: &mut Machine, frames: u64) -> Reclaimed {
        let mut sum = Reclaimed::default();
        for served in &mut self.served {
            if sum.frames >= frames {
                break;
            }
            let reclaim = served.balloon.reclaim(machine, frames - sum.frames);
            served.size.note_reclaim(reclaim.error);
            sum.frames += reclaim.frames;
            sum.asked += reclaim.asked;
        }
        sum
    }

    /// Applies an action to the balloon of this name, or to all. Returns their number.
    pub(crate) fn apply(&mut self, action: Action, name: Option<&str>, machine: &mut Machine) -> usize {
        let meant = self.served.iter_mut().filter(|served| name.is_none_or(|name| name == served.balloon.name()));
        meant.map(|served| served.apply(action, machine)).count()
    }

    /// Resets every device, so that none writes to memory.
    pub(crate) fn shutdown(self, machine: &mut Machine) {
        for Served { balloon, .. } in self.served {
            let name = String::from(balloon.name());
            let done = if balloon.status().failed.is_some() { "had failed" } else { "reset" };
            let frames = balloon.shutdown(machine);
            info!("{name}: {done}; {} MiB stay with the host", u64::from(frames) / 256);
        }
    }

    /// Reports that all are ready.
    pub(crate) fn announce(&self) {
        self.drivers().for_each(notices::ready);
    }

    /// Reports that the one at this index is ready.
    pub(crate) fn announce_one(&self, place: usize) {
        self.drivers().nth(place).into_iter().for_each(notices::ready);
    }
}
