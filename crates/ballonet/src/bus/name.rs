//! A device's name.

use core::fmt;
use core::ops::Deref;
use core::str;

/// The most bytes of a name.
const LONGEST: usize = 31;

/// A device's name, in logs and in the names of its vectors: `virtio0`. A longer one is cut to 31 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DeviceName {
    bytes: [u8; LONGEST],
    length: u8,
}

impl From<&str> for DeviceName {
    fn from(name: &str) -> Self {
        let length = (0..=name.len().min(LONGEST)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        let mut bytes = [0; LONGEST];
        bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
        // At most 31.
        Self { bytes, length: length as u8 }
    }
}

impl AsRef<str> for DeviceName {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Deref for DeviceName {
    type Target = str;

    fn deref(&self) -> &str {
        // It was cut between characters.
        str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let name = |name: &str| DeviceName::from(name).to_string();
        assert_eq!((name(""), name("virtio0")), (String::new(), String::from("virtio0")));
        assert_eq!(name(&"v".repeat(40)), "v".repeat(31));
        assert_eq!(name(&"ü".repeat(20)), "ü".repeat(15));
    }
}
