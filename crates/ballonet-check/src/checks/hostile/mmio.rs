//! Registers on MMIO: widths, offsets, directions and order.

use super::steps::{BEYOND, LIVE, finish, in_traffic, kick_both, quiet, running, send, set, target};
use super::{clause, registers};
use crate::check::{Check, Clause, Reaction, Verdict, skip_unless};
use crate::device::{Role, Shape, TestDevice, mmio};
use crate::platform::Mapped;
use ballonet::platform::Registers;
use ballonet::virtio::InterruptMode;

const WIDTH: Clause = clause("4.2.2.2", "registers must be accessed with 32 bits, aligned");
const READ_ONLY: Clause = clause("4.2.2.2", "read-only registers must not be written");
const WRITE_ONLY: Clause = clause("4.2.2.2", "write-only registers must not be read");
const PLACE: Clause = clause("4.2.2.2", "only offsets of registers must be accessed");
const READY: Clause = clause("4.2.2.2", "while QueueReady is not 0 the queue's registers must not be accessed");
const ONE: Clause = clause("4.2.2", "QueueReady is written with 1, or 0 to stop");
const SIZE: Clause = clause("4.2.2.2", "QueueSize must be at most QueueSizeMax");
const BEFORE: Clause = clause("4.2.3.2", "size and addresses are written before QueueReady");
const EXISTS: Clause = clause("4.2.3.2", "a queue exists if its QueueSizeMax is not 0");
const FEATURES: Clause = clause("4.2.2.2", "a word of features must be selected before it is accessed");
const WORDS: Clause = clause("4.2.2", "feature selectors select words that exist");
const ACK: Clause = clause("4.2.2.2", "only defined bits, of events that were handled, must be acknowledged");
const SHARED: Clause = clause("4.2.2", "SHMSel names a region that exists");
const STATUS: Clause = clause("4.2.2", "Status has only the bits of the device status, and reads back");
const RESET: Clause = clause("4.2.2.2", "after a reset the driver waits until Status is 0");
const NOTIFY: Clause = clause("4.2.3.3", "a notification is the number of a queue");

