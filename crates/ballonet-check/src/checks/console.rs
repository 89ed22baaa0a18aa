//! The console device: ports, output on them, and control messages (5.3).

use alloc::vec::Vec;

use crate::check::Severity::{Custom, Must, Should};
use crate::check::{Check, Verdict, ensure, on_device, skip_unless};
use crate::device::{Offered, Role, Shape, StartOptions, TestDevice};
use ballonet::platform::Registers;
use ballonet::virtio::spec::{Features, Status};

const SIZE: u64 = 1 << 0;
const MULTIPORT: u64 = 1 << 1;
const EMERG_WRITE: u64 = 1 << 2;

const RECEIVE: Role = Role::Queue(0);
const CONTROL_RECEIVE: Role = Role::Queue(2);
const CONTROL_SEND: Role = Role::Queue(3);

// Events of control messages (5.3.6.2).
const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
/// The length of a control message without the data that may follow.
const MESSAGE: usize = 8;
/// The most messages received at once.
const ANSWERS: usize = 48;
/// Room for one, followed by a name.
const MESSAGE_ROOM: usize = 64;

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(Must, "console-has-the-queues-of-port-0", "5.3.2", "queues 0 and 1 exist", |device| {
        let sizes: Vec<u16> = device.sizes.iter().take(2).copied().collect();
        ensure!(sizes.iter().all(|size| *size != 0), "the queues of port 0 have {sizes:?} entries");
        Ok(())
    }),
    on_device(Must, "console-has-control-queues", "5.3.2", "with MULTIPORT offered queues 2 and 3 exist", |device| {
        needs(device, MULTIPORT)?;
        let sizes: Vec<u16> = device.sizes.iter().skip(2).take(2).copied().collect();
        ensure!(sizes.iter().all(|size| *size != 0), "the control queues have {sizes:?} entries");
        Ok(())
    }),
    on_device(Must, "console-has-a-port", "5.3.4", "max_nr_ports is 1 or more", |device| {
        let ports = ports(device)?;
        ensure!(ports >= 1, "max_nr_ports is {ports}");
        Ok(())
    }),
    on_device(Must, "console-has-the-queues-of-all-ports", "5.3.2", "each port has two queues", |device| {
        let (ports, present) = (ports(device)? as usize, device.present().count());
        // The tester looks for no more queues than that.
        let needed = (2 * ports + 2).min(device.sizes.len());
        ensure!(present >= needed, "there may be {ports} ports, and there are {present} queues");
        Ok(())
    }),
    on_device(Custom, "console-size-holds-still", "5.3.4", "reading cols and rows does not change them", |device| {
        needs(device, SIZE)?;
        let before = [0, 2].map(|offset| device.config.read16(offset));
        device.wait_quiet()?;
        let after = [0, 2].map(|offset| device.config.read16(offset));
        ensure!(before == after, "columns and rows are {before:?}, then {after:?}");
        Ok(())
    }),
    on_device(Must, "console-prints", "5.3.6", "the device uses what is sent on port 0", |device| {
        start(device, 0)?;
        print(device, 4, &Shape::PLAIN)
    }),
    on_device(Must, "console-prints-a-single-byte", "5.3.6", "the device uses a buffer of one byte", |device| {
        start(device, 0)?;
        print(device, 1, &Shape::PLAIN)
    }),
    on_device(Must, "console-prints-a-page", "5.3.6", "the device uses a buffer of 4096 bytes", |device| {
        start(device, 0)?;
        print(device, 4096, &Shape::PLAIN)
    }),
    on_device(Must, "console-prints-chains", "2.7.4.1", "a buffer may be a chain of descriptors", |device| {
        start(device, 0)?;
        print(device, 12, &Shape { piece: 5, skew: 1, ..Shape::PLAIN })
    }),
    on_device(
        Must,
        "console-leaves-sent-buffers-alone",
        "5.3.6",
        "the device does not write buffers that are sent",
        |device| {
            start(device, 0)?;
            for length in [1, 16, 100] {
                print(device, length, &Shape::PLAIN)?;
            }
            device.expect_no_damage(None)
        },
    ),
    on_device(
        Must,
        "console-prints-several-at-once",
        "5.3.6",
        "the device uses all buffers that are available at the same time",
        |device| {
            start(device, 0)?;
            let room = device.with_queue(Role::First, |queue, _| usize::from(queue.room()))?.min(8);
            for _ in 0..room {
                device.offer(Role::First, b".", 0, &Shape::PLAIN)?;
            }
            device.submit(Role::First)?;
            device.drain(Role::First, 0)
        },
    ),
    on_device(
        Must,
        "console-receive-buffers-hold-something",
        "5.3.6",
        "a receive buffer comes back only with input in it",
        |device| {
            start(device, 0)?;
            device.offer(RECEIVE, &[], 64, &Shape::PLAIN)?;
            device.submit(RECEIVE)?;
            print(device, 4, &Shape::PLAIN)?;
            device.wait_quiet()?;
            device.with_queue(RECEIVE, |queue, arena| queue.collect(arena))??;
            for used in device.take_done(RECEIVE)? {
                ensure!((1..=64).contains(&used.length), "a receive buffer came back with {} bytes", used.length);
            }
            device.expect_no_damage(None)
        },
    ),
    on_device(
        Must,
        "console-prints-with-multiport",
        "5.3.5",
        "with MULTIPORT accepted the device uses what is sent on port 0",
        |device| {
            needs(device, MULTIPORT)?;
            start(device, MULTIPORT)?;
            print(device, 4, &Shape::PLAIN)
        },
    ),
    on_device(
        Must,
        "console-announces-its-ports",
        "5.3.6.2",
        "after DEVICE_READY each port is announced by PORT_ADD",
        |device| {
            let most = ports(device)?;
            let (_, messages) = ready(device)?;
            let added: Vec<u32> =
                messages.iter().filter(|message| message.event == PORT_ADD).map(|message| message.port).collect();
            ensure!(!added.is_empty(), "no PORT_ADD came after DEVICE_READY; {} messages did", messages.len());
            ensure!(added.iter().all(|port| *port < most), "ports {added:?} were added, of {most}");
            Ok(())
        },
    ),
    on_device(
        Must,
        "console-messages-are-whole",
        "5.3.6.2",
        "a control message has 8 bytes or more, of a known event",
        |device| {
            ports(device)?;
            for message in ready(device)?.1 {
                let Message { port, event, length } = message;
                ensure!(length >= MESSAGE, "a control message has {length} bytes");
                ensure!(event <= 7, "a control message about port {port} has event {event}");
            }
            Ok(())
        },
    ),
    on_device(
        Should,
        "console-answers-a-ready-port",
        "5.3.6.2",
        "after PORT_READY of an announced port the device describes it: console, name, or open",
        |device| {
            ports(device)?;
            let (buffers, messages) = ready(device)?;
            skip_unless!(messages.len() + 3 <= buffers.len(), "the control queue has no room for more answers");
            let added = messages.into_iter().find(|message| message.event == PORT_ADD);
            let Some(port) = added.map(|message| message.port) else {
                skip_unless!(false, "no port was announced");
                return Ok(());
            };
            send(device, port, PORT_READY)?;
            let messages = hear(device, &buffers)?;
            ensure!(messages.iter().any(|message| message.port == port), "PORT_READY of port {port} was not answered");
            Ok(())
        },
    ),
    on_device(
        Must,
        "console-takes-an-emergency-write",
        "5.3.4",
        "emerg_wr can be written in every state, and changes none",
        |device| {
            needs(device, EMERG_WRITE)?;
            device.config.write32(8, b'.'.into());
            let status = device.status()?;
            ensure!(status.is_empty(), "the status is {status} after an emergency write");
            start(device, 0)?;
            device.config.write32(8, b'.'.into());
            let status = device.status()?;
            ensure!(status.contains(Status::DRIVER_OK), "the status is {status} after an emergency write");
            print(device, 4, &Shape::PLAIN)
        },
    ),
];

