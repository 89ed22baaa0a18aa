//! Virtio-mmio devices on the command line, in Linux's syntax: `virtio_mmio.device=SIZE@BASE:IRQ[:ID]`, once per
//! device.

use core::fmt;

use derive_more::Display;

use super::quote::Quoted;

/// A device, as the command line describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MmioArgument {
    /// Size of its window in bytes.
    pub(crate) size: u64,
    /// Physical address of its registers.
    pub(crate) base: u64,
    /// Its interrupt: below 16 an ISA IRQ.
    pub(crate) irq: u32,
    /// A number for people; nothing depends on it.
    id: Option<u32>,
}

/// The devices of a command line, in their order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct MmioArguments {
    list: [Option<MmioArgument>; Self::MOST],
}

/// The part of a device's argument that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum MmioError<'a> {
    /// There is no `@`, or no `:` after it.
    #[display("{} is not SIZE@BASE:IRQ or SIZE@BASE:IRQ:ID", Quoted(_0))]
    Form(&'a [u8]),
    /// The size.
    #[display("invalid size {}; valid: a number other than 0, also with K, M or G", Quoted(_0))]
    Size(&'a [u8]),
    /// The base address.
    #[display("invalid base address {}; valid: a number such as 0xfeb00e00, with room for the size", Quoted(_0))]
    Base(&'a [u8]),
    /// The interrupt.
    #[display("invalid interrupt {}; valid: a decimal number", Quoted(_0))]
    Irq(&'a [u8]),
    /// The ID.
    #[display("invalid ID {}; valid: a decimal number", Quoted(_0))]
    Id(&'a [u8]),
    /// There are more devices than are kept.
    #[display("{} is left out: at most {} devices", Quoted(_0), MmioArguments::MOST)]
    TooMany(&'a [u8]),
}

impl MmioArguments {
    /// The most devices that are kept. QEMU's microvm has 24 slots for them.
    pub(crate) const MOST: usize = 32;

    /// None.
    pub(crate) const fn new() -> Self {
        Self { list: [None; Self::MOST] }
    }

    /// Adds one; `false` if there is no room for it.
    pub(super) fn push(&mut self, device: MmioArgument) -> bool {
        let free = self.list.iter_mut().find(|place| place.is_none());
        free.map(|place| *place = Some(device)).is_some()
    }

    /// The devices.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &MmioArgument> {
        self.list.iter().flatten()
    }
}

impl fmt::Debug for MmioArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Display for MmioArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, base, irq, id } = self;
        write!(f, "{size:#x}@{base:#x}:{irq}")?;
        id.map_or(Ok(()), |id| write!(f, ":{id}"))
    }
}

impl MmioArgument {
    /// Reads one.
    pub(super) fn parse(value: &[u8]) -> Result<Self, MmioError<'_>> {
        let form = MmioError::Form(value);
        let (size, rest) = split(value, b'@').ok_or(form)?;
        let (base, rest) = split(rest, b':').ok_or(form)?;
        let (irq, id) = split(rest, b':').map_or((rest, None), |(irq, id)| (irq, Some(id)));
        let parsed = Self {
            size: number_with_unit(size).filter(|size| *size != 0).ok_or(MmioError::Size(size))?,
            base: number(base).ok_or(MmioError::Base(base))?,
            irq: decimal(irq).ok_or(MmioError::Irq(irq))?,
            id: id.map(|id| decimal(id).ok_or(MmioError::Id(id))).transpose()?,
        };
        if parsed.base.checked_add(parsed.size).is_none() { Err(MmioError::Base(base)) } else { Ok(parsed) }
    }
}

/// What is before and after the first `separator`.
fn split(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let mut halves = bytes.splitn(2, |byte| *byte == separator);
    Some((halves.next()?, halves.next()?))
}

/// A decimal number, digits only.
fn decimal(bytes: &[u8]) -> Option<u32> {
    u32::try_from(digits(bytes, 10)?).ok()
}

/// A number: decimal, or hexadecimal after `0x`.
fn number(bytes: &[u8]) -> Option<u64> {
    match bytes.strip_prefix(b"0x").or_else(|| bytes.strip_prefix(b"0X")) {
        Some(hexadecimal) => digits(hexadecimal, 16),
        None => digits(bytes, 10),
    }
}

