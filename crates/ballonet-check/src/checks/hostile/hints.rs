//! Hints of free pages.

use super::steps::{PAGE, quiet, running_with, sent};
use super::{clause, registers};
use crate::check::{Check, Clause, Reaction, Verdict};
use crate::device::{Role, TestDevice};
use crate::ring::Part;
use ballonet::balloon::wire::FREE_PAGE_HINT;

const HINT_ID: Clause = clause("5.5.6.5.1", "a round of hints must begin with the current command ID");
const HINT_SIZE: Clause = clause("5.5.6.5.1", "a readable buffer of hints must have 4 bytes");
const HINT_STOP: Clause = clause("5.5.6.5.1", "no hints are sent once the round has ended");

/// The checks, in the order in which they run.
pub(in crate::checks) const CHECKS: &[Check] = &[
    registers("hostile-hints-without-a-round", HINT_ID, "a page is hinted without a round", |d| hint(d, &[None])),
    registers("hostile-hints-with-a-stale-id", HINT_ID, "a round of hints begins with an old ID", |d| {
        hint(d, &[Some(2), None])
    }),
    registers("hostile-hints-with-a-future-id", HINT_ID, "a round of hints begins with a future ID", |d| {
        hint(d, &[Some(0x8000_0000), None])
    }),
    registers("hostile-hints-with-id-stop", HINT_ID, "a round of hints begins with STOP", |d| {
        hint(d, &[Some(0), None])
    }),
    registers("hostile-hints-with-id-done", HINT_ID, "a round of hints begins with DONE", |d| {
        hint(d, &[Some(1), None])
    }),
    registers("hostile-hints-after-stop", HINT_STOP, "pages are hinted after STOP", |d| {
        hint(d, &[Some(0), None, None])
    }),
    registers("hostile-hints-stop-twice", HINT_STOP, "STOP is sent twice", |d| hint(d, &[Some(0), Some(0)])),
    registers("hostile-hints-id-of-3-bytes", HINT_SIZE, "a command ID has 3 bytes", |d| command(d, 3)),
    registers("hostile-hints-id-of-4-kib", HINT_SIZE, "a command ID has 4096 bytes", |d| command(d, 4096)),
];

/// Sends command IDs, and pages for `None`, on the queue of hints.
fn hint(d: &mut TestDevice<'_>, steps: &[Option<u32>]) -> Verdict<Reaction> {
    running_with(d, FREE_PAGE_HINT)?;
    for step in steps {
        let at = d.arena.place(PAGE, PAGE, 0)?;
        match step {
            Some(command) => d.arena.write(at, &command.to_le_bytes()),
            None => d.arena.open(at, PAGE),
        }
        let length = if step.is_some() { 4 } else { PAGE as u32 };
        let part = Part { address: d.arena.address(at), length, writable: step.is_none() };
        d.add(Role::Hinting, &[part], None)?;
        d.publish(Role::Hinting)?;
        d.kick(Role::Hinting)?;
    }
    quiet(d)
}

/// Sends a command ID of this many bytes.
fn command(d: &mut TestDevice<'_>, length: u32) -> Verdict<Reaction> {
    running_with(d, FREE_PAGE_HINT)?;
    let at = d.arena.place(PAGE, PAGE, 0)?;
    d.arena.zero(at, PAGE);
    let part = Part { address: d.arena.address(at), length, writable: false };
    d.add(Role::Hinting, &[part], None)?;
    sent(d, Role::Hinting)
}
