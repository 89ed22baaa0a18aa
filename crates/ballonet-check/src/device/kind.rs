//! The device types that the tester knows: their numbers, queues and features, and what a request to each is.
//! Most checks apply to any virtio device; they find queues and requests in these tables.

use alloc::vec::Vec;
use core::ops::Range;

use super::{Role, TestDevice};
use crate::verdict::{Stop, Verdict};
use ballonet::platform::Registers;
use ballonet::virtio::spec::Features;

/// Frame numbers of a balloon's request, and 4-byte units of another device's, that a whole test moves.
pub(crate) const UNITS: usize = 256;
/// A sector of a block device, in bytes.
pub(crate) const SECTOR: usize = 512;
/// The length of a block device's identification, in bytes (5.2.6).
pub(crate) const BLOCK_ID: usize = 20;

/// More than any device type's configuration, including features that are not accepted.
const LONGEST: usize = 96;

/// The bytes of a request: those that the device reads, then the number of those that it writes.
pub(crate) struct Payload {
    pub(crate) readable: Vec<u8>,
    pub(crate) writable: usize,
}

/// Bytes of the configuration that a feature requires.
type Needed = (u64, usize);

/// Makes the request of some units.
type Build = fn(&TestDevice<'_>, Role, Range<usize>) -> Payload;

/// A type of device.
pub(crate) struct Kind {
    /// Its number (5).
    pub(crate) number: u16,
    /// PCI device ID of a transitional device of it (4.1.2).
    pub(crate) transitional: u16,
    /// Its name on command lines.
    pub(crate) name: &'static str,
    /// Its features that the tester can accept: each works alone, and changes no request that the tester makes.
    pub(crate) features: u64,
    /// All its features that are defined.
    pub(crate) defined: u64,
    /// The least length of its configuration, and what features add.
    pub(crate) config: usize,
    pub(crate) needed: &'static [Needed],
    /// The queue for requests of the tester's choice, and whether there are others beside it that the device needs.
    pub(crate) request_queue: u16,
    pub(crate) other_queues: &'static [(u64, u16)],
    /// Descriptors of its simplest request.
    pub(crate) descriptors: u16,
    /// A request of some units; `None`: the tester knows none.
    request: Option<Build>,
    /// What a test writes outside the guest.
    pub(crate) writes: &'static str,
}

/// Numbers of device types.
pub(crate) const NETWORK: u16 = 1;
pub(crate) const BLOCK: u16 = 2;
pub(crate) const CONSOLE: u16 = 3;
pub(crate) const ENTROPY: u16 = 4;
pub(crate) const BALLOON: u16 = 5;

/// The types with requests.
pub(crate) static KINDS: [Kind; 5] = [
    Kind {
        number: BALLOON,
        transitional: 0x1002,
        name: "balloon",
        features: 0x3f,
        defined: 0x3f,
        config: ballonet::balloon::wire::BalloonConfig::SIZE,
        needed: &[(1 << 3, 12), (1 << 4, 16)],
        request_queue: 0,
        other_queues: &[(1 << 1, 2)],
        descriptors: 1,
        request: Some(frames),
        writes: "some memory of this machine is inflated and deflated",
    },
    Kind {
        number: ENTROPY,
        transitional: 0x1005,
        name: "rng",
        features: 0,
        defined: 0,
        config: 0,
        needed: &[],
        request_queue: 0,
        other_queues: &[],
        descriptors: 1,
        request: Some(entropy),
        writes: "nothing is written; the host's entropy is read",
    },
    Kind {
        number: BLOCK,
        transitional: 0x1001,
        name: "blk",
        // SIZE_MAX, SEG_MAX, GEOMETRY, RO, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, MQ, DISCARD, WRITE_ZEROES.
        features: 0x7e76,
        defined: 0x3_fef7,
        config: 8,
        needed: &[
            (1 << 1, 12),
            (1 << 2, 16),
            (1 << 4, 20),
            (1 << 6, 24),
            (1 << 10, 32),
            (1 << 11, 33),
            (1 << 12, 36),
            (1 << 13, 48),
            (1 << 14, 57),
        ],
        request_queue: 0,
        other_queues: &[],
        descriptors: 2,
        request: Some(block),
        writes: "",
    },
    Kind {
        number: CONSOLE,
        transitional: 0x1003,
        name: "console",
        // SIZE, MULTIPORT, EMERG_WRITE.
        features: 0x7,
        defined: 0x7,
        config: 0,
        needed: &[(1 << 0, 4), (1 << 1, 8), (1 << 2, 12)],
        request_queue: 1,
        other_queues: &[(0, 0), (1 << 1, 2), (1 << 1, 3)],
        descriptors: 1,
        request: Some(console),
        writes: "dots are printed on port 0",
    },
    Kind {
        number: NETWORK,
        transitional: 0x1000,
        name: "net",
        // CSUM, GUEST_CSUM, MTU, MAC, MRG_RXBUF, STATUS, CTRL_VQ.
        features: 0x3_802b,
        defined: 0x00ff_ffef | !0 << 50,
        config: 0,
        needed: &[(1 << 5, 6), (1 << 16, 8), (1 << 22, 10), (1 << 3, 12)],
        request_queue: 1,
        other_queues: &[(0, 0), (1 << 17, 2)],
        descriptors: 1,
        request: Some(frame),
        writes: "frames of an experimental type (0x88b5) are sent to 01:80:c2:00:00:0e, which no bridge forwards",
    },
];

/// Every other type: its queues and registers are tested, not its requests.
static OTHER: Kind = Kind {
    number: 0,
    transitional: 0,
    name: "other",
    features: 0,
    defined: 0x00ff_ffff | !0 << 50,
    config: 0,
    needed: &[],
    request_queue: 0,
    other_queues: &[],
    descriptors: 1,
    request: None,
    writes: "nothing is written: only registers and queues are tested",
};

impl Kind {
    /// The type of this number.
    pub(crate) fn of(number: u16) -> &'static Self {
        KINDS.iter().find(|kind| kind.number == number).unwrap_or(&OTHER)
    }

    /// The required length of the configuration with these features.
    pub(crate) fn config_length(&self, offered: Features) -> usize {
        let needed = self.needed.iter().filter(|(feature, _)| offered.bits() & feature != 0);
        needed.map(|(_, length)| *length).fold(self.config, usize::max)
    }

    /// The longest configuration that it has with any features; of an unknown type that is not known.
    pub(crate) fn longest_config(&self) -> usize {
        if self.number == 0 { usize::MAX / 2 } else { self.config_length(Features::all()).max(LONGEST) }
    }

    /// What is written outside the guest, in words; `writes`: block devices may be written.
    pub(crate) const fn warning(&self, writes: bool) -> &'static str {
        match (self.number, writes) {
            (BLOCK, true) => "SECTORS ARE OVERWRITTEN (writes=on), and restored afterwards",
            (BLOCK, false) => "sectors are only read (writes=on would write)",
            _ => self.writes,
        }
    }
}

