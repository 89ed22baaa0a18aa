//! The balloon's statistics.

use super::steps::{quiet, running_with, sent};
use super::{clause, registers};
use crate::check::{Check, Clause, Reaction, Verdict};
use crate::device::{Role, TestDevice};
use crate::ring::Part;
use ballonet::balloon::wire::STATS_VQ;

const STATS: Clause = clause("5.5.6.3.1", "a statistics buffer's length must be a multiple of an entry's");
const STATS_ONE: Clause = clause("5.5.6.3.1", "at most one statistics buffer must be in the queue");
const STATS_TAGS: Clause = clause("5.5.6.4", "each statistic has a defined tag and appears once");
const STATS_READ: Clause = clause("5.5.6.3.1", "a statistics buffer must be readable");
/// The longest statistics buffer.
const LONG: usize = 64 * 1024;

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    registers("hostile-statistics-of-0-bytes", STATS, "a statistics buffer has no bytes", |d| statistics(d, &[0], 0)),
    registers("hostile-statistics-of-5-bytes", STATS, "a statistics buffer has 5 bytes", |d| statistics(d, &[5], 0)),
    registers("hostile-statistics-of-11-bytes", STATS, "a statistics buffer has 11 bytes", |d| statistics(d, &[11], 0)),
    registers("hostile-statistics-of-64-kib", STATS, "a statistics buffer has 64 KiB", |d| statistics(d, &[LONG], 0)),
    registers("hostile-statistics-of-ones", STATS_TAGS, "tags and values of statistics are all ones", |d| {
        statistics(d, &[100], 0xff)
    }),
    registers("hostile-statistics-with-unknown-tags", STATS_TAGS, "the tags of statistics are undefined", |d| {
        statistics(d, &[100], 0x2a)
    }),
    registers("hostile-statistics-with-a-tag-twice", STATS_TAGS, "all statistics have the same tag", |d| {
        statistics(d, &[100], 4)
    }),
    registers("hostile-statistics-two-buffers", STATS_ONE, "two statistics buffers are in the queue", |d| {
        statistics(d, &[10, 10], 0)
    }),
    registers("hostile-statistics-eight-buffers", STATS_ONE, "eight statistics buffers are in the queue", |d| {
        statistics(d, &[10; 8], 0)
    }),
    registers("hostile-statistics-in-writable-memory", STATS_READ, "a statistics buffer is writable", |d| {
        running_with(d, STATS_VQ)?;
        let at = d.arena.place(64, 16, 0)?;
        d.arena.open(at, 64);
        let part = Part { address: d.arena.address(at), length: 60, writable: true };
        d.add(Role::Statistics, &[part], None)?;
        sent(d, Role::Statistics)
    }),
    registers("hostile-statistics-beyond-ram", STATS_READ, "a statistics buffer is beyond memory", |d| {
        running_with(d, STATS_VQ)?;
        d.add(Role::Statistics, &[Part { address: 1 << 50, length: 100, writable: false }], None)?;
        sent(d, Role::Statistics)
    }),
];

/// Offers statistics buffers of these sizes, full of this byte.
fn statistics(d: &mut TestDevice<'_>, sizes: &[usize], byte: u8) -> Verdict<Reaction> {
    running_with(d, STATS_VQ)?;
    for size in sizes {
        let at = d.arena.place((*size).max(1), 16, 0)?;
        d.arena.write(at, &alloc::vec![byte; *size]);
        d.buffers.push((at, at + size));
        let part = Part { address: d.arena.address(at), length: *size as u32, writable: false };
        d.add(Role::Statistics, &[part], None)?;
        d.publish(Role::Statistics)?;
        d.kick(Role::Statistics)?;
    }
    quiet(d)
}
