//! A framebuffer that the loader set up: its address and its pixel format.

use core::fmt;

use ballonet::memory::PhysRange;

/// The bits of a pixel that hold one colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// Number of the lowest bit.
    pub position: u8,
    /// The number of bits.
    pub width: u8,
}

impl Channel {
    /// The channel's bits of a pixel for a strength of 0 to 255.
    pub(crate) const fn place(self, strength: u8) -> u32 {
        let strength = strength as u32;
        let scaled = if self.width >= 8 { strength << (self.width - 8) } else { strength >> (8 - self.width) };
        scaled << self.position
    }

    const fn fits(self, depth: u8) -> bool {
        self.width > 0 && self.width <= 16 && self.position as u32 + self.width as u32 <= depth as u32
    }
}

/// The format of a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelFormat {
    /// Pixels of 15 to 32 bits, little-endian, whole bytes each: red, green and blue.
    Rgb([Channel; 3]),
    /// Pixels of 8 bits that number colours of a palette.
    Indexed,
    /// Characters with an attribute byte, as VGA has them.
    Text,
}

/// A framebuffer: `height` lines, `pitch` bytes apart, of `width` pixels; in text mode of characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framebuffer {
    /// Physical address of the first byte.
    pub address: u64,
    /// Bytes from a line to the next.
    pub pitch: u32,
    /// Pixels in a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Significant bits of a pixel, which takes whole bytes.
    pub depth: u8,
    /// The format of a pixel.
    pub format: PixelFormat,
}

/// The largest width or height accepted, in pixels: twice that of the largest screens.
const MOST_PIXELS: u32 = 16384;

impl Framebuffer {
    /// Bytes that a pixel takes; in text mode, a character.
    pub(crate) const fn bytes_per_pixel(&self) -> u32 {
        match self.format {
            PixelFormat::Text => 2,
            PixelFormat::Rgb(_) | PixelFormat::Indexed => (self.depth as u32).div_ceil(8),
        }
    }

    /// All of its bytes.
    pub(crate) fn range(&self) -> Option<PhysRange> {
        let bytes = u64::from(self.pitch) * u64::from(self.height);
        PhysRange::parse(self.address, bytes).ok()
    }

    /// Whether lines fit their pixels, pixels fit their colours, and the addresses are physical.
    pub fn is_sound(&self) -> bool {
        let format = match self.format {
            PixelFormat::Rgb(channels) => {
                (15..=32).contains(&self.depth) && channels.iter().all(|channel| channel.fits(self.depth))
            }
            PixelFormat::Indexed => self.depth == 8,
            PixelFormat::Text => true,
        };
        let extent = |pixels: u32| (1..=MOST_PIXELS).contains(&pixels);
        format
            && extent(self.width)
            && extent(self.height)
            && u64::from(self.pitch) >= u64::from(self.width) * u64::from(self.bytes_per_pixel())
            && self.pitch <= MOST_PIXELS * 8
            && self.range().is_some()
    }
}

impl fmt::Display for Framebuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, pitch, width, height, depth, format } = self;
        let format = match format {
            PixelFormat::Rgb(_) => "RGB",
            PixelFormat::Indexed => "indexed",
            PixelFormat::Text => "text",
        };
        write!(f, "{width}x{height}, {depth} bits ({format}), {pitch} bytes a line, at {address:#x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn channel(position: u8, width: u8) -> Channel {
        Channel { position, width }
    }

    const TRUE_COLOUR: Framebuffer = Framebuffer {
        address: 0xFD00_0000,
        pitch: 4096,
        width: 1024,
        height: 768,
        depth: 32,
        format: PixelFormat::Rgb([channel(16, 8), channel(8, 8), channel(0, 8)]),
    };

    #[test]
    fn a_channel_takes_the_top_bits_of_a_strength() {
        assert_eq!(channel(16, 8).place(0xAB), 0x00AB_0000);
        assert_eq!((channel(11, 5).place(0xFF), channel(5, 6).place(0x80)), (0xF800, 0x0400));
        assert_eq!(channel(20, 10).place(0xFF), 0x3FC << 20);
    }

    #[test]
    fn impossible_framebuffers_are_not_sound() {
        assert!(TRUE_COLOUR.is_sound());
        let text =
            Framebuffer { pitch: 160, width: 80, height: 25, depth: 16, format: PixelFormat::Text, ..TRUE_COLOUR };
        assert!(text.is_sound());
        let rgb = |red| PixelFormat::Rgb([red, channel(8, 8), channel(0, 8)]);
        for wrong in [
            Framebuffer { pitch: 4095, ..TRUE_COLOUR },
            Framebuffer { width: 0, ..TRUE_COLOUR },
            Framebuffer { height: 0, ..TRUE_COLOUR },
            Framebuffer { height: u32::MAX, ..TRUE_COLOUR },
            Framebuffer { pitch: u32::MAX, ..TRUE_COLOUR },
            Framebuffer { address: u64::MAX - 5, ..TRUE_COLOUR },
            Framebuffer { depth: 8, ..TRUE_COLOUR },
            Framebuffer { depth: 64, ..TRUE_COLOUR },
            Framebuffer { depth: 24, format: rgb(channel(24, 8)), ..TRUE_COLOUR },
            Framebuffer { format: rgb(channel(255, 8)), ..TRUE_COLOUR },
            Framebuffer { format: rgb(channel(0, 0)), ..TRUE_COLOUR },
            Framebuffer { depth: 16, format: PixelFormat::Indexed, ..TRUE_COLOUR },
        ] {
            assert!(!wrong.is_sound(), "{wrong}");
        }
    }
}
