//! How the frame numbers of a request are split over descriptors.

use core::fmt;

/// The most frame numbers of a descriptor, and the most descriptors of a request.
///
/// Requests of several descriptors go through an indirect table if negotiated, and are chains otherwise. Some devices
/// read only the first descriptor, so requests have one unless the device is known to read more. No known device drops
/// a descriptor of 256 frame numbers; some drop longer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestShape {
    frames: u16,
    descriptors: u16,
}

impl RequestShape {
    /// The most frame numbers in a descriptor.
    pub const FRAMES_MAX: u16 = 256;
    /// The most descriptors in a request.
    pub const DESCRIPTORS_MAX: u16 = 64;

    /// Two full descriptors: all the frames of a region of 2 MiB.
    pub(crate) const REGION: Self = Self { frames: Self::FRAMES_MAX, descriptors: 2 };

    /// Up to `descriptors` of `frames` frame numbers each; `None` if either is 0 or above its maximum.
    pub const fn new(frames: u16, descriptors: u16) -> Option<Self> {
        let fits = frames <= Self::FRAMES_MAX && descriptors <= Self::DESCRIPTORS_MAX;
        if frames != 0 && descriptors != 0 && fits { Some(Self { frames, descriptors }) } else { None }
    }

    /// Frame numbers in a descriptor.
    pub const fn frames(self) -> u16 {
        self.frames
    }

    /// Descriptors in a request.
    pub const fn descriptors(self) -> u16 {
        self.descriptors
    }

    /// The same shape with at most `descriptors`, at least one.
    #[must_use]
    pub(crate) fn within(self, descriptors: u16) -> Self {
        Self { descriptors: self.descriptors.min(descriptors).max(1), ..self }
    }

    /// Frame numbers in a request.
    pub(crate) const fn total(self) -> u32 {
        self.frames as u32 * self.descriptors as u32
    }
}

impl Default for RequestShape {
    /// One descriptor of 256 frame numbers.
    fn default() -> Self {
        Self { frames: Self::FRAMES_MAX, descriptors: 1 }
    }
}

/// As on the kernel's command line: `256x1`.
impl fmt::Display for RequestShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.frames, self.descriptors)
    }
}