impl TestDevice<'_> {
    /// The request for these units; skips the check if the tester knows no request to this device.
    pub(crate) fn payload(&self, role: Role, units: Range<usize>) -> Verdict<Payload> {
        match self.kind.request {
            Some(request) => Ok(request(self, role, units)),
            None => Err(Stop::skipped(format_args!("the tester knows no request to a device of this type"))),
        }
    }

    /// How many units there are for requests.
    pub(crate) fn units(&self) -> usize {
        if self.kind.number == BALLOON { self.pfns.len() } else { UNITS }
    }
}

/// Bytes that distinguish requests.
fn filler(units: Range<usize>) -> Vec<u8> {
    units.flat_map(|unit| (unit as u32).to_le_bytes()).collect()
}

fn frames(device: &TestDevice<'_>, _role: Role, units: Range<usize>) -> Payload {
    Payload { readable: device.pfns[units].iter().flat_map(|pfn| pfn.to_le_bytes()).collect(), writable: 0 }
}

fn entropy(_device: &TestDevice<'_>, _role: Role, units: Range<usize>) -> Payload {
    Payload { readable: Vec::new(), writable: 4 * units.len() }
}

/// A read of as many sectors as the units fill, from the first on; `GET_ID` if they fill none.
fn block(_device: &TestDevice<'_>, _role: Role, units: Range<usize>) -> Payload {
    let sectors = units.len() * 4 / SECTOR;
    let (request, length) = if sectors == 0 { (8, BLOCK_ID) } else { (0, sectors * SECTOR) };
    Payload { readable: block_header(request, 0).to_vec(), writable: length + 1 }
}

/// The header of a block device's request: its type and first sector (5.2.6).
pub(crate) fn block_header(request: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&request.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

fn console(_device: &TestDevice<'_>, _role: Role, units: Range<usize>) -> Payload {
    Payload { readable: alloc::vec![b'.'; 4 * units.len()], writable: 0 }
}

/// The header, then an Ethernet frame to a multicast address that no bridge forwards (5.1.6).
fn frame(device: &TestDevice<'_>, _role: Role, units: Range<usize>) -> Payload {
    let mut readable = device.frame_head();
    readable.extend([0; 46]);
    readable.extend(filler(units));
    Payload { readable, writable: 0 }
}

impl TestDevice<'_> {
    /// The length of a network device's header (5.1.6.1): legacy ones leave the number of buffers out.
    pub(crate) fn net_header(&self) -> usize {
        let merged = self.features.bits() & 1 << 15 != 0;
        if self.is_legacy() && !merged { 10 } else { 12 }
    }

    /// A header without offloads, and that of a frame of an experimental type.
    pub(crate) fn frame_head(&self) -> Vec<u8> {
        let mut bytes = alloc::vec![0; self.net_header()];
        bytes.extend([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
        bytes.extend(self.mac());
        bytes.extend([0x88, 0xb5]);
        bytes
    }

    /// Its own address, or one of the tester's.
    fn mac(&self) -> [u8; 6] {
        if self.features.bits() & 1 << 5 == 0 || self.config.len() < 6 {
            return [2, 0, 0, 0, 0, 1];
        }
        [0, 1, 2, 3, 4, 5].map(|at| self.config.read8(at))
    }
}
