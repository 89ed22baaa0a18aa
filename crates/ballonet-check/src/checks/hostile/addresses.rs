//! Addresses and lengths of buffers: in a split and a packed ring, directly and in a table.

use super::steps::BEYOND;
use super::{WRITE, clause, with};
use crate::check::{Check, Clause, Verdict, skip_unless};
use crate::device::{Attacker, Role};
use ballonet::virtio::spec::Features;

const MEMORY: Clause = clause("2.7.5", "a descriptor points to the driver's memory");
const WITHIN: Clause = clause("2.7.5", "a buffer ends below 2^64");
const SUM: Clause = clause("2.7.5.2", "the buffers of a chain must not add up to more than 2^32 bytes");
const WHOLE: Clause = clause("5.5.6", "a request is an array of 32-bit frame numbers");

/// Bytes of most buffers.
const LENGTH: u32 = 32;
/// Firmware's ROM below 4 GiB, and the hole below 1 MiB.
const ROM: u64 = 0xffff_f000;
const VIDEO: u64 = 0xa_0000;

/// One check each in a split ring, a table of a split ring, a packed ring and a table of a packed ring: the buffer's
/// flags and its place.
macro_rules! in_every_form {
    ($($name:literal, $clause:expr, $flags:expr, $asks:literal, |$a:ident| $place:expr;)*) => {
        &[
            $(with(Features::empty(), concat!("hostile-split-", $name), $clause, $asks, |$a| {
                let place = $place;
                $a.send(place, $flags)
            }),)*
            $(with(Features::INDIRECT_DESC, concat!("hostile-split-table-", $name), $clause, $asks, |$a| {
                let place = $place;
                $a.send_in_table(place, $flags)
            }),)*
            $(with(Features::RING_PACKED, concat!("hostile-packed-", $name), $clause, $asks, |$a| {
                let place = $place;
                $a.send(place, $flags)
            }),)*
            $(with(PACKED_TABLE, concat!("hostile-packed-table-", $name), $clause, $asks, |$a| {
                let place = $place;
                $a.send_in_table(place, $flags)
            }),)*
        ]
    };
}

const PACKED_TABLE: Features = Features::RING_PACKED.union(Features::INDIRECT_DESC);

/// The checks of addresses, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = in_every_form! {
    "address-is-0", MEMORY, 0, "a buffer is at address 0", |a| (0, LENGTH);
    "address-beyond-ram", MEMORY, 0, "a buffer is beyond the end of memory", |a| (BEYOND, LENGTH);
    "address-beyond-52-bits", MEMORY, 0, "a buffer is beyond what any CPU can address", |a| (1 << 56, LENGTH);
    "address-is-the-top-bit", MEMORY, 0, "a buffer is at 2^63", |a| (1 << 63, LENGTH);
    "address-is-the-last-page", MEMORY, 0, "a buffer is at the last page of the 64-bit space", |a| (!0xfff, LENGTH);
    "address-is-all-ones", WITHIN, 0, "a buffer of 32 bytes is at the last byte of the 64-bit space", |a| {
        (u64::MAX, LENGTH)
    };
    "end-is-2-to-the-64", WITHIN, 0, "a buffer ends with the last byte of the 64-bit space", |a| (!0x1f, LENGTH);
    "end-passes-2-to-the-64", WITHIN, 0, "a buffer passes the end of the 64-bit space", |a| (!0xf, LENGTH);
    "address-in-the-video-hole", MEMORY, 0, "a buffer is in the hole below 1 MiB", |a| (VIDEO, LENGTH);
    "address-in-firmware", MEMORY, 0, "a buffer is in firmware's ROM below 4 GiB", |a| (0xffff_fff0, 16);
    "address-across-4-gib", MEMORY, 0, "a buffer begins below 4 GiB and ends above", |a| (0xffff_fff0, LENGTH);
    "address-of-the-local-apic", MEMORY, 0, "a buffer is in the local APIC's page", |a| (0xfee0_0000, LENGTH);
    "address-of-the-io-apic", MEMORY, 0, "a buffer is in the I/O APIC's page", |a| (0xfec0_0000, LENGTH);
    "address-of-own-registers", MEMORY, 0, "a buffer is in a BAR of the device", |a| {
        (a.device.own_registers()?, LENGTH)
    };
    "address-of-others-registers", MEMORY, 0, "a buffer is in a BAR of another function", |a| {
        (a.foreign_registers()?, LENGTH)
    };
    "address-of-own-ring", MEMORY, 0, "a buffer is the ring that it is in", |a| (a.ring_of(a.target)?, 256);
    "address-of-another-ring", MEMORY, 0, "a buffer is the ring of another queue", |a| {
        skip_unless!(a.device.has_two_queues(), "the device has one queue for requests");
        (a.ring_of(Role::First)?, 256)
    };
    "length-is-2-gib", MEMORY, 0, "a buffer that begins in memory has 2^31 bytes", |a| (a.buffer(), 1 << 31);
    "length-is-all-ones", MEMORY, 0, "a buffer that begins in memory has 2^32 - 1 bytes", |a| (a.buffer(), u32::MAX);
    "everything-from-0", MEMORY, 0, "a buffer is the first 2^32 - 1 bytes", |a| (0, u32::MAX);
    "everything-beyond-ram", MEMORY, 0, "a buffer of 2^32 - 1 bytes is beyond memory", |a| (BEYOND, u32::MAX);
};

