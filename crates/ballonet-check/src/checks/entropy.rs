//! The entropy device: requests of every size come back with random bytes (5.4).

use alloc::vec::Vec;

use crate::check::Severity::{Custom, Must};
use crate::check::{Check, Verdict, ensure, on_device, skip_unless};
use crate::device::{Answer, Role, Shape, StartOptions, TestDevice};
use ballonet::virtio::spec::Features;

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(Must, "rng-has-its-queue", "5.4.2", "queue 0 exists, for requests", |device| {
        let size = device.sizes.first().copied().unwrap_or(0);
        ensure!(size != 0, "queue 0 has no entries");
        Ok(())
    }),
    on_device(Must, "rng-gives-at-least-a-byte", "5.4.6.2", "a buffer comes back with one byte or more", |device| {
        start(device)?;
        read(device, 32, &Shape::PLAIN).map(drop)
    }),
    on_device(
        Must,
        "rng-gives-no-more-than-fits",
        "2.7.8.2",
        "the used length is at most the length of the buffer",
        |device| {
            start(device)?;
            for length in [1, 2, 7, 64, 4096] {
                let used = read(device, length, &Shape::PLAIN)?.used;
                ensure!(used as usize <= length, "a buffer of {length} bytes came back with {used}");
            }
            device.expect_no_damage(None)
        },
    ),
    on_device(Must, "rng-writes-what-it-says", "2.7.8.2", "the used length is the number of bytes written", |device| {
        start(device)?;
        expect_random(device, &Shape::PLAIN)
    }),
    on_device(Must, "rng-answers-differ", "5.4.6.2", "two requests return different bytes", |device| {
        start(device)?;
        let first = random(device)?;
        let second = random(device)?;
        ensure!(first != second, "two requests got the same {} bytes", first.len());
        Ok(())
    }),
    on_device(
        Custom,
        "rng-answers-are-not-uniform",
        "5.4.6.2",
        "the bytes of an answer are not all the same",
        |device| {
            start(device)?;
            let bytes = random(device)?;
            ensure!(bytes.iter().any(|byte| *byte != bytes[0]), "{} bytes are all {:#04x}", bytes.len(), bytes[0]);
            Ok(())
        },
    ),
    on_device(Must, "rng-serves-a-single-byte", "5.4.6.1", "a buffer of one byte is filled", |device| {
        start(device)?;
        let used = read(device, 1, &Shape::PLAIN)?.used;
        ensure!(used == 1, "a buffer of one byte came back with {used}");
        Ok(())
    }),
    on_device(Must, "rng-serves-large-buffers", "5.4.6.1", "a buffer of 64 KiB comes back with bytes", |device| {
        start(device)?;
        read(device, 64 << 10, &Shape::PLAIN)?;
        device.expect_no_damage(None)
    }),
    on_device(Must, "rng-serves-chains", "2.7.4.1", "a buffer may be a chain of descriptors", |device| {
        start(device)?;
        read(device, 64, &Shape { piece: 16, ..Shape::PLAIN })?;
        device.expect_no_damage(None)
    }),
    on_device(
        Must,
        "rng-fills-chains-from-the-front",
        "2.7.8.2",
        "the bytes of a chain are written in the order of its descriptors",
        |device| {
            start(device)?;
            expect_random(device, &Shape { piece: 24, skew: 1, ..Shape::PLAIN })
        },
    ),
    on_device(Must, "rng-serves-tables", "2.7.5.3.2", "a buffer may be in an indirect table", |device| {
        skip_unless!(device.offered.contains(Features::INDIRECT_DESC), "the device does not offer INDIRECT_DESC");
        let setup = StartOptions { features: device.least() | Features::INDIRECT_DESC, ..device.plain() };
        device.start(&setup)?;
        read(device, 64, &Shape { piece: 16, indirect: true, ..Shape::PLAIN }).map(drop)
    }),
    on_device(
        Must,
        "rng-serves-several-at-once",
        "5.4.6.2",
        "buffers that are available at the same time all come back with bytes",
        |device| {
            start(device)?;
            let room = device.with_queue(Role::First, |queue, _| usize::from(queue.room()))?.min(8);
            for _ in 0..room {
                device.offer(Role::First, &[], 16, &Shape::PLAIN)?;
            }
            device.submit(Role::First)?;
            device.drain(Role::First, 0)?;
            for used in device.take_done(Role::First)? {
                ensure!(used.length != 0, "of {room} buffers one came back without a byte");
            }
            Ok(())
        },
    ),
    on_device(Must, "rng-goes-on-serving", "5.4.6.2", "64 requests in a row are served", |device| {
        start(device)?;
        for _ in 0..64 {
            read(device, 8, &Shape::PLAIN)?;
        }
        Ok(())
    }),
    on_device(
        Must,
        "rng-does-not-start-over",
        "5.4.6.2",
        "the bytes after a reset differ from those after the previous one",
        |device| {
            start(device)?;
            let before = random(device)?;
            start(device)?;
            let after = random(device)?;
            ensure!(before != after, "after a reset the same {} bytes came", before.len());
            Ok(())
        },
    ),
];

fn start(device: &mut TestDevice<'_>) -> Verdict {
    let setup = device.plain();
    device.start(&setup)
}

/// Requests bytes; requires at least one.
fn read(device: &mut TestDevice<'_>, length: usize, shape: &Shape) -> Verdict<Answer> {
    let answer = device.ask(Role::First, &[], length, shape)?;
    ensure!(answer.used != 0, "a buffer of {length} bytes came back without a byte");
    Ok(answer)
}

/// 32 random bytes, in as many requests as needed, at most 8.
fn random(device: &mut TestDevice<'_>) -> Verdict<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < 32 {
        let answer = read(device, 8, &Shape::PLAIN)?;
        bytes.extend(answer.bytes.iter().take(answer.used as usize));
    }
    bytes.truncate(32);
    Ok(bytes)
}

/// Fails unless a returned buffer was written from its start. One byte in 256 may equal the previous contents.
fn expect_random(device: &mut TestDevice<'_>, shape: &Shape) -> Verdict {
    let (mut written, mut same) = (0, 0);
    for _ in 0..4 {
        let mark = device.arena.mark();
        let (_, chain) = device.offer(Role::First, &[], 96, shape)?;
        let before = device.bytes_of(&chain);
        device.submit(Role::First)?;
        device.drain(Role::First, 0)?;
        let used = device.take_done(Role::First)?.last().map_or(0, |used| used.length as usize);
        let after = device.bytes_of(&chain);
        written += used.min(after.len());
        same += before.iter().zip(&after).take(used).filter(|(before, after)| before == after).count();
        device.arena.rewind(mark);
    }
    ensure!(same <= 4 + written / 16, "of {written} bytes that the device says it wrote, {same} are as before");
    Ok(())
}