/// A received control message.
#[derive(Debug, Clone, Copy)]
struct Message {
    port: u32,
    event: u16,
    length: usize,
}

fn needs(device: &TestDevice<'_>, feature: u64) -> Verdict {
    skip_unless!(device.offered.bits() & feature != 0, "the device does not offer feature {feature:#x}");
    Ok(())
}

/// The most ports.
fn ports(device: &TestDevice<'_>) -> Verdict<u32> {
    needs(device, MULTIPORT)?;
    skip_unless!(device.config.len() >= 8, "the device configuration has no max_nr_ports");
    Ok(device.config.read32(4))
}

fn start(device: &mut TestDevice<'_>, features: u64) -> Verdict {
    let features = device.least() | Features::from_bits_retain(features);
    let setup = StartOptions { features, ..device.plain() };
    device.start(&setup)
}

/// Sends dots on port 0.
fn print(device: &mut TestDevice<'_>, length: usize, shape: &Shape) -> Verdict {
    let answer = device.ask(Role::First, &alloc::vec![b'.'; length], 0, shape)?;
    ensure!(answer.used == 0, "the device says that it wrote {} bytes of what was sent", answer.used);
    Ok(())
}

/// Starts with `MULTIPORT`, announces that the driver is ready, and receives the answers. Leaves buffers for more.
fn ready(device: &mut TestDevice<'_>) -> Verdict<(Vec<Offered>, Vec<Message>)> {
    start(device, MULTIPORT)?;
    let room = device.with_queue(CONTROL_RECEIVE, |queue, _| usize::from(queue.room()))?.min(ANSWERS);
    let mut buffers = Vec::new();
    for _ in 0..room {
        buffers.push(device.offer(CONTROL_RECEIVE, &[], MESSAGE_ROOM, &Shape::PLAIN)?);
    }
    device.submit(CONTROL_RECEIVE)?;
    send(device, u32::MAX, DEVICE_READY)?;
    let messages = hear(device, &buffers)?;
    Ok((buffers, messages))
}

/// Sends a control message of value 1.
fn send(device: &mut TestDevice<'_>, port: u32, event: u16) -> Verdict {
    let mut bytes = [0; MESSAGE];
    bytes[..4].copy_from_slice(&port.to_le_bytes());
    bytes[4..6].copy_from_slice(&event.to_le_bytes());
    bytes[6] = 1;
    device.ask(CONTROL_SEND, &bytes, 0, &Shape::PLAIN).map(drop)
}

/// Takes received control messages.
fn hear(device: &mut TestDevice<'_>, buffers: &[Offered]) -> Verdict<Vec<Message>> {
    let limit = device.patience.stall;
    device.wait(limit, |device| device.with_queue(CONTROL_RECEIVE, |queue, arena| queue.collect(arena))?)?;
    device.wait_quiet()?;
    device.with_queue(CONTROL_RECEIVE, |queue, arena| queue.collect(arena))??;
    let mut messages = Vec::new();
    for used in device.take_done(CONTROL_RECEIVE)? {
        let buffer = buffers.iter().find(|(id, _)| *id == used.id);
        messages.extend(buffer.map(|(_, chain)| message(&device.bytes_of(chain), used.length)));
    }
    Ok(messages)
}

fn message(bytes: &[u8], length: u32) -> Message {
    let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    Message { port: u32::from(word(2)) << 16 | u32::from(word(0)), event: word(4), length: length as usize }
}