/// Registers that are read-only, and those that are write-only, of either version; status and doorbell apart.
const READABLE: [usize; 8] = [0x00, 0x04, 0x08, 0x0c, 0x10, 0x34, 0x60, 0xfc];
const WRITABLE: [usize; 13] = [0x14, 0x20, 0x24, 0x28, 0x30, 0x38, 0x3c, 0x64, 0x80, 0x84, 0x90, 0xa0, 0xac];
/// Offsets without a register.
const GAPS: [usize; 14] = [0x18, 0x1c, 0x2c, 0x48, 0x4c, 0x54, 0x58, 0x5c, 0x68, 0x74, 0x88, 0x98, 0xc4, 0xf8];

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    registers("hostile-mmio-reads-of-8-bits", WIDTH, "every register is read in bytes", |d| {
        touched(d, |registers| {
            (0..mmio::CONFIG).for_each(|at| {
                registers.read8(at);
            });
        })
    }),
    registers("hostile-mmio-reads-of-16-bits", WIDTH, "every register is read in words", |d| {
        touched(d, |registers| {
            (0..mmio::CONFIG).step_by(2).for_each(|at| {
                registers.read16(at);
            });
        })
    }),
    registers("hostile-mmio-writes-of-8-bits", WIDTH, "every register except Status is written in bytes", |d| {
        touched(d, |registers| but_status(1).for_each(|at| registers.write8(at, 0xff)))
    }),
    registers("hostile-mmio-writes-of-16-bits", WIDTH, "every register except Status is written in words", |d| {
        touched(d, |registers| but_status(2).for_each(|at| registers.write16(at, 0xffff)))
    }),
    registers("hostile-mmio-status-of-8-bits", WIDTH, "Status is written in bytes", |d| {
        touched(d, |registers| (0..4).for_each(|byte| registers.write8(mmio::STATUS + byte, 0)))
    }),
    registers("hostile-mmio-status-of-16-bits", WIDTH, "Status is written in words", |d| {
        touched(d, |registers| [2, 0].into_iter().for_each(|at| registers.write16(mmio::STATUS + at, 0)))
    }),
    registers("hostile-mmio-kick-of-8-bits", WIDTH, "a notification has 8 bits", |d| {
        touched(d, |registers| (0..4).for_each(|byte| registers.write8(mmio::QUEUE_NOTIFY + byte, 0)))
    }),
    registers("hostile-mmio-kick-of-16-bits", WIDTH, "a notification has 16 bits", |d| {
        touched(d, |registers| [0, 2].into_iter().for_each(|at| registers.write16(mmio::QUEUE_NOTIFY + at, 0)))
    }),
    registers("hostile-mmio-kick-of-64-bits", WIDTH, "a notification also writes the register after it", |d| {
        touched(d, |registers| registers.write64(mmio::QUEUE_NOTIFY, 0xffff_ffff_0000_0000))
    }),
    registers(
        "hostile-mmio-read-only-registers-are-written",
        READ_ONLY,
        "read-only registers are written with all ones",
        |d| {
            touched(d, |registers| {
                READABLE.into_iter().for_each(|at| registers.write32(at, u32::MAX));
                READABLE.into_iter().for_each(|at| registers.write32(at, 0));
            })
        },
    ),
    registers("hostile-mmio-write-only-registers-are-read", WRITE_ONLY, "write-only registers are read", |d| {
        touched(d, |registers| {
            WRITABLE.into_iter().chain([mmio::QUEUE_NOTIFY]).for_each(|at| {
                registers.read32(at);
            });
        })
    }),
    registers("hostile-mmio-gaps-are-read", PLACE, "offsets without a register are read", |d| {
        touched(d, |registers| {
            GAPS.into_iter().for_each(|at| {
                registers.read32(at);
            });
        })
    }),
    registers("hostile-mmio-gaps-are-written", PLACE, "offsets without a register are written", |d| {
        touched(d, |registers| GAPS.into_iter().for_each(|at| registers.write32(at, u32::MAX)))
    }),
    registers(
        "hostile-mmio-registers-of-the-other-version",
        PLACE,
        "registers of the other version are written",
        |d| {
            let legacy = d.is_legacy();
            touched(d, |registers| {
                let foreign: &[usize] = if legacy { &[0x44, 0x80, 0x94, 0xac, 0xc0] } else { &[0x28, 0x3c, 0x40] };
                [u32::MAX, 1, 0]
                    .into_iter()
                    .for_each(|value| foreign.iter().for_each(|at| registers.write32(*at, value)));
            })
        },
    ),
    registers("hostile-mmio-configuration-to-its-end", PLACE, "the configuration is read to the window's end", |d| {
        running(d)?;
        let config = &d.config;
        (0..config.len().saturating_sub(3)).for_each(|offset| TestDevice::read_every_width(config, offset));
        quiet(d)
    }),
    registers(
        "hostile-mmio-configuration-past-its-fields",
        PLACE,
        "the window is written past the configuration",
        |d| {
            in_traffic(d, |d| {
                let (start, end) = (d.kind.longest_config().next_multiple_of(4), d.config.len() & !3);
                (start..end).step_by(4).for_each(|offset| d.config.write32(offset, u32::MAX));
                (start..end).step_by(4).for_each(|offset| d.config.write8(offset + 1, 0));
                Ok(())
            })
        },
    ),
    registers("hostile-mmio-ready-2", ONE, "QueueReady is written with 2", |d| readied(d, &[2])),
    registers("hostile-mmio-ready-of-ones", ONE, "QueueReady is written with 0xffffffff", |d| readied(d, &[u32::MAX])),
    registers("hostile-mmio-ready-twice", READY, "QueueReady is written with 1 twice", |d| readied(d, &[1, 1])),
    registers("hostile-mmio-ready-goes-and-comes", READY, "QueueReady is set to 0 and 1 in turn during traffic", |d| {
        readied(d, &[0, 1, 0, 1])
    }),
    registers(
        "hostile-mmio-ready-stays-0",
        READY,
        "QueueReady is written with 0 during traffic and not read back",
        |d| readied(d, &[0]),
    ),
    registers("hostile-mmio-ready-without-addresses", BEFORE, "a queue without addresses is made ready", |d| {
        bare(d, |d| write(d, mmio::QUEUE_SIZE, 8))
    }),
    registers("hostile-mmio-ready-without-a-size", BEFORE, "a queue without a size is made ready", |d| {
        bare(d, |d| d.write_parts([BEYOND; 3]))
    }),
    registers(
        "hostile-mmio-ready-with-low-halves",
        BEFORE,
        "a queue with only the low halves of its addresses is made ready",
        |d| {
            bare(d, |d| {
                write(d, mmio::QUEUE_SIZE, 8)?;
                write_halves(d, 0, 0xffff_f000)
            })
        },
    ),
    registers("hostile-mmio-size-past-the-maximum", SIZE, "QueueSize is twice QueueSizeMax", |d| {
        let most = u32::from(d.sizes[usize::from(target(d)?)]);
        bare_of(d, 2 * most)
    }),
    registers("hostile-mmio-size-65536", SIZE, "QueueSize is 0x10000", |d| bare_of(d, 0x1_0000)),
    registers("hostile-mmio-size-65537", SIZE, "QueueSize is 0x10001", |d| bare_of(d, 0x1_0001)),
    registers("hostile-mmio-size-of-ones", SIZE, "QueueSize is 0xffffffff", |d| bare_of(d, u32::MAX)),
    registers("hostile-mmio-size-while-ready", READY, "QueueSize changes while QueueReady is 1", |d| {
        // The device may believe it.
        while_ready(d, |d| {
            d.allow_all();
            [0, 1, 3, 0xffff, 0x1_0000].into_iter().try_for_each(|size| write(d, mmio::QUEUE_SIZE, size))
        })
    }),
    registers("hostile-mmio-addresses-while-ready", READY, "addresses change while QueueReady is 1", |d| {
        while_ready(d, |d| d.write_parts([BEYOND; 3]))
    }),
    registers(
        "hostile-mmio-addresses-halved-while-ready",
        READY,
        "high halves of addresses change during traffic",
        |d| while_ready(d, |d| write_halves(d, 4, 0xffff)),
    ),
    registers("hostile-mmio-select-65536", EXISTS, "QueueSel is 0x10000, and the queue is made ready", |d| {
        selected(d, 0x1_0000)
    }),
    registers("hostile-mmio-select-of-ones", EXISTS, "QueueSel is 0xffffffff, and the queue is made ready", |d| {
        selected(d, u32::MAX)
    }),
    registers(
        "hostile-mmio-select-past-the-last",
        EXISTS,
        "QueueSel selects a queue past the last, which is made ready",
        |d| {
            let queue = d.first_absent().into();
            selected(d, queue)
        },
    ),
    registers("hostile-mmio-kick-65536", NOTIFY, "queue 0x10000 is notified", |d| kicked(d, 0x1_0000)),
    registers("hostile-mmio-kick-of-ones", NOTIFY, "queue 0xffffffff is notified", |d| kicked(d, u32::MAX)),
    registers("hostile-mmio-kick-with-data", NOTIFY, "a notification has data without NOTIFICATION_DATA", |d| {
        kicked(d, 0x7fff_0000)
    }),
    registers("hostile-mmio-features-are-not-selected", FEATURES, "features are accessed without a selection", |d| {
        d.reset()?;
        set(d, super::steps::FOUND);
        let registers = &mut d.mmio()?.registers;
        registers.read32(mmio::DEVICE_FEATURES);
        registers.write32(mmio::DRIVER_FEATURES, u32::MAX);
        set(d, LIVE);
        finish(d)
    }),
    registers("hostile-mmio-feature-words-past-the-last", WORDS, "feature words up to the last are accessed", |d| {
        d.begin()?;
        for select in [2, 3, 31, 32, 63, 64, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            d.feature_word(select);
            d.write_feature_word(select, u32::MAX)?;
        }
        set(d, LIVE);
        finish(d)
    }),
    registers("hostile-mmio-ack-of-nothing", ACK, "events that did not happen are acknowledged", |d| {
        acknowledged(d, &[1, 2, 3], false)
    }),
    registers("hostile-mmio-ack-of-undefined-bits", ACK, "undefined bits are acknowledged", |d| {
        acknowledged(d, &[4, 0x8000_0000, u32::MAX], false)
    }),
    registers("hostile-mmio-ack-in-a-storm", ACK, "all bits are acknowledged hundreds of times during traffic", |d| {
        acknowledged(d, &[u32::MAX; 200], false)
    }),
    registers("hostile-mmio-ack-never", ACK, "interrupts are never acknowledged", |d| acknowledged(d, &[], true)),
    registers(
        "hostile-mmio-interrupt-status-is-written",
        READ_ONLY,
        "InterruptStatus is written during traffic",
        |d| in_traffic(d, |d| d.write_isr([0xff, 0, 1])),
    ),
    registers("hostile-mmio-shared-memory-past-the-last", SHARED, "every kind of region is selected and read", |d| {
        touched(d, |registers| {
            for region in [0, 1, 255, 256, 0x7fff_ffff, u32::MAX] {
                registers.write32(mmio::SHM_SEL, region);
                [mmio::SHM_LEN, mmio::SHM_LEN + 4, mmio::SHM_BASE, mmio::SHM_BASE + 4].into_iter().for_each(|at| {
                    registers.read32(at);
                });
            }
        })
    }),
    registers("hostile-mmio-shared-memory-is-written", READ_ONLY, "length and base of a region are written", |d| {
        touched(d, |registers| (mmio::SHM_LEN..mmio::QUEUE_RESET).step_by(4).for_each(|at| registers.write32(at, !0)))
    }),
    registers("hostile-mmio-status-with-high-bits", STATUS, "Status is written with bits past the eighth", |d| {
        running(d)?;
        for bits in [0x100, 0xffff_ff00, 0x8000_0000] {
            let live = u32::from(d.live().bits());
            write(d, mmio::STATUS, bits | live)?;
            kick_both(d);
        }
        quiet(d)
    }),
    registers("hostile-mmio-status-of-high-bits-alone", STATUS, "Status is written with high bits only", |d| {
        running(d)?;
        write(d, mmio::STATUS, 0xffff_ff00)?;
        finish(d)
    }),
    registers("hostile-mmio-reset-and-setup-at-once", RESET, "a reset during traffic is not awaited", |d| {
        running(d)?;
        d.post(Role::First, 0..8, &Shape::PLAIN)?;
        d.publish(Role::First)?;
        for _ in 0..20 {
            kick_both(d);
            write(d, mmio::STATUS, 0)?;
            write(d, mmio::STATUS, LIVE.bits().into())?;
        }
        quiet(d)
    }),
];

