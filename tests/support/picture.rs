//! A screenshot of the guest, as QEMU dumps it: a portable pixmap.

use super::failure::{Outcome, ensure};

/// Red, green and blue of every pixel.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// Parses a binary PPM with 8 bits per colour.
    pub(crate) fn parse(file: &[u8]) -> Outcome<Self> {
        let mut rest = file;
        let mut word = || -> Outcome<String> {
            let start = rest.iter().position(|byte| !byte.is_ascii_whitespace()).ok_or("the picture ends early")?;
            let length = rest[start..].iter().position(u8::is_ascii_whitespace).ok_or("the picture ends early")?;
            let word = String::from_utf8_lossy(&rest[start..start + length]).into_owned();
            // One space ends the header; the pixels follow.
            rest = &rest[start + length + 1..];
            Ok(word)
        };
        let (kind, width, height, most) = (word()?, word()?, word()?, word()?);
        ensure!(kind == "P6" && most == "255", "not a PPM of 8 bits: {kind} {most}");
        let (width, height) = (width.parse()?, height.parse()?);
        ensure!(rest.len() == width * height * 3, "{} bytes of pixels for {width}x{height}", rest.len());
        Ok(Self { width, height, pixels: rest.to_vec() })
    }

    /// A pixel; black outside the picture.
    pub(crate) fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let start = (y * self.width + x) * 3;
        let inside = x < self.width && y < self.height;
        self.pixels.get(start..start + 3).filter(|_| inside).map_or([0; 3], |pixel| [pixel[0], pixel[1], pixel[2]])
    }
}

/// The distance of two colours: the largest difference of a channel.
pub(crate) fn distance(one: [u8; 3], other: [u8; 3]) -> u8 {
    one.iter().zip(other).map(|(one, other)| one.abs_diff(other)).max().unwrap_or(0)
}
