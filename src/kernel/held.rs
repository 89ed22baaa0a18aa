//! Memory that the kernel holds and whose contents it knows: proof that a balloon leaves it alone.

use alloc::vec::Vec;

use ballonet::machine::block::Block;
use ballonet::memory::FRAME_SIZE;

/// Frames filled with a pattern that depends on where each word is.
#[derive(Debug, Default)]
pub struct Held {
    blocks: Vec<Block>,
    /// Changes with each filling, so that old contents do not pass for new ones.
    seed: u64,
}

/// What a look at the held memory found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Bytes looked at.
    pub bytes: u64,
    /// Words that are not what was written.
    pub bad: u64,
}

impl Held {
    /// Takes `bytes` more, or as much as there is, and fills it. Returns how many bytes are held now.
    pub fn hold(&mut self, bytes: u64) -> u64 {
        let mut frames = bytes.div_ceil(FRAME_SIZE);
        while frames > 0 {
            let most = u32::try_from(frames).unwrap_or(u32::MAX);
            let Some(mut block) = Block::allocate(most) else { break };
            frames = frames.saturating_sub(block.run().count().into());
            self.fill(&mut block);
            self.blocks.push(block);
        }
        self.bytes()
    }

    /// How many bytes are held.
    pub fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.run().bytes()).sum()
    }

    /// Compares every word with what was written.
    pub fn verify(&self) -> Verdict {
        let bad = self.blocks.iter().map(|block| {
            let start = block.run().start().start().as_u64();
            let wrong = |&(word, index): &(&u64, u64)| *word != pattern(start + index * 8, self.seed);
            block.words().iter().zip(0u64..).filter(wrong).count() as u64
        });
        Verdict { bytes: self.bytes(), bad: bad.sum() }
    }

    /// Gives everything back. The next filling differs from this one.
    pub fn release(&mut self) {
        self.blocks.clear();
        self.seed += 1;
    }

    fn fill(&self, block: &mut Block) {
        let start = block.run().start().start().as_u64();
        for (word, index) in block.words_mut().iter_mut().zip(0u64..) {
            *word = pattern(start + index * 8, self.seed);
        }
    }
}

/// A word that no other address and no other seed has: an odd multiplication and a shift mix all bits (Fibonacci hashing).
pub const fn pattern(address: u64, seed: u64) -> u64 {
    let mixed = (address ^ seed << 48).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ mixed >> 29
}