/// Writes one half of each address of a queue: the low one, `at` 0, or the high one, `at` 4.
fn write_halves(device: &mut TestDevice<'_>, at: usize, value: u32) -> Verdict {
    [mmio::QUEUE_DESC, mmio::QUEUE_DRIVER, mmio::QUEUE_DEVICE]
        .into_iter()
        .try_for_each(|address| write(device, address + at, value))
}

fn write(d: &mut TestDevice<'_>, register: usize, value: u32) -> Verdict {
    d.mmio()?.registers.write32(register, value);
    Ok(())
}

/// Does something to the registers of a device during traffic.
fn touched(d: &mut TestDevice<'_>, act: impl FnOnce(&mut Mapped)) -> Verdict<Reaction> {
    in_traffic(d, |d| {
        act(&mut d.mmio()?.registers);
        Ok(())
    })
}

/// The offsets of this width, except Status.
fn but_status(width: usize) -> impl Iterator<Item = usize> {
    (0..mmio::CONFIG).step_by(width).filter(|at| at & !3 != mmio::STATUS)
}

/// Skips a check of registers that version 1 lacks.
fn version_2(d: &TestDevice<'_>) -> Verdict {
    super::steps::since_version_1(d, "QueueReady")
}

/// Writes `QueueReady` of a queue during traffic.
fn readied(d: &mut TestDevice<'_>, values: &[u32]) -> Verdict<Reaction> {
    version_2(d)?;
    in_traffic(d, |d| {
        let queue = target(d)?;
        for value in values {
            d.select(queue);
            write(d, mmio::QUEUE_READY, *value)?;
            d.kick_number(queue, queue);
        }
        Ok(())
    })
}

