//! A queue, split or packed, against a device that works by the rules until it begins to write what it likes.
//!
//! Whatever the device does, each token comes back once, and only after it was published. As long as it keeps the rules,
//! every request arrives as it was made, comes back in the order in which it was returned, and neither a kick nor an
//! interrupt that one side needs is left out.

use std::collections::{BTreeMap, VecDeque};

use arbitrary::Arbitrary;
use ballonet::pci::Bdf;
use ballonet::virtio::spec::{DeviceType, Features};
use ballonet::virtio::{
    Chain, DeviceOptions, QueueError, QueueIndex, QueueOptions, Refusal, RingFormat, RingLayout, Segment, Setup,
    UsedLength, Virtqueue,
};

use crate::device::Make;
use crate::dma::Piece;
use crate::pci::Space;
use crate::platform::{TestPlatform, World};
use crate::ring::{Part, Ring, Taken};

/// A queue and what is done with it.
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

/// What driver and device do.
#[derive(Debug, Arbitrary)]
pub enum Step {
    /// Adds a request of so many readable and writable segments of this length.
    Add {
        readable: u8,
        writable: u8,
        length: u16,
    },
    Publish,
    Pop,
    Arm(u8),
    Disarm,
    /// All of it for requests of one segment, a few hundred times.
    Laps(u8),
    /// The device takes what is available, and asks to be kicked for more, or not.
    Take {
        ask: bool,
    },
    /// The device returns one of those that it has, having written so much.
    Return {
        which: u8,
        written: u16,
    },
    /// The device returns so many by one entry for all, where that is allowed.
    ReturnBatch {
        count: u8,
        written: u16,
    },
    /// From here on the device lies: a used entry of any contents, on by so many,
    Forge {
        id: u32,
        length: u32,
        advance: u16,
    },
    /// flags where the next used entry is due, or the used index,
    Flags(u16),
    /// anything anywhere.
    Write {
        piece: u8,
        offset: u16,
        value: u16,
    },
}

/// Steps of a course that are taken.
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

/// A request that is with the queue.
#[derive(Debug)]
struct Lent {
    parts: Vec<Part>,
    published: bool,
}

/// An interrupt that the driver asked for.
#[derive(Debug)]
struct Wish {
    /// Completions until it has to have come.
    left: usize,
    come: bool,
}

struct Trial {
    platform: TestPlatform,
    queue: Virtqueue<Piece, u32>,
    format: RingFormat,
    ring: Ring,
    event_idx: bool,
    in_order: bool,
    used: UsedLength,
    next_token: u32,
    /// What is with the queue, by token.
    lent: BTreeMap<u32, Lent>,
    /// Tokens in the order of publication that the device has not taken.
    waiting: VecDeque<u32>,
    /// What the device has taken.
    taken: Vec<(u32, Taken)>,
    /// What the device has returned and the driver not popped, with what it wrote, if it said so.
    returned: VecDeque<(u32, Option<u32>)>,
    wish: Option<Wish>,
    /// Whether the device has asked for a kick that has not come.
    asks: bool,
    honest: bool,
    error: Option<QueueError>,
}

