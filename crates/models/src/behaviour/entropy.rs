//! The entropy device on the device's side (virtio 1.4, 5.4): one queue, whose buffers it fills with bytes of a seed.

use vm_memory::{Bytes, GuestAddress};

use crate::bug::Bug;
use crate::queue::{INDIRECT, Request, WRITE};
use crate::world::Bus;

/// The source of an entropy device's bytes.
#[derive(Debug, Clone)]
pub struct Entropy {
    seed: u64,
    first_seed: u64,
    /// The most bytes written per request; 0 for a device that violates the rule to write at least one.
    pub most: u32,
    /// All bytes written so far.
    pub given: Vec<u8>,
}

impl Entropy {
    /// A device that fills every buffer.
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, first_seed: seed, most: u32::MAX, given: Vec::new() }
    }

    /// Checks a request when it arrives.
    pub(crate) fn check(request: &Request, bus: &mut Bus) {
        if parts(request).next().is_none() || !request.bytes.is_empty() {
            bus.misstep(
                "ENTROPY-01",
                format!("a request with readable descriptors, or without bytes: {:?}", request.chain),
            );
        }
    }

    /// Fills a request as a device with this bug does. Returns the number of bytes that it claims to have written.
    pub(crate) fn give(&mut self, request: &Request, bug: Option<Bug>, bus: &Bus) -> u32 {
        match bug {
            Some(Bug::RandomIsEmpty) => 0,
            Some(Bug::RandomIsNotWritten) => parts(request).map(|(_, length)| length).sum(),
            Some(Bug::RandomRepeats) => {
                let seed = self.seed;
                let written = self.fill(request, bus);
                self.seed = seed;
                written
            }
            Some(Bug::RandomClaimsTooMuch) => self.fill(request, bus) + 1,
            _ => self.fill(request, bus),
        }
    }

    /// Starts over.
    pub(crate) fn start_over(&mut self) {
        self.seed = self.first_seed;
    }

    /// Fills a request. Returns the number of bytes written.
    pub(crate) fn fill(&mut self, request: &Request, bus: &Bus) -> u32 {
        let mut left = self.most;
        for (address, length) in parts(request) {
            let bytes: Vec<u8> = (0..length.min(left)).map(|_| (next_random(&mut self.seed) >> 56) as u8).collect();
            bus.ram.memory().write_slice(&bytes, GuestAddress(address)).expect("DMA memory");
            left -= bytes.len() as u32;
            self.given.extend(bytes);
        }
        self.most - left
    }
}

/// The writable parts of a request: addresses and lengths.
fn parts(request: &Request) -> impl Iterator<Item = (u64, u32)> {
    let writable = request.chain.iter().filter(|(_, d)| d.flags & (WRITE | INDIRECT) == WRITE);
    writable.map(|(_, d)| (d.address, d.length))
}

/// The next number of a generator that is never 0 (xorshift64*).
pub(crate) fn next_random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}
