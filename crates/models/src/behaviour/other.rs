//! Minimal block, console and network devices (virtio 1.4, 5.1 to 5.3).

use vm_memory::{Bytes, GuestAddress};

use crate::bug::Bug;
use crate::queue::{INDIRECT, Purpose, Request, WRITE};
use crate::world::Bus;

/// Bytes of a sector.
const SECTOR: usize = 512;
/// The length of a block device's identification.
const BLOCK_ID: usize = 20;

/// The status of a block device's request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Done = 0,
    Failed = 1,
    Unsupported = 2,
}

/// A device other than a balloon or an entropy source.
#[derive(Debug, Clone)]
pub enum Other {
    /// Its sectors, and whether it is read-only.
    Block { disk: Vec<u8>, read_only: bool },
    /// A console with one port, and the messages waiting for room in the control queue.
    Console { printed: Vec<u8>, messages: Vec<Vec<u8>> },
    /// A network device, and the frames sent by it.
    Network { sent: Vec<Vec<u8>> },
}

impl Other {
    /// The number of its type.
    pub(crate) const fn number(&self) -> u16 {
        match self {
            Self::Network { .. } => 1,
            Self::Block { .. } => 2,
            Self::Console { .. } => 3,
        }
    }

    /// The PCI device ID of a transitional device of its type.
    pub(crate) const fn transitional(&self) -> u16 {
        match self {
            Self::Network { .. } => 0x1000,
            Self::Block { .. } => 0x1001,
            Self::Console { .. } => 0x1003,
        }
    }

    /// The features of its type that it offers.
    pub(crate) const fn features(&self) -> u64 {
        match self {
            // SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE; RO.
            Self::Block { read_only: false, .. } => 1 << 2 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11,
            Self::Block { read_only: true, .. } => 1 << 2 | 1 << 5 | 1 << 6,
            // SIZE, MULTIPORT, EMERG_WRITE.
            Self::Console { .. } => 7,
            // MTU, MAC, MRG_RXBUF, STATUS, CTRL_VQ, CTRL_RX.
            Self::Network { .. } => 1 << 3 | 1 << 5 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 18,
        }
    }

    /// The purposes of its queues.
    pub(crate) const fn queues(&self) -> &'static [Purpose] {
        match self {
            Self::Block { .. } => &[Purpose::Served],
            Self::Console { .. } => {
                &[Purpose::Held, Purpose::Served, Purpose::Held, Purpose::Control, Purpose::Held, Purpose::Served]
            }
            Self::Network { .. } => &[Purpose::Held, Purpose::Served, Purpose::Control],
        }
    }

    /// Its configuration.
    pub(crate) fn config(&self, bug: Option<Bug>) -> Vec<u8> {
        match self {
            Self::Block { disk, .. } => {
                let mut config = vec![0; 64];
                config[..8].copy_from_slice(&((disk.len() / SECTOR) as u64).to_le_bytes());
                config[12..16].copy_from_slice(&126_u32.to_le_bytes());
                let size = if bug == Some(Bug::BlockSizeIsOdd) { 600_u32 } else { 512 };
                config[20..24].copy_from_slice(&size.to_le_bytes());
                config[32] = if bug == Some(Bug::CacheModeIsJunk) { 7 } else { 1 };
                config
            }
            Self::Console { .. } => {
                let ports = if bug == Some(Bug::ConsoleHasNoPort) { 0 } else { 2 };
                vec![80, 0, 25, 0, ports, 0, 0, 0, 0, 0, 0, 0]
            }
            Self::Network { .. } => {
                let first = if bug == Some(Bug::AddressIsMulticast) { 1 } else { 2 };
                let mtu: u16 = if bug == Some(Bug::MtuIsSmall) { 60 } else { 1500 };
                let [low, high] = mtu.to_le_bytes();
                let status = if bug == Some(Bug::LinkStatusHasJunk) { 0x81 } else { 1 };
                vec![first, 1, 2, 3, 4, 5, status, 0, 1, 0, low, high]
            }
        }
    }

    /// Executes a request. Returns the number of bytes written.
    pub(crate) fn serve(&mut self, purpose: Purpose, request: &Request, bug: Option<Bug>, bus: &Bus) -> u32 {
        let room: usize = parts(request).map(|(_, length)| length as usize).sum();
        match self {
            Self::Block { disk, read_only } => serve_block(disk, *read_only, request, room, bug, bus),
            Self::Console { messages, .. } if purpose == Purpose::Control => {
                messages.extend(answers(&request.bytes, bug));
                0
            }
            Self::Console { printed, .. } => {
                printed.extend(&request.bytes);
                u32::from(bug == Some(Bug::SentIsWritten))
            }
            Self::Network { .. } if purpose == Purpose::Control => {
                let known = request.bytes.first() == Some(&0);
                let ack = u8::from(!known && bug != Some(Bug::UnknownCommandsAreAcknowledged));
                write(request, &[ack], bus)
            }
            Self::Network { sent } => {
                sent.push(request.bytes.clone());
                0
            }
        }
    }

    /// Whether it never returns a request of this kind.
    pub(crate) fn loses(&self, request: &Request, bug: Option<Bug>) -> bool {
        let length = request.bytes.len();
        match (self, bug) {
            (Self::Network { .. }, Some(Bug::LosesLongFrames)) => length > 1400,
            (Self::Console { .. }, Some(Bug::LosesSingleBytes)) => length == 1,
            _ => false,
        }
    }

    /// The next bytes for a buffer that it holds in queue `index`.
    pub(crate) fn next_message(&mut self, index: u16, bug: Option<Bug>) -> Option<Vec<u8>> {
        match self {
            Self::Console { messages, .. } if index == 2 && !messages.is_empty() => Some(messages.remove(0)),
            Self::Console { .. } if index == 0 && bug == Some(Bug::ReceivesNothing) => Some(Vec::new()),
            // A header whose `num_buffers` is 0.
            Self::Network { .. } if index == 0 && bug == Some(Bug::ReceivedHeadersAreEmpty) => Some(vec![0; 80]),
            _ => None,
        }
    }
}

