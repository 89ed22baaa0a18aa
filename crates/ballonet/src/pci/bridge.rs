//! PCI-to-PCI bridges: their windows, and what can be wrong with them.
//!
//! A bridge forwards three ranges of addresses: I/O in steps of 4 KiB, memory below 4 GiB in steps of 1 MiB, and
//! prefetchable memory likewise, with upper halves if the bridge has them. A window whose base is above its limit is
//! closed (PCI-to-PCI Bridge 1.2, 3.2.5).

use core::fmt;

use derive_more::{Display, Error};

use super::header::BusNumbers;
use super::range::AddressRange;
use super::register::{
    IO_BASE_LIMIT, IO_BASE_LIMIT_UPPER, MEMORY_BASE_LIMIT, PREFETCHABLE_BASE_LIMIT, PREFETCHABLE_BASE_UPPER,
    PREFETCHABLE_LIMIT_UPPER,
};
use super::{Bdf, Command, ConfigSpace};

/// Why the walk skipped a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum BridgeError {
    /// Its bus numbers loop, leave the range of its bus, or overlap another bridge's.
    #[display("{bridge}: bridge with impossible bus numbers ({numbers})")]
    BadBusNumbers {
        /// The bridge.
        bridge: Bdf,
        /// The numbers in its registers.
        numbers: BusNumbers,
    },
    /// It has no bus number, and none is left.
    #[display("{bridge}: no bus number is left for the bus behind it")]
    NoBusNumber {
        /// The bridge.
        bridge: Bdf,
    },
    /// There are more functions than any machine has. The rest are ignored.
    #[display("more than {most} functions: {from} and later ones are ignored")]
    TooManyFunctions {
        /// The first ignored function.
        from: Bdf,
        /// The limit.
        most: usize,
    },
    /// The address is not that of a bridge that the walk entered.
    #[display("{bridge} is not a bridge with known bus numbers")]
    NotWalked {
        /// The address given for a bridge.
        bridge: Bdf,
    },
}

impl BridgeError {
    /// The bridge, or the first ignored function.
    pub(crate) const fn place(&self) -> Bdf {
        match *self {
            Self::BadBusNumbers { bridge, .. } | Self::NoBusNumber { bridge } | Self::NotWalked { bridge } => bridge,
            Self::TooManyFunctions { from, .. } => from,
        }
    }
}

/// The three kinds of addresses that are assigned separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory,
    /// Memory that may be prefetched and may be above 4 GiB.
    Prefetchable,
}

impl Space {
    /// The command bit that enables decoding.
    pub(super) const fn command(self) -> Command {
        match self {
            Self::Io => Command::IO,
            Self::Memory | Self::Prefetchable => Command::MEMORY,
        }
    }

    /// The granularity of windows, in bytes.
    pub(super) const fn window_step(self) -> u64 {
        match self {
            Self::Io => 4 << 10,
            Self::Memory | Self::Prefetchable => 1 << 20,
        }
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "I/O",
            Self::Memory => "memory",
            Self::Prefetchable => "prefetchable memory",
        })
    }
}

/// The open windows of a bridge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct BridgeWindows {
    /// I/O ports that it forwards.
    pub io: Option<AddressRange>,
    /// Memory that it forwards.
    pub memory: Option<AddressRange>,
    /// Prefetchable memory that it forwards.
    pub prefetchable: Option<AddressRange>,
}

impl BridgeWindows {
    /// Reads the windows of `bridge`.
    ///
    /// A window at 0 is the reset value and counts as closed.
    pub(super) fn read<C: ConfigSpace>(config: &C, bridge: Bdf) -> Self {
        Self {
            io: read_io(config, bridge),
            memory: open(memory_base_limit(config.read32(bridge, MEMORY_BASE_LIMIT))),
            prefetchable: read_prefetchable(config, bridge),
        }
    }

    /// The window for a kind of addresses.
    pub(super) const fn get(&self, space: Space) -> Option<AddressRange> {
        match space {
            Space::Io => self.io,
            Space::Memory => self.memory,
            Space::Prefetchable => self.prefetchable,
        }
    }
}

/// The range from a base to a limit, if the window is open.
fn open((base, limit): (u64, u64)) -> Option<AddressRange> {
    AddressRange::inclusive(base, limit).filter(|_| base != 0)
}

