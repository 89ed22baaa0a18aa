//! Queues of the legacy interface: each one block of pages, enabled by the number of its first page.

use super::steps::{LIVE, finish, kick_both, quiet, running, send, set, target};
use super::{clause, registers};
use crate::check::{Check, Clause, Reaction, Verdict, skip_unless};
use crate::device::{Role, TestDevice, mmio};
use crate::ring::LEGACY_PAGE;
use ballonet::platform::Registers;
use ballonet::virtio::spec::Features;

const MEMORY: Clause = clause("2.7.2", "a legacy queue is one block of the driver's memory");
const ORDER: Clause = clause("3.1.2", "queues are set up after the features and before DRIVER_OK");
const EXISTS: Clause = clause("4.1.5.1.3", "a queue exists if its size is not 0");
const IN_USE: Clause = clause("2.7.2", "a queue in use does not move");
const APART: Clause = clause("2.7.2", "each queue is a separate block");
const FEATURES: Clause = clause("3.1.2", "features are accepted before DRIVER_OK");
const BIT_30: Clause = clause("6.3", "bit 30 should not be accepted");
const PAGE: Clause = clause("4.2.4", "GuestPageSize is a power of two, written before any queue is used");
const ALIGN: Clause = clause("4.2.4", "QueueAlign is a power of two");
const SIZE: Clause = clause("4.2.4", "QueueNum is a power of two, at most QueueNumMax");

/// An address below 4 GiB where no test has memory, as a page and as an address: the middle of the 32-bit space.
const MIDDLE: u32 = 1 << 31;

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    registers("hostile-block-page-is-all-ones", MEMORY, "the page of a queue is 0xffffffff", |d| paged(d, u32::MAX)),
    registers("hostile-block-page-is-the-top-bit", MEMORY, "the page of a queue is 0x80000000", |d| paged(d, MIDDLE)),
    registers("hostile-block-page-of-firmware", MEMORY, "the page of a queue is that of firmware's ROM", |d| {
        unread(d, 0xfffff)
    }),
    registers("hostile-block-page-of-the-video-hole", MEMORY, "the page of a queue is in the hole below 1 MiB", |d| {
        unread(d, 0xa0)
    }),
    registers(
        "hostile-block-page-of-own-registers",
        MEMORY,
        "the page of a queue is that of the device's registers",
        |d| {
            let page = (d.own_registers()? >> 12) as u32;
            unread(d, page)
        },
    ),
    registers("hostile-block-page-of-the-io-apic", MEMORY, "the page of a queue is that of the I/O APIC", |d| {
        unread(d, 0xfec00)
    }),
    registers("hostile-block-page-is-the-end-of-ram", MEMORY, "the page of a queue is the end of memory", |d| {
        let page = (d.ends()?.high >> 12) as u32;
        paged(d, page)
    }),
    registers("hostile-block-page-in-the-hole", MEMORY, "a queue is at the end of the memory below 4 GiB", |d| {
        let page = (d.ends()?.low >> 12) as u32;
        paged(d, page)
    }),
    registers("hostile-block-across-4-gib", MEMORY, "a queue begins below 4 GiB and ends above", |d| {
        unread(d, 0xf_fffe)
    }),
    registers(
        "hostile-block-takes-every-page",
        MEMORY,
        "a queue's page is set to many values in turn, all beyond memory",
        |d| {
            others(d)?;
            let queue = target(d)?;
            for step in 0..64_u32 {
                d.select(queue);
                d.write_page(MIDDLE | step.wrapping_mul(0x0123_4567))?;
                d.kick_number(queue, queue);
            }
            set(d, LIVE);
            finish(d)
        },
    ),
    registers(
        "hostile-block-page-before-the-driver-is-there",
        ORDER,
        "a queue's page is written right after a reset",
        |d| {
            d.reset()?;
            d.arena.clear();
            let (setup, queue) = (d.plain(), target(d)?);
            d.enable(queue, &setup)?;
            kick_both(d);
            set(d, LIVE);
            finish(d)
        },
    ),
    registers("hostile-block-page-on-a-running-device", ORDER, "a queue's page is written after DRIVER_OK", |d| {
        others(d)?;
        set(d, LIVE);
        let (setup, queue) = (d.plain(), target(d)?);
        d.enable(queue, &setup)?;
        finish(d)
    }),
    registers(
        "hostile-block-page-of-an-absent-queue",
        EXISTS,
        "pages of queues that do not exist are written, and the queues are kicked",
        |d| {
            others(d)?;
            for queue in [d.first_absent(), 63, 64, 1023, 1024, 0x7fff, 0x8000, 0xffff] {
                for page in [1, MIDDLE, u32::MAX, 0] {
                    d.select(queue);
                    d.write_page(page)?;
                    d.kick_number(queue, queue);
                }
            }
            set(d, LIVE);
            finish(d)
        },
    ),
    registers("hostile-block-moves-while-in-use", IN_USE, "a running queue's page is changed", |d| {
        running(d)?;
        let (queue, page) = (target(d)?, elsewhere(d)?);
        d.select(queue);
        d.write_page(page)?;
        finish(d)
    }),
    registers("hostile-block-moves-beyond-ram", IN_USE, "a running queue's page is set beyond memory", |d| {
        repaged(d, &[MIDDLE])
    }),
    registers("hostile-block-goes-in-traffic", IN_USE, "the page of a running queue is set to 0", |d| repaged(d, &[0])),
    registers(
        "hostile-block-goes-and-comes",
        IN_USE,
        "the page of a running queue is set to 0 and others in turn",
        |d| repaged(d, &[0, MIDDLE, 0, u32::MAX, 0]),
    ),
    registers("hostile-blocks-are-one", APART, "two queues have the same block", |d| {
        running(d)?;
        skip_unless!(d.queues.len() > 1, "the device has one queue");
        let (other, page) = (d.queues[1].index, d.page_of(d.queues[0].areas.descriptors));
        d.select(other);
        d.allow_all();
        d.write_page(page)?;
        finish(d)
    }),
    registers("hostile-legacy-features-on-a-running-device", FEATURES, "features change after DRIVER_OK", |d| {
        running(d)?;
        for word in [0, u32::MAX, d.offered.bits() as u32, 1 << 30] {
            d.accept(Features::from_bits_retain(word.into()));
            send(d, 0)?;
        }
        quiet(d)
    }),
    registers("hostile-legacy-features-of-ones", BIT_30, "all 32 features are accepted", |d| {
        d.begin()?;
        d.accept(Features::from_bits_retain(u32::MAX.into()));
        set(d, LIVE);
        finish(d)
    }),
    registers("hostile-legacy-features-bit-30", BIT_30, "bit 30 is accepted, and queues are used", |d| {
        d.begin()?;
        d.arena.clear();
        d.accept(Features::from_bits_retain(1 << 30));
        let (setup, queue) = (d.plain(), target(d)?);
        d.enable(queue, &setup)?;
        set(d, LIVE);
        finish(d)
    }),
];

