//! Configuration space, BARs, vectors, and registers of the wrong width.

use core::mem::offset_of;

use super::{clause, registers};
use crate::check::{Check, Clause, Reaction, Verdict, skip_unless};
use crate::device::{Isr, TestDevice};
use ballonet::platform::Registers;
use ballonet::virtio::spec::{CapabilityType, CommonConfig, NO_VECTOR};

const VECTOR: Clause = clause("4.1.5.1.2.2", "a vector past the end of the MSI-X table must not be used");
const TABLE: Clause = clause("4.1.5.1.2", "vectors are set up before the device runs");
const READ_ONLY: Clause = clause("4.1.4.1", "capability fields must not be written, except those of the access window");
const HEADER: Clause = clause("4.1.2", "the configuration header's read-only fields are not written");
const DECODING: Clause = clause("4.1.5.1", "decoding and bus mastering stay enabled while a driver uses the function");
const BARS: Clause = clause("4.1.5.1", "BARs do not change while a driver uses the device");
const WIDTH: Clause = clause("4.1.3.1", "a field must be accessed with its own width, aligned");
const FIXED: Clause = clause("4.1.4.3.2", "read-only fields of the common structure must not be written");
const STRUCTURE: Clause = clause("4.1.4.1", "only the structures of a BAR are accessed");
const ISR: Clause = clause("4.1.4.5", "the ISR status is read");
const WINDOW: Clause = clause("4.1.4.9.2", "the access window must select bytes of another structure");
const WINDOW_ALIGNED: Clause = clause("4.1.4.9.2", "the access window must select 1, 2 or 4 bytes, aligned");
const POWER: Clause = clause("4.1.5.1", "the function stays in D0 while a driver uses it");
const RESET: Clause = clause("3.3.1", "a device is reset by its status before it is reset otherwise");

