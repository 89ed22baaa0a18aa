//! A queue, split or packed, against a device that follows the rules until it starts writing arbitrary values.
//!
//! Whatever the device does, each token comes back once, and only after it was published. While the device follows
//! the rules, every request arrives unchanged, requests come back in the order in which the device returned them, and
//! no kick or interrupt that was asked for is missing.

use std::collections::{BTreeMap, VecDeque};

use arbitrary::Arbitrary;
use ballonet::pci::Bdf;
use ballonet::platform::{DmaMemory, Platform};
use ballonet::virtio::spec::{DeviceType, Features};
use ballonet::virtio::{
    Chain, DeviceOptions, QueueError, QueueIndex, QueueOptions, Refusal, RingFormat, RingLayout, Segment, Setup,
    TransportKind, UsedLength, Virtqueue,
};
use ballonet_models::{Allocated, Behaviour, Lie, Machine, ModelPlatform, Purpose, QueueModel, Request, feature};

/// A queue and the steps that run on it.
#[derive(Debug, Arbitrary)]
pub struct Course {
    size: u8,
    event_idx: bool,
    in_order: bool,
    indirect: Option<u8>,
    used_length: Used,
    steps: Vec<Step>,
}

/// [`UsedLength`].
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Used {
    Strict,
    Lenient,
    Ignored,
}

/// A step of the driver or the device.
#[derive(Debug, Arbitrary)]
pub enum Step {
    /// Adds a request of the given readable and writable segments, each of this length.
    Add {
        readable: u8,
        writable: u8,
        length: u16,
    },
    Publish,
    Pop,
    Arm(u8),
    Disarm,
    /// Add, publish, take, return and pop, for requests of one segment, up to 2,040 times.
    Laps(u8),
    /// The device takes the available requests, and asks to be kicked for more, or not.
    Take {
        ask: bool,
    },
    /// The device returns one of its requests and gives `written` as the length.
    Return {
        which: u8,
        written: u16,
    },
    /// The device returns several requests by one used entry, where that is allowed.
    ReturnBatch {
        count: u8,
        written: u16,
    },
    /// The device lies from here on. It writes a wrong next used entry,
    Lie(u8),
    /// or a used entry with any contents, and advances by any number of entries,
    Forge {
        id: u32,
        length: u32,
        advance: u16,
    },
    /// or the used index (on a packed ring, the flags of the next used entry),
    Mark(u16),
    /// or by a 16-bit word anywhere in shared memory.
    Write {
        offset: u32,
        value: u16,
    },
}

/// The most steps that run.
const MOST: usize = 256;

/// Runs a course on split queues.
pub fn run_split(course: &Course) {
    // Power of two: 1 to 256.
    Trial::new(RingFormat::Split, 1 << (course.size % 9), course).run(&course.steps);
}

/// Runs a course on packed queues.
pub fn run_packed(course: &Course) {
    Trial::new(RingFormat::Packed, u16::from(course.size).max(1), course).run(&course.steps);
}

/// Bytes of memory for the requests' buffers.
const BUFFERS: usize = 1 << 16;
/// The longest segment of a request.
const LENGTH_MAX: u16 = 4096;

/// A segment of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    address: u64,
    length: u32,
    writable: bool,
}

/// A request in the queue.
#[derive(Debug)]
struct Lent {
    parts: Vec<Part>,
    published: bool,
}

/// An interrupt that the driver asked for.
#[derive(Debug)]
struct Wish {
    /// The number of completions by which it must have come.
    left: usize,
    come: bool,
}

struct Trial {
    machine: Machine,
    platform: ModelPlatform,
    buffers: <ModelPlatform as Platform>::Memory,
    queue: Virtqueue<<ModelPlatform as Platform>::Memory, u32>,
    /// The device's side of the queue.
    model: QueueModel,
    format: RingFormat,
    event_idx: bool,
    in_order: bool,
    used: UsedLength,
    next_token: u32,
    /// Requests in the queue, by token.
    lent: BTreeMap<u32, Lent>,
    /// Published tokens that the device has not taken, in order.
    waiting: VecDeque<u32>,
    /// Requests that the device has taken.
    taken: Vec<(u32, Request)>,
    /// Requests that the device has returned and the driver has not popped, with the written length where the device
    /// gives it.
    returned: VecDeque<(u32, Option<u32>)>,
    wish: Option<Wish>,
    /// Whether the device waits for a kick.
    asks: bool,
    honest: bool,
    error: Option<QueueError>,
}

