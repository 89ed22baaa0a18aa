//! Page frames: whose each one is.

use ballonet::memory::{FrameRun, Pfn};

/// The first frame.
const FIRST: u32 = 0x1000;
/// Frames in all: more than a device can have in flight.
pub const TOTAL: u32 = 4096;

/// Whose a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Kernel,
    Driver,
    Balloon,
}

/// The ledger. Frames lie together in runs of at most [`Frames::longest`].
#[derive(Debug)]
pub struct Frames {
    owners: Vec<Owner>,
    /// How many each has.
    counts: [u64; 3],
    /// The longest run given at once.
    pub longest: u32,
    /// Frames that the kernel keeps.
    pub floor: u32,
    /// Where to look next.
    cursor: usize,
    /// Frames that the host was told of and nobody has used since.
    reported: Vec<bool>,
    /// How many of the kernel's the host was not told of.
    unreported: u64,
    /// Calls to age free memory so far.
    age: u32,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            owners: vec![Owner::Kernel; TOTAL as usize],
            counts: [TOTAL.into(), 0, 0],
            longest: TOTAL,
            floor: 0,
            cursor: 0,
            reported: vec![false; TOTAL as usize],
            unreported: TOTAL.into(),
            age: 0,
        }
    }
}

impl Frames {
    fn count(&self, owner: Owner) -> u64 {
        self.counts[owner as usize]
    }

    fn moved(&mut self, count: u64, from: Owner, to: Owner) {
        self.counts[from as usize] -= count;
        self.counts[to as usize] += count;
    }

    pub fn free(&self) -> u64 {
        self.count(Owner::Kernel)
    }

    pub fn ballooned(&self) -> u64 {
        self.count(Owner::Balloon)
    }

    /// Frames that the driver has.
    pub fn in_flight(&self) -> u64 {
        self.count(Owner::Driver)
    }

    pub fn is_drivers(&self, pfn: u32) -> bool {
        self.owners.get(pfn.wrapping_sub(FIRST) as usize) == Some(&Owner::Driver)
    }

    /// A run of `owner`'s frames, which become the driver's; with `unreported` of those that the host was not told of.
    fn take(&mut self, owner: Owner, most: u32, unreported: bool) -> Option<FrameRun> {
        assert!(most > 0, "nothing is asked for");
        let total = self.owners.len();
        let wanted = |at: &usize| self.owners[*at] == owner && !(unreported && self.reported[*at]);
        let start = (0..total).map(|step| (self.cursor + step) % total).find(wanted)?;
        let most = most.min(self.longest) as usize;
        let count = (start..total).take(most).take_while(wanted).count();
        if owner == Owner::Kernel {
            self.unreported -= self.reported[start..start + count].iter().filter(|known| !**known).count() as u64;
        }
        self.reported[start..start + count].fill(false);
        self.owners[start..start + count].fill(Owner::Driver);
        self.moved(count as u64, owner, Owner::Driver);
        self.cursor = (start + count) % total;
        FrameRun::new(Pfn::new(FIRST + start as u32), count as u32)
    }

    fn give(&mut self, run: FrameRun, owner: Owner) {
        for pfn in run.pfns() {
            let place = &mut self.owners[(pfn.as_u32() - FIRST) as usize];
            assert_eq!(*place, Owner::Driver, "{pfn} goes to the {owner:?}");
            *place = owner;
        }
        self.moved(run.count().into(), Owner::Driver, owner);
    }

    /// What an earlier driver left in the balloon.
    pub fn leave_ballooned(&mut self, count: u32) {
        let count = count.min(TOTAL) as usize;
        self.owners[..count].fill(Owner::Balloon);
        self.moved(count as u64, Owner::Kernel, Owner::Balloon);
        self.unreported -= count as u64;
    }

    pub fn take_free(&mut self, most: u32) -> Option<FrameRun> {
        let spare = self.free().saturating_sub(self.floor.into());
        if spare == 0 { None } else { self.take(Owner::Kernel, most.min(spare as u32), false) }
    }

    pub fn take_ballooned(&mut self, most: u32) -> Option<FrameRun> {
        self.take(Owner::Balloon, most, false)
    }

    pub fn confirm_ballooned(&mut self, run: FrameRun) {
        self.give(run, Owner::Balloon);
    }

    pub fn release(&mut self, run: FrameRun) {
        self.give(run, Owner::Kernel);
        self.unreported += u64::from(run.count());
    }

    pub fn take_unreported(&mut self, most: u32, age: u32) -> Option<FrameRun> {
        if self.age < age || self.unreported() == 0 { None } else { self.take(Owner::Kernel, most, true) }
    }

    pub fn release_reported(&mut self, run: FrameRun) {
        self.give(run, Owner::Kernel);
        let start = (run.start().as_u32() - FIRST) as usize;
        self.reported[start..start + run.count() as usize].fill(true);
    }

    pub fn unreported(&self) -> u64 {
        self.unreported
    }

    pub fn grow_older(&mut self) {
        self.age = self.age.saturating_add(1);
    }
}
