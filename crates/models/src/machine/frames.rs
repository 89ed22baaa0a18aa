//! Page frames of the machine: the real allocator, checked against the ledger of each frame's state in
//! [`Ram`](crate::Ram).

use std::collections::VecDeque;

use ballonet::memory::{
    Footprint, FrameContents, FrameRun, Frames as Allocator, IdleRun, PageFrames, Pfn, PhysAddr, PhysRange,
    REGION_FRAMES, ReportFrames,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::machine::Machine;
use crate::world::{GuestSide, HostSide};

/// The allocator and its ledger.
pub struct Frames {
    machine: Machine,
    allocator: Allocator<'static>,
    held: VecDeque<FrameRun>,
    /// Whether the platform can mark frames.
    pub marking: bool,
}

impl Frames {
    /// All managed frames of the machine, free.
    pub(crate) fn new(machine: &Machine) -> Self {
        let address = |value| PhysAddr::new(value).expect("an address below 2^52");
        let ranges = machine.bus(|bus| bus.ram.managed());
        let usable: Vec<_> = ranges.iter().filter_map(|r| PhysRange::new(address(r.start), r.end - r.start)).collect();
        let bytes = Footprint::of(usable.clone()).bytes();
        // Leaked: a few hundred bytes for each machine of a test program.
        let storage = vec![0_u8; bytes + Footprint::ALIGN].leak();
        let skip = storage.as_ptr().align_offset(Footprint::ALIGN);
        let allocator = Allocator::new(&mut storage[skip..], usable, []).expect("storage that fits");
        Self { machine: machine.clone(), allocator, held: VecDeque::new(), marking: false }
    }

    pub fn total(&self) -> u64 {
        self.allocator.counts().total
    }

    /// Frames that the platform keeps for itself.
    pub fn set_floor(&mut self, frames: u64) {
        self.allocator.set_floor(frames);
    }

    /// Regions of 2 MiB that are wholly free.
    pub fn whole_regions(&self) -> u64 {
        self.allocator.counts().free_regions
    }

    /// Those of them that were not reported to the host.
    pub fn unreported_regions(&self) -> u64 {
        self.allocator.unreported() / u64::from(REGION_FRAMES)
    }

    pub fn free(&self) -> u64 {
        self.allocator.counts().free
    }

    pub fn ballooned_frames(&self) -> u64 {
        self.allocator.counts().ballooned
    }

    pub fn held(&self) -> u64 {
        self.held.iter().map(|r| u64::from(r.count())).sum()
    }

    /// Frames that the driver has taken but neither returned nor confirmed.
    pub fn in_flight(&self) -> u64 {
        self.machine.bus(|bus| bus.ram.count_guest(GuestSide::Driver))
    }

    /// Panics unless every frame is accounted for, by the allocator and by the ledger alike.
    #[track_caller]
    pub fn expect_whole(&self) {
        self.allocator.check().expect("consistent records");
        let counts = self.allocator.counts();
        assert_eq!(counts.history.refusals, 0, "the allocator refused a request of the driver");
        assert_eq!(counts.used, self.held() + self.in_flight(), "used = held + in flight");
        assert_eq!(counts.ballooned, self.machine.bus(|bus| bus.ram.count_guest(GuestSide::Ballooned)));
        assert_eq!(counts.free + counts.used + counts.ballooned + counts.reserved, counts.total);
    }

    fn note_used(&self, run: FrameRun) {
        self.machine.bus(|bus| run.pfns().for_each(|pfn| bus.ram.note_used(pfn.0)));
    }

    fn move_to(&self, run: FrameRun, from: GuestSide, to: GuestSide, what: &str) {
        self.machine.bus(|bus| {
            for pfn in run.pfns().map(|pfn| pfn.0) {
                if bus.ram.guest_side(pfn) != from {
                    bus.misstep("FRAMES", format!("{what} of {pfn:#x}, which is {:?}", bus.ram.guest_side(pfn)));
                }
                bus.ram.set_guest_side(pfn, to);
            }
        });
    }

    /// Takes frames for the kernel and fills them with a pattern.
    pub fn hold(&mut self, count: u32) -> bool {
        let Ok(run) = self.allocator.allocate(count, 1) else { return false };
        self.note_used(run);
        self.machine.bus(|bus| {
            for pfn in run.pfns() {
                bus.ram.memory().write_slice(&pattern(pfn), GuestAddress(pfn.start().as_u64())).expect("frame in RAM");
            }
        });
        self.held.push_back(run);
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
        if let Some(run) = self.held.pop_front() {
            self.allocator.free(run).expect("a run that is held");
        }
    }
}

fn pattern(pfn: Pfn) -> [u8; 4096] {
    std::array::from_fn(|i| (i as u32 ^ pfn.0.wrapping_mul(0x9e37_79b1) >> 8) as u8)
}

impl PageFrames for Frames {
    fn take_free(&mut self, most: u32) -> Option<FrameRun> {
        let run = self.allocator.take_free(most)?;
        self.note_used(run);
        self.move_to(run, GuestSide::Kernel, GuestSide::Driver, "take_free");
        Some(run)
    }

    fn confirm_ballooned(&mut self, run: FrameRun) {
        self.settle(run, HostSide::Ballooned);
        self.refuse_host_side(run, HostSide::Inflating, "BAL-OP-09");
        self.refuse_host_side(run, HostSide::Guest, "BAL-OP-09");
        self.move_to(run, GuestSide::Driver, GuestSide::Ballooned, "confirm_ballooned");
        PageFrames::confirm_ballooned(&mut self.allocator, run);
    }

    fn take_ballooned(&mut self, most: u32) -> Option<FrameRun> {
        let run = self.allocator.take_ballooned(most)?;
        self.move_to(run, GuestSide::Ballooned, GuestSide::Driver, "take_ballooned");
        Some(run)
    }

    fn release(&mut self, run: FrameRun) {
        self.settle(run, HostSide::Guest);
        self.refuse_host_side(run, HostSide::Inflating, "BAL-OP-09");
        self.refuse_host_side(run, HostSide::Ballooned, "BAL-OP-06");
        self.refuse_host_side(run, HostSide::Deflating, "BAL-OP-07");
        self.refuse_host_side(run, HostSide::Reporting, "BAL-REPORT-03");
        self.refuse_host_side(run, HostSide::Hinting, "BAL-HINT-07");
        self.check_contents(run);
        self.move_to(run, GuestSide::Driver, GuestSide::Kernel, "release");
        PageFrames::release(&mut self.allocator, run);
    }

    fn reporting(&mut self) -> Option<&mut dyn ReportFrames> {
        Some(self)
    }

    fn contents(&mut self) -> Option<&mut dyn FrameContents> {
        Some(self)
    }
}

impl ReportFrames for Frames {
    fn take_unreported(&mut self, most: u32, age: u32) -> Option<FrameRun> {
        let run = self.allocator.take_unreported(most, age)?;
        self.move_to(run, GuestSide::Kernel, GuestSide::Driver, "take_unreported");
        Some(run)
    }

    fn take_backed(&mut self, most: u32) -> Option<FrameRun> {
        let run = self.allocator.take_backed(most)?;
        self.move_to(run, GuestSide::Kernel, GuestSide::Driver, "take_backed");
        Some(run)
    }

    fn release_reported(&mut self, run: FrameRun) {
        self.settle(run, HostSide::Guest);
        self.refuse_host_side(run, HostSide::Reporting, "BAL-REPORT-03");
        self.refuse_host_side(run, HostSide::Hinting, "BAL-HINT-07");
        self.check_contents(run);
        self.move_to(run, GuestSide::Driver, GuestSide::Kernel, "release_reported");
        // A partly released region is not tracked.
        let whole = |first: &u32| first.is_multiple_of(REGION_FRAMES) && first + REGION_FRAMES - 1 <= run.last().0;
        let regions = run.pfns().map(|pfn| pfn.0).filter(whole);
        self.machine.bus(|bus| regions.for_each(|first| bus.ram.note_reported(first)));
        ReportFrames::release_reported(&mut self.allocator, run);
    }

    fn unreported(&self) -> u64 {
        self.allocator.unreported()
    }

    fn age(&mut self) {
        ReportFrames::age(&mut self.allocator);
    }

    fn take_idle(&mut self, most: u32, keep: u64) -> Option<IdleRun> {
        let idle = self.allocator.take_idle(most, keep)?;
        self.move_to(idle.run, GuestSide::Kernel, GuestSide::Driver, "take_idle");
        if !idle.reported {
            self.note_used(idle.run);
        }
        Some(idle)
    }
}

impl FrameContents for Frames {
    fn fill(&mut self, run: FrameRun, byte: u8) {
        self.machine.bus(|bus| {
            for pfn in run.pfns().map(|pfn| pfn.0) {
                if bus.ram.guest_side(pfn) != GuestSide::Driver {
                    bus.misstep("FRAMES", format!("fill of {pfn:#x}, which is {:?}", bus.ram.guest_side(pfn)));
                }
                bus.ram.fill(pfn, byte);
                // From now on the host backs it.
                bus.ram.note_used(pfn);
            }
        });
    }

    fn mark(&mut self, run: FrameRun) -> bool {
        if self.marking {
            self.each_word(run, |memory, at, mark| memory.write_obj(mark, at).expect("frame in RAM"));
        }
        self.marking
    }

    fn marks(&self, run: FrameRun) -> u32 {
        let mut marks = 0;
        self.each_word(run, |memory, at, mark| marks += u32::from(memory.read_obj::<u64>(at).ok() == Some(mark)));
        marks
    }
}

impl Frames {
    /// Visits the word with the mark in each frame of a run, which the driver must own.
    fn each_word(&self, run: FrameRun, mut look: impl FnMut(&GuestMemoryMmap, GuestAddress, u64)) {
        self.machine.bus(|bus| {
            for pfn in run.pfns() {
                let (guest, host) = (bus.ram.guest_side(pfn.0), bus.ram.host_side(pfn.0));
                if guest != GuestSide::Driver || !matches!(host, HostSide::Guest | HostSide::Unknown) {
                    bus.misstep("BAL-OP-09", format!("{pfn} touched while {guest:?}, {host:?}"));
                }
                look(bus.ram.memory(), GuestAddress(pfn.start().as_u64()), u64::from(pfn.0) << 32 | 0x6d61_726b);
            }
        });
    }

    fn settle(&self, run: FrameRun, side: HostSide) {
        self.machine.bus(|bus| run.pfns().for_each(|pfn| bus.ram.settle(pfn.0, side)));
    }

    /// The driver gives frames to the kernel. Their contents matter if they must be filled after their return from the
    /// host, or if the host may skip them in a copy because they were hinted.
    fn check_contents(&self, run: FrameRun) {
        self.machine.bus(|bus| {
            for pfn in run.pfns().map(|pfn| pfn.0) {
                if bus.ram.is_unfilled(pfn) {
                    bus.misstep("BAL-POISON-01", format!("{pfn:#x} was returned and not filled"));
                }
                if bus.ram.host_side(pfn) == HostSide::Hinted {
                    if bus.ram.hints_count && !bus.ram.is_initialized(pfn) {
                        bus.misstep("BAL-HINT-09", format!("{pfn:#x} was reclaimed early and not written"));
                    }
                    bus.ram.set_host_side(pfn, HostSide::Guest);
                }
            }
        });
    }

    /// The driver confirms or reclaims frames: they must not be in state `side` on the host.
    fn refuse_host_side(&self, run: FrameRun, side: HostSide, clause: &'static str) {
        self.machine.bus(|bus| {
            for pfn in run.pfns().map(|pfn| pfn.0) {
                if bus.ram.host_side(pfn) == side && !bus.ram.host_gone() {
                    bus.misstep(clause, format!("{pfn:#x} confirmed or reclaimed while {side:?}"));
                }
            }
        });
    }
}