/// The checks of legacy registers on MMIO, in the order in which they run.
pub(in crate::checks) const MMIO: &[Check] = &[
    registers("hostile-mmio-page-size-0", PAGE, "GuestPageSize is 0", |d| page_size(d, &[0])),
    registers("hostile-mmio-page-size-1", PAGE, "GuestPageSize is 1", |d| page_size(d, &[1])),
    registers("hostile-mmio-page-size-odd", PAGE, "GuestPageSize is 4095", |d| page_size(d, &[4095])),
    registers("hostile-mmio-page-size-2-gib", PAGE, "GuestPageSize is 2^31", |d| page_size(d, &[1 << 31])),
    registers("hostile-mmio-page-size-of-ones", PAGE, "GuestPageSize is 0xffffffff", |d| page_size(d, &[u32::MAX])),
    registers("hostile-mmio-page-size-takes-many-values", PAGE, "GuestPageSize is set to many values in turn", |d| {
        page_size(d, &[0, 3, 512, 4096, 65536, 1 << 20, 1 << 31, 4096])
    }),
    registers("hostile-mmio-page-size-is-never-written", PAGE, "a queue is used without a GuestPageSize", |d| {
        d.reset()?;
        set(d, super::steps::FOUND);
        far(d)
    }),
    registers("hostile-mmio-page-size-on-a-running-device", PAGE, "GuestPageSize changes after DRIVER_OK", |d| {
        running(d)?;
        for size in [0, 1, 65536, u32::MAX] {
            write(d, mmio::GUEST_PAGE_SIZE, size)?;
            send(d, 0)?;
        }
        quiet(d)
    }),
    registers("hostile-mmio-align-0", ALIGN, "QueueAlign is 0", |d| align(d, 0)),
    registers("hostile-mmio-align-1", ALIGN, "QueueAlign is 1", |d| align(d, 1)),
    registers("hostile-mmio-align-3", ALIGN, "QueueAlign is 3", |d| align(d, 3)),
    registers("hostile-mmio-align-4095", ALIGN, "QueueAlign is 4095", |d| align(d, 4095)),
    registers("hostile-mmio-align-2-gib", ALIGN, "QueueAlign is 2^31", |d| {
        // The used ring is there in that case.
        nothing_in_the_middle(d)?;
        align(d, MIDDLE)
    }),
    registers("hostile-mmio-align-on-a-running-device", ALIGN, "QueueAlign changes after DRIVER_OK", |d| {
        running(d)?;
        let queue = target(d)?;
        d.allow_all();
        for value in [0, 1, 64, LEGACY_PAGE as u32] {
            d.select(queue);
            write(d, mmio::QUEUE_ALIGN, value)?;
            send(d, 0)?;
        }
        quiet(d)
    }),
    registers("hostile-mmio-align-of-an-absent-queue", EXISTS, "queues that do not exist are aligned and sized", |d| {
        others(d)?;
        for queue in [d.first_absent(), 64, 1024, 0x8000, 0xffff] {
            d.select(queue);
            write(d, mmio::QUEUE_ALIGN, 64)?;
            write(d, mmio::QUEUE_SIZE, 64)?;
            write(d, mmio::QUEUE_PFN, MIDDLE)?;
        }
        set(d, LIVE);
        finish(d)
    }),
    registers(
        "hostile-mmio-size-on-a-running-queue",
        SIZE,
        "QueueNum of a legacy queue changes after DRIVER_OK",
        |d| {
            running(d)?;
            let queue = target(d)?;
            d.allow_all();
            for size in [0, 1, 3, 16] {
                d.select(queue);
                write(d, mmio::QUEUE_SIZE, size)?;
                d.kick_number(queue, queue);
            }
            quiet(d)
        },
    ),
];

