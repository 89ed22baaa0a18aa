//! Memory that the loader filled for the kernel and that the memory map calls usable.

use core::fmt;

use derive_more::Display;

use super::PhysRange;

/// What the loader put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub(crate) enum AreaKind {
    /// The structure that the entry register points to.
    #[display("start info")]
    StartInfo,
    /// The memory map as the loader wrote it.
    #[display("memory map")]
    MemoryMap,
    /// The kernel command line.
    #[display("command line")]
    CommandLine,
    /// The list of modules.
    #[display("module list")]
    ModuleList,
    /// The module with this index.
    #[display("module {_0}")]
    Module(u32),
}

impl AreaKind {
    /// Whether the memory must stay unchanged. [`super::BootInfo`] has copies of all but modules; but when QEMU's
    /// option ROM boots a second time, it writes only some fields of the start info, and the others, such as the number
    /// of modules, must be unchanged after a reset.
    pub(crate) const fn is_kept(self) -> bool {
        matches!(self, Self::Module(_) | Self::StartInfo)
    }
}

/// A range with the loader's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[display("{range} {kind}")]
pub(crate) struct LoaderArea {
    /// Where.
    pub range: PhysRange,
    /// What.
    pub kind: AreaKind,
}

/// The areas of the loader, in no particular order: at most [`LoaderAreas::CAPACITY`].
#[derive(Clone)]
pub(crate) struct LoaderAreas {
    slots: [Option<LoaderArea>; Self::CAPACITY],
}

impl LoaderAreas {
    /// The most areas.
    pub(crate) const CAPACITY: usize = 16;

    /// No area.
    pub(crate) const fn empty() -> Self {
        Self { slots: [None; Self::CAPACITY] }
    }

    /// Every area.
    pub(crate) fn iter(&self) -> impl Iterator<Item = LoaderArea> + Clone + '_ {
        self.slots.iter().copied().flatten()
    }

    /// Adds an area, if there is room. An invalid range is ignored: it cannot be overwritten.
    pub(super) fn keep(&mut self, kind: AreaKind, start: u64, length: u64) {
        let Ok(range) = PhysRange::parse(start, length) else { return };
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(LoaderArea { range, kind });
        }
    }
}

impl fmt::Debug for LoaderAreas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
