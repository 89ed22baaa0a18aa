//! The common structure in other widths, and the BAR around it.

use core::mem::offset_of;

use super::steps::{in_traffic, in_traffic_by};
use super::{clause, registers};
use crate::check::{Check, Clause};
use crate::device::TestDevice;
use ballonet::platform::Registers;
use ballonet::virtio::InterruptMode;
use ballonet::virtio::spec::{CapabilityType, CommonConfig};

const WIDTH: Clause = clause("4.1.3.1", "a field must be accessed with its own width, aligned");
const FIXED: Clause = clause("4.1.4.3.2", "read-only fields of the common structure must not be written");
const ISR: Clause = clause("4.1.4.5", "the ISR status is read");
const STRUCTURE: Clause = clause("4.1.4.1", "only the structures of a BAR are accessed");

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    registers("hostile-common-in-8-bits", WIDTH, "every byte of the common structure is read and written", |d| {
        in_traffic(d, |d| {
            each_but_status(d, 1, |d, offset| {
                let value = d.modern_registers().common.read8(offset);
                d.modern_registers().common.write8(offset, value);
            });
            Ok(())
        })
    }),
    registers("hostile-common-in-16-bits", WIDTH, "every word of the common structure is read and written", |d| {
        in_traffic(d, |d| {
            each_but_status(d, 2, |d, offset| {
                let value = d.modern_registers().common.read16(offset);
                d.modern_registers().common.write16(offset, value);
            });
            Ok(())
        })
    }),
    registers("hostile-common-in-32-bits", WIDTH, "every dword of the common structure is read and written", |d| {
        in_traffic(d, |d| {
            each_but_status(d, 4, |d, offset| {
                let value = d.modern_registers().common.read32(offset);
                d.modern_registers().common.write32(offset, value);
            });
            Ok(())
        })
    }),
    registers("hostile-common-in-64-bits", WIDTH, "64 bits of zeros are written over the common structure", |d| {
        in_traffic(d, |d| {
            (0..d.modern_registers().common.len() & !7)
                .step_by(8)
                .for_each(|offset| d.modern_registers().common.write64(offset, 0));
            Ok(())
        })
    }),
    registers("hostile-common-is-all-ones", FIXED, "every dword of the common structure is set to all ones", |d| {
        in_traffic(d, |d| {
            each_but_status(d, 4, |d, offset| d.modern_registers().common.write32(offset, u32::MAX));
            Ok(())
        })
    }),
    registers("hostile-common-read-only-fields", FIXED, "read-only fields of the common structure are written", |d| {
        in_traffic(d, |d| {
            d.modern_registers().common.write32(offset_of!(CommonConfig, device_feature), u32::MAX);
            d.modern_registers().common.write16(offset_of!(CommonConfig, num_queues), u16::MAX);
            d.modern_registers().common.write8(offset_of!(CommonConfig, config_generation), u8::MAX);
            d.modern_registers().common.write16(offset_of!(CommonConfig, queue_notify_off), u16::MAX);
            Ok(())
        })
    }),
    registers(
        "hostile-isr-is-written",
        ISR,
        "the ISR status is written during traffic, with its interrupts in use",
        |d| {
            let write = |d: &mut TestDevice<'_>| d.write_isr([0xff, 0, 3]);
            match in_traffic_by(d, InterruptMode::Line, write) {
                // There is no line.
                Err(stop) if stop.is_skipped() => in_traffic(d, write),
                outcome => outcome,
            }
        },
    ),
    registers("hostile-bar-is-read-throughout", STRUCTURE, "the BAR is read in every width, including gaps", |d| {
        in_traffic(d, |d| {
            d.with_bar(|_, bar| (0..bar.len()).step_by(4).for_each(|offset| TestDevice::read_every_width(bar, offset)))
        })
    }),
    registers("hostile-bar-is-written-in-its-gaps", STRUCTURE, "the BAR is written where it has no structure", |d| {
        in_traffic(d, |d| {
            d.with_bar(|d, bar| {
                for offset in (0..bar.len()).step_by(4).filter(|offset| is_gap(d, *offset as u64)) {
                    bar.write32(offset, u32::MAX);
                    bar.write8(offset, 0);
                    bar.write16(offset, 0);
                }
            })
        })
    }),
];

/// Accesses the common structure in this width, except `device_status`: writing back its value would be no attack, and
/// one of zeros a reset.
fn each_but_status(d: &mut TestDevice<'_>, width: usize, mut visit: impl FnMut(&mut TestDevice<'_>, usize)) {
    let status = offset_of!(CommonConfig, device_status);
    for offset in (0..d.modern_registers().common.len() / width * width).step_by(width) {
        if !(offset..offset + width).contains(&status) {
            visit(d, offset);
        }
    }
}

/// Whether this offset in the BAR of the common structure belongs to no structure and not to MSI-X.
pub(super) fn is_gap(d: &TestDevice<'_>, offset: u64) -> bool {
    let Ok((bar, _)) = d.place_of(CapabilityType::Common) else { return false };
    let inside = |start: u64, length: u64| (start..start.saturating_add(length)).contains(&offset);
    let structures =
        d.pci_function().structures.iter().filter(|structure| structure.bar == bar && structure.has_place());
    let mut structures = structures.map(|structure| (structure.offset & !3, structure.length + 4));
    let msix = d.pci_function().msix.is_some_and(|msix| {
        [msix.table, msix.pending].iter().any(|part| {
            let base = d.pci_function().bars.get(bar).ok().and_then(|bar| bar.window(0, 1).ok());
            part.bar == Some(bar) && base.is_some_and(|base| inside(part.address - base.address, part.length))
        })
    });
    !msix && !structures.any(|(start, length)| inside(start, length))
}