impl Trial {
    fn new(format: RingFormat, size: u16, course: &Course) -> Self {
        let machine = Machine::new(8);
        let mut platform = ModelPlatform::new(&machine);
        let buffers = platform.allocate_dma(BUFFERS, 4096).expect("memory without limit");
        let used_length = match course.used_length {
            Used::Strict => UsedLength::Strict,
            Used::Lenient => UsedLength::Lenient,
            Used::Ignored => UsedLength::Ignored,
        };
        let mut options = QueueOptions::default();
        (options.event_idx, options.in_order) = (course.event_idx, course.in_order);
        options.indirect_entries = course.indirect.map_or(0, |entries| u16::from(entries % 9));
        options.used_length = used_length;
        let ring = if format == RingFormat::Packed { Features::RING_PACKED } else { Features::empty() };
        let layout = RingLayout::for_device(TransportKind::Modern, ring, size, size).expect("a size that is not 0");
        let queue =
            Virtqueue::allocate(&mut platform, QueueIndex::FIRST, layout, options).expect("memory without limit");
        let mut model = QueueModel::new(0, Purpose::Spare, queue.size());
        let at_queue = queue.addresses();
        for (halves, address) in
            model.halves.chunks_mut(2).zip([at_queue.descriptors, at_queue.driver, at_queue.device])
        {
            (halves[0], halves[1]) = (Some(address as u32), Some((address >> 32) as u32));
        }
        let accepted = [
            (feature::RING_PACKED, format == RingFormat::Packed),
            (feature::EVENT_IDX, course.event_idx),
            (feature::IN_ORDER, course.in_order),
            (feature::INDIRECT_DESC, true),
        ];
        let features = accepted.into_iter().filter(|(_, is)| *is).fold(feature::VERSION_1, |all, (bit, _)| all | bit);
        machine.bus(|bus| model.enable(features, bus));
        assert_eq!((queue.free(), queue.outstanding()), (queue.size(), 0));
        Self {
            machine,
            platform,
            buffers,
            queue,
            model,
            format,
            event_idx: course.event_idx,
            in_order: course.in_order,
            used: used_length,
            next_token: 0,
            lent: BTreeMap::new(),
            waiting: VecDeque::new(),
            taken: Vec::new(),
            returned: VecDeque::new(),
            wish: None,
            asks: true,
            honest: true,
            error: None,
        }
    }