/// Makes a queue ready that was set up in part, and starts the device.
fn bare(d: &mut TestDevice<'_>, act: impl FnOnce(&mut TestDevice<'_>) -> Verdict) -> Verdict<Reaction> {
    version_2(d)?;
    d.stop()?;
    d.arena.clear();
    d.negotiate_least()?;
    let queue = target(d)?;
    d.select(queue);
    act(d)?;
    d.write_enable(1)?;
    let ready = d.in_use(queue) == 1;
    set(d, LIVE);
    finish(d)?;
    Ok(if ready { Reaction::Ignored } else { Reaction::Refused })
}

/// A queue of this size beyond memory.
fn bare_of(d: &mut TestDevice<'_>, size: u32) -> Verdict<Reaction> {
    bare(d, |d| {
        write(d, mmio::QUEUE_SIZE, size)?;
        d.write_parts([BEYOND, BEYOND + (1 << 24), BEYOND + (1 << 25)])
    })
}

/// Does something to the registers of a queue that is ready.
fn while_ready(d: &mut TestDevice<'_>, act: impl FnOnce(&mut TestDevice<'_>) -> Verdict) -> Verdict<Reaction> {
    version_2(d)?;
    in_traffic(d, |d| {
        let queue = target(d)?;
        d.select(queue);
        act(d)
    })
}

/// Selects a queue that does not exist by 32 bits, and makes it ready.
fn selected(d: &mut TestDevice<'_>, queue: u32) -> Verdict<Reaction> {
    version_2(d)?;
    running(d)?;
    write(d, mmio::QUEUE_SEL, queue)?;
    write(d, mmio::QUEUE_SIZE, 8)?;
    d.write_parts([BEYOND; 3])?;
    d.write_enable(1)?;
    finish(d)
}

fn kicked(d: &mut TestDevice<'_>, value: u32) -> Verdict<Reaction> {
    in_traffic(d, |d| write(d, mmio::QUEUE_NOTIFY, value))
}

/// Acknowledges these bits in turn, with requests between them. With `ignored` no interrupt is handled.
fn acknowledged(d: &mut TestDevice<'_>, values: &[u32], ignored: bool) -> Verdict<Reaction> {
    skip_unless!(d.mmio().is_ok(), "the device is not on MMIO");
    let mode = InterruptMode::Polling;
    super::steps::in_traffic_by(d, mode, |d| {
        for value in values {
            write(d, mmio::INTERRUPT_ACK, *value)?;
        }
        if ignored {
            (0..4).try_for_each(|unit| send(d, 4 * unit))?;
        }
        Ok(())
    })
}
