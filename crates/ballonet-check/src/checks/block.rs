//! The block device: its configuration, and requests of every type with their status (5.2).
//!
//! Sectors are written only if the user allows it, and then restored.

use alloc::vec::Vec;

use crate::check::Severity::{Custom, Must, Should};
use crate::check::{Check, Verdict, ensure, fail, on_device, skip_unless};
use crate::device::{BLOCK_ID, Role, SECTOR, Shape, StartOptions, TestDevice, block_header};
use ballonet::platform::Registers;
use ballonet::virtio::spec::Features;

const SIZE_MAX: u64 = 1 << 1;
const SEG_MAX: u64 = 1 << 2;
const RO: u64 = 1 << 5;
const BLK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const TOPOLOGY: u64 = 1 << 10;
const CONFIG_WCE: u64 = 1 << 11;
const MQ: u64 = 1 << 12;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;

// Types of requests (5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH_REQUEST: u32 = 4;
const GET_ID: u32 = 8;
/// An even type that is not defined.
const UNKNOWN: u32 = 0x7fff_fffe;

// The status byte.
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(
        Must,
        "blk-capacity-holds-still",
        "5.2.4",
        "capacity reads the same before and after negotiation",
        |device| {
            let before = capacity(device);
            start(device, 0)?;
            let after = capacity(device);
            ensure!(before == after, "capacity is {before} sectors, and {after} after DRIVER_OK");
            Ok(())
        },
    ),
    on_device(Must, "blk-block-size-is-legal", "5.2.4", "blk_size is a power of two, 512 or more", |device| {
        let size = field32(device, BLK_SIZE, 20)?;
        ensure!(size >= 512 && size.is_power_of_two(), "blk_size is {size}");
        Ok(())
    }),
    on_device(Must, "blk-segment-limits-are-not-0", "5.2.4", "size_max and seg_max are 1 or more", |device| {
        let offered = device.offered.bits() & (SIZE_MAX | SEG_MAX);
        skip_unless!(offered != 0, "the device offers neither SIZE_MAX nor SEG_MAX");
        for (feature, offset, name) in [(SIZE_MAX, 8, "size_max"), (SEG_MAX, 12, "seg_max")] {
            let value = device.config.read32(offset);
            ensure!(offered & feature == 0 || value != 0, "{name} is 0");
        }
        Ok(())
    }),
    on_device(Custom, "blk-topology-is-sane", "5.2.4", "alignment_offset lies inside a physical block", |device| {
        field32(device, TOPOLOGY, 24)?;
        let (exponent, offset) = (device.config.read8(24), device.config.read8(25));
        ensure!(exponent < 32, "a physical block has 2^{exponent} logical ones");
        ensure!(u64::from(offset) < 1 << exponent, "alignment_offset is {offset} of 2^{exponent} blocks");
        Ok(())
    }),
    on_device(Must, "blk-cache-mode-is-0-or-1", "5.2.5", "writeback is 0 or 1", |device| {
        skip_unless!(device.offered.bits() & CONFIG_WCE != 0, "the device does not offer CONFIG_WCE");
        let mode = device.config.read8(32);
        ensure!(mode <= 1, "writeback is {mode}");
        Ok(())
    }),
    on_device(Must, "blk-queues-are-there", "5.2.2", "num_queues is 1 or more, and that many queues exist", |device| {
        let present = device.present().count();
        ensure!(present >= 1, "there is no queue");
        skip_unless!(device.offered.bits() & MQ != 0, "the device does not offer MQ");
        let count = usize::from(device.config.read16(34));
        ensure!(count >= 1 && count <= present, "num_queues is {count}, and {present} queues are there");
        Ok(())
    }),
    on_device(Must, "blk-reads-a-sector", "5.2.6.2", "a read of the first sector ends with status OK", |device| {
        let capacity = start_with_sectors(device, 1)?;
        for sector in [0, capacity / 2] {
            expect_status(&request(device, IN, sector, &[], SECTOR)?, OK, "a read")?;
        }
        Ok(())
    }),
    on_device(Must, "blk-reads-the-last-sector", "5.2.6.2", "the last sector can be read", |device| {
        let capacity = start_with_sectors(device, 1)?;
        expect_status(&request(device, IN, capacity - unit(device), &[], unit(device) as usize * SECTOR)?, OK, "a read")
    }),
    on_device(
        Must,
        "blk-used-length-counts-data-and-status",
        "2.7.8.2",
        "a read writes its sector and the status, and the used length says so",
        |device| {
            start_with_sectors(device, 1)?;
            let answer = request(device, IN, 0, &[], SECTOR)?;
            let used = answer.used as usize;
            ensure!(used == SECTOR + 1, "the used length of a read of {SECTOR} bytes is {used}, with the status");
            Ok(())
        },
    ),
    on_device(Custom, "blk-reads-the-same-twice", "5.2.6", "an unwritten sector reads the same twice", |device| {
        start_with_sectors(device, 1)?;
        let first = request(device, IN, 0, &[], SECTOR)?.data;
        let second = request(device, IN, 0, &[], SECTOR)?.data;
        ensure!(first == second, "sector 0 reads as something else the second time");
        Ok(())
    }),
    on_device(
        Must,
        "blk-reads-sectors-in-order",
        "5.2.6",
        "a read of 8 sectors returns the same as 8 reads of one",
        |device| {
            start_with_sectors(device, 8)?;
            skip_unless!(unit(device) == 1, "blocks are larger than a sector");
            let whole = request(device, IN, 0, &[], 8 * SECTOR)?;
            expect_status(&whole, OK, "a read of 8 sectors")?;
            for sector in 0..8 {
                let one = request(device, IN, sector as u64, &[], SECTOR)?.data;
                let part = &whole.data[sector * SECTOR..(sector + 1) * SECTOR];
                ensure!(one == part, "sector {sector} reads as something else alone than with the 8");
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "blk-takes-any-framing",
        "2.7.4.1",
        "header, data and status may be cut into descriptors anywhere",
        |device| {
            start_with_sectors(device, 1)?;
            skip_unless!(
                !device.is_legacy() || device.features.contains(Features::ANY_LAYOUT),
                "a legacy device without ANY_LAYOUT takes one framing only"
            );
            let expected = request(device, IN, 0, &[], SECTOR)?.data;
            for piece in [5, 10, 100, 512, 513] {
                let shape = Shape { piece, skew: 1, ..Shape::PLAIN };
                if (SECTOR + 1).div_ceil(piece) + 4 > usize::from(device.sizes[0]) {
                    continue;
                }
                let answer = request_in(device, IN, 0, &[], SECTOR, &shape)?;
                ensure!(answer.status == OK, "cut into {piece} bytes, a read has status {}", answer.status);
                ensure!(answer.data == expected, "cut into {piece} bytes, sector 0 reads as something else");
            }
            device.expect_no_damage(None)
        },
    ),
    on_device(
        Must,
        "blk-serves-several-at-once",
        "5.2.6.2",
        "reads that are available at the same time all complete",
        |device| {
            start_with_sectors(device, 1)?;
            let room = device.room(Role::First)?;
            let mut chains = Vec::new();
            for _ in 0..room.clamp(1, 6) {
                chains.push(device.offer(Role::First, &block_header(IN, 0), SECTOR + 1, &Shape::PLAIN)?.1);
            }
            device.submit(Role::First)?;
            device.drain(Role::First, 0)?;
            for chain in chains {
                let status = device.bytes_of(&chain).last().copied();
                ensure!(status == Some(OK), "of several reads one has status {status:?}");
            }
            Ok(())
        },
    ),
    on_device(
        Should,
        "blk-identification-is-padded",
        "5.2.6",
        "GET_ID gives up to 20 characters, then zeros",
        |device| {
            start(device, 0)?;
            let answer = request(device, GET_ID, 0, &[], BLOCK_ID)?;
            skip_unless!(answer.status != UNSUPP, "the device does not support GET_ID");
            expect_status(&answer, OK, "GET_ID")?;
            let end = answer.data.iter().position(|byte| *byte == 0).unwrap_or(BLOCK_ID);
            let (text, rest) = answer.data.split_at(end);
            ensure!(text.is_ascii(), "the identification is {text:x?}, which is not ASCII");
            ensure!(rest.iter().all(|byte| *byte == 0), "behind the identification there is {rest:x?}");
            Ok(())
        },
    ),
    on_device(
        Must,
        "blk-identification-has-the-used-length",
        "2.7.8.2",
        "the used length of an identification is the number of bytes written",
        |device| {
            start(device, 0)?;
            // In other memory each time, of which each byte has another value.
            let first = request(device, GET_ID, 0, &[], BLOCK_ID)?;
            device.arena.place(11, 1, 0)?;
            let second = request(device, GET_ID, 0, &[], BLOCK_ID)?;
            skip_unless!(first.status == OK, "the device does not support GET_ID");
            let used = (first.used as usize).min(BLOCK_ID);
            let same = first.data.iter().zip(&second.data).take_while(|(first, second)| first == second).count();
            ensure!(same >= used, "the used length is {}, and from byte {same} on nothing was written", first.used);
            Ok(())
        },
    ),
    on_device(
        Must,
        "blk-unknown-requests-are-unsupported",
        "5.2.6.2",
        "a request of an unknown type ends with status UNSUPP",
        |device| {
            start(device, 0)?;
            expect_status(&request(device, UNKNOWN, 0, &[], SECTOR)?, UNSUPP, "a request of type 0x7ffffffe")
        },
    ),
    on_device(Must, "blk-flushes", "5.2.6.2", "a flush ends with status OK", |device| {
        skip_unless!(device.offered.bits() & FLUSH != 0, "the device does not offer FLUSH");
        start(device, FLUSH)?;
        expect_status(&request(device, FLUSH_REQUEST, 0, &[], 0)?, OK, "a flush")
    }),
    on_device(
        Custom,
        "blk-reads-past-the-end-fail",
        "5.2.6.1",
        "a read of a sector past the last ends with an error",
        |device| {
            let capacity = start_with_sectors(device, 1)?;
            for sector in [capacity, capacity + 1000, u64::MAX >> 9] {
                let status = request(device, IN, sector, &[], SECTOR)?.status;
                ensure!(status == IOERR, "a read of sector {sector} of {capacity} has status {status}");
            }
            device.expect_well()
        },
    ),
    on_device(
        Custom,
        "blk-reads-across-the-end-fail",
        "5.2.6.1",
        "a read that begins before the end and goes past it ends with an error",
        |device| {
            let capacity = start_with_sectors(device, 1)?;
            let status = request(device, IN, capacity - unit(device), &[], 8 * unit(device) as usize * SECTOR)?.status;
            ensure!(status == IOERR, "a read across the last of {capacity} sectors has status {status}");
            device.expect_well()
        },
    ),
    on_device(
        Must,
        "blk-read-only-refuses-writes",
        "5.2.6.2",
        "a device that offers RO ends a write with IOERR, and writes nothing",
        |device| {
            skip_unless!(device.offered.bits() & RO != 0, "the device can be written");
            start_with_sectors(device, 1)?;
            let before = request(device, IN, 0, &[], SECTOR)?.data;
            // The present contents, in case the device writes after all.
            expect_status(&request(device, OUT, 0, &before, 0)?, IOERR, "a write to a device that offers RO")?;
            let after = request(device, IN, 0, &[], SECTOR)?.data;
            ensure!(before == after, "sector 0 has changed");
            Ok(())
        },
    ),
    on_device(Must, "blk-writes-are-read-back", "5.2.6.2", "what is written is read back", |device| {
        let sector = start_writable(device)?;
        let length = unit(device) as usize * SECTOR;
        let before = request(device, IN, sector, &[], length)?.data;
        let pattern: Vec<u8> = before.iter().map(|byte| byte ^ 0xa5).collect();
        let written = request(device, OUT, sector, &pattern, 0)?;
        let read = request(device, IN, sector, &[], length)?.data;
        expect_status(&request(device, OUT, sector, &before, 0)?, OK, "a write")?;
        expect_status(&written, OK, "a write")?;
        ensure!(read == pattern, "sector {sector} does not read as it was written");
        let restored = request(device, IN, sector, &[], length)?.data;
        ensure!(restored == before, "sector {sector} does not read as it was put back");
        Ok(())
    }),
    on_device(
        Should,
        "blk-writes-return-a-status-only",
        "2.7.8.2",
        "the used length of a write is 1, its status",
        |device| {
            let sector = start_writable(device)?;
            let before = request(device, IN, sector, &[], unit(device) as usize * SECTOR)?.data;
            let answer = request(device, OUT, sector, &before, 0)?;
            ensure!(answer.used == 1, "the used length of a write is {}", answer.used);
            Ok(())
        },
    ),
    on_device(
        Must,
        "blk-discard-limits-are-legal",
        "5.2.4",
        "the limits of offered DISCARD and WRITE_ZEROES are not 0",
        |device| {
            let offered = device.offered.bits() & (DISCARD | WRITE_ZEROES);
            skip_unless!(offered != 0, "the device offers neither DISCARD nor WRITE_ZEROES");
            for (feature, offsets, name) in [(DISCARD, [36, 40], "discard"), (WRITE_ZEROES, [48, 52], "write_zeroes")] {
                let limits = offsets.map(|offset| device.config.read32(offset));
                ensure!(offered & feature == 0 || !limits.contains(&0), "max_{name}_sectors and _seg are {limits:?}");
            }
            Ok(())
        },
    ),
];

/// The result of a request.
#[derive(Debug, Clone)]
struct BlockAnswer {
    status: u8,
    data: Vec<u8>,
    used: u32,
}

fn capacity(device: &TestDevice<'_>) -> u64 {
    u64::from(device.config.read32(0)) | u64::from(device.config.read32(4)) << 32
}

/// A field of a feature that is offered.
fn field32(device: &TestDevice<'_>, feature: u64, offset: usize) -> Verdict<u32> {
    skip_unless!(device.offered.bits() & feature != 0, "the device does not offer feature {feature:#x}");
    skip_unless!(device.config.len() >= offset + 4, "the device configuration has no field at {offset}");
    Ok(device.config.read32(offset))
}

/// The sectors of the smallest request that the device can be expected to take.
fn unit(device: &TestDevice<'_>) -> u64 {
    let size = if device.offered.bits() & BLK_SIZE != 0 { device.config.read32(20) as usize } else { SECTOR };
    (size / SECTOR).clamp(1, 64) as u64
}

fn start(device: &mut TestDevice<'_>, features: u64) -> Verdict {
    let features = device.least() | Features::from_bits_retain(features);
    let setup = StartOptions { features, ..device.plain() };
    device.start(&setup)
}

/// Starts a device that has at least that many sectors. Returns how many it has.
fn start_with_sectors(device: &mut TestDevice<'_>, least: u64) -> Verdict<u64> {
    start(device, 0)?;
    let capacity = capacity(device);
    skip_unless!(capacity >= least.max(unit(device)), "the device has {capacity} sectors, {least} are needed");
    Ok(capacity)
}

/// Starts a device that may be written. Returns the sector to write, in the last block.
fn start_writable(device: &mut TestDevice<'_>) -> Verdict<u64> {
    skip_unless!(device.writes, "sectors are written only with writes=on");
    skip_unless!(device.offered.bits() & RO == 0, "the device is read-only");
    let capacity = start_with_sectors(device, 1)?;
    Ok(capacity - unit(device))
}

/// Sends a request in the simplest framing: header, data and status. Returns the status.
fn request(device: &mut TestDevice<'_>, request: u32, sector: u64, data: &[u8], length: usize) -> Verdict<BlockAnswer> {
    request_in(device, request, sector, data, length, &Shape::PLAIN)
}

fn request_in(
    device: &mut TestDevice<'_>,
    request: u32,
    sector: u64,
    data: &[u8],
    length: usize,
    shape: &Shape,
) -> Verdict<BlockAnswer> {
    let readable = [&block_header(request, sector), data].concat();
    let answer = device.ask(Role::First, &readable, length + 1, shape)?;
    let Some((status, data)) = answer.bytes.split_last() else { fail!("there is no status") };
    Ok(BlockAnswer { status: *status, data: data.to_vec(), used: answer.used })
}

fn expect_status(answer: &BlockAnswer, expected: u8, what: &str) -> Verdict {
    ensure!(answer.status == expected, "{what} has status {}, not {expected}", answer.status);
    Ok(())
}
