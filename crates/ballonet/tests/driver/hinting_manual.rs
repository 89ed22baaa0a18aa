//! Tests the model of hints and poison with manual accesses: correct use passes, and each misstep is reported with its
//! clause.

use ballonet::memory::FrameRun;
use ballonet::memory::{FrameContents, PageFrames};

use super::manual::Hand;
use ballonet_models::feature::{PAGE_POISON, PAGE_REPORTING};
use ballonet_models::{Behaviour, Descriptor, Hints, HostSide, Machine, ModelPlatform, Request};

const WRITE: u16 = 2;

/// The device's record of hints, and the driver's machine.
struct Book {
    machine: Machine,
    platform: ModelPlatform,
    hints: Hints,
}

impl Book {
    fn new() -> Self {
        let (machine, _) = Machine::with_balloon(64, Behaviour::conforming());
        let platform = ModelPlatform::new(&machine);
        Self { machine, platform, hints: Hints::default() }
    }

    fn run(&mut self) -> FrameRun {
        self.platform.frames.take_free(4).expect("frames")
    }

    /// The host sends a command, and the driver reads it.
    fn give(&mut self, command: u32) {
        self.hints.give(command);
        let read = self.machine.bus(|bus| self.hints.read(false, bus));
        assert_eq!(read, command);
    }

    fn take(&mut self, request: &Request) {
        self.machine.bus(|bus| self.hints.take(request, true, bus));
    }

    fn command(&mut self, bytes: &[u8]) {
        let descriptor = Descriptor { address: 0x10_0000, length: bytes.len() as u32, flags: 0, next: 0 };
        self.take(&Request { head: 0, due: 0, chain: vec![(0, descriptor)], bytes: bytes.to_vec() });
    }

    fn hint(&mut self, run: FrameRun) -> Request {
        let (address, length) = (run.start().start().as_u64(), run.bytes() as u32);
        let descriptor = Descriptor { address, length, flags: WRITE, next: 0 };
        let request = Request { head: 0, due: 0, chain: vec![(0, descriptor)], bytes: Vec::new() };
        self.take(&request);
        request
    }

    /// The device returns a hint.
    fn finish(&mut self, run: FrameRun) {
        self.machine.bus(|bus| run.pfns().for_each(|pfn| bus.ram.set_host_side(pfn.0, HostSide::Hinted)));
    }

    /// A round with one hint that came back.
    fn round(&mut self) -> FrameRun {
        let run = self.run();
        self.give(5);
        self.command(&5_u32.to_le_bytes());
        self.hint(run);
        self.finish(run);
        run
    }

    fn rest(&mut self) {
        self.machine.bus(|bus| self.hints.check_idle(bus));
    }

    fn found(&self) -> Vec<&'static str> {
        self.machine.missteps().iter().map(|misstep| misstep.clause).collect()
    }
}

#[test]
fn correct_rounds_cause_no_findings() {
    let mut book = Book::new();
    let run = book.round();
    book.command(&[0; 4]);
    book.rest();
    let early = book.run();
    book.give(6);
    book.command(&6_u32.to_le_bytes());
    book.hint(run);
    book.finish(run);
    book.hint(early);
    book.finish(early);
    book.command(&[0; 4]);
    book.platform.frames.fill(early, 0);
    book.platform.frames.release(early);
    book.give(1);
    book.platform.frames.release(run);
    book.rest();
    assert_eq!(book.found(), [""; 0]);
    assert_eq!((book.hints.heeded, book.hints.commands.as_slice()), (12, &[5, 0, 6, 0][..]));
}

