//! The queues of a device that did not stop.
//!
//! The device may still use them, so nothing else may. Some devices are only slow: once a later reset finishes, the
//! device uses no memory, and everything is reclaimed.

use core::mem::ManuallyDrop;

use crate::balloon::platform::BalloonPlatform;
use crate::balloon::queues::Queues;
use crate::platform::Platform;
use crate::virtio::Quiesced;

/// Withheld queues and frames.
pub(super) struct Withheld<P: Platform> {
    /// Not dropped: that could free memory that the device still uses.
    queues: Option<ManuallyDrop<Queues<P>>>,
    frames: u64,
    /// Frames that are ballooned again, but not counted yet.
    regained: u64,
}

impl<P: Platform> Withheld<P> {
    /// Nothing.
    pub(super) const fn new() -> Self {
        Self { queues: None, frames: 0, regained: 0 }
    }

    /// Frames withheld from use.
    pub(super) const fn frames(&self) -> u64 {
        self.frames
    }

    /// Keeps the queues of a device that did not stop, and its `frames`. The device ran before, so nothing is withheld
    /// from an earlier stop.
    pub(super) fn keep(&mut self, queues: ManuallyDrop<Queues<P>>, frames: u64) {
        self.queues = Some(queues);
        self.frames += frames;
    }

    /// Releases everything: the device has been reset.
    pub(super) fn release(&mut self, platform: &mut P, proof: &Quiesced)
    where
        P: BalloonPlatform,
    {
        let Some(queues) = self.queues.take() else { return };
        let (freed, ballooned) = ManuallyDrop::into_inner(queues).release(platform, proof);
        self.frames = self.frames.saturating_sub(freed + ballooned);
        self.regained += ballooned;
    }

    /// Takes the count of frames that are ballooned again.
    pub(super) const fn take_regained(&mut self) -> u64 {
        core::mem::replace(&mut self.regained, 0)
    }
}
