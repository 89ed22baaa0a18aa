//! Guest RAM, who uses each frame of it on either side, and the DMA memory carved from its bottom.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Bytes in a frame.
const FRAME: u64 = 4096;
/// DMA memory lies at the bottom of RAM, above the first MiB.
const DMA: Range<u64> = 0x10_0000..0x40_0000;

/// Where a frame is in the host's eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostSide {
    /// The guest's.
    #[default]
    Guest,
    /// In an inflate request that the device has not completed.
    Inflating,
    /// Taken by the host.
    Ballooned,
    /// In a deflate request that the device has not completed.
    Deflating,
    /// In a report of free memory that the device has not completed.
    Reporting,
    /// In an inflate request that the device has not read so far: it is the guest's, which cannot tell.
    Unread,
    /// In a hint that the device has not completed.
    Hinting,
    /// Hinted, and returned: not to be copied.
    Hinted,
    /// On its way, one or the other, when the device was reset: neither side can tell.
    Unknown,
}

/// Where a frame is in the guest's eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum GuestSide {
    /// Not handed to the driver: the kernel uses it, or it is free.
    #[default]
    Kernel,
    /// Taken by the driver, on its way to or from the balloon.
    Driver,
    /// The driver says that the host has it.
    Ballooned,
}

/// Guest RAM.
#[derive(Debug)]
pub struct Ram {
    memory: Arc<GuestMemoryMmap>,
    ranges: Vec<Range<u64>>,
    host: HashMap<u32, HostSide>,
    guest: HashMap<u32, GuestSide>,
    dma: BTreeMap<u64, u64>,
    /// 2 MiB regions that were reported to the host, and of which nobody has had a frame since.
    reported: BTreeSet<u32>,
    host_gone: bool,
    /// Frames that the host has taken without taking away what is behind them.
    kept: HashSet<u32>,
    /// The host may leave out of its copy what was hinted.
    pub hints_count: bool,
    /// What free frames hold by the driver's word.
    pub poison: Option<u32>,
    /// Frames that the host gave back while that held, and that the driver has.
    returned: BTreeSet<u32>,
}

