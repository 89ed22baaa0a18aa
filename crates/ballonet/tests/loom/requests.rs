//! What the requests of the models are made of, and how each side tells whether it sees all of one.
//!
//! A request is a question, which the device reads, and an answer, which it writes: a chain of two descriptors. Each has
//! an address, a length and contents of its own, none of them 0, so that a field shows that was not written yet, or was
//! written for another request.

use ballonet::platform::DmaMemory;
use ballonet::virtio::{Chain, Completion, Segment};

use super::device::{Descriptor, Device, Queue, Taken};
use super::memory::{Memory, Width};

/// A request, by its number: 0 or 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request(pub u32);

impl Request {
    const fn question(self) -> Segment {
        Segment { address: 0x1000 + self.0 as u64, length: 16 + self.0 }
    }

    const fn answer(self) -> Segment {
        Segment { address: 0x2000 + self.0 as u64, length: 32 + self.0 }
    }

    /// The bytes that the device says it wrote.
    const fn written(self) -> u32 {
        8 + self.0
    }

    fn descriptors(self) -> Vec<Descriptor> {
        let descriptor = |Segment { address, length }, writable| Descriptor { address, length, writable };
        vec![descriptor(self.question(), false), descriptor(self.answer(), true)]
    }

    const fn question_word(self) -> (usize, u32) {
        (self.0 as usize * 8, 100 + self.0)
    }

    const fn answer_word(self) -> (usize, u32) {
        (self.0 as usize * 8 + 4, 200 + self.0)
    }
}

/// What is in the segments of the requests: of each, one word.
#[derive(Debug, Clone)]
pub struct Buffers(Memory);

impl Buffers {
    pub fn new() -> Self {
        Self(Memory::new(16, [0, 4, 8, 12].map(|offset| (offset, Width::Four))))
    }

    /// Driver: asks the question, and puts the request into the queue.
    pub fn add(&mut self, queue: &mut Queue, request: Request) {
        let (offset, word) = request.question_word();
        self.0.store32(offset, word);
        let chain = Chain { readable: &[request.question()], writable: &[request.answer()] };
        queue.add(chain, request).expect("the queue has room");
    }

    /// Device: takes the request, if it is available, and checks that all of it is there.
    pub fn take(&self, device: &mut impl Device, request: Request) -> Option<Taken> {
        let taken = device.take()?;
        assert_eq!(taken.descriptors, request.descriptors(), "torn {request:?}");
        let (offset, word) = request.question_word();
        assert_eq!(self.0.load32(offset), word, "torn question of {request:?}");
        Some(taken)
    }

    /// Device: answers and returns the request. Whether the driver must be interrupted.
    pub fn put(&mut self, device: &mut impl Device, taken: &Taken, request: Request) -> bool {
        let (offset, word) = request.answer_word();
        self.0.store32(offset, word);
        device.put(taken, request.written())
    }

    /// Device: answers these requests, and gives them back by what it says of the last.
    pub fn put_all(&mut self, device: &mut impl Device, taken: &[Taken], requests: &[Request]) -> bool {
        for request in requests {
            let (offset, word) = request.answer_word();
            self.0.store32(offset, word);
        }
        device.put_all(taken, requests.last().expect("a request").written())
    }

    /// Driver: pops the request, if it is done, and checks that all of the answer is there.
    pub fn pop(&self, queue: &mut Queue, request: Request) -> bool {
        self.pop_with(queue, request, request.written())
    }

    /// The same of a request that was given back with another, of which all that could be written was.
    pub fn pop_unsaid(&self, queue: &mut Queue, request: Request) -> bool {
        self.pop_with(queue, request, request.answer().length)
    }

    fn pop_with(&self, queue: &mut Queue, request: Request, written: u32) -> bool {
        let completion = match queue.pop() {
            Ok(Some(completion)) => completion,
            Ok(None) => return false,
            Err(error) => panic!("torn completion of {request:?}: {error}"),
        };
        let whole = Completion { token: request, written, claimed: written };
        assert_eq!(completion, whole, "torn completion of {request:?}");
        let (offset, word) = request.answer_word();
        assert_eq!(self.0.load32(offset), word, "torn answer to {request:?}");
        true
    }
}
