//! The network device: its configuration, frames that are sent, and commands (5.1).
//!
//! Frames have an experimental type and a destination that no bridge forwards; nothing answers them.

use alloc::vec::Vec;

use crate::check::Severity::{Custom, Must, Should};
use crate::check::{Check, Verdict, ensure, on_device, skip_unless};
use crate::device::{Answer, Offered, Role, Shape, StartOptions, TestDevice};
use ballonet::platform::Registers;
use ballonet::virtio::spec::Features;

const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
const MRG_RXBUF: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;
const CTRL_VQ: u64 = 1 << 17;
const CTRL_RX: u64 = 1 << 18;
const MQ: u64 = 1 << 22;

const RECEIVE: Role = Role::Queue(0);
const CONTROL: Role = Role::Queue(2);

/// The shortest and the longest Ethernet frame without its checksum, in bytes.
const SHORTEST: usize = 60;
const LONGEST: usize = 1514;
/// The length of a receive buffer that holds any frame without offloads (5.1.6.3.1).
const RECEIVE_ROOM: usize = 1526;

// Acknowledgements of commands (5.1.6.5).
const ACK_OK: u8 = 0;
const ACK_ERR: u8 = 1;

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(Must, "net-has-a-pair-of-queues", "5.1.2", "queues 0 and 1 exist", |device| {
        let sizes: Vec<u16> = device.sizes.iter().take(2).copied().collect();
        ensure!(sizes.iter().all(|size| *size != 0), "the first pair of queues has {sizes:?} entries");
        Ok(())
    }),
    on_device(
        Must,
        "net-has-a-control-queue",
        "5.1.2",
        "with CTRL_VQ and without MQ accepted queue 2 exists",
        |device| {
            needs(device, CTRL_VQ)?;
            let features = device.least() | Features::from_bits_retain(CTRL_VQ);
            skip_unless!(device.negotiate(features)?, "the device does not take the features {features}");
            let size = device.queue_size(2);
            ensure!(size != 0, "CTRL_VQ is offered, and queue 2 has no entries");
            Ok(())
        },
    ),
    on_device(
        Custom,
        "net-address-is-one-of-a-device",
        "5.1.4",
        "mac is neither 0 nor a multicast address",
        |device| {
            let mac = mac(device)?;
            ensure!(mac != [0; 6] && mac[0] & 1 == 0, "mac is {mac:02x?}");
            Ok(())
        },
    ),
    on_device(Must, "net-address-holds-still", "5.1.4", "mac reads the same before and after negotiation", |device| {
        let before = mac(device)?;
        start(device, MAC)?;
        let after = mac(device)?;
        ensure!(before == after, "mac is {before:02x?}, then {after:02x?}");
        Ok(())
    }),
    on_device(Must, "net-mtu-is-legal", "5.1.4.1", "mtu is 68 or more", |device| {
        needs(device, MTU)?;
        let mtu = device.config.read16(10);
        ensure!(mtu >= 68, "mtu is {mtu}");
        Ok(())
    }),
    on_device(
        Must,
        "net-status-has-defined-bits",
        "5.1.4",
        "bits of status beyond LINK_UP and ANNOUNCE are 0",
        |device| {
            needs(device, STATUS)?;
            start(device, STATUS)?;
            let status = device.config.read16(6);
            ensure!(status & !3 == 0, "status is {status:#06x}");
            Ok(())
        },
    ),
    on_device(Must, "net-pairs-are-legal", "5.1.4.1", "max_virtqueue_pairs is 1 to 32768", |device| {
        let pairs = pairs(device)?;
        ensure!((1..=0x8000).contains(&pairs), "max_virtqueue_pairs is {pairs}");
        Ok(())
    }),
    on_device(
        Must,
        "net-has-the-queues-of-all-pairs",
        "5.1.2",
        "each pair has two queues, once MQ is accepted",
        |device| {
            let pairs = usize::from(pairs(device)?);
            let features = device.least() | Features::from_bits_retain(CTRL_VQ | MQ);
            needs(device, CTRL_VQ)?;
            skip_unless!(device.negotiate(features)?, "the device does not take the features {features}");
            let last = (2 * pairs).min(device.sizes.len()) as u16 - 1;
            let size = device.queue_size(last);
            ensure!(size != 0, "there are {pairs} pairs, and queue {last} has no entries");
            Ok(())
        },
    ),
    on_device(Must, "net-sends-a-frame", "5.1.6.2", "the device uses a frame of the shortest length", |device| {
        start(device, 0)?;
        send(device, SHORTEST, &Shape::PLAIN)
    }),
    on_device(Must, "net-sends-the-longest-frame", "5.1.6.2", "the device uses a frame of 1514 bytes", |device| {
        start(device, 0)?;
        send(device, LONGEST, &Shape::PLAIN)
    }),
    on_device(
        Must,
        "net-takes-any-framing",
        "2.7.4.1",
        "header and frame may be cut into descriptors anywhere",
        |device| {
            start(device, 0)?;
            skip_unless!(
                !device.is_legacy() || device.features.contains(Features::ANY_LAYOUT),
                "a legacy device without ANY_LAYOUT takes one framing only"
            );
            for piece in [7, 12, 20, 71] {
                send(device, SHORTEST, &Shape { piece, skew: 1, ..Shape::PLAIN })?;
            }
            device.expect_no_damage(None)
        },
    ),
    on_device(
        Must,
        "net-leaves-sent-frames-alone",
        "5.1.6.2",
        "the device does not write frames that are sent",
        |device| {
            start(device, 0)?;
            for length in [SHORTEST, 61, 1000, LONGEST] {
                send(device, length, &Shape::PLAIN)?;
            }
            device.expect_no_damage(None)
        },
    ),
    on_device(
        Must,
        "net-sends-several-at-once",
        "5.1.6.2",
        "the device uses all frames that are available at the same time",
        |device| {
            start(device, 0)?;
            let bytes = frame(device, SHORTEST);
            let room = device.with_queue(Role::First, |queue, _| usize::from(queue.room()))?.min(8);
            for _ in 0..room {
                device.offer(Role::First, &bytes, 0, &Shape::PLAIN)?;
            }
            device.submit(Role::First)?;
            device.drain(Role::First, 0)
        },
    ),
    on_device(
        Must,
        "net-sends-beside-receive-buffers",
        "5.1.6",
        "frames are sent while receive buffers wait",
        |device| {
            start(device, 0)?;
            fill(device)?;
            send(device, SHORTEST, &Shape::PLAIN)?;
            device.expect_no_damage(None)
        },
    ),
    on_device(
        Must,
        "net-received-frames-have-a-header",
        "5.1.6.4.1",
        "a receive buffer comes back with a frame and its header, whose num_buffers is 1 unless MRG_RXBUF is accepted",
        |device| {
            start(device, 0)?;
            let chains = fill(device)?;
            send(device, SHORTEST, &Shape::PLAIN)?;
            device.wait_quiet()?;
            device.with_queue(RECEIVE, |queue, arena| queue.collect(arena))??;
            let header = device.net_header();
            for used in device.take_done(RECEIVE)? {
                let Some((_, chain)) = chains.iter().find(|(id, _)| *id == used.id) else { continue };
                let length = used.length as usize;
                ensure!(length > header && length <= RECEIVE_ROOM, "a receive buffer came back with {length} bytes");
                let bytes = device.bytes_of(chain);
                let count = if header == 12 { u16::from_le_bytes([bytes[10], bytes[11]]) } else { 1 };
                ensure!(count == 1, "num_buffers is {count} without MRG_RXBUF");
            }
            device.expect_no_damage(None)
        },
    ),
    on_device(
        Must,
        "net-sends-with-mergeable-buffers",
        "5.1.6.2",
        "with MRG_RXBUF accepted the device uses a frame",
        |device| {
            needs(device, MRG_RXBUF)?;
            start(device, MRG_RXBUF)?;
            send(device, SHORTEST, &Shape::PLAIN)
        },
    ),
    on_device(
        Must,
        "net-obeys-promiscuous-mode",
        "5.1.6.5.1",
        "the command for promiscuous mode is acknowledged",
        |device| {
            needs(device, CTRL_VQ | CTRL_RX)?;
            start(device, CTRL_VQ | CTRL_RX)?;
            for on in [1, 0] {
                let ack = command(device, &[0, 0, on])?;
                ensure!(ack.bytes == [ACK_OK], "promiscuous mode {on} is acknowledged by {:?}", ack.bytes);
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "net-refuses-unknown-commands",
        "5.1.6.5",
        "a command of an unknown class is answered by an error",
        |device| {
            needs(device, CTRL_VQ)?;
            start(device, CTRL_VQ)?;
            let ack = command(device, &[0xee, 0, 0])?;
            ensure!(ack.bytes == [ACK_ERR], "a command of class 0xee is acknowledged by {:?}", ack.bytes);
            device.expect_well()
        },
    ),
    on_device(
        Should,
        "net-commands-return-an-ack-only",
        "2.7.8.2",
        "the used length of a command is 1, its ack",
        |device| {
            needs(device, CTRL_VQ)?;
            start(device, CTRL_VQ)?;
            let ack = command(device, &[0xee, 0, 0])?;
            ensure!(ack.used == 1, "the used length of a command is {}", ack.used);
            Ok(())
        },
    ),
];

/// Skips the check unless all of these features are offered.
fn needs(device: &TestDevice<'_>, features: u64) -> Verdict {
    let missing = features & !device.offered.bits();
    skip_unless!(missing == 0, "the device does not offer feature {missing:#x}");
    Ok(())
}

fn mac(device: &TestDevice<'_>) -> Verdict<[u8; 6]> {
    needs(device, MAC)?;
    skip_unless!(device.config.len() >= 6, "the device configuration has no mac");
    Ok([0, 1, 2, 3, 4, 5].map(|at| device.config.read8(at)))
}

fn pairs(device: &TestDevice<'_>) -> Verdict<u16> {
    needs(device, MQ)?;
    Ok(device.config.read16(8))
}

fn start(device: &mut TestDevice<'_>, features: u64) -> Verdict {
    let features = device.least() | Features::from_bits_retain(features);
    let setup = StartOptions { features, ..device.plain() };
    device.start(&setup)
}

/// A header, and a frame of `length` bytes.
fn frame(device: &TestDevice<'_>, length: usize) -> Vec<u8> {
    let mut bytes = device.frame_head();
    bytes.resize(device.net_header() + length, 0);
    bytes
}

fn send(device: &mut TestDevice<'_>, length: usize, shape: &Shape) -> Verdict {
    let bytes = frame(device, length);
    let answer = device.ask(Role::First, &bytes, 0, shape)?;
    ensure!(answer.used == 0, "the device says that it wrote {} bytes of a frame that was sent", answer.used);
    Ok(())
}

/// Gives the device a few receive buffers.
fn fill(device: &mut TestDevice<'_>) -> Verdict<Vec<Offered>> {
    let room = device.with_queue(RECEIVE, |queue, _| usize::from(queue.room()))?.min(8);
    let mut chains = Vec::new();
    for _ in 0..room {
        chains.push(device.offer(RECEIVE, &[], RECEIVE_ROOM, &Shape::PLAIN)?);
    }
    device.submit(RECEIVE)?;
    Ok(chains)
}

/// Sends a command; returns its acknowledgement.
fn command(device: &mut TestDevice<'_>, bytes: &[u8]) -> Verdict<Answer> {
    device.ask(CONTROL, bytes, 1, &Shape::PLAIN)
}
