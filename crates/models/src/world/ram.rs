//! Guest RAM, the state of each frame on the host's and the guest's side, and DMA memory at the bottom of RAM.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ballonet::memory::REGION_FRAMES;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Bytes in a frame.
const FRAME: u64 = 4096;
/// DMA memory lies at the bottom of RAM, above the first MiB.
const DMA: Range<u64> = 0x10_0000..0x40_0000;

/// The state of a frame from the host's view.
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
    /// In an inflate request that the device did not read: still the guest's, but the guest cannot know.
    Unread,
    /// In a hint that the device has not completed.
    Hinting,
    /// Hinted and returned: the host does not copy it.
    Hinted,
    /// In a request when the device was reset: neither side knows the owner.
    Unknown,
}

/// The state of a frame from the guest's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum GuestSide {
    /// The kernel's: in use or free, not given to the driver.
    #[default]
    Kernel,
    /// The driver's, on its way to or from the balloon.
    Driver,
    /// Confirmed by the driver as the host's.
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
    /// 2 MiB regions that were reported to the host and not used since.
    reported: BTreeSet<u32>,
    host_gone: bool,
    /// Ballooned frames whose memory the host could not reclaim.
    kept: HashSet<u32>,
    /// The host may leave hinted frames out of its copy.
    pub hints_count: bool,
    /// The value that free frames hold, as the driver announced it.
    pub poison: Option<u32>,
    /// Frames that the host returned since then and that the driver must fill.
    returned: BTreeSet<u32>,
}

impl Ram {
    /// RAM of `mib` MiB, at least 8, in two halves with a hole between them. The host backs pages on first access.
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

    /// The ranges that the page-frame allocator manages: everything above DMA memory.
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

    /// The host takes a frame and cannot reclaim the memory behind it.
    pub(crate) fn keep(&mut self, pfn: u32) {
        self.kept.insert(pfn);
    }

    /// Ballooned frames whose memory the host has reclaimed.
    pub fn taken_away(&self) -> u64 {
        self.count_host(HostSide::Ballooned) - self.kept.len() as u64
    }

    pub(crate) fn guest_side(&self, pfn: u32) -> GuestSide {
        self.guest.get(&pfn).copied().unwrap_or_default()
    }

    pub(crate) fn set_guest_side(&mut self, pfn: u32, side: GuestSide) {
        self.guest.insert(pfn, side);
    }

    /// Frames in this state on the host's side.
    pub fn count_host(&self, side: HostSide) -> u64 {
        self.host.values().filter(|s| **s == side).count() as u64
    }

    /// Frames in this state on the guest's side.
    pub(crate) fn count_guest(&self, side: GuestSide) -> u64 {
        self.guest.values().filter(|s| **s == side).count() as u64
    }

    /// A device reset ends all requests; ballooned frames stay with the host.
    pub(crate) fn reset_host(&mut self) {
        for (pfn, side) in &self.guest {
            if *side == GuestSide::Driver {
                self.host.insert(*pfn, HostSide::Unknown);
            }
        }
    }

    /// Resolves a frame that is [`HostSide::Unknown`], by the driver's decision.
    pub(crate) fn settle(&mut self, pfn: u32, side: HostSide) {
        self.host.entry(pfn).and_modify(|known| {
            if *known == HostSide::Unknown {
                *known = side;
            }
        });
    }

    /// The device was removed: the host no longer owns frames.
    pub(crate) fn forget_host(&mut self) {
        self.host_gone = true;
    }

    pub(crate) fn host_gone(&self) -> bool {
        self.host_gone
    }

    fn marker(pfn: u32) -> u64 {
        0xb0a7_0000_0000_0000 | u64::from(pfn)
    }

    /// The host discards a page. The marker that it leaves shows whether the guest touches the page.
    pub fn discard(&self, pfn: u32) {
        let start = u64::from(pfn) * FRAME;
        for offset in [0, FRAME / 2, FRAME - 8] {
            self.memory.write_obj(Self::marker(pfn), GuestAddress(start + offset)).expect("PFN in RAM");
        }
    }