/// Answers to a control message of a console: port, event and value.
fn answers(message: &[u8], bug: Option<Bug>) -> Vec<Vec<u8>> {
    let answer = |port: u32, event: u16| [&port.to_le_bytes()[..], &event.to_le_bytes(), &1_u16.to_le_bytes()].concat();
    match message.get(4) {
        Some(0) if bug != Some(Bug::PortsAreNotAnnounced) => vec![answer(0, 1)],
        Some(3) => vec![answer(0, 4)],
        _ => Vec::new(),
    }
}

/// Serves a request to a block device.
fn serve_block(disk: &mut [u8], read_only: bool, request: &Request, room: usize, bug: Option<Bug>, bus: &Bus) -> u32 {
    let (Some(header), Some(length)) = (request.bytes.get(..16), room.checked_sub(1)) else {
        return 0;
    };
    let kind = u32::from_le_bytes(header[..4].try_into().expect("4 bytes"));
    let sector = u64::from_le_bytes(header[8..].try_into().expect("8 bytes"));
    let payload = &request.bytes[16..];
    let start = usize::try_from(sector).ok().and_then(|sector| sector.checked_mul(SECTOR)).unwrap_or(usize::MAX);
    let inside = |length: usize| start.checked_add(length).is_some_and(|end| end <= disk.len());
    let mut data = vec![0; length];
    let status = match kind {
        0 if inside(length) => {
            data.copy_from_slice(&disk[start..start + length]);
            if bug == Some(Bug::SectorsAreSwapped) && length > SECTOR {
                data.rotate_left(SECTOR);
            }
            Status::Done
        }
        0 if bug == Some(Bug::ReadsPastTheEnd) => Status::Done,
        1 if inside(payload.len()) && (!read_only || bug == Some(Bug::WritesReadOnly)) => {
            if bug != Some(Bug::DropsWrites) {
                disk[start..start + payload.len()].copy_from_slice(payload);
            }
            Status::Done
        }
        0 | 1 => Status::Failed,
        4 if bug == Some(Bug::FlushFails) => Status::Failed,
        4 => Status::Done,
        8 => {
            let name = b"model";
            data[..name.len()].copy_from_slice(name);
            Status::Done
        }
        _ if bug == Some(Bug::UnknownRequestsAreDone) => Status::Done,
        _ => Status::Unsupported,
    };
    let short = bug == Some(Bug::IdentificationIsShort) && kind == 8 && length == BLOCK_ID;
    if short {
        write(request, b"model\0", bus);
    } else {
        write(request, &data, bus);
    }
    write_last(request, status as u8, bus);
    let without = u32::from(bug == Some(Bug::UsedLengthLeavesStatusOut));
    room as u32 - without
}

/// The writable parts of a request: addresses and lengths.
fn parts(request: &Request) -> impl Iterator<Item = (u64, u32)> + '_ {
    let writable = request.chain.iter().filter(|(_, d)| d.flags & (WRITE | INDIRECT) == WRITE);
    writable.map(|(_, d)| (d.address, d.length))
}

/// Writes bytes to the front of a request's memory, as many as fit. Returns their number.
pub(crate) fn write(request: &Request, bytes: &[u8], bus: &Bus) -> u32 {
    let mut left = bytes;
    for (address, length) in parts(request) {
        let (now, later) = left.split_at(left.len().min(length as usize));
        bus.ram.memory().write_slice(now, GuestAddress(address)).expect("DMA memory");
        left = later;
    }
    (bytes.len() - left.len()) as u32
}

/// Writes the last byte of a request's memory.
fn write_last(request: &Request, byte: u8, bus: &Bus) {
    if let Some((address, length)) = parts(request).last() {
        bus.ram.memory().write_slice(&[byte], GuestAddress(address + u64::from(length) - 1)).expect("DMA memory");
    }
}
