//! Sizing: detects a function's BARs without lasting effect.
//!
//! Each register is written with all ones and read back: the bits that stay zero give the size (PCI 3.0, 6.2.5.1).
//! Meanwhile the registers hold invalid addresses, so decoding is off, as briefly as possible. Then registers and
//! command are restored as found.
//!
//! Only the address bits of the result are used. The type comes from the register as found: some devices answer with
//! the size alone, without type bits (Firecracker).

use super::bar::{Bar, BarError, BarKind, MemoryWidth};
use super::register::{BASE_ADDRESS_0, Command};
use super::{Bdf, ConfigSpace, Function};

/// The highest number of BAR registers in a header.
const REGISTERS: usize = 6;

/// The largest plausible BAR: all the memory that an x86-64 CPU could address.
const LARGEST: u64 = 1 << 52;

/// All BARs of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bars {
    function: Bdf,
    registers: [Result<Bar, BarError>; REGISTERS],
}

/// A register's original value, and its value after all ones were written.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    found: u32,
    probed: u32,
}

impl Bars {
    /// Sizes the BARs of `function`.
    ///
    /// The device cannot be reached during this call: the caller must ensure that no interrupt handler tries. Host
    /// bridges are not touched, since the CPU's own access to memory may depend on them.
    pub fn size<C: ConfigSpace>(config: &mut C, function: &Function) -> Self {
        if function.class.is_host_bridge() {
            return Self::not_sized(function);
        }
        let count = function.layout.bar_count();
        let mut samples = [Sample::default(); REGISTERS];
        for (index, sample) in (0..count).zip(&mut samples) {
            sample.found = config.read32(function.bdf, register(index));
        }
        let decoding = Command::IO | Command::MEMORY;
        let before = function.disable(config, decoding);
        // All registers first, so that both halves of a pair hold ones when either is read.
        for index in 0..count {
            config.write32(function.bdf, register(index), u32::MAX);
        }
        for (index, sample) in (0..count).zip(&mut samples) {
            sample.probed = config.read32(function.bdf, register(index));
        }
        // A register that is not implemented stays 0.
        for (index, sample) in (0..count).zip(&samples).filter(|(_, sample)| sample.found | sample.probed != 0) {
            config.write32(function.bdf, register(index), sample.found);
        }
        if before.intersects(decoding) {
            function.set_command(config, before);
        }
        Self::decode(function.bdf, count, &samples)
    }

    /// The state of a function whose BARs have not been sized.
    pub(super) fn not_sized(function: &Function) -> Self {
        let (function, count) = (function.bdf, function.layout.bar_count());
        Self::from_fn(function, |bar| {
            if bar < count { BarError::NotSized { function, bar } } else { BarError::NoSuchRegister { function, bar } }
        })
    }

    fn from_fn(function: Bdf, error: impl Fn(u8) -> BarError) -> Self {
        Self { function, registers: core::array::from_fn(|index| Err(error(index as u8))) }
    }

    fn decode(function: Bdf, count: u8, samples: &[Sample; REGISTERS]) -> Self {
        let mut bars = Self::from_fn(function, |bar| BarError::NoSuchRegister { function, bar });
        let mut pairs = (0..count).zip(samples).zip(&mut bars.registers).peekable();
        while let Some(((index, low), slot)) = pairs.next() {
            if !is_64_bit(*low) {
                *slot = decode_one(function, index, *low);
                continue;
            }
            match pairs.next() {
                Some(((upper, high), upper_slot)) => {
                    *slot = decode_pair(function, index, *low, *high);
                    *upper_slot = Err(BarError::UpperHalf { function, bar: upper });
                }
                None => *slot = Err(BarError::NoUpperHalf { function, bar: index }),
            }
        }
        bars
    }

    /// The BAR with `index`.
    ///
    /// # Errors
    /// When the function has no such BAR, or sizing found it invalid.
    pub fn get(&self, index: u8) -> Result<&Bar, BarError> {
        let missing = BarError::NoSuchRegister { function: self.function, bar: index };
        self.registers.get(usize::from(index)).map_or(Err(missing), |bar| bar.as_ref().map_err(|error| *error))
    }

    /// The usable BARs, by index.
    pub fn iter(&self) -> impl Iterator<Item = &Bar> {
        self.registers.iter().filter_map(|bar| bar.as_ref().ok())
    }

    /// The errors of the others: registers that the function implements wrongly.
    pub(crate) fn errors(&self) -> impl Iterator<Item = BarError> {
        self.registers.iter().filter_map(|bar| bar.err()).filter(|error| {
            use BarError::{BadSize, NoUpperHalf, ReservedType};
            matches!(error, BadSize { .. } | NoUpperHalf { .. } | ReservedType { .. })
        })
    }

