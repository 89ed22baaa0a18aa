//! What a device has that would not stop.
//!
//! It may go on using it for as long as it likes, so nobody else does. Some devices are only slow: once a later reset is
//! seen to be done, it has let go of all that it had before, and everything is had back.

use alloc::boxed::Box;
use core::mem::ManuallyDrop;

use super::parts::Parts;
use crate::platform::{PageFrames, Platform};
use crate::virtio::Quiesced;

/// Memory that is withheld, of which some may be had back.
pub(super) struct Withheld<P: Platform> {
    /// Queues and what is in flight on them. Dropping them could give memory back that the device still uses.
    parts: Option<ManuallyDrop<Box<Parts<P>>>>,
    frames: u64,
    /// Frames that are ballooned again, and that nobody has counted yet.
    regained: u64,
}

impl<P: Platform> Withheld<P> {
    /// Nothing.
    pub(super) const fn new() -> Self {
        Self { parts: None, frames: 0, regained: 0 }
    }

    /// Frames that nobody uses.
    pub(super) const fn frames(&self) -> u64 {
        self.frames
    }

    /// Keeps what a device did not let go of, and the `frames` that it has, whether they are in flight or not. It was
    /// started, so nothing was kept from before.
    pub(super) fn keep(&mut self, parts: ManuallyDrop<Box<Parts<P>>>, frames: u64) {
        self.parts = Some(parts);
        self.frames += frames;
    }

    /// Gives back what can be had back: the device has been reset.
    pub(super) fn release(&mut self, platform: &mut P, proof: &Quiesced)
    where
        P: PageFrames,
    {
        let Some(parts) = self.parts.take() else { return };
        let (freed, ballooned) = ManuallyDrop::into_inner(parts).release_memory(platform, proof);
        self.frames = self.frames.saturating_sub(freed + ballooned);
        self.regained += ballooned;
    }

    /// Takes the count of frames that are ballooned again.
    pub(super) const fn take_regained(&mut self) -> u64 {
        core::mem::replace(&mut self.regained, 0)
    }
}
