//! Page poison (virtio 1.4, 5.5.6.6): the fill value of free frames, if the platform can fill them.
//!
//! The value is written before `DRIVER_OK`. Frames are filled before they are reported, and when they return from the
//! host: deflated, hinted, or in flight at a reset.

use crate::memory::{FrameRun, PageFrames};

/// A fill value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Poison(u8);

impl Poison {
    /// The user's choice; `None` if there is none, or the platform cannot fill frames.
    pub(crate) fn of(choice: Option<u8>, frames: &mut impl PageFrames) -> Option<Self> {
        choice.filter(|_| frames.contents().is_some()).map(Self)
    }

    /// The value for the device: four equal bytes, since the specification does not define the width of the pattern.
    #[doc(alias = "poison_val")]
    pub(crate) fn value(self) -> u32 {
        u32::from_ne_bytes([self.0; 4])
    }

    /// The byte.
    pub(crate) fn byte(self) -> u8 {
        self.0
    }
}

/// Fills frames that the driver holds. Does nothing if the platform cannot.
pub(crate) fn fill(frames: &mut impl PageFrames, run: FrameRun, byte: u8) {
    if let Some(contents) = frames.contents() {
        contents.fill(run, byte);
    }
}

/// Returns frames that came from the host to the kernel, filled if there is a fill value.
pub(crate) fn release(poison: Option<Poison>, frames: &mut impl PageFrames, run: FrameRun) {
    if let Some(poison) = poison {
        fill(frames, run, poison.byte());
    }
    frames.release(run);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An allocator that cannot fill frames.
    struct Unfilled;

    impl PageFrames for Unfilled {
        fn take_free(&mut self, _most: u32) -> Option<FrameRun> {
            None
        }
        fn confirm_ballooned(&mut self, _run: FrameRun) {}
        fn take_ballooned(&mut self, _most: u32) -> Option<FrameRun> {
            None
        }
        fn release(&mut self, _run: FrameRun) {}
    }

    #[test]
    fn no_fill_value_is_promised_if_frames_cannot_be_filled() {
        assert!(Poison::of(Some(0xa5), &mut Unfilled).is_none());
    }
}
