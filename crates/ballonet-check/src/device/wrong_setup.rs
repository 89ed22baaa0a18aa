//! Queues that are set up incorrectly.

use core::mem::offset_of;

use super::{Role, Shape, StartOptions, TestDevice};
use crate::arena::ARENA;
use crate::ring::{Areas, Placement, RawDescriptor, sizes};
use crate::verdict::{Reaction, Stop, Verdict};
use ballonet::platform::Registers;
use ballonet::virtio::spec::{AvailableRing, CommonConfig, Status};

/// How a queue is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wrong {
    /// Its size, if that is written.
    pub(crate) size: Option<u16>,
    /// The addresses of descriptors, driver area and device area.
    pub(crate) parts: [u64; 3],
    pub(crate) writes_addresses: bool,
}

/// Entries of the queue.
const SIZE: u16 = 64;

impl TestDevice<'_> {
    /// Starts the device with the other queue set up correctly, and `queue`, which holds a request, as `change` says.
    /// Refused if the queue does not read as enabled, or the device does not start.
    pub(crate) fn set_up_wrong(&mut self, queue: u16, change: impl FnOnce(&mut Self, &mut Wrong)) -> Verdict<Reaction> {
        self.stop()?;
        self.arena.clear();
        self.negotiate_least()?;
        self.features = self.least();
        let setup = StartOptions { size: SIZE, ..self.plain() };
        self.enable(0, &setup)?;
        let areas = Areas::place(&mut self.arena, SIZE, false, Placement::Plain)?;
        self.fill(areas)?;
        self.arena.open(areas.device, sizes(SIZE, false).2);
        let parts = [areas.descriptors, areas.driver, areas.device].map(|area| self.arena.address(area));
        let mut wrong = Wrong { size: Some(SIZE), parts, writes_addresses: true };
        self.select(queue);
        change(self, &mut wrong);
        self.select(queue);
        if let Some(size) = wrong.size {
            self.modern_registers().common.write16(offset_of!(CommonConfig, queue_size), size);
        }
        if wrong.writes_addresses {
            self.modern_registers().write_addresses(wrong.parts);
        }
        self.modern_registers().common.write16(offset_of!(CommonConfig, queue_enable), 1);
        let enabled = self.modern_registers().common.read16(offset_of!(CommonConfig, queue_enable)) == 1;
        let live = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::DRIVER_OK;
        self.set_status(live);
        self.kick_number(queue, queue);
        self.wait_quiet()?;
        let started = self.status()?.contains(live);
        Ok(if enabled && started { Reaction::Ignored } else { Reaction::Refused })
    }

    /// Puts a request into a queue that is not enabled yet.
    fn fill(&mut self, areas: Areas) -> Verdict {
        let buffer = self.arena.place(32, 16, 0)?;
        self.arena.zero(buffer, 32);
        // The same frame eight times: one of the tester's.
        let pfns = [self.pfns[0].to_le_bytes(); 8];
        self.arena.write(buffer, pfns.as_flattened());
        self.buffers.push((buffer, buffer + 32));
        let request = RawDescriptor { address: self.arena.address(buffer), length: 32, flags: 0, next: 0 };
        request.put(&mut self.arena, areas.descriptors, 0, false);
        self.arena.store16(areas.driver + offset_of!(AvailableRing, ring), 0);
        self.arena.store16(areas.driver + offset_of!(AvailableRing, idx), 1);
        Ok(())
    }

    /// Lets the device write anywhere in the arena, since the driver has told it to overwrite the driver's own data.
    pub(crate) fn allow_all(&mut self) {
        self.arena.open(0, ARENA);
    }

    /// Where the device's own registers are in memory.
    pub(crate) fn own_registers(&self) -> Verdict<u64> {
        let bars = (0..6).filter_map(|bar| self.pci_function().bars.get(bar).ok()).filter(|bar| !bar.is_io());
        let mut windows = bars.filter_map(|bar| bar.window(0, 64).ok());
        let none = || Stop::Skipped("the device has no BAR in memory".into());
        windows.next().map(|window| window.address).ok_or_else(none)
    }

    /// Starts the device with queues of `size` entries.
    pub(crate) fn start_small(&mut self, size: u16) -> Verdict {
        let setup = StartOptions { size, ..self.plain() };
        self.start(&setup)?;
        self.warm_up()
    }

    /// Inflates single frames in turn, and continues if the device returns none.
    pub(crate) fn send_singles(&mut self, count: usize) -> Verdict {
        for frame in 0..count {
            if self.with_queue(Role::First, |queue, _| queue.room())? == 0 {
                return Ok(());
            }
            self.post(Role::First, frame..frame + 1, &Shape::PLAIN)?;
            self.publish(Role::First)?;
            self.kick(Role::First)?;
            let quiet = self.patience.quiet;
            let returned = self.wait(quiet, |device| {
                device.with_queue(Role::First, |queue, arena| Ok(queue.collect(arena).unwrap_or(true)))?
            })?;
            if !returned {
                return Ok(());
            }
        }
        Ok(())
    }
}