impl Trial {
    fn new(format: RingFormat, size: u16, course: &Course) -> Self {
        let mut platform = machine();
        let used_length = match course.used_length {
            Used::Strict => UsedLength::Strict,
            Used::Lenient => UsedLength::Lenient,
            Used::Ignored => UsedLength::Ignored,
        };
        let mut options = QueueOptions::default();
        (options.event_idx, options.in_order) = (course.event_idx, course.in_order);
        options.indirect_entries = course.indirect.map_or(0, |entries| u16::from(entries % 9));
        options.used_length = used_length;
        let layout = RingLayout::fitting(format, size).expect("a size that is not 0");
        let queue =
            Virtqueue::allocate(&mut platform, QueueIndex::FIRST, layout, options).expect("memory without limit");
        let ring = Ring::new(format, layout.size(), queue.addresses(), course.event_idx);
        platform.with_pool(|pool| ring.want_kicks(true, pool));
        assert_eq!((queue.size(), queue.free(), queue.outstanding()), (layout.size(), layout.size(), 0));
        Self {
            platform,
            queue,
            format,
            ring,
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
            Step::Forge { id, length, advance } => {
                self.honest = false;
                self.platform.with_pool(|pool| self.ring.forge(id, length, advance, pool));
            }
            Step::Flags(flags) => {
                self.honest = false;
                self.platform.with_pool(|pool| self.ring.scribble(flags, pool));
            }
            Step::Write { piece, offset, value } => {
                self.honest = false;
                self.platform.with_pool(|pool| {
                    if let Some(address) = pool.anywhere(piece, offset) {
                        pool.write(address, value.to_le_bytes());
                    }
                });
            }
        }
    }

    fn add(&mut self, readable: u8, writable: u8, length: u16) {
        let parts = (0..readable + writable).map(|index| Part {
            address: 0x4000_0000 + u64::from(self.next_token) * 0x1_0000 + u64::from(index) * 0x100,
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
                    Refusal::TooLarge(_) => unreachable!("ten segments of 64 KiB"),
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
            // By index one is asked for, by flag all are.
            self.asks &= !self.event_idx;
        }
    }

    fn take(&mut self, ask: bool) {
        let Self { platform, ring, .. } = self;
        let fresh: Vec<Taken> = platform.with_pool(|pool| {
            // No more than a ring full: its memory may hold anything.
            let fresh = std::iter::from_fn(|| ring.take(pool)).take(usize::from(u8::MAX) + 1).collect();
            ring.want_kicks(ask, pool);
            fresh
        });
        self.asks = ask;
        for taken in fresh {
            let token = self.waiting.pop_front();
            if self.honest {
                let token = token.expect("what the device sees was published");
                assert_eq!(taken.parts, self.lent[&token].parts, "what the device sees of {token}");
            }
            if let Some(token) = token {
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
        let lengths = batch[batch.len() - 1].1.parts.iter().filter(|part| part.writable).map(|part| part.length);
        let room = lengths.fold(0, u32::saturating_add);
        let written = if self.honest { written.min(room) } else { written };
        self.returned.extend(batch.iter().map(|(token, _)| (*token, (token == last).then_some(written))));
        let buffers: Vec<_> = batch.iter().map(|(_, taken)| taken.clone()).collect();
        let Self { platform, ring, .. } = self;
        let wanted = platform.with_pool(|pool| ring.put(&buffers, written, pool));
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
        // Chains of different lengths can be told apart only on a split ring: of a packed one the last is waited for.
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

    fn finish(self) {
        let Self { mut platform, queue, lent, .. } = self;
        let mut tokens = Vec::new();
        // The proof that a device has let go of everything comes from one that was just reset.
        let was_reset = |platform: &mut TestPlatform, proof: &_| tokens = queue.release(platform, proof);
        let (options, accepted) = (DeviceOptions::new("fuzz"), Features::VERSION_1);
        let setup = Setup::open(&mut platform, DEVICE, options, DeviceType::BALLOON, |_, _| accepted, was_reset);
        setup.expect("a device by the rules").abandon(&mut platform).expect("it stops");
        tokens.sort_unstable();
        assert!(tokens.iter().eq(lent.keys()), "{tokens:?} came back of {lent:?}");
        platform.expect_nothing_taken();
    }
}

/// Where the device is that the queues stand for.
const DEVICE: Bdf = Bdf::new(0, 0, 3, 0).unwrap();

/// A machine with a device that works by the rules.
fn machine() -> TestPlatform {
    let (device, registers) = Make::modern().build(Vec::new());
    let mut space = Space::new(256, Vec::new());
    space.functions.insert(DEVICE, registers);
    let mut world = World::default();
    (world.space, world.device) = (space, device);
    TestPlatform::new(world)
}
