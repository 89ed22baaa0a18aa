//! Page frames of the machine, with a ledger beside the allocator that knows what either side may do with each.

use ballonet::memory::{FrameRun, Pfn};
use ballonet::platform::PageFrames;
use vm_memory::{Bytes, GuestAddress};

use super::machine::Machine;
use super::ram::{GuestSide, HostSide};

/// The allocator and its ledger.
pub struct Frames {
    machine: Machine,
    free: Vec<FrameRun>,
    ballooned: Vec<FrameRun>,
    held: Vec<FrameRun>,
    total: u64,
    /// Frames that the platform keeps for itself.
    pub floor: u64,
}

impl Frames {
    /// All managed frames of the machine, free.
    pub fn new(machine: &Machine) -> Self {
        let ranges = machine.bus(|bus| bus.ram.managed());
        let run = |r: std::ops::Range<u64>| {
            FrameRun::new(Pfn::new((r.start / 4096) as u32), ((r.end - r.start) / 4096) as u32).expect("a range")
        };
        let free: Vec<_> = ranges.into_iter().map(run).collect();
        let total = free.iter().map(|r| u64::from(r.count())).sum();
        Self { machine: machine.clone(), free, ballooned: Vec::new(), held: Vec::new(), total, floor: 0 }
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn free(&self) -> u64 {
        self.free.iter().map(|r| u64::from(r.count())).sum()
    }

    pub fn held(&self) -> u64 {
        self.held.iter().map(|r| u64::from(r.count())).sum()
    }

    /// Frames that the driver has taken and neither given back nor confirmed.
    pub fn in_flight(&self) -> u64 {
        self.machine.bus(|bus| bus.ram.count_guest(GuestSide::Driver))
    }

    /// Panics unless every frame is accounted for.
    #[track_caller]
    pub fn expect_whole(&self) {
        let (free, held, ballooned, in_flight) = (self.free(), self.held(), self.ballooned(), self.in_flight());
        assert_eq!(
            free + held + ballooned + in_flight,
            self.total,
            "free {free} + held {held} + ballooned {ballooned} + in flight {in_flight}"
        );
    }

    fn pop(list: &mut Vec<FrameRun>, most: u32) -> Option<FrameRun> {
        let (run, rest) = list.pop()?.split(most);
        list.extend(rest);
        Some(run)
    }

    fn move_to(&self, run: FrameRun, from: GuestSide, to: GuestSide, what: &str) {
        self.machine.bus(|bus| {
            for pfn in run.pfns().map(Pfn::as_u32) {
                if bus.ram.guest_side(pfn) != from {
                    bus.misstep("FRAMES", format!("{what} of {pfn:#x}, which is {:?}", bus.ram.guest_side(pfn)));
                }
                bus.ram.set_guest_side(pfn, to);
            }
        });
    }

    /// Takes frames for the kernel and fills them with a pattern.
    pub fn hold(&mut self, most: u32) -> bool {
        let Some(run) = Self::pop(&mut self.free, most) else { return false };
        self.machine.bus(|bus| {
            for pfn in run.pfns() {
                bus.ram.memory().write_slice(&pattern(pfn), GuestAddress(pfn.start().as_u64())).expect("frame in RAM");
            }
        });
        self.held.push(run);
        true
    }

    /// Panics unless every held frame still has its pattern.
    #[track_caller]
    pub fn expect_patterns(&self) {
        let mut page = [0; 4096];
        for pfn in self.held.iter().flat_map(|r| r.pfns()) {
            self.machine.bus(|bus| {
                bus.ram.memory().read_slice(&mut page, GuestAddress(pfn.start().as_u64())).expect("frame in RAM");
            });
            assert_eq!(page, pattern(pfn), "contents of {pfn} in use");
        }
    }

    /// Gives the oldest held run back to the allocator.
    pub fn unhold(&mut self) {
        if !self.held.is_empty() {
            let run = self.held.remove(0);
            self.free.push(run);
        }
    }
}

fn pattern(pfn: Pfn) -> [u8; 4096] {
    std::array::from_fn(|i| (i as u32 ^ pfn.as_u32().wrapping_mul(0x9e37_79b1) >> 8) as u8)
}

impl PageFrames for Frames {
    fn take_free(&mut self, most: u32) -> Option<FrameRun> {
        let spare = self.free().saturating_sub(self.floor);
        let most = most.min(u32::try_from(spare).unwrap_or(u32::MAX));
        if most == 0 {
            return None;
        }
        let run = Self::pop(&mut self.free, most)?;
        self.move_to(run, GuestSide::Kernel, GuestSide::Driver, "take_free");
        Some(run)
    }

    fn confirm_ballooned(&mut self, run: FrameRun) {
        self.move_to(run, GuestSide::Driver, GuestSide::Ballooned, "confirm_ballooned");
        self.machine.bus(|bus| {
            for pfn in run.pfns().map(Pfn::as_u32) {
                if bus.ram.host_side(pfn) != HostSide::Ballooned {
                    bus.misstep("BAL-OP-09", format!("{pfn:#x} confirmed while {:?}", bus.ram.host_side(pfn)));
                }
            }
        });
        self.ballooned.push(run);
    }

    fn take_ballooned(&mut self, most: u32) -> Option<FrameRun> {
        let run = Self::pop(&mut self.ballooned, most)?;
        self.move_to(run, GuestSide::Ballooned, GuestSide::Driver, "take_ballooned");
        Some(run)
    }

    fn release(&mut self, run: FrameRun) {
        self.move_to(run, GuestSide::Driver, GuestSide::Kernel, "release");
        self.machine.bus(|bus| {
            for pfn in run.pfns().map(Pfn::as_u32) {
                if bus.ram.host_side(pfn) != HostSide::Guest {
                    bus.misstep("BAL-OP-07", format!("{pfn:#x} reused while {:?}", bus.ram.host_side(pfn)));
                }
            }
        });
        self.free.push(run);
    }

    fn ballooned(&self) -> u64 {
        self.ballooned.iter().map(|r| u64::from(r.count())).sum()
    }
}
