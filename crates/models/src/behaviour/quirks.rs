//! Deviations of devices from the specification, and choices that it leaves open.

use ballonet::memory::REGION_FRAMES;

use crate::queue::{INDIRECT, Request, WRITE};

/// The quirks of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quirks {
    /// Longest descriptor that is served.
    pub longest_descriptor: u32,
    /// How it treats a longer one.
    pub long: Long,
    /// How it treats a chain.
    pub chains: Chains,
    /// A chain that the device does not read completely is not a misstep: the driver may be probing. The host does not
    /// take the unread frames.
    pub forgives_chains: bool,
    /// Guest memory is backed by huge pages: the host reclaims one only if all its frames come in one request.
    pub huge_pages: bool,
    /// The device never reads the reporting queue.
    pub ignores_reports: bool,
    /// How the host discards the frames of a request.
    pub discards: Discards,
    /// How `actual` can be written.
    pub actual: ActualWrites,
    /// The device never reads the inflate queue.
    pub ignores_inflate: bool,
    /// Sizes of the hint and the reporting queue; inflate, deflate and statistics have one size.
    pub hint_size: u16,
    pub reporting_size: u16,
    /// `free_page_hint_cmd_id` reads as STOP while a round is open.
    pub stop_while_hinting: bool,
    /// Number of queues of VMM-specific features after all others.
    pub own_queues: u16,
    /// The length of the device configuration, if it does not follow from the offered features.
    pub config_length: Option<u64>,
    /// The device itself counts frames into `actual`, besides what the driver writes.
    pub counts_actual: bool,
    /// A request of frames comes back with their number as its used length, as if that many bytes had been written.
    pub claims_frames: bool,
    /// A configuration change sets both bits of the ISR byte, as in QEMU.
    pub changes_set_both_bits: bool,
    /// Deviations of its registers.
    pub registers: RegisterQuirks,
    /// It starts only with every queue set up; otherwise it asks for a reset.
    pub wants_every_queue: bool,
    /// How it resets.
    pub resets: Resets,
    /// Used buffers interrupt even if the driver suppresses interrupts.
    pub ignores_suppression: bool,
    /// The ISR byte is always 0.
    pub no_isr: bool,
}

/// Deviations of a device's registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterQuirks {
    /// BARs answer all ones with their size alone, without type bits.
    pub bare_bar_sizes: bool,
    /// Features and queues read as 0 until `ACKNOWLEDGE` and `DRIVER` are set.
    pub silent_until_driver: bool,
    /// `driver_feature` reads as 0.
    pub hides_accepted: bool,
    /// The addresses of queues read as 0.
    pub hides_addresses: bool,
    /// The lower halves of a queue's driver and device area show the upper ones.
    pub shows_upper_halves: bool,
    /// Accepted features that were not offered are dropped silently; `FEATURES_OK` sticks.
    pub takes_any_feature: bool,
    /// Vectors beyond the MSI-X table are accepted.
    pub takes_any_vector: bool,
    /// Queue sizes survive a reset.
    pub keeps_queue_sizes: bool,
    /// `config_generation` is always 0.
    pub no_generation: bool,
}

impl RegisterQuirks {
    /// No quirks.
    pub const NONE: Self = Self {
        bare_bar_sizes: false,
        silent_until_driver: false,
        hides_accepted: false,
        hides_addresses: false,
        shows_upper_halves: false,
        takes_any_feature: false,
        takes_any_vector: false,
        keeps_queue_sizes: false,
        no_generation: false,
    };
}

/// How a device resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resets {
    /// It completes.
    Work,
    /// From `DRIVER` on it ends in `FAILED`.
    EndInFailed,
    /// After `DRIVER_OK` it reads as complete, and the device ignores the status from then on.
    LockUp,
}

/// How a device treats a descriptor that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Long {
    /// It is skipped, and the request completes.
    Skipped,
    /// Its request is never completed.
    Lost,
}

/// How a device treats a chain of descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chains {
    /// All of it is read.
    Read,
    /// Only its head is read.
    HeadOnly,
    /// Its request is never completed.
    Lost,
}

/// How the frames of a request are discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discards {
    /// One by one.
    Each,
    /// Together, if adjacent in the request and in memory.
    Adjacent,
    /// The request is sorted first.
    Sorted,
}

/// How `actual` can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActualWrites {
    /// In any pieces.
    Any,
    /// In one store of four bytes; others are dropped.
    Whole,
    /// Not at all.
    Ignored,
}

impl Quirks {
    /// No quirks: the device serves what the specification requires, and accepts `actual` only as a whole.
    pub(crate) const NONE: Self = Self {
        longest_descriptor: 1024,
        long: Long::Lost,
        chains: Chains::Read,
        forgives_chains: false,
        huge_pages: false,
        ignores_reports: false,
        discards: Discards::Each,
        actual: ActualWrites::Whole,
        ignores_inflate: false,
        hint_size: 64,
        reporting_size: 32,
        stop_while_hinting: false,
        own_queues: 0,
        config_length: None,
        counts_actual: false,
        claims_frames: false,
        changes_set_both_bits: false,
        registers: RegisterQuirks::NONE,
        wants_every_queue: false,
        resets: Resets::Work,
        ignores_suppression: false,
        no_isr: false,
    };

    /// Whether all of a request is served; `None` if it is never completed.
    pub(crate) fn serves(&self, request: &Request) -> Option<bool> {
        let buffers = request.chain.iter().filter(|(_, d)| d.flags & INDIRECT == 0);
        let longest = buffers.map(|(_, d)| d.length).max().unwrap_or(0);
        let (long, chain) = (longest > self.longest_descriptor, request.chain.len() > 1);
        let lost = long && self.long == Long::Lost || chain && self.chains == Chains::Lost;
        if lost { None } else { Some(!(long || chain && self.chains == Chains::HeadOnly)) }
    }

    /// The frame numbers that the device reads from a request.
    pub(crate) fn pfns(&self, request: &Request) -> Vec<u32> {
        let readable = request.chain.iter().filter(|(_, d)| d.flags & (WRITE | INDIRECT) == 0);
        let (mut taken, mut at) = (Vec::new(), 0);
        for (position, (_, descriptor)) in readable.enumerate() {
            let end = at + descriptor.length as usize;
            let bytes = request.bytes.get(at..end).unwrap_or(&[]);
            at = end;
            if descriptor.length <= self.longest_descriptor && (position == 0 || self.chains == Chains::Read) {
                taken.extend(bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])));
            }
        }
        taken
    }

    /// Whether the host reclaims the memory behind `pfn` when `pfns` come in one request.
    pub(crate) fn takes_away(&self, pfn: u32, pfns: &[u32]) -> bool {
        let start = pfn / REGION_FRAMES * REGION_FRAMES;
        !self.huge_pages || (start..start + REGION_FRAMES).all(|pfn| pfns.contains(&pfn))
    }

    /// The number of discards that the host makes for these frames.
    pub(crate) fn discards(&self, pfns: &[u32]) -> u64 {
        let mut pfns = pfns.to_vec();
        match self.discards {
            Discards::Each => return pfns.len() as u64,
            Discards::Adjacent => {}
            Discards::Sorted => pfns.sort_unstable(),
        }
        let breaks = pfns.windows(2).filter(|pair| pair[1] != pair[0].wrapping_add(1)).count();
        if pfns.is_empty() { 0 } else { breaks as u64 + 1 }
    }
}