    /// Whether a page was not written since [`Ram::discard`].
    pub(crate) fn untouched(&self, pfn: u32) -> bool {
        let start = u64::from(pfn) * FRAME;
        let kept = self.kept.contains(&pfn);
        kept || [0, FRAME / 2, FRAME - 8]
            .into_iter()
            .all(|offset| self.memory.read_obj::<u64>(GuestAddress(start + offset)).ok() == Some(Self::marker(pfn)))
    }

    /// The word that fills a page, if all its words are equal.
    fn uniform(&self, pfn: u32) -> Option<u32> {
        let mut page = [0; FRAME as usize];
        self.memory.read_slice(&mut page, GuestAddress(u64::from(pfn) * FRAME)).ok()?;
        let (words, _) = page.as_chunks::<4>();
        words.iter().all(|word| word == &words[0]).then(|| u32::from_ne_bytes(words[0]))
    }

    /// Whether a page was filled as a whole since it was discarded.
    pub(crate) fn is_initialized(&self, pfn: u32) -> bool {
        self.uniform(pfn).is_some()
    }

    /// Whether a page holds the announced poison value.
    pub(crate) fn is_poisoned(&self, pfn: u32) -> bool {
        self.uniform(pfn) == self.poison
    }

    /// Pages of RAM that were not written since they were discarded.
    pub fn count_untouched(&self) -> u64 {
        let frames = self.ranges.iter().flat_map(|range| range.start / FRAME..range.end / FRAME);
        frames.filter(|frame| self.untouched(*frame as u32)).count() as u64
    }

    /// The host returns a frame that the driver must fill.
    pub(crate) fn note_returned(&mut self, pfn: u32) {
        if self.poison.is_some() {
            self.returned.insert(pfn);
        }
    }

    /// The driver gives a frame to the kernel. `true` if it should have filled the frame and did not.
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

    /// Releases DMA memory and poisons it, to expose late uses. `false` if it was not allocated.
    pub(crate) fn release_dma(&mut self, start: u64) -> bool {
        let Some(size) = self.dma.remove(&start) else { return false };
        self.memory.write_slice(&vec![0xa5; size as usize], GuestAddress(start)).expect("DMA memory in RAM");
        true
    }

    /// Overwrites a 16-bit word of allocated DMA memory: number `word`, modulo the number of words. No effect without
    /// any.
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

    /// Whether the driver may lend this memory to its device: it is DMA memory, or frames that the driver was given.
    pub(crate) fn is_drivers(&self, start: u64, size: u64) -> bool {
        let frames = start.is_multiple_of(FRAME) && size.is_multiple_of(FRAME) && size > 0;
        let given = |pfn: u64| {
            u32::try_from(pfn).is_ok_and(|pfn| self.contains(pfn) && self.guest_side(pfn) == GuestSide::Driver)
        };
        let mut pfns = start / FRAME..(start.saturating_add(size)) / FRAME;
        self.in_dma(start, size) || frames && pfns.all(given)
    }

    /// Records that a region was reported as free.
    pub(crate) fn note_reported(&mut self, pfn: u32) {
        self.reported.insert(pfn / REGION_FRAMES);
    }

    /// Whether no frame of the region was used since its report.
    pub(crate) fn is_reported(&self, pfn: u32) -> bool {
        self.reported.contains(&(pfn / REGION_FRAMES))
    }

    /// Records the use of a frame.
    pub(crate) fn note_used(&mut self, pfn: u32) {
        self.reported.remove(&(pfn / REGION_FRAMES));
    }

    /// Whether `size` bytes from `start` lie in one allocated DMA region.
    pub(crate) fn in_dma(&self, start: u64, size: u64) -> bool {
        let Some(end) = start.checked_add(size) else { return false };
        self.dma.range(..=start).next_back().is_some_and(|(&at, &len)| end <= at + len)
    }
}