    fn run(mut self, steps: &[Step]) {
        for step in steps.iter().take(MOST) {
            self.step(step);
            assert_eq!(usize::from(self.queue.outstanding()), self.lent.len(), "after {step:?}");
            assert!(self.queue.free() <= self.queue.size());
        }
        self.finish();
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Add { readable, writable, length } => self.add(readable % 6, writable % 6, length),
            Step::Publish => self.publish(),
            Step::Pop => self.pop(),
            Step::Arm(completions) => self.arm(completions.into()),
            Step::Disarm => {
                self.queue.disarm();
                self.wish = None;
            }
            Step::Laps(laps) => self.laps(laps),
            Step::Take { ask } => self.take(ask),
            Step::Return { which, written } => self.give_back(which.into(), 1, written.into()),
            Step::ReturnBatch { count, written } => {
                let count = if self.in_order { usize::from(count) } else { 1 };
                self.give_back(0, count, written.into());
            }
            Step::Lie(which) => self.lie(which),
            Step::Forge { id, length, advance } => {
                self.honest = false;
                let Self { machine, model, .. } = self;
                machine.bus(|bus| model.forge_used(id, length, advance, bus));
            }
            Step::Mark(value) => {
                self.honest = false;
                self.machine.bus(|bus| self.model.forge_mark(value, bus));
            }
            Step::Write { offset, value } => {
                self.honest = false;
                self.machine.bus(|bus| bus.ram.scribble(offset, value));
            }
        }
    }

    /// The device writes a wrong used entry for one of its requests.
    fn lie(&mut self, which: u8) {
        let Some((_, request)) = self.taken.first() else { return };
        self.honest = false;
        let Self { machine, model, .. } = self;
        machine.bus(|bus| model.lie(Lie::ALL[usize::from(which) % Lie::ALL.len()], request, None, bus));
    }

    fn add(&mut self, readable: u8, writable: u8, length: u16) {
        let length = length % (LENGTH_MAX + 1);
        let parts = (0..readable + writable).map(|index| Part {
            address: self.buffers.device_address() + u64::from(self.next_token % 10 * 10 + u32::from(index)) * 0x100,
            length: length.into(),
            writable: index >= readable,
        });
        let parts: Vec<_> = parts.collect();
        let segments: Vec<_> =
            parts.iter().map(|part| Segment { address: part.address, length: part.length }).collect();
        let (readable, writable) = segments.split_at(readable.into());
        let (free, token) = (self.queue.free(), self.next_token);
        let room = self.queue.has_room(parts.len());
        match self.queue.add(Chain { readable, writable }, token) {
            Ok(()) => {
                assert!(self.error.is_none() && room && self.queue.free() < free);
                self.next_token += 1;
                self.lent.insert(token, Lent { parts, published: false });
            }
            Err(rejected) => {
                assert_eq!((rejected.token, self.queue.free()), (token, free));
                match rejected.reason {
                    Refusal::Full { needed, free: said } => assert!(!room && said == free && needed > free.into()),
                    Refusal::TooLong { length, size } => assert!(length > size.into() && size == self.queue.size()),
                    Refusal::Empty => assert!(parts.is_empty() || length == 0),
                    Refusal::TooLarge(_) => unreachable!("ten segments of 4 KiB"),
                    Refusal::Poisoned(error) => assert_eq!(Some(error), self.error),
                }
            }
        }
    }

    fn publish(&mut self) {
        let fresh: Vec<_> = self.lent.iter_mut().filter(|(_, lent)| !lent.published).collect();
        let any = !fresh.is_empty();
        for (token, lent) in fresh {
            lent.published = true;
            self.waiting.push_back(*token);
        }
        let kick = self.queue.publish();
        assert!(any || kick.is_none(), "a kick for nothing");
        if self.honest && any {
            assert_eq!(kick.is_some(), self.asks, "whether the device is kicked");
            // An event index asks for one kick, a flag for all.
            self.asks &= !self.event_idx;
        }
    }

    fn take(&mut self, ask: bool) {
        let Self { machine, model, .. } = self;
        let fresh = machine.bus(|bus| {
            let fresh = model.take_available(bus);
            if !ask {
                model.suppress(1, bus);
            }
            fresh
        });
        self.asks = ask;
        for taken in fresh {
            let token = self.waiting.pop_front();
            if self.honest {
                let token = token.expect("what the device sees was published");
                assert_eq!(parts(&taken), self.lent[&token].parts, "what the device sees of {token}");
            }
            if let Some(token) = token {
                self.model.in_flight.push(taken.clone());
                self.taken.push((token, taken));
            }
        }
        assert!(!self.honest || self.waiting.is_empty(), "{:?} cannot be seen", self.waiting);
    }

    fn give_back(&mut self, which: usize, count: usize, written: u32) {
        let which = if self.in_order { 0 } else { which };
        let Some(which) = which.checked_rem(self.taken.len()) else { return };
        let batch: Vec<_> = self.taken.drain(which..(which + count).min(self.taken.len())).collect();
        let Some((last, _)) = batch.last() else { return };
        let lengths = parts(&batch[batch.len() - 1].1).into_iter().filter(|part| part.writable).map(|part| part.length);
        let room = lengths.fold(0, u32::saturating_add);
        let written = if self.honest { written.min(room) } else { written };
        self.returned.extend(batch.iter().map(|(token, _)| (*token, (token == last).then_some(written))));
        let buffers: Vec<_> = batch.iter().map(|(_, taken)| taken.clone()).collect();
        let Self { machine, model, .. } = self;
        model.in_flight.retain(|request| buffers.iter().all(|done| done.head != request.head));
        let wanted = machine.bus(|bus| model.put_used(&buffers, written, bus));
        if let Some(wish) = &mut self.wish {
            wish.come |= wanted;
            wish.left = wish.left.saturating_sub(batch.len());
            assert!(!self.honest || wish.left > 0 || wish.come, "an interrupt that was asked for did not come");
        }
    }

    fn pop(&mut self) {
        match self.queue.pop() {
            Ok(None) => assert!(!self.honest || self.returned.is_empty(), "{:?} not popped", self.returned),
            Ok(Some(completion)) => {
                let lent = self.lent.remove(&completion.token).expect("a token that is with the queue");
                assert!(lent.published, "{} came back before it was published", completion.token);
                let sum = |writable: bool| -> u32 {
                    lent.parts.iter().filter(|part| part.writable == writable).map(|part| part.length).sum()
                };
                assert!(completion.written <= sum(true) && completion.written <= completion.claimed);
                let limit = match self.used {
                    UsedLength::Strict => sum(true),
                    UsedLength::Lenient => sum(true) + sum(false),
                    UsedLength::Ignored => u32::MAX,
                };
                assert!(completion.claimed <= limit);
                let first = self.returned.pop_front();
                if self.honest {
                    let (token, written) = first.expect("what is popped was returned");
                    assert_eq!((token, written.unwrap_or(completion.written)), (completion.token, completion.written));
                }
            }
            Err(error) => {
                assert!(!self.honest, "{error}");
                assert_eq!(*self.error.get_or_insert(error), error, "the first error stays");
                assert_eq!(self.queue.poisoned(), self.error);
            }
        }
    }

    fn arm(&mut self, completions: u16) {
        let armed = self.queue.arm(completions);
        self.error = self.error.or(self.queue.poisoned());
        assert!(self.error.is_none() || !armed && !self.honest);
        if !self.honest {
            return;
        }
        let returned = self.returned.len();
        let asked = usize::from(completions).clamp(1, self.lent.len().max(1));
        // Only on a split ring the driver counts chains of different lengths: on a packed ring it waits for the last
        // one.
        let exact = self.format == RingFormat::Split;
        let latest = if exact { asked } else { self.lent.len().max(1) };
        if armed {
            assert!(!exact || returned < asked, "armed for {asked}, with {returned} returned");
            self.wish = Some(Wish { left: latest - returned, come: false });
        } else {
            assert!(returned > 0 && (!exact || returned >= asked), "not armed for {asked}, with {returned} returned");
            self.wish = None;
        }
    }

    fn laps(&mut self, laps: u8) {
        for _ in 0..u32::from(laps) * 8 {
            self.add(1, 0, 64);
            self.publish();
            self.take(true);
            self.give_back(0, 1, 0);
            self.pop();
            if self.error.is_some() {
                break;
            }
        }
    }

    fn finish(mut self) {
        let (mut queue, mut tokens) = (Some(self.queue), Vec::new());
        let options = DeviceOptions::new("fuzz");
        // Only a reset device gives the proof with which a queue releases its memory.
        let at = Bdf::new(0, 0, 5, 0).expect("a function number");
        self.machine.plug(at, Behaviour::conforming());
        let setup = Setup::open(
            &mut self.platform,
            at,
            options,
            DeviceType::BALLOON,
            |_, _| Features::VERSION_1,
            |platform, proof| {
                let queue = queue.take().expect("the device is reset once");
                tokens = queue.release(platform, proof).collect();
                platform.release_dma(self.buffers);
            },
        );
        setup.expect("a device that works").abandon(&mut self.platform).expect("a device that resets");
        tokens.sort_unstable();
        assert!(tokens.iter().eq(self.lent.keys()), "{tokens:?} came back of {:?}", self.lent);
        assert_eq!(self.machine.allocated(), Allocated::default());
        if self.honest {
            self.machine.expect_no_missteps();
        }
    }
}

/// The segments of a request, as the device sees them.
fn parts(request: &Request) -> Vec<Part> {
    let segments = request.chain.iter().map(|(_, descriptor)| descriptor).filter(|d| !d.is_indirect());
    segments.map(|d| Part { address: d.address, length: d.length, writable: d.is_writable() }).collect()
}