/// The same, followed by a unit.
fn number_with_unit(bytes: &[u8]) -> Option<u64> {
    let (&last, rest) = bytes.split_last()?;
    let shift = match last {
        b'K' | b'k' => 10,
        b'M' | b'm' => 20,
        b'G' | b'g' => 30,
        _ => return number(bytes),
    };
    number(rest)?.checked_mul(1 << shift)
}

fn digits(bytes: &[u8], radix: u32) -> Option<u64> {
    let text = core::str::from_utf8(bytes).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_alphanumeric()))?;
    u64::from_str_radix(text, radix).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::boot::KernelOptions;

    fn parse(value: &str) -> Result<MmioArgument, MmioError<'_>> {
        MmioArgument::parse(value.as_bytes())
    }

    #[test]
    fn devices_read_as_linux_has_them() {
        for (value, size, base, irq, id) in [
            ("512@0xfeb00e00:12", 512, 0xfeb0_0e00, 12, None),
            ("4K@0xc0001000:5", 4096, 0xc000_1000, 5, None),
            ("0x200@3221229568:24:3", 512, 0xc000_1000, 24, Some(3)),
            ("1M@0xF0100000:16", 1 << 20, 0xf010_0000, 16, None),
        ] {
            assert_eq!(parse(value), Ok(MmioArgument { size, base, irq, id }), "{value}");
        }
    }

    #[test]
    fn the_part_that_is_wrong_is_named() {
        for (value, error) in [
            ("", MmioError::Form(b"")),
            ("4K", MmioError::Form(b"4K")),
            ("4K@0xc0001000", MmioError::Form(b"4K@0xc0001000")),
            ("0@0xc0001000:5", MmioError::Size(b"0")),
            ("4Q@0xc0001000:5", MmioError::Size(b"4Q")),
            ("17179869184G@1:5", MmioError::Size(b"17179869184G")),
            ("4K@c0001000:5", MmioError::Base(b"c0001000")),
            ("4K@0xffffffffffffffff:5", MmioError::Base(b"0xffffffffffffffff")),
            ("4K@0xc0001000:", MmioError::Irq(b"")),
            ("4K@0xc0001000:+5", MmioError::Irq(b"+5")),
            ("4K@0xc0001000:5:", MmioError::Id(b"")),
            ("4K@0xc0001000:5:1:2", MmioError::Id(b"1:2")),
        ] {
            assert_eq!(parse(value), Err(error), "{value}");
        }
        assert_eq!(
            MmioError::Base(b"c0001000").to_string(),
            "invalid base address `c0001000`; valid: a number such as 0xfeb00e00, with room for the size"
        );
    }

    #[test]
    fn every_device_of_a_line_is_kept_in_its_order_as_far_as_there_is_room() {
        let word = |place: usize| format!("virtio_mmio.device=4K@{:#x}:{place}", 0xc000_0000 + place * 4096);
        let line: Vec<_> = (0..MmioArguments::MOST + 1).map(word).collect();
        let line = line.join(" ");
        let mut warnings = Vec::new();
        let options = KernelOptions::parse(line.as_bytes(), &mut |warning| warnings.push(warning.to_string()));
        assert!(options.mmio_devices.iter().map(|device| device.irq).eq(0..MmioArguments::MOST as u32));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("`4K@0xc0020000:32` is left out: at most 32 devices"), "{warnings:?}");
        assert_eq!(options.mmio_devices.iter().count(), MmioArguments::MOST);
        let written = options.to_string();
        assert_eq!(KernelOptions::parse(written.as_bytes(), &mut |warning| panic!("{warning}")), options);
    }

    proptest! {
        #[test]
        fn any_value_is_read_or_an_error_that_can_be_shown(value: Vec<u8>) {
            match MmioArgument::parse(&value) {
                Ok(device) => {
                    let written = device.to_string();
                    prop_assert_eq!(MmioArgument::parse(written.as_bytes()), Ok(device));
                }
                Err(error) => drop(error.to_string()),
            }
        }
    }
}