/// Negotiates, and sets up the queues that are not under attack.
fn others(d: &mut TestDevice<'_>) -> Verdict {
    d.stop()?;
    d.arena.clear();
    d.negotiate_least()?;
    let (setup, queue) = (d.plain(), target(d)?);
    d.wanted_queues().into_iter().filter(|other| *other != queue).try_for_each(|other| d.enable(other, &setup))
}

/// Sets up a queue at this page, where there is no memory, and kicks it. Refused if the page does not read back.
fn paged(d: &mut TestDevice<'_>, page: u32) -> Verdict<Reaction> {
    others(d)?;
    let queue = target(d)?;
    d.select(queue);
    if let Ok(mmio) = d.mmio() {
        mmio.registers.write32(mmio::QUEUE_SIZE, 8);
        mmio.registers.write32(mmio::QUEUE_ALIGN, LEGACY_PAGE as u32);
    }
    d.write_page(page)?;
    let taken = d.in_use(queue) == page;
    set(d, LIVE);
    finish(d)?;
    Ok(if taken { Reaction::Ignored } else { Reaction::Refused })
}

/// The same with a page that others fill. No device that writes buffers must take what is there for descriptors.
fn unread(d: &mut TestDevice<'_>, page: u32) -> Verdict<Reaction> {
    d.writes_nothing()?;
    paged(d, page)
}

/// An empty page of the arena, with room for the largest queue behind it.
fn elsewhere(d: &mut TestDevice<'_>) -> Verdict<u32> {
    let room = 8 * LEGACY_PAGE;
    let at = d.arena.place(room, LEGACY_PAGE, 0)?;
    d.arena.zero(at, room);
    d.arena.open(at, room);
    Ok(d.page_of(at))
}

/// Gives a running queue these pages in turn, and sends requests.
fn repaged(d: &mut TestDevice<'_>, pages: &[u32]) -> Verdict<Reaction> {
    running(d)?;
    let queue = d.number(Role::First)?;
    for page in pages {
        d.select(queue);
        d.write_page(*page)?;
        d.kick_number(queue, queue);
    }
    quiet(d)
}

fn write(d: &mut TestDevice<'_>, register: usize, value: u32) -> Verdict {
    d.mmio()?.registers.write32(register, value);
    Ok(())
}

/// Skips a check in which the device may write at 2^31, if there is memory.
fn nothing_in_the_middle(d: &TestDevice<'_>) -> Verdict {
    skip_unless!(d.ends()?.low <= u64::from(MIDDLE), "memory is at 2^31");
    Ok(())
}

/// Sets up a queue at 2^31, or at the address that the page size yields.
fn far(d: &mut TestDevice<'_>) -> Verdict<Reaction> {
    nothing_in_the_middle(d)?;
    let queue = target(d)?;
    d.select(queue);
    write(d, mmio::QUEUE_SIZE, 8)?;
    write(d, mmio::QUEUE_ALIGN, LEGACY_PAGE as u32)?;
    write(d, mmio::QUEUE_PFN, MIDDLE)?;
    set(d, LIVE);
    finish(d)
}

/// Sets up a queue with pages of these sizes, the last of which holds.
fn page_size(d: &mut TestDevice<'_>, sizes: &[u32]) -> Verdict<Reaction> {
    others(d)?;
    sizes.iter().try_for_each(|size| write(d, mmio::GUEST_PAGE_SIZE, *size))?;
    far(d)
}

/// Sets up a queue whose used ring is aligned to this.
fn align(d: &mut TestDevice<'_>, value: u32) -> Verdict<Reaction> {
    others(d)?;
    let (queue, page) = (target(d)?, elsewhere(d)?);
    d.select(queue);
    write(d, mmio::QUEUE_SIZE, 8)?;
    write(d, mmio::QUEUE_ALIGN, value)?;
    write(d, mmio::QUEUE_PFN, page)?;
    set(d, LIVE);
    finish(d)
}