/// The bits of the command register.
const DECODE_MEMORY: u16 = 1 << 1;
const MASTER: u16 = 1 << 2;
const INTX_OFF: u16 = 1 << 10;
/// The MSI-X control word, in the upper half of the capability's first dword: enable and mask.
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_MASK: u16 = 1 << 14;
/// Power management: its capability, its control register and the state D3hot.
const POWER_MANAGEMENT: u8 = 1;
const POWER_CONTROL: u16 = 4;
const D3: u16 = 3;

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    registers("hostile-pci-vector-is-the-table-size", VECTOR, "a vector is the number of entries", |d| {
        vector(d, |n| n)
    }),
    registers("hostile-pci-vector-is-2047", VECTOR, "a vector is 0x7ff", |d| vector(d, |_| 0x7ff)),
    registers("hostile-pci-vector-is-2048", VECTOR, "a vector is 0x800", |d| vector(d, |_| 0x800)),
    registers("hostile-pci-vector-is-65534", VECTOR, "a vector is 0xfffe", |d| vector(d, |_| 0xfffe)),
    registers("hostile-pci-vectors-of-every-value", VECTOR, "vectors are set to many values in turn", |d| {
        d.in_traffic(|d| {
            for value in (0..512_u16).map(|step| step.wrapping_mul(129)) {
                d.modern_registers().common.write16(offset_of!(CommonConfig, config_msix_vector), value);
                d.select(value % 3);
                d.modern_registers().common.write16(offset_of!(CommonConfig, queue_msix_vector), value);
            }
            Ok(())
        })
    }),
    registers("hostile-pci-vectors-change-in-traffic", TABLE, "vectors change on a running device", |d| {
        d.in_traffic(|d| {
            d.select(0);
            for value in [0, 1, NO_VECTOR, 0, NO_VECTOR] {
                d.modern_registers().common.write16(offset_of!(CommonConfig, config_msix_vector), value);
                d.modern_registers().common.write16(offset_of!(CommonConfig, queue_msix_vector), value);
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
            d.in_traffic(|d| {
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
        d.in_traffic(|d| {
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
        d.in_traffic(|d| {
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
    registers("hostile-pci-header-is-overwritten", HEADER, "the header's read-only fields are set to all ones", |d| {
        d.in_traffic(|d| {
            [0x00, 0x08, 0x28, 0x2c, 0x34, 0x38].into_iter().for_each(|offset| d.overwrite_config(offset, u32::MAX));
            Ok(())
        })
    }),
    registers("hostile-pci-self-test-is-started", HEADER, "self test, latency and header type are set to ones", |d| {
        d.in_traffic(|d| {
            d.overwrite_config(0x0c, u32::MAX);
            Ok(())
        })
    }),
    registers("hostile-pci-status-is-overwritten", HEADER, "the PCI status register is written with all ones", |d| {
        d.in_traffic(|d| {
            let command = d.config_read32(4) & 0xffff;
            d.config_write32(4, 0xffff_0000 | command);
            Ok(())
        })
    }),
    registers(
        "hostile-pci-capability-list-is-overwritten",
        READ_ONLY,
        "IDs and links of all capabilities are set to zeros and ones",
        |d| {
            d.in_traffic(|d| {
                for offset in d.capability_offsets() {
                    let head = d.config_read32(offset);
                    // The upper half of some is a control word.
                    d.config_write32(offset, head & 0xffff_0000);
                    d.config_write32(offset, head | 0xffff);
                    d.config_write32(offset, head);
                }
                Ok(())
            })
        },
    ),
    registers(
        "hostile-pci-virtio-capabilities-are-overwritten",
        READ_ONLY,
        "BARs, offsets and lengths of all structures are set to ones",
        |d| {
            d.in_traffic(|d| {
                let kinds =
                    [CapabilityType::Common, CapabilityType::Notify, CapabilityType::Isr, CapabilityType::Device];
                let of_kinds = d.pci_function().structures.iter().filter(|structure| kinds.contains(&structure.kind));
                let offsets: alloc::vec::Vec<u16> = of_kinds.map(|structure| structure.capability.offset).collect();
                for offset in offsets {
                    [4, 8, 12].into_iter().for_each(|at| d.overwrite_config(offset + at, u32::MAX));
                }
                Ok(())
            })
        },
    ),
    registers("hostile-pci-rom-address-is-written", BARS, "the address of the expansion ROM is set to all ones", |d| {
        d.in_traffic(|d| {
            d.overwrite_config(0x30, u32::MAX);
            Ok(())
        })
    }),
    registers("hostile-pci-bars-are-sized-in-traffic", BARS, "all BARs are sized while they decode", |d| {
        d.in_traffic(|d| {
            (0x10..0x28).step_by(4).for_each(|offset| d.overwrite_config(offset, u32::MAX));
            Ok(())
        })
    }),
    registers("hostile-pci-bars-are-0-in-traffic", BARS, "all BARs are briefly 0, with decoding off", |d| {
        d.in_traffic(|d| {
            d.with_command(
                |command| command & !(DECODE_MEMORY | 1),
                |d| {
                    let before = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24].map(|offset| (offset, d.config_read32(offset)));
                    before.iter().for_each(|(offset, _)| d.config_write32(*offset, 0));
                    before.iter().for_each(|(offset, value)| d.config_write32(*offset, *value));
                },
            );
            Ok(())
        })
    }),
    registers(
        "hostile-pci-bars-move-in-traffic",
        BARS,
        "the last BAR moves up by its size and back, unused meanwhile",
        |d| {
            d.in_traffic(|d| {
                let (index, _) = d.place_of(CapabilityType::Common)?;
                let size = d.pci_function().bars.get(index).map_or(0, |bar| bar.size) as u32;
                let offset = 0x10 + 4 * u16::from(index);
                d.with_command(
                    |command| command & !DECODE_MEMORY,
                    |d| {
                        let before = d.config_read32(offset);
                        d.config_write32(offset, before.wrapping_add(size));
                        d.config_write32(offset, before);
                    },
                );
                Ok(())
            })
        },
    ),
    registers("hostile-pci-decoding-off-in-traffic", DECODING, "memory decoding is briefly off", |d| {
        d.in_traffic(|d| {
            d.with_command(|command| command & !DECODE_MEMORY, |d| d.kick_number(0, 0));
            Ok(())
        })
    }),
    registers("hostile-pci-mastering-off-in-traffic", DECODING, "bus mastering is off while requests are sent", |d| {
        d.in_traffic(|d| {
            d.with_command(|command| command & !MASTER, |d| (0..20).for_each(|_| d.kick_number(0, 0)));
            Ok(())
        })
    }),
    registers("hostile-pci-mastering-off-at-driver-ok", DECODING, "bus mastering is off when DRIVER_OK is set", |d| {
        let setup = d.plain();
        d.prepare(&setup)?;
        let mut gone = Ok(());
        d.with_command(
            |command| command & !MASTER,
            |d| {
                gone = d.go().map(drop);
                d.kick_number(0, 0);
            },
        );
        d.wait_quiet()?;
        // A device may notice, and not start.
        Ok(if gone.is_ok() { Reaction::Ignored } else { Reaction::Refused })
    }),
    registers("hostile-pci-mastering-flips", DECODING, "bus mastering is turned on and off during traffic", |d| {
        d.in_traffic(|d| {
            for _ in 0..20 {
                d.with_command(|command| command & !MASTER, |d| d.kick_number(0, 0));
                d.kick_number(0, 0);
            }
            Ok(())
        })
    }),
    registers("hostile-pci-command-is-0-in-traffic", DECODING, "the command register is briefly 0", |d| {
        d.in_traffic(|d| {
            d.with_command(|_| 0, |d| d.kick_number(0, 0));
            Ok(())
        })
    }),
    registers("hostile-pci-command-has-all-bits", HEADER, "all bits of the command register are set", |d| {
        d.in_traffic(|d| {
            d.with_command(|_| 0xffff, |d| d.kick_number(0, 0));
            Ok(())
        })
    }),
    registers("hostile-pci-intx-off-flips", HEADER, "INTx is turned on and off during traffic", |d| {
        d.in_traffic(|d| {
            for _ in 0..20 {
                d.with_command(|command| command ^ INTX_OFF | INTX_OFF, |d| d.kick_number(0, 0));
            }
            Ok(())
        })
    }),
    registers("hostile-pci-function-reset-in-traffic", RESET, "a function level reset is made during traffic", |d| {
        d.in_traffic(TestDevice::reset_function)
    }),
    registers("hostile-pci-d3-in-traffic", POWER, "the function goes to D3 and back during traffic", |d| power(d, 1)),
    registers("hostile-pci-d3-again-and-again", POWER, "the function goes to D3 and back ten times", |d| power(d, 10)),
    registers("hostile-common-in-8-bits", WIDTH, "every byte of the common structure is read and written", |d| {
        d.in_traffic(|d| {
            each_but_status(d, 1, |d, offset| {
                let value = d.modern_registers().common.read8(offset);
                d.modern_registers().common.write8(offset, value);
            });
            Ok(())
        })
    }),
    registers("hostile-common-in-16-bits", WIDTH, "every word of the common structure is read and written", |d| {
        d.in_traffic(|d| {
            each_but_status(d, 2, |d, offset| {
                let value = d.modern_registers().common.read16(offset);
                d.modern_registers().common.write16(offset, value);
            });
            Ok(())
        })
    }),
    registers("hostile-common-in-32-bits", WIDTH, "every dword of the common structure is read and written", |d| {
        d.in_traffic(|d| {
            each_but_status(d, 4, |d, offset| {
                let value = d.modern_registers().common.read32(offset);
                d.modern_registers().common.write32(offset, value);
            });
            Ok(())
        })
    }),
    registers("hostile-common-in-64-bits", WIDTH, "64 bits of zeros are written over the common structure", |d| {
        d.in_traffic(|d| {
            (0..d.modern_registers().common.len() & !7)
                .step_by(8)
                .for_each(|offset| d.modern_registers().common.write64(offset, 0));
            Ok(())
        })
    }),
    registers("hostile-common-is-all-ones", FIXED, "every dword of the common structure is set to all ones", |d| {
        d.in_traffic(|d| {
            each_but_status(d, 4, |d, offset| d.modern_registers().common.write32(offset, u32::MAX));
            Ok(())
        })
    }),
    registers("hostile-common-read-only-fields", FIXED, "read-only fields of the common structure are written", |d| {
        d.in_traffic(|d| {
            d.modern_registers().common.write32(offset_of!(CommonConfig, device_feature), u32::MAX);
            d.modern_registers().common.write16(offset_of!(CommonConfig, num_queues), u16::MAX);
            d.modern_registers().common.write8(offset_of!(CommonConfig, config_generation), u8::MAX);
            d.modern_registers().common.write16(offset_of!(CommonConfig, queue_notify_off), u16::MAX);
            Ok(())
        })
    }),
    registers("hostile-isr-is-written", ISR, "the ISR status is written", |d| {
        d.in_traffic(|d| {
            skip_unless!(alloc::sync::Arc::strong_count(&d.isr) == 1, "the ISR status is in use");
            if let Some(Isr::Byte(isr)) = alloc::sync::Arc::get_mut(&mut d.isr) {
                isr.write8(0, 0xff);
            }
            Ok(())
        })
    }),
    registers("hostile-bar-is-read-throughout", STRUCTURE, "the BAR is read in every width, including gaps", |d| {
        d.in_traffic(|d| {
            d.with_bar(|_, bar| (0..bar.len()).step_by(4).for_each(|offset| TestDevice::read_every_width(bar, offset)))
        })
    }),
    registers("hostile-bar-is-written-in-its-gaps", STRUCTURE, "the BAR is written where it has no structure", |d| {
        d.in_traffic(|d| {
            d.with_bar(|d, bar| {
                for offset in (0..bar.len()).step_by(4).filter(|offset| is_gap(d, *offset as u64)) {
                    bar.write32(offset, u32::MAX);
                    bar.write8(offset, 0);
                    bar.write16(offset, 0);
                }
            })
        })
    }),
    registers("hostile-window-of-0-bytes", WINDOW_ALIGNED, "the access window selects 0 bytes", |d| window(d, 0, 0)),
    registers("hostile-window-of-3-bytes", WINDOW_ALIGNED, "the access window selects 3 bytes", |d| window(d, 0, 3)),
    registers("hostile-window-of-8-bytes", WINDOW_ALIGNED, "the access window selects 8 bytes", |d| window(d, 0, 8)),
    registers("hostile-window-of-255-bytes", WINDOW_ALIGNED, "the access window selects 255 bytes", |d| {
        window(d, 0, 255)
    }),
    registers("hostile-window-of-4-gib", WINDOW_ALIGNED, "the access window selects 2^32 - 1 bytes", |d| {
        window(d, 0, u32::MAX)
    }),
    registers(
        "hostile-window-of-2-bytes-unaligned",
        WINDOW_ALIGNED,
        "the access window selects 2 bytes at an odd offset",
        |d| window(d, 1, 2),
    ),
    registers("hostile-window-of-4-bytes-unaligned", WINDOW_ALIGNED, "the access window selects 4 bytes at 2", |d| {
        window(d, 2, 4)
    }),
    registers(
        "hostile-window-of-4-bytes-at-an-odd-place",
        WINDOW_ALIGNED,
        "the access window selects 4 bytes at 5",
        |d| window(d, 5, 4),
    ),
    registers("hostile-window-past-its-bar", WINDOW, "the access window selects bytes past the BAR", |d| {
        past(d, &[0x4000, 0x10_0000, 0x7fff_fffc, 0x8000_0000, 0xffff_fffc])
    }),
    registers(
        "hostile-window-across-the-end-of-its-bar",
        WINDOW,
        "the access window selects bytes across the end of the BAR",
        |d| past(d, &[0x3ffe, 0x3fff, 0xfff, 0x1fff, 0xffff_ffff]),
    ),
    registers("hostile-window-of-bar-6", WINDOW, "the access window selects BAR 6", |d| barred(d, 6)),
    registers("hostile-window-of-bar-7", WINDOW, "the access window selects BAR 7", |d| barred(d, 7)),
    registers("hostile-window-of-bar-255", WINDOW, "the access window selects BAR 255", |d| barred(d, 255)),
    registers("hostile-window-of-every-bar", WINDOW, "the access window selects every BAR, present or not", |d| {
        d.in_traffic(|d| (0..6).try_for_each(|bar| d.window_access(bar, 0, 4, None)))
    }),
    registers("hostile-window-in-the-gaps", WINDOW, "the access window selects offsets without a structure", |d| {
        d.in_traffic(|d| {
            let (bar, _) = d.place_of(CapabilityType::Common)?;
            for offset in (0..0x4000)
                .step_by(0x100)
                .filter(|offset| is_gap(d, u64::from(*offset)))
                .collect::<alloc::vec::Vec<u32>>()
            {
                d.window_access(bar, offset, 4, None)?;
                d.window_access(bar, offset, 4, Some(u32::MAX))?;
            }
            Ok(())
        })
    }),
    registers("hostile-window-kicks", WINDOW, "a queue is notified through the access window in every width", |d| {
        d.in_traffic(|d| {
            let (bar, offset) = d.place_of(CapabilityType::Notify)?;
            [1, 2, 4].into_iter().try_for_each(|length| d.window_access(bar, offset, length, Some(0)))
        })
    }),
];

/// Maps events to a vector that does not exist, and sends requests.
fn vector(d: &mut TestDevice<'_>, of: fn(u16) -> u16) -> Verdict<Reaction> {
    let value = of(d.pci_function().msix.map_or(0, |msix| msix.entries));
    let mut taken = false;
    d.in_traffic(|d| {
        d.modern_registers().common.write16(offset_of!(CommonConfig, config_msix_vector), value);
        taken = d.modern_registers().common.read16(offset_of!(CommonConfig, config_msix_vector)) != NO_VECTOR;
        for queue in 0..2 {
            d.select(queue);
            d.modern_registers().common.write16(offset_of!(CommonConfig, queue_msix_vector), value);
            taken |= d.modern_registers().common.read16(offset_of!(CommonConfig, queue_msix_vector)) != NO_VECTOR;
        }
        Ok(())
    })?;
    Ok(if taken { Reaction::Ignored } else { Reaction::Refused })
}

/// Writes the MSI-X control word in traffic. No entry of the table is unmasked.
fn msix_control(d: &mut TestDevice<'_>, values: &[u16]) -> Verdict<Reaction> {
    let at = d.msix_capability()? + 2;
    d.in_traffic(|d| {
        d.with_vectors(|_, table, _| (0..table.len()).step_by(16).for_each(|entry| table.write32(entry + 12, 1)))?;
        for value in values {
            d.config_write16(at, *value);
            d.kick_number(0, 0);
        }
        d.config_write16(at, 0);
        Ok(())
    })
}

/// Puts the function to sleep and wakes it. Its registers may be lost (PCI-PM 5.4).
fn power(d: &mut TestDevice<'_>, times: u32) -> Verdict<Reaction> {
    let control = d.capability(POWER_MANAGEMENT, "power management")? + POWER_CONTROL;
    d.in_traffic(|d| {
        let header = d.header();
        for _ in 0..times {
            d.config_write16(control, D3);
            d.wait_quiet()?;
            d.wait_quiet()?;
            d.wait_quiet()?;
            d.config_write16(control, 0);
            d.wait_quiet()?;
            d.wait_quiet()?;
            d.wait_quiet()?;
            d.restore_header(&header);
        }
        Ok(())
    })
}

/// Accesses the common structure in this width, except `device_status`: writing back its value would be no attack, and
/// writing zeros a reset.
fn each_but_status(d: &mut TestDevice<'_>, width: usize, mut visit: impl FnMut(&mut TestDevice<'_>, usize)) {
    let status = offset_of!(CommonConfig, device_status);
    for offset in (0..d.modern_registers().common.len() / width * width).step_by(width) {
        if !(offset..offset + width).contains(&status) {
            visit(d, offset);
        }
    }
}

/// Whether this offset in the BAR of the common structure belongs to no structure and not to MSI-X.
fn is_gap(d: &TestDevice<'_>, offset: u64) -> bool {
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

/// Reads and writes the common structure through the window, at this offset in it.
fn window(d: &mut TestDevice<'_>, offset: u32, length: u32) -> Verdict<Reaction> {
    d.in_traffic(|d| {
        let (bar, start) = d.place_of(CapabilityType::Common)?;
        d.window_access(bar, start + offset, length, None)?;
        d.window_access(bar, start + offset, length, Some(0))
    })
}

/// Selects offsets past the end of the BAR, reading and writing.
fn past(d: &mut TestDevice<'_>, offsets: &[u32]) -> Verdict<Reaction> {
    d.in_traffic(|d| {
        let (bar, _) = d.place_of(CapabilityType::Common)?;
        let size = d.pci_function().bars.get(bar).map_or(0, |bar| bar.size);
        for offset in offsets.iter().filter(|offset| u64::from(**offset) + 4 > size) {
            for length in [1, 2, 4] {
                d.window_access(bar, *offset, length, None)?;
                d.window_access(bar, *offset, length, Some(u32::MAX))?;
            }
        }
        Ok(())
    })
}

/// Selects a BAR that no function has.
fn barred(d: &mut TestDevice<'_>, bar: u8) -> Verdict<Reaction> {
    d.in_traffic(|d| {
        for length in [1, 2, 4] {
            d.window_access(bar, 0, length, None)?;
            d.window_access(bar, 0, length, Some(u32::MAX))?;
        }
        Ok(())
    })
}
