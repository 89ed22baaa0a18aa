//! Configuration space: header, capabilities, BARs, the command register, power.

use super::steps::in_traffic;
use super::{clause, registers};
use crate::check::{Check, Clause, Reaction, Verdict};
use crate::device::TestDevice;
use ballonet::virtio::spec::CapabilityType;

const READ_ONLY: Clause = clause("4.1.4.1", "capability fields must not be written, except those of the access window");
const HEADER: Clause = clause("4.1.2", "the configuration header's read-only fields are not written");
const DECODING: Clause = clause("4.1.5.1", "decoding and bus mastering stay enabled while a driver uses the function");
const BARS: Clause = clause("4.1.5.1", "BARs do not change while a driver uses the device");
const POWER: Clause = clause("4.1.5.1", "the function stays in D0 while a driver uses it");
const RESET: Clause = clause("3.3.1", "a device is reset by its status before it is reset otherwise");
/// The bits of the command register.
const DECODE_MEMORY: u16 = 1 << 1;
const MASTER: u16 = 1 << 2;
const INTX_OFF: u16 = 1 << 10;
/// Power management: its capability, its control register and the state D3hot.
const POWER_MANAGEMENT: u8 = 1;
const POWER_CONTROL: u16 = 4;
const D3: u16 = 3;

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    registers("hostile-pci-header-is-overwritten", HEADER, "the header's read-only fields are set to all ones", |d| {
        in_traffic(d, |d| {
            [0x00, 0x08, 0x28, 0x2c, 0x34, 0x38].into_iter().for_each(|offset| d.overwrite_config(offset, u32::MAX));
            Ok(())
        })
    }),
    registers("hostile-pci-self-test-is-started", HEADER, "self test, latency and header type are set to ones", |d| {
        in_traffic(d, |d| {
            d.overwrite_config(0x0c, u32::MAX);
            Ok(())
        })
    }),
    registers("hostile-pci-status-is-overwritten", HEADER, "the PCI status register is written with all ones", |d| {
        in_traffic(d, |d| {
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
            in_traffic(d, |d| {
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
            in_traffic(d, |d| {
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
        in_traffic(d, |d| {
            d.overwrite_config(0x30, u32::MAX);
            Ok(())
        })
    }),
    registers("hostile-pci-bars-are-sized-in-traffic", BARS, "all BARs are sized while they decode", |d| {
        in_traffic(d, |d| {
            (0x10..0x28).step_by(4).for_each(|offset| d.overwrite_config(offset, u32::MAX));
            Ok(())
        })
    }),
    registers("hostile-pci-bars-are-0-in-traffic", BARS, "all BARs are briefly 0, with decoding off", |d| {
        in_traffic(d, |d| {
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
            in_traffic(d, |d| {
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
        in_traffic(d, |d| {
            d.with_command(|command| command & !DECODE_MEMORY, |d| d.kick_number(0, 0));
            Ok(())
        })
    }),
    registers("hostile-pci-mastering-off-in-traffic", DECODING, "bus mastering is off while requests are sent", |d| {
        in_traffic(d, |d| {
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
        in_traffic(d, |d| {
            for _ in 0..20 {
                d.with_command(|command| command & !MASTER, |d| d.kick_number(0, 0));
                d.kick_number(0, 0);
            }
            Ok(())
        })
    }),
    registers("hostile-pci-command-is-0-in-traffic", DECODING, "the command register is briefly 0", |d| {
        in_traffic(d, |d| {
            d.with_command(|_| 0, |d| d.kick_number(0, 0));
            Ok(())
        })
    }),
    registers("hostile-pci-command-has-all-bits", HEADER, "all bits of the command register are set", |d| {
        in_traffic(d, |d| {
            d.with_command(|_| 0xffff, |d| d.kick_number(0, 0));
            Ok(())
        })
    }),
    registers("hostile-pci-intx-off-flips", HEADER, "INTx is turned on and off during traffic", |d| {
        in_traffic(d, |d| {
            for _ in 0..20 {
                d.with_command(|command| command ^ INTX_OFF | INTX_OFF, |d| d.kick_number(0, 0));
            }
            Ok(())
        })
    }),
    registers("hostile-pci-function-reset-in-traffic", RESET, "a function level reset is made during traffic", |d| {
        in_traffic(d, |d| {
            d.reset_function()?;
            Ok(())
        })
    }),
    registers("hostile-pci-d3-in-traffic", POWER, "the function goes to D3 and back during traffic", |d| power(d, 1)),
    registers("hostile-pci-d3-again-and-again", POWER, "the function goes to D3 and back ten times", |d| power(d, 10)),
];

/// Puts the function to sleep and wakes it. Its registers may be lost (PCI-PM 5.4).
fn power(d: &mut TestDevice<'_>, times: u32) -> Verdict<Reaction> {
    let control = d.capability(POWER_MANAGEMENT, "power management")? + POWER_CONTROL;
    in_traffic(d, |d| {
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
