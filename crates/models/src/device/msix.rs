//! An MSI-X table and its pending bits, as they lie in a BAR (PCI 3.0, 6.8.2).

use ballonet::platform::MsiMessage;

use crate::world::Bus;

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: u64,
    data: u32,
    masked: bool,
    pending: bool,
}

/// The table.
#[derive(Debug)]
pub(crate) struct MsixTable {
    entries: Vec<Entry>,
}

impl MsixTable {
    /// A table as it comes out of reset: every vector masked.
    pub(crate) fn new(vectors: u16) -> Self {
        let entry = Entry { address: 0, data: 0, masked: true, pending: false };
        Self { entries: vec![entry; usize::from(vectors)] }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn read_table(&self, offset: u64, width: u8, bus: &mut Bus) -> u32 {
        let Some(entry) = self.entries.get((offset / 16) as usize).filter(|_| width == 4) else {
            bus.misstep("PCI-MSIX", format!("read of {width} bytes at {offset:#x} of the MSI-X table"));
            return u32::MAX;
        };
        match offset % 16 {
            0 => entry.address as u32,
            4 => (entry.address >> 32) as u32,
            8 => entry.data,
            _ => u32::from(entry.masked),
        }
    }

    pub(crate) fn write_table(&mut self, offset: u64, width: u8, value: u32, bus: &mut Bus) {
        let Some(entry) = self.entries.get_mut((offset / 16) as usize).filter(|_| width == 4) else {
            bus.misstep("PCI-MSIX", format!("write of {width} bytes at {offset:#x} of the MSI-X table"));
            return;
        };
        if offset % 16 != 12 && !entry.masked {
            bus.misstep("PCI-MSIX", format!("MSI-X vector {} changed while unmasked", offset / 16));
        }
        match offset % 16 {
            0 => entry.address = entry.address & !0xffff_ffff | u64::from(value),
            4 => entry.address = entry.address & 0xffff_ffff | u64::from(value) << 32,
            8 => entry.data = value,
            _ => {
                entry.masked = value & 1 != 0;
                if !entry.masked && entry.address == 0 {
                    bus.misstep("PCI-MSIX", format!("MSI-X vector {} unmasked without a message", offset / 16));
                }
            }
        }
    }

    pub(crate) fn read_pending(&self, offset: u64, width: u8) -> u32 {
        let bit = |i: u64| self.entries.get(i as usize).is_some_and(|e| e.pending);
        (0..u64::from(width) * 8).fold(0, |bits, i| bits | u32::from(bit(offset * 8 + i)) << i)
    }

    /// Raises a vector. Returns the message to send, or `None` if it is masked and becomes pending.
    pub(crate) fn raise(&mut self, vector: u16, all_masked: bool) -> Option<MsiMessage> {
        let entry = self.entries.get_mut(usize::from(vector))?;
        if entry.masked || all_masked {
            entry.pending = true;
            return None;
        }
        Some(MsiMessage { address: entry.address, data: entry.data })
    }

    /// The messages of vectors that were raised while masked and are not masked any more.
    pub(crate) fn release_pending(&mut self, all_masked: bool) -> Vec<MsiMessage> {
        let ready = self.entries.iter_mut().filter(|e| e.pending && !e.masked && !all_masked);
        ready
            .map(|entry| {
                entry.pending = false;
                MsiMessage { address: entry.address, data: entry.data }
            })
            .collect()
    }

    /// Vectors that are not masked.
    pub(crate) fn unmasked(&self) -> usize {
        self.entries.iter().filter(|e| !e.masked).count()
    }
}
