//! Vectors of MSI-X: numbers, table, pending bits, control word.

use super::steps::{in_traffic, in_traffic_by};
use super::{clause, registers};
use crate::check::{Check, Clause, Reaction, Verdict};
use crate::device::{MSIX_CONTROL, MSIX_ENABLE, TestDevice};
use ballonet::platform::Registers;
use ballonet::virtio::InterruptMode;
use ballonet::virtio::spec::NO_VECTOR;

const VECTOR: Clause = clause("4.1.5.1.2.2", "a vector past the end of the MSI-X table must not be used");
const TABLE: Clause = clause("4.1.5.1.2", "vectors are set up before the device runs");
const WIDTH: Clause = clause("4.1.3.1", "a field must be accessed with its own width, aligned");
/// MSI-X message control: all entries are masked.
const MSIX_MASK: u16 = 1 << 14;

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    registers("hostile-pci-vector-is-the-table-size", VECTOR, "a vector is the number of entries", |d| {
        vector(d, |n| n)
    }),
    registers("hostile-pci-vector-is-2047", VECTOR, "a vector is 0x7ff", |d| vector(d, |_| 0x7ff)),
    registers("hostile-pci-vector-is-2048", VECTOR, "a vector is 0x800", |d| vector(d, |_| 0x800)),
    registers("hostile-pci-vector-is-65534", VECTOR, "a vector is 0xfffe", |d| vector(d, |_| 0xfffe)),
    registers("hostile-pci-vectors-of-every-value", VECTOR, "vectors are set to many values in turn", |d| {
        with_vector_registers(d, |d| {
            for value in (0..512_u16).map(|step| step.wrapping_mul(129)) {
                d.try_vector(None, value)?;
                d.try_vector(Some(value % 3), value)?;
            }
            Ok(())
        })
    }),
    registers("hostile-pci-vectors-change-in-traffic", TABLE, "vectors change on a running device", |d| {
        with_vector_registers(d, |d| {
            for value in [0, 1, NO_VECTOR, 0, NO_VECTOR] {
                d.try_vector(None, value)?;
                d.try_vector(Some(0), value)?;
                d.kick_number(0, 0);
            }
            Ok(())
        })
    }),
    registers(
        "hostile-pci-table-is-written-in-traffic",
        TABLE,
        "masked entries of the MSI-X table are set to all ones",
        |d| {
            in_traffic(d, |d| {
                d.with_vectors(|d, table, _| {
                    for entry in (0..table.len()).step_by(16) {
                        // Masked first and last: no message goes to these addresses.
                        table.write32(entry + 12, 1);
                        (0..12).step_by(4).for_each(|at| table.write32(entry + at, u32::MAX));
                        table.write32(entry + 12, u32::MAX);
                        (0..12).step_by(4).for_each(|at| table.write32(entry + at, 0));
                    }
                    d.kick_number(0, 0);
                })
            })
        },
    ),
    registers("hostile-pci-table-in-other-widths", WIDTH, "the MSI-X table is accessed with 8, 16 and 64 bits", |d| {
        in_traffic(d, |d| {
            d.with_vectors(|_, table, _| {
                table.write32(12, 1);
                for offset in 0..16.min(table.len()) {
                    TestDevice::read_every_width(table, offset);
                }
                table.write8(0, 0xff);
                table.write16(2, 0xffff);
                table.write64(0, 0);
            })
        })
    }),
    registers("hostile-pci-pending-bits-are-written", TABLE, "the pending bits are set to all ones", |d| {
        in_traffic(d, |d| {
            d.with_vectors(|_, _, pending| {
                (0..pending.len() & !3).step_by(4).for_each(|at| pending.write32(at, u32::MAX));
            })
        })
    }),
    registers("hostile-pci-msix-is-masked-and-unmasked", TABLE, "the function's mask flips during traffic", |d| {
        msix_control(d, &[MSIX_ENABLE | MSIX_MASK, MSIX_ENABLE, MSIX_ENABLE | MSIX_MASK, MSIX_MASK, 0])
    }),
    registers("hostile-pci-msix-goes-on-and-off", TABLE, "MSI-X is turned on and off during traffic", |d| {
        msix_control(d, &[MSIX_ENABLE, 0, MSIX_ENABLE, 0, MSIX_ENABLE | MSIX_MASK])
    }),
    registers("hostile-pci-msix-reserved-bits", TABLE, "the MSI-X control word is set to all ones", |d| {
        msix_control(d, &[0xffff, 0x3fff, MSIX_MASK | 0x3fff])
    }),
];

/// Maps events to a vector that does not exist, and sends requests.
fn vector(d: &mut TestDevice<'_>, of: fn(u16) -> u16) -> Verdict<Reaction> {
    let value = of(d.pci_function().msix.map_or(0, |msix| msix.entries));
    let mut taken = false;
    with_vector_registers(d, |d| {
        for queue in [None, Some(0), Some(1)] {
            taken |= d.try_vector(queue, value)? != NO_VECTOR;
        }
        Ok(())
    })?;
    Ok(if taken { Reaction::Ignored } else { Reaction::Refused })
}

/// Writes the MSI-X control word during traffic. No entry of the table is unmasked.
fn msix_control(d: &mut TestDevice<'_>, values: &[u16]) -> Verdict<Reaction> {
    let at = d.msix_capability()? + MSIX_CONTROL;
    in_traffic(d, |d| {
        d.with_vectors(|_, table, _| (0..table.len()).step_by(16).for_each(|entry| table.write32(entry + 12, 1)))?;
        for value in values {
            d.config_write16(at, *value);
            d.kick_number(0, 0);
        }
        d.config_write16(at, 0);
        Ok(())
    })
}

/// Does something to the vectors of a device in traffic. The legacy interface has them with MSI-X only; elsewhere
/// nothing is to come of them.
fn with_vector_registers(
    d: &mut TestDevice<'_>,
    act: impl FnOnce(&mut TestDevice<'_>) -> Verdict,
) -> Verdict<Reaction> {
    let mode = if d.is_legacy() { InterruptMode::Shared } else { InterruptMode::Polling };
    in_traffic_by(d, mode, act)
}
