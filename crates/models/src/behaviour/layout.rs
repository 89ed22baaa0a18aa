//! A device's layout: its BARs, the structures in them, and its capability list.

/// A base address register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bar {
    None,
    /// 32-bit memory of this many bytes.
    Memory32(u32),
    /// 64-bit memory, prefetchable; takes the next register too.
    Memory64(u64),
    /// I/O ports.
    Io(u32),
}

/// A structure that is really in a BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Structure {
    Common,
    Notify,
    Isr,
    Device,
    MsixTable,
    PendingBits,
    /// The legacy interface: header and device configuration.
    Legacy,
}

/// The real location of a structure.
#[derive(Debug, Clone, Copy)]
pub struct Region {
    pub structure: Structure,
    pub bar: u8,
    pub offset: u64,
    pub length: u64,
}

/// One entry of the capability list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capability {
    /// A virtio structure: `cfg_type`, BAR, offset, length, and the notify multiplier if there is one.
    Virtio { cfg_type: u8, bar: u8, offset: u32, length: u32, multiplier: Option<u32> },
    /// The window in configuration space to the structures.
    PciAccess,
    /// MSI-X: BAR and offset of the table, BAR and offset of the pending bits.
    Msix { table_bar: u8, table: u32, pending_bar: u8, pending: u32 },
    /// Any bytes, the first being the capability's id; the second (the link) is filled in.
    Raw(Vec<u8>),
}

/// The layout of a device.
#[derive(Debug, Clone)]
pub struct Layout {
    pub bars: [Bar; 6],
    pub regions: Vec<Region>,
    pub capabilities: Vec<Capability>,
    /// Replaces the link of the last capability, for lists that do not end correctly.
    pub last_link: u8,
}

impl Layout {
    /// As in QEMU: MSI-X in BAR 1, everything else in the 64-bit BAR 4, a page each.
    pub(crate) fn qemu(msix: bool) -> Self {
        let bars = [
            Bar::None,
            if msix { Bar::Memory32(0x1000) } else { Bar::None },
            Bar::None,
            Bar::None,
            Bar::Memory64(0x4000),
            Bar::None,
        ];
        Self::build(
            bars,
            [(4, 0, 0x1000), (4, 0x1000, 0x1000), (4, 0x2000, 0x1000), (4, 0x3000, 0x1000)],
            [(1, 0), (1, 0x800)],
        )
    }

    /// As in Cloud Hypervisor and Firecracker: all in a 64-bit BAR 0 of 512 KiB.
    pub(crate) fn cloud_hypervisor() -> Self {
        let bars = [Bar::Memory64(0x8_0000), Bar::None, Bar::None, Bar::None, Bar::None, Bar::None];
        Self::build(
            bars,
            [(0, 0, 56), (0, 0x2000, 1), (0, 0x4000, 0x1000), (0, 0x6000, 0x1000)],
            [(0, 0x8000), (0, 0x4_8000)],
        )
    }

    /// As in crosvm: all in a 32-bit BAR 0 of 32 KiB.
    pub(crate) fn crosvm() -> Self {
        let bars = [Bar::Memory32(0x8000), Bar::None, Bar::None, Bar::None, Bar::None, Bar::None];
        Self::build(
            bars,
            [(0, 0, 56), (0, 0x1000, 1), (0, 0x2000, 0x1000), (0, 0x3000, 0x1000)],
            [(0, 0x6000), (0, 0x7000)],
        )
    }

    /// As in Alioth: all in a 32-bit BAR 0 of 16 KiB, the structures back to back, with doorbells for five queues.
    pub(crate) fn alioth() -> Self {
        let bars = [Bar::Memory32(0x4000), Bar::None, Bar::None, Bar::None, Bar::None, Bar::None];
        Self::build(bars, [(0, 0x3000, 60), (0, 0x303c, 4), (0, 0x3054, 16), (0, 0x3040, 20)], [(0, 0), (0, 0x2000)])
    }

    /// Everything but MSI-X in the ports of BAR 2.
    pub fn in_ports() -> Self {
        let bars = [Bar::None, Bar::Memory32(0x1000), Bar::Io(0x100), Bar::None, Bar::None, Bar::None];
        Self::build(bars, [(2, 0, 56), (2, 0x38, 1), (2, 0x40, 0x10), (2, 0x60, 0x20)], [(1, 0), (1, 0x800)])
    }

