//! Page poison (virtio 1.4, 5.5.6.6): the value that free frames hold, where the platform can fill them.
//!
//! The device is told the value before it runs. Frames are filled before they are reported, and when they come back from the
//! host: deflated, hinted, or on their way there when the device was reset.

use super::options::Options;
use crate::memory::FrameRun;
use crate::platform::{Filler, PageFrames};

/// A fill value, and what fills frames with it.
pub(super) struct Poison<P> {
    byte: u8,
    fill: Filler<P>,
}

// Not derived: that would ask it of the platform.
impl<P> Clone for Poison<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Poison<P> {}

impl<P: PageFrames> Poison<P> {
    /// The choice of whoever started the driver; `None` if there is none, or the platform cannot fill frames.
    pub(super) fn of(options: &Options) -> Option<Self> {
        Some(Self { byte: options.poison?, fill: P::filler()? })
    }

    /// The value for the device: the width of the fill is not defined, so the same byte four times fits all.
    #[doc(alias = "poison_val")]
    pub(super) fn value(self) -> u32 {
        u32::from_ne_bytes([self.byte; 4])
    }

    /// Fills frames that the driver has.
    pub(super) fn fill(self, platform: &mut P, run: FrameRun) {
        (self.fill)(platform, run, self.byte);
    }

    /// The byte.
    pub(super) fn byte(self) -> u8 {
        self.byte
    }
}

/// Gives frames back to the kernel that came from the host, filled if there is something to fill them with.
pub(super) fn release<P: PageFrames>(poison: Option<Poison<P>>, platform: &mut P, run: FrameRun) {
    if let Some(poison) = poison {
        poison.fill(platform, run);
    }
    platform.release(run);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Frames;

    #[test]
    fn nothing_is_said_of_free_frames_where_they_cannot_be_filled() {
        let options = Options { poison: Some(0xa5), ..Options::default() };
        assert!(Frames::filler().is_none() && Poison::<Frames<'_>>::of(&options).is_none());
    }
}
