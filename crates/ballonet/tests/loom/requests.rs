//! The models' requests, and how each side checks that it sees a request completely.
//!
//! A request is a question, read by the device, and an answer, written by it: a chain of two descriptors. All
//! addresses, lengths and contents are distinct and not 0, so that a field that is not yet written, or belongs to
//! another request, is detected.

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

    /// The used length that the device reports.
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

/// The contents of the requests' segments: one word each.
#[derive(Debug, Clone)]
pub struct Buffers(Memory);

impl Buffers {
    pub fn new() -> Self {
        Self(Memory::new(16, [0, 4, 8, 12].map(|offset| (offset, Width::Four))))
    }

    /// Driver: writes the question and adds the request to the queue.
    pub fn add(&mut self, queue: &mut Queue, request: Request) {
        let (offset, word) = request.question_word();
        self.0.store32(offset, word);
        let chain = Chain { readable: &[request.question()], writable: &[request.answer()] };
        queue.add(chain, request).expect("the queue has room");
    }

    /// Device: takes the request, if available, and checks that it is complete.
    pub fn take(&self, device: &mut impl Device, request: Request) -> Option<Taken> {
        let taken = device.take()?;
        assert_eq!(taken.descriptors, request.descriptors(), "torn {request:?}");
        let (offset, word) = request.question_word();
        assert_eq!(self.0.load32(offset), word, "torn question of {request:?}");
        Some(taken)
    }

    /// Device: answers and returns the request. Returns whether the driver must be interrupted.
    pub fn put(&mut self, device: &mut impl Device, taken: &Taken, request: Request) -> bool {
        let (offset, word) = request.answer_word();
        self.0.store32(offset, word);
        device.put(taken, request.written())
    }

    /// Device: answers these requests and returns them by one entry, for the last.
    pub fn put_all(&mut self, device: &mut impl Device, taken: &[Taken], requests: &[Request]) -> bool {
        for request in requests {
            let (offset, word) = request.answer_word();
            self.0.store32(offset, word);
        }
        device.put_all(taken, requests.last().expect("a request").written())
    }

    /// Driver: pops the request, if done, and checks that the answer is complete.
    pub fn pop(&self, queue: &mut Queue, request: Request) -> bool {
        self.pop_with(queue, request, request.written())
    }

    /// As [`Buffers::pop`], for a request completed together with another; its whole answer counts as written.
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