    /// Structures at the oddest offsets that their types allow, in BARs shared with MSI-X.
    pub fn odd() -> Self {
        let bars = [Bar::None, Bar::None, Bar::Memory64(0x4000), Bar::None, Bar::Memory32(0x2000), Bar::None];
        Self::build(
            bars,
            [(4, 0x0c, 57), (2, 0x1357, 1), (2, 0x24, 0x11), (4, 0x402, 0x1b)],
            [(2, 0x2000), (2, 0x3ff8)],
        )
    }

    /// This layout with a window in configuration space to its structures.
    pub(crate) fn with_pci_access(mut self) -> Self {
        self.capabilities.push(Capability::PciAccess);
        self
    }

    /// This layout with a legacy interface in the ports of BAR 0, which is free.
    pub(crate) fn with_legacy(mut self) -> Self {
        assert_eq!(self.bars[0], Bar::None, "BAR 0 is taken");
        self.bars[0] = Bar::Io(0x40);
        self.regions.push(Region { structure: Structure::Legacy, bar: 0, offset: 0, length: 0x40 });
        self
    }

    /// As in QEMU with `disable-modern=on`: ports in BAR 0, MSI-X in BAR 1, no virtio capability.
    pub(crate) fn legacy(msix: bool) -> Self {
        let mut layout = Self::qemu(msix).with_legacy();
        layout.bars[4] = Bar::None;
        layout.regions.retain(|r| r.bar < 4);
        layout.capabilities.retain(|c| msix && matches!(c, Capability::Msix { .. }));
        layout
    }

    fn build(bars: [Bar; 6], structures: [(u8, u32, u32); 4], msix: [(u8, u32); 2]) -> Self {
        use Structure::{Common, Device, Isr, MsixTable, Notify, PendingBits};
        let kinds = [(Common, 1), (Isr, 3), (Device, 4), (Notify, 2)];
        let mut regions = Vec::new();
        let mut capabilities = Vec::new();
        for ((structure, cfg_type), (bar, offset, length)) in kinds.into_iter().zip(structures) {
            regions.push(Region { structure, bar, offset: offset.into(), length: length.into() });
            let multiplier = (structure == Notify).then_some(4);
            capabilities.push(Capability::Virtio { cfg_type, bar, offset, length, multiplier });
        }
        for (structure, (bar, offset)) in [MsixTable, PendingBits].into_iter().zip(msix) {
            let length = if structure == MsixTable { 0x800 } else { 8 };
            regions.push(Region { structure, bar, offset: offset.into(), length });
        }
        let [(table_bar, table), (pending_bar, pending)] = msix;
        capabilities.push(Capability::Msix { table_bar, table, pending_bar, pending });
        Self { bars, regions, capabilities, last_link: 0 }
    }

    /// The structure at an offset of a BAR and the offset within it.
    pub(crate) fn find(&self, bar: u8, offset: u64) -> Option<(Structure, u64)> {
        let region = self.regions.iter().find(|r| r.bar == bar && (r.offset..r.offset + r.length).contains(&offset))?;
        Some((region.structure, offset - region.offset))
    }

    /// The virtio capability for a structure, to change its entry in the list.
    pub fn capability(&mut self, wanted: u8) -> &mut Capability {
        self.capabilities
            .iter_mut()
            .find(|c| matches!(c, Capability::Virtio { cfg_type, .. } if *cfg_type == wanted))
            .expect("the layout has this capability")
    }

    /// The factor for a queue's `queue_notify_off`: 0 if all queues share a doorbell.
    pub(crate) fn notify_multiplier(&self) -> u32 {
        let of = |c: &Capability| if let Capability::Virtio { multiplier, .. } = c { *multiplier } else { None };
        self.capabilities.iter().find_map(of).unwrap_or(0)
    }

    /// Removes a virtio capability from the list.
    pub fn without(mut self, wanted: u8) -> Self {
        self.capabilities.retain(|c| !matches!(c, Capability::Virtio { cfg_type, .. } if *cfg_type == wanted));
        self
    }
}