fn memory_base_limit(register: u32) -> (u64, u64) {
    (u64::from(register & 0xFFF0) << 16, u64::from(register | 0xF_FFFF))
}

fn read_io<C: ConfigSpace>(config: &C, bridge: Bdf) -> Option<AddressRange> {
    let [base, limit] = config.read16(bridge, IO_BASE_LIMIT).to_le_bytes();
    let mut range = (u64::from(base & 0xF0) << 8, u64::from(limit & 0xF0) << 8 | 0xFFF);
    if base & 0xF == 1 {
        let upper = config.read32(bridge, IO_BASE_LIMIT_UPPER);
        range.0 |= u64::from(upper & 0xFFFF) << 16;
        range.1 |= u64::from(upper >> 16) << 16;
    }
    open(range)
}

fn read_prefetchable<C: ConfigSpace>(config: &C, bridge: Bdf) -> Option<AddressRange> {
    let register = config.read32(bridge, PREFETCHABLE_BASE_LIMIT);
    let (mut base, mut limit) = memory_base_limit(register);
    if register & 0xF == 1 {
        base |= u64::from(config.read32(bridge, PREFETCHABLE_BASE_UPPER)) << 32;
        limit |= u64::from(config.read32(bridge, PREFETCHABLE_LIMIT_UPPER)) << 32;
    }
    open((base, limit))
}

/// Whether `bridge` has a window for `space`. I/O windows are optional; so are prefetchable ones and their upper
/// halves, which are necessary here. The window is closed before and after this call.
pub(super) fn has_window<C: ConfigSpace>(config: &mut C, bridge: Bdf, space: Space) -> bool {
    match space {
        Space::Io => {
            close_window(config, bridge, space);
            config.read16(bridge, IO_BASE_LIMIT) & 0xF0 != 0
        }
        Space::Memory => true,
        Space::Prefetchable => config.read32(bridge, PREFETCHABLE_BASE_LIMIT) & 0xF == 1,
    }
}

/// Closes windows left at 0 by a reset: they would catch accesses to the first megabyte once decoding is on.
pub(crate) fn close_unused_windows<C: ConfigSpace>(config: &mut C, bridge: Bdf) {
    let now = BridgeWindows::read(config, bridge);
    for space in [Space::Io, Space::Memory, Space::Prefetchable] {
        if now.get(space).is_none() {
            close_window(config, bridge, space);
        }
    }
}

/// Closes a window: its base is above its limit.
pub(super) fn close_window<C: ConfigSpace>(config: &mut C, bridge: Bdf, space: Space) {
    match space {
        // 16 bits: writing back the secondary status above would clear its error bits.
        Space::Io => config.write16(bridge, IO_BASE_LIMIT, 0x00F0),
        Space::Memory => config.write32(bridge, MEMORY_BASE_LIMIT, 0x0000_FFF0),
        Space::Prefetchable => config.write32(bridge, PREFETCHABLE_BASE_LIMIT, 0x0000_FFF0),
    }
}

/// Sets a closed window; `range` is a multiple of the granularity. Returns whether the bridge kept it.
pub(super) fn open_window<C: ConfigSpace>(config: &mut C, bridge: Bdf, space: Space, range: AddressRange) -> bool {
    close_window(config, bridge, space);
    let (first, last) = (range.first(), range.last());
    let base_limit = (first as u32 >> 16 & 0xFFF0) | (last as u32 & 0xFFF0_0000);
    // Upper halves first: until then the lower ones keep the window closed.
    match space {
        Space::Io => {
            config.write32(bridge, IO_BASE_LIMIT_UPPER, (first >> 16) as u32 & 0xFFFF | last as u32 & 0xFFFF_0000);
            config.write16(bridge, IO_BASE_LIMIT, (first >> 8) as u16 & 0xF0 | last as u16 & 0xF000);
        }
        Space::Memory => config.write32(bridge, MEMORY_BASE_LIMIT, base_limit),
        Space::Prefetchable => {
            config.write32(bridge, PREFETCHABLE_BASE_UPPER, (first >> 32) as u32);
            config.write32(bridge, PREFETCHABLE_LIMIT_UPPER, (last >> 32) as u32);
            config.write32(bridge, PREFETCHABLE_BASE_LIMIT, base_limit);
        }
    }
    BridgeWindows::read(config, bridge).get(space) == Some(range)
}