#[test]
fn the_model_names_the_clause_of_each_misstep_with_hints() {
    type Misstep = fn(&mut Book);
    let missteps: [(&str, Misstep); 15] = [
        ("BAL-HINT-01", |book| book.command(&[5, 0])),
        ("BAL-HINT-01", |book| book.command(&[5, 0, 0, 0, 0, 0, 0, 0])),
        ("BAL-HINT-02", |book| {
            let run = book.run();
            book.give(5);
            book.hint(run);
        }),
        ("BAL-HINT-02", |book| book.command(&7_u32.to_le_bytes())),
        ("BAL-HINT-02", |book| {
            book.give(1);
            book.command(&1_u32.to_le_bytes());
        }),
        ("BAL-HINT-03", |book| {
            book.round();
            book.command(&[0; 4]);
            book.command(&5_u32.to_le_bytes());
        }),
        ("BAL-HINT-04", |book| {
            let run = book.round();
            book.platform.frames.fill(run, 1);
            book.platform.frames.release(run);
            book.hint(run);
        }),
        ("BAL-HINT-05", |book| {
            let run = book.run();
            book.round();
            book.give(0);
            book.hint(run);
        }),
        ("BAL-HINT-06", |book| book.command(&[0; 4])),
        ("BAL-HINT-06", |book| {
            book.round();
            book.give(6);
            book.command(&6_u32.to_le_bytes());
        }),
        ("BAL-HINT-06", |book| {
            book.round();
            book.rest();
        }),
        ("BAL-HINT-07", |book| {
            let run = book.run();
            book.give(5);
            book.command(&5_u32.to_le_bytes());
            book.hint(run);
            book.platform.frames.fill(run, 0);
            book.platform.frames.release(run);
        }),
        ("BAL-HINT-09", |book| {
            let run = book.round();
            book.platform.frames.release(run);
        }),
        ("BAL-HINT-09", |book| {
            let (first, _) = book.round().split(1);
            // Discarding a part is not enough.
            book.machine.bus(|bus| bus.ram.discard(first.start().0));
            book.platform.frames.release(first);
        }),
        ("BAL-HINT-10", |book| {
            book.round();
            book.command(&[0; 4]);
            book.give(1);
            book.rest();
        }),
    ];
    for (clause, misstep) in missteps {
        let mut book = Book::new();
        misstep(&mut book);
        assert!(book.found().contains(&clause), "{clause}: found {:?}", book.found());
    }
}

/// The writes to `poison_val` and the status with which a driver would break the rules.
#[test]
fn the_model_names_the_clause_of_each_misstep_with_the_poison() {
    for (before, after, clause) in [(false, false, "BAL-POISON-02"), (true, true, "BAL-POISON-03")] {
        let behaviour = Behaviour::conforming().with_features(1 << 32 | PAGE_POISON);
        let (machine, at) = Machine::with_balloon(64, behaviour);
        machine.balloon(at, |b, bus| {
            let mut write = |offset, width, value| b.bar_write(4, offset, width, value, bus);
            write(0x14, 1, 0);
        });
        machine.pass(1_000_000);
        machine.balloon(at, |b, bus| {
            b.bar_read(4, 0x14, 1, bus);
            let mut write = |offset, width, value| b.bar_write(4, offset, width, value, bus);
            for status in [1, 3] {
                write(0x14, 1, status);
            }
            for (word, bits) in [(0, PAGE_POISON as u32), (1, 1)] {
                write(0x08, 4, word);
                write(0x0c, 4, bits);
            }
            write(0x14, 1, 11);
            b.bar_read(4, 0x14, 1, bus);
            let mut write = |offset, width, value| b.bar_write(4, offset, width, value, bus);
            if before {
                write(0x200c, 4, 0x5a5a_5a5a);
            }
            write(0x14, 1, 15);
            if after {
                write(0x200c, 4, 0);
            }
        });
        let found: Vec<_> = machine.missteps().iter().map(|misstep| misstep.clause).collect();
        assert!(found.contains(&clause), "{clause}: {found:?}");
    }
}

#[test]
fn the_model_detects_frames_without_the_poison() {
    let behaviour = Behaviour::conforming();
    let features = behaviour.features | PAGE_REPORTING;
    let mut hand = Hand::right(behaviour.with_features(features));
    let (mut inflate, mut deflate) = hand.start();
    hand.machine.bus(|bus| bus.ram.poison = Some(0));
    let run = hand.platform.frames.take_free(1).expect("a frame");
    let pfn = run.start().0;
    hand.send_chain(&mut inflate, &[&[pfn]]);
    hand.platform.frames.confirm_ballooned(run);
    let back = hand.platform.frames.take_ballooned(1).expect("a frame");
    hand.send_chain(&mut deflate, &[&[pfn]]);
    hand.platform.frames.release(back);
    let found: Vec<_> = hand.machine.missteps().iter().map(|misstep| misstep.clause).collect();
    assert_eq!(found, ["BAL-POISON-01"]);

    let book = &mut Book::new();
    let run = book.run();
    book.platform.frames.fill(run, 1);
    book.machine.bus(|bus| {
        bus.ram.poison = Some(0);
        ballonet_models::take_reported(run.start().0, bus);
    });
    assert_eq!(book.found(), ["BAL-REPORT-02"]);
}