impl Ram {
    /// RAM of `mib` MiB in two halves with a hole between them, at least 8. Pages come from the host when touched.
    pub fn new(mib: u32) -> Self {
        let half = u64::from(mib) << 19;
        let ranges = vec![0..half, 0x1_0000_0000..0x1_0000_0000 + half];
        let regions: Vec<_> = ranges.iter().map(|r| (GuestAddress(r.start), (r.end - r.start) as usize)).collect();
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&regions).expect("guest RAM"));
        Self {
            memory,
            ranges,
            host: HashMap::new(),
            guest: HashMap::new(),
            dma: BTreeMap::new(),
            reported: BTreeSet::new(),
            host_gone: false,
            kept: HashSet::new(),
            hints_count: false,
            poison: None,
            returned: BTreeSet::new(),
        }
    }

    pub fn memory(&self) -> &Arc<GuestMemoryMmap> {
        &self.memory
    }

    /// The parts of RAM that the page-frame allocator manages: all but the low part with the DMA memory.
    pub(crate) fn managed(&self) -> Vec<Range<u64>> {
        let mut ranges = self.ranges.clone();
        ranges[0].start = DMA.end;
        ranges
    }

    pub(crate) fn contains(&self, pfn: u32) -> bool {
        let address = u64::from(pfn) * FRAME;
        self.ranges.iter().any(|r| r.contains(&address))
    }

    pub(crate) fn host_side(&self, pfn: u32) -> HostSide {
        self.host.get(&pfn).copied().unwrap_or_default()
    }

    pub fn set_host_side(&mut self, pfn: u32, side: HostSide) {
        if side == HostSide::Guest {
            self.kept.remove(&pfn);
        }
        self.host.insert(pfn, side);
    }

    /// The host takes a frame, and cannot take away what is behind it.
    pub(crate) fn keep(&mut self, pfn: u32) {
        self.kept.insert(pfn);
    }

    /// Frames that the host has taken and whose memory it has.
    pub fn taken_away(&self) -> u64 {
        self.count_host(HostSide::Ballooned) - self.kept.len() as u64
    }

    pub(crate) fn guest_side(&self, pfn: u32) -> GuestSide {
        self.guest.get(&pfn).copied().unwrap_or_default()
    }

    pub(crate) fn set_guest_side(&mut self, pfn: u32, side: GuestSide) {
        self.guest.insert(pfn, side);
    }

    /// Frames of which the host says that they are at `side`.
    pub fn count_host(&self, side: HostSide) -> u64 {
        self.host.values().filter(|s| **s == side).count() as u64
    }

    /// Frames of which the guest says that they are at `side`.
    pub(crate) fn count_guest(&self, side: GuestSide) -> u64 {
        self.guest.values().filter(|s| **s == side).count() as u64
    }

    /// A device reset ends all requests, and does not bring back what the host has.
    pub(crate) fn reset_host(&mut self) {
        for (pfn, side) in &self.guest {
            if *side == GuestSide::Driver {
                self.host.insert(*pfn, HostSide::Unknown);
            }
        }
    }

    /// The driver says where a frame is that is [`HostSide::Unknown`].
    pub(crate) fn settle(&mut self, pfn: u32, side: HostSide) {
        self.host.entry(pfn).and_modify(|known| {
            if *known == HostSide::Unknown {
                *known = side;
            }
        });
    }

    /// The device is gone, and the host's claims with it.
    pub(crate) fn forget_host(&mut self) {
        self.host_gone = true;
    }

    pub(crate) fn host_gone(&self) -> bool {
        self.host_gone
    }

    fn marker(pfn: u32) -> u64 {
        0xb0a7_0000_0000_0000 | u64::from(pfn)
    }

    /// What the host does to a page it takes: its contents are gone. The marker left shows whether the guest touches it.
    pub fn discard(&self, pfn: u32) {
        let start = u64::from(pfn) * FRAME;
        for offset in [0, FRAME / 2, FRAME - 8] {
            self.memory.write_obj(Self::marker(pfn), GuestAddress(start + offset)).expect("PFN in RAM");
        }
    }

    /// Whether nobody wrote to a page since [`Ram::discard`].
    pub(crate) fn untouched(&self, pfn: u32) -> bool {
        let start = u64::from(pfn) * FRAME;
        let kept = self.kept.contains(&pfn);
        kept || [0, FRAME / 2, FRAME - 8]
            .into_iter()
            .all(|offset| self.memory.read_obj::<u64>(GuestAddress(start + offset)).ok() == Some(Self::marker(pfn)))
    }

    /// Whether every word of a page is the same, and which.
    fn uniform(&self, pfn: u32) -> Option<u32> {
        let mut page = [0; FRAME as usize];
        self.memory.read_slice(&mut page, GuestAddress(u64::from(pfn) * FRAME)).ok()?;
        let (words, _) = page.as_chunks::<4>();
        words.iter().all(|word| word == &words[0]).then(|| u32::from_ne_bytes(words[0]))
    }

    /// Whether a page has been written as a whole since the host took what was behind it.
    pub(crate) fn is_initialized(&self, pfn: u32) -> bool {
        self.uniform(pfn).is_some()
    }

    /// Whether a page holds what free frames are said to hold.
    pub(crate) fn is_poisoned(&self, pfn: u32) -> bool {
        self.uniform(pfn) == self.poison
    }

    /// Pages of RAM in which nothing has been written since the host took what was behind them.
    pub fn count_untouched(&self) -> u64 {
        let frames = self.ranges.iter().flat_map(|range| range.start / FRAME..range.end / FRAME);
        frames.filter(|frame| self.untouched(*frame as u32)).count() as u64
    }

    /// The host gives a frame back to a driver that has to fill it.
    pub(crate) fn note_returned(&mut self, pfn: u32) {
        if self.poison.is_some() {
            self.returned.insert(pfn);
        }
    }

    /// The driver gives a frame to the kernel. Whether it had to fill it and has not.
    pub(crate) fn is_unfilled(&mut self, pfn: u32) -> bool {
        self.returned.remove(&pfn) && !self.is_poisoned(pfn)
    }

    /// Fills a page, as a kernel does.
    pub(crate) fn fill(&self, pfn: u32, byte: u8) {
        self.memory.write_slice(&[byte; FRAME as usize], GuestAddress(u64::from(pfn) * FRAME)).expect("frame in RAM");
    }

    /// Allocates zeroed DMA memory, first fit.
    pub fn allocate_dma(&mut self, size: u64, align: u64) -> Option<u64> {
        let up = |value: u64| value.checked_next_multiple_of(align);
        let mut at = up(DMA.start)?;
        for (&start, &len) in &self.dma {
            if at + size <= start {
                break;
            }
            at = up(start + len)?;
        }
        if size == 0 || at + size > DMA.end {
            return None;
        }
        self.dma.insert(at, size);
        self.memory.write_slice(&vec![0; size as usize], GuestAddress(at)).expect("DMA memory in RAM");
        Some(at)
    }

    /// Takes DMA memory back and poisons it, so that a late use shows. `false` if it was not allocated.
    pub(crate) fn release_dma(&mut self, start: u64) -> bool {
        let Some(size) = self.dma.remove(&start) else { return false };
        self.memory.write_slice(&vec![0xa5; size as usize], GuestAddress(start)).expect("DMA memory in RAM");
        true
    }

    /// Overwrites a word of allocated DMA memory, by its number modulo the size of all of it; does nothing without any.
    pub fn scribble(&self, word: u32, value: u16) {
        let words = |size: u64| size / 2;
        let total: u64 = self.dma.values().copied().map(words).sum();
        let Some(mut word) = u64::from(word).checked_rem(total) else { return };
        for (start, size) in &self.dma {
            if word < words(*size) {
                self.memory.store(value, GuestAddress(start + 2 * word), Ordering::Relaxed).expect("DMA memory in RAM");
                return;
            }
            word -= words(*size);
        }
    }

    /// DMA regions allocated now.
    pub(crate) fn dma_regions(&self) -> usize {
        self.dma.len()
    }

    /// Whether the driver may lend this memory to its device: DMA memory, or frames that it was given.
    pub(crate) fn is_drivers(&self, start: u64, size: u64) -> bool {
        let frames = start.is_multiple_of(FRAME) && size.is_multiple_of(FRAME) && size > 0;
        let given = |pfn: u64| {
            u32::try_from(pfn).is_ok_and(|pfn| self.contains(pfn) && self.guest_side(pfn) == GuestSide::Driver)
        };
        let mut pfns = start / FRAME..(start.saturating_add(size)) / FRAME;
        self.in_dma(start, size) || frames && pfns.all(given)
    }

    /// The host was told that a region is free.
    pub(crate) fn note_reported(&mut self, pfn: u32) {
        self.reported.insert(pfn / 512);
    }

    /// Whether nobody has had a frame of the region since it was reported.
    pub(crate) fn is_reported(&self, pfn: u32) -> bool {
        self.reported.contains(&(pfn / 512))
    }

    /// Somebody takes a frame.
    pub(crate) fn note_used(&mut self, pfn: u32) {
        self.reported.remove(&(pfn / 512));
    }

    /// Whether `size` bytes from `start` lie in one allocated DMA region.
    pub(crate) fn in_dma(&self, start: u64, size: u64) -> bool {
        let Some(end) = start.checked_add(size) else { return false };
        self.dma.range(..=start).next_back().is_some_and(|(&at, &len)| end <= at + len)
    }
}