/// The checks at the ends of memory by the memory map, and of writable buffers outside memory. None of those touches
/// memory.
pub(in crate::checks) const EDGES: &[Check] = in_every_form! {
    "address-across-the-end-of-ram", MEMORY, 0, "a buffer begins in the last bytes of memory and passes its end", |a| {
        (a.device.ends()?.high - 16, LENGTH)
    };
    "address-across-the-end-of-low-ram", MEMORY, 0, "a buffer passes the end of the memory below 4 GiB", |a| {
        (a.device.ends()?.low - 16, LENGTH)
    };
    "address-from-the-last-page-of-ram", MEMORY, 0, "a buffer of 64 KiB begins in the last page of memory", |a| {
        (a.device.ends()?.high - 4096, 0x1_0000)
    };
    "address-is-the-end-of-ram", MEMORY, 0, "a buffer begins at the end of memory", |a| {
        (a.device.ends()?.high, LENGTH)
    };
    "address-across-the-hole", MEMORY, 0, "a buffer begins in memory below 4 GiB and ends in memory above", |a| {
        let ends = a.device.ends()?;
        skip_unless!(ends.high > 1 << 32, "no memory is above 4 GiB");
        (ends.low - 16, ((1 << 32) + 16 - (ends.low - 16)) as u32)
    };
    "writable-at-the-end-of-ram", MEMORY, WRITE, "a writable buffer begins at the end of memory", |a| {
        (a.device.ends()?.high, LENGTH)
    };
    "writable-in-the-hole", MEMORY, WRITE, "a writable buffer begins at the end of the memory below 4 GiB", |a| {
        (a.device.ends()?.low, LENGTH)
    };
    "writable-beyond-ram", MEMORY, WRITE, "a writable buffer is far beyond memory", |a| (BEYOND, LENGTH);
    "writable-in-firmware", MEMORY, WRITE, "a writable buffer is in firmware's ROM below 4 GiB", |a| (ROM, LENGTH);
    "writable-in-the-video-hole", MEMORY, WRITE, "a writable buffer is in the hole below 1 MiB", |a| (VIDEO, LENGTH);
    "writable-in-own-registers", MEMORY, WRITE, "a writable buffer is in a BAR of the device", |a| {
        (a.device.own_registers()?, LENGTH)
    };
    "writable-past-2-to-the-64", WITHIN, WRITE, "a writable buffer passes the end of the 64-bit space", |a| (!0xf, LENGTH);
};

const TOO_MUCH: &str = "three buffers of 2^31 bytes are a chain";

/// The checks of lengths, in the order in which they run.
pub(in crate::checks) const LENGTHS: &[Check] = &[
    with(Features::empty(), "hostile-split-chain-sum-passes-4-gib", SUM, TOO_MUCH, too_much),
    with(Features::INDIRECT_DESC, "hostile-split-table-sum-passes-4-gib", SUM, TOO_MUCH, too_much_in_table),
    with(Features::RING_PACKED, "hostile-packed-chain-sum-passes-4-gib", SUM, TOO_MUCH, too_much),
    with(PACKED_TABLE, "hostile-packed-table-sum-passes-4-gib", SUM, TOO_MUCH, too_much_in_table),
];

/// The same of a balloon's requests: its chapter is for balloons.
pub(in crate::checks) const PIECES: &[Check] = in_every_form! {
    "length-is-0", WHOLE, 0, "a buffer has no bytes", |a| (a.buffer(), 0);
    "length-is-1", WHOLE, 0, "a buffer has 1 byte", |a| (a.buffer(), 1);
    "length-is-3", WHOLE, 0, "a buffer has 3 bytes", |a| (a.buffer(), 3);
};

/// Three large buffers.
fn large(a: &Attacker<'_, '_>) -> [((u64, u32), u16); 3] {
    [((a.buffer(), 1 << 31), 0); 3]
}

fn too_much(a: &mut Attacker<'_, '_>) -> Verdict {
    let chain = large(a);
    a.send_chain(&chain)
}

fn too_much_in_table(a: &mut Attacker<'_, '_>) -> Verdict {
    let chain = large(a);
    a.send_table_of(&chain)
}