    /// Takes the address from the BAR with `index`. One whose register does not keep the 0 has none either.
    pub(super) fn clear<C: ConfigSpace>(&mut self, config: &mut C, function: &Function, index: u8) {
        self.place(config, function, index, 0);
        if let Some(Ok(bar)) = self.registers.get_mut(usize::from(index)) {
            bar.address = 0;
        }
    }

    /// Moves the BAR with `index` to `address`, with decoding off while the two halves differ. Returns the value read
    /// back; if it differs, the BAR counts as having no address.
    pub(super) fn place<C: ConfigSpace>(
        &mut self,
        config: &mut C,
        function: &Function,
        index: u8,
        address: u64,
    ) -> Option<u64> {
        let bar = self.registers.get_mut(usize::from(index))?.as_mut().ok()?;
        let (low, high) = (register(index), register(index + 1));
        let space = if bar.is_io() { Command::IO } else { Command::MEMORY };
        let before = function.disable(config, space);
        config.write32(function.bdf, low, address as u32);
        let mut kept = u64::from(config.read32(function.bdf, low) & address_bits(bar.kind));
        if bar.is_64_bit() {
            config.write32(function.bdf, high, (address >> 32) as u32);
            kept |= u64::from(config.read32(function.bdf, high)) << 32;
        }
        if before.contains(space) {
            function.set_command(config, before);
        }
        bar.address = if kept == address { address } else { 0 };
        Some(kept)
    }
}

/// Offset of the register with `index`.
const fn register(index: u8) -> u16 {
    BASE_ADDRESS_0 + 4 * index as u16
}

/// The address bits in a BAR's low register.
const fn address_bits(kind: BarKind) -> u32 {
    match kind {
        BarKind::Io => !0x3,
        BarKind::Memory { .. } => !0xF,
    }
}

/// Whether the register is the lower half of a 64-bit BAR: memory, type 2.
const fn is_64_bit(sample: Sample) -> bool {
    sample.found & 0x7 == 0x4
}

/// Decodes a BAR of one register.
fn decode_one(function: Bdf, bar: u8, sample: Sample) -> Result<Bar, BarError> {
    if sample.probed == 0 {
        return Err(BarError::Unimplemented { function, bar });
    }
    let bits = sample.found as u8 & 0xF;
    let kind = match bits & 0x7 {
        0x0 => BarKind::Memory { width: MemoryWidth::Bits32, prefetchable: bits & 0x8 != 0 },
        0x2 => BarKind::Memory { width: MemoryWidth::Below1MiB, prefetchable: bits & 0x8 != 0 },
        // Bit 0 means I/O; then only bit 1 is reserved.
        0x1 | 0x5 => BarKind::Io,
        _ => return Err(BarError::ReservedType { function, bar, bits }),
    };
    // Type bits cannot keep a one (PCI 3.0, 6.2.5.1): a function that keeps all ones has no BAR there, or is gone.
    if sample.probed == u32::MAX {
        return Err(BarError::BadSize { function, bar, mask: sample.probed.into() });
    }
    let mask = u64::from(sample.probed & address_bits(kind));
    let address = u64::from(sample.found & address_bits(kind));
    let size = size_of_mask(mask).ok_or(BarError::BadSize { function, bar, mask })?;
    Ok(Bar { function, index: bar, kind, address, size })
}

/// Decodes a BAR of two registers.
fn decode_pair(function: Bdf, bar: u8, low: Sample, high: Sample) -> Result<Bar, BarError> {
    let kind = BarKind::Memory { width: MemoryWidth::Bits64, prefetchable: low.found & 0x8 != 0 };
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low & address_bits(kind));
    if low.probed == u32::MAX {
        return Err(BarError::BadSize { function, bar, mask: u64::from(high.probed) << 32 | u64::from(low.probed) });
    }
    let mask = join(low.probed, high.probed);
    let size = size_of_mask(mask).ok_or(BarError::BadSize { function, bar, mask })?;
    Ok(Bar { function, index: bar, kind, address: join(low.found, high.found), size })
}

/// The size for these writable address bits, if they are contiguous.
///
/// They need not reach the top: old I/O BARs decode 16 address bits.
const fn size_of_mask(mask: u64) -> Option<u64> {
    if mask == 0 {
        return None;
    }
    let size = 1 << mask.trailing_zeros();
    // Adding the lowest bit of a run carries through all of it.
    let carried = mask.wrapping_add(size);
    if (carried == 0 || carried.is_power_of_two()) && size <= LARGEST { Some(size) } else { None }
}

#[cfg(test)]
mod tests;
