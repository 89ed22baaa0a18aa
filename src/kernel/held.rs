//! Memory held with a pattern: if the pattern stays, the balloon has not touched that memory.
//!
//! Each step is bounded, so that other work can run in between.

use alloc::vec::Vec;

use crate::machine::block::Block;
use ballonet::memory::FRAME_SIZE;

/// Blocks freed per step.
const RELEASED: usize = 256;

/// Frames filled with a pattern that depends on each word's address.
#[derive(Debug, Default)]
pub(super) struct Held {
    blocks: Vec<Block>,
    bytes: u64,
    /// Differs for each filling, so that old contents are not mistaken for new ones.
    seed: u64,
}

impl Held {
    /// Allocates and fills up to 2 MiB of the `bytes` requested. Returns the bytes: 0 if there is no memory.
    pub(super) fn hold_some(&mut self, bytes: u64) -> u64 {
        if self.blocks.try_reserve(1).is_err() {
            return 0;
        }
        let most = u32::try_from(bytes.div_ceil(FRAME_SIZE)).unwrap_or(u32::MAX);
        let Some(mut block) = Block::allocate(most) else { return 0 };
        let start = block.run().address();
        for (word, index) in block.words_mut().iter_mut().zip(0u64..) {
            *word = pattern(start + index * 8, self.seed);
        }
        let taken = block.run().bytes();
        self.bytes += taken;
        self.blocks.push(block);
        taken
    }

    /// How many bytes are held.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Verifies every word of a block. Returns its bytes and the number of differing words; `None` past the last
    /// block.
    pub(super) fn verify_one(&self, block: usize) -> Option<(u64, u64)> {
        let block = self.blocks.get(block)?;
        let start = block.run().address();
        let wrong = |&(word, index): &(&u64, u64)| *word != pattern(start + index * 8, self.seed);
        let bad = block.words().iter().zip(0u64..).filter(wrong).count() as u64;
        Some((block.run().bytes(), bad))
    }

    /// Frees some blocks. Returns whether there are more.
    pub(super) fn release_some(&mut self) -> bool {
        let rest = self.blocks.len().saturating_sub(RELEASED);
        self.bytes -= self.blocks.drain(rest..).map(|block| block.run().bytes()).sum::<u64>();
        if rest == 0 {
            self.blocks = Vec::new();
            self.seed += 1;
        }
        rest > 0
    }
}

/// The word for an address and a seed: an odd multiplication and a shift mix all bits (Fibonacci hashing).
pub(super) const fn pattern(address: u64, seed: u64) -> u64 {
    let mixed = (address ^ seed << 48).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ mixed >> 29
}
