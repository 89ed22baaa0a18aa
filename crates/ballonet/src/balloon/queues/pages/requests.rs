//! The pool of requests that move frames, each with a slot of DMA memory for its frame numbers, split over the
//! descriptors of its shape.
//!
//! Everything is allocated when the driver starts; moving frames allocates nothing.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::balloon::policy::request_shape::RequestShape;
use crate::balloon::wire::{PFN_SIZE, write_pfns};
use crate::bus::heap;
use crate::memory::FrameRun;
use crate::platform::{DmaExhausted, DmaMemory, OutOfMemory, Platform};
use crate::virtio::Segment;

/// The average run length, in frames, below which requests are shorter than they could be.
const SHORT_RUN: u32 = 4;

/// Bytes of a page, which no slot of ordinary shape straddles.
const PAGE: usize = 4096;

/// Frames that move, and the slot for their numbers.
#[derive(Debug)]
pub(crate) struct Request {
    slot: usize,
    /// Ascending.
    runs: Vec<FrameRun>,
    frames: u32,
    /// The most frames, and the most runs.
    room: (u32, usize),
}

impl Request {
    fn new(slot: usize, shape: RequestShape) -> Result<Self, OutOfMemory> {
        let room = room(shape);
        Ok(Self { slot, runs: heap::vector(room.1)?, frames: 0, room })
    }

    /// The number of frames.
    pub(crate) fn frames(&self) -> u32 {
        self.frames
    }

    /// The frames, in the order of the wire.
    pub(crate) fn runs(&self) -> &[FrameRun] {
        &self.runs
    }

    /// Collects up to `most` frames from `take`, whose argument is the most frames to return. Returns whether there
    /// were enough for the request or for `most`.
    pub(crate) fn collect(&mut self, most: u64, mut take: impl FnMut(u32) -> Option<FrameRun>) -> bool {
        let (frames, runs) = self.room;
        let room = most.min(frames.into()) as u32;
        while self.frames < room && self.runs.len() < runs {
            let wanted = room - self.frames;
            let Some(run) = take(wanted) else { return false };
            assert!(run.count() <= wanted, "the platform returned {run} although {wanted} frames were requested");
            self.frames += run.count();
            // Runs mostly arrive in order, and there are few.
            let place = self.runs.iter().rposition(|other| other.start() < run.start()).map_or(0, |before| before + 1);
            self.runs.insert(place, run);
        }
        true
    }
}

/// The pool, with the DMA memory of all requests.
#[derive(Debug)]
pub(crate) struct Requests<M> {
    memory: M,
    idle: Vec<Request>,
    window: u16,
    shape: RequestShape,
    /// Frame numbers are assembled here and go to the slot in one copy.
    scratch: Box<[u8]>,
    /// The descriptors of the last written request.
    segments: Vec<Segment>,
}

impl<M: DmaMemory> Requests<M> {
    /// A pool of at most `window` requests, fewer if memory is short.
    ///
    /// # Errors
    /// When there is no memory for a single one.
    pub(crate) fn allocate<P>(platform: &mut P, window: u16, shape: RequestShape) -> Result<Self, OutOfMemory>
    where
        P: Platform<Memory = M>,
    {
        let mut window = window.max(1);
        loop {
            let bytes = usize::from(window) * slot_bytes(shape);
            let align = slot_bytes(shape).next_power_of_two().min(PAGE);
            match Self::new(window, shape, || platform.allocate_dma(bytes, align)) {
                Ok(requests) => return Ok(requests),
                Err(error) if window == 1 => return Err(error),
                Err(_) => window /= 2,
            }
        }
    }

    /// A pool of `window` requests. `allocate` comes last: there is nothing to undo when the heap has no room.
    fn new(
        window: u16,
        shape: RequestShape,
        allocate: impl FnOnce() -> Result<M, DmaExhausted>,
    ) -> Result<Self, OutOfMemory> {
        let mut idle = heap::vector(window.into())?;
        // Backwards, so that the first request has the first slot.
        for slot in (0..window).rev() {
            idle.push(Request::new(usize::from(slot), shape)?);
        }
        let mut scratch = heap::vector(slot_bytes(shape))?;
        scratch.resize(slot_bytes(shape), 0);
        let segments = heap::vector(shape.descriptors().into())?;
        Ok(Self { memory: allocate()?, idle, window, shape, scratch: scratch.into_boxed_slice(), segments })
    }

    /// Descriptors of an indirect table in a queue of `size`; 1, which is none, if all requests fit without tables.
    pub(crate) fn table_entries(&self, size: u16) -> u16 {
        let descriptors = self.shape.descriptors();
        if u32::from(size) >= u32::from(self.window) * u32::from(descriptors) { 1 } else { descriptors }
    }

    /// The most descriptors of a request.
    pub(crate) fn descriptors(&self) -> usize {
        self.shape.descriptors().into()
    }

    /// An empty request of at most `descriptors`, if one is idle.
    pub(crate) fn take(&mut self, descriptors: usize) -> Option<Request> {
        let mut request = self.idle.pop()?;
        request.room = room(self.shape.within(descriptors as u16));
        Some(request)
    }

    /// Takes a request back; its frames have been dealt with.
    pub(crate) fn put(&mut self, mut request: Request) {
        request.runs.clear();
        request.frames = 0;
        self.idle.push(request);
    }

    /// Writes the request's frame numbers into its slot. Returns the segments to describe.
    pub(crate) fn write(&mut self, request: &Request) -> &[Segment] {
        let mut length = 0;
        for run in &request.runs {
            // `collect` limits the sum of all runs to the size of the scratch.
            length += write_pfns(*run, &mut self.scratch[length..]);
        }
        debug_assert_eq!(length, request.frames as usize * PFN_SIZE);
        let offset = request.slot * slot_bytes(self.shape);
        self.memory.write_bytes(offset, &self.scratch[..length]);
        let (address, length) = (self.memory.device_address() + offset as u64, length as u32);
        let piece = u32::from(self.shape.frames()) * PFN_SIZE as u32;
        self.segments.clear();
        self.segments.extend(
            (0..length)
                .step_by(piece as usize)
                .map(|start| Segment { address: address + u64::from(start), length: piece.min(length - start) }),
        );
        &self.segments
    }

    /// The DMA memory. The device no longer uses it.
    pub(crate) fn into_memory(self) -> M {
        self.memory
    }
}

/// The most frames of a request, and the most runs of them.
fn room(shape: RequestShape) -> (u32, usize) {
    (shape.total(), shape.total().div_ceil(SHORT_RUN) as usize)
}

/// Bytes of a request's slot.
fn slot_bytes(shape: RequestShape) -> usize {
    shape.total() as usize * PFN_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Pfn;

    /// Bytes of a request of one descriptor.
    const REQUEST_BYTES: usize = 256 * PFN_SIZE;

    /// Runs of `length` frames with a gap behind each, as long as there are any.
    fn runs(length: u32, mut left: u32) -> impl FnMut(u32) -> Option<FrameRun> {
        let mut next = 0;
        move |wanted| {
            let count = length.min(wanted).min(left);
            let run = FrameRun::new(Pfn(next), count)?;
            next += count + 1;
            left -= count;
            Some(run)
        }
    }

    fn request() -> Request {
        Request::new(0, RequestShape::default()).unwrap()
    }

    #[test]
    fn a_request_takes_256_frames_in_as_few_runs_as_possible() {
        for (length, count) in [(1000, 1), (256, 1), (100, 3), (4, 64)] {
            let mut request = request();
            assert!(request.collect(u64::MAX, runs(length, 10_000)));
            assert_eq!((request.frames(), request.runs().len()), (256, count), "runs of {length}");
        }
    }

    #[test]
    fn short_runs_make_a_short_request_and_no_allocation() {
        let mut request = request();
        let capacity = request.runs.capacity();
        assert!(request.collect(u64::MAX, runs(1, 10_000)));
        assert_eq!((request.frames() as usize, request.runs.capacity()), (64, capacity));
    }

    #[test]
    fn no_more_frames_are_taken_than_requested_and_a_shortage_is_reported() {
        let mut few = request();
        assert!(few.collect(10, runs(256, 10_000)));
        assert_eq!(few.frames(), 10);
        let mut short = request();
        assert!(!short.collect(200, runs(256, 150)));
        assert_eq!(short.frames(), 150, "the collected frames stay");
    }

    #[test]
    fn each_request_of_the_pool_has_a_slot_of_its_own() {
        let ram = crate::virtio::fake::Ram::new(4 * REQUEST_BYTES);
        let mut pool = Requests::new(4, RequestShape::default(), || Ok(ram.clone())).unwrap();
        let mut slots = Vec::new();
        for number in 0..4 {
            let mut request = pool.take(1).expect("four requests");
            request.collect(256, |wanted| FrameRun::new(Pfn(1000 * number), wanted));
            let [segment] = *pool.write(&request) else { panic!("one descriptor") };
            assert_eq!(segment.length as usize, REQUEST_BYTES);
            slots.push((segment.address - ram.device_address()) as usize);
        }
        assert!(pool.take(1).is_none());
        for (number, slot) in (0u32..).zip(slots) {
            assert_eq!(ram.load32(slot), 1000 * number);
            assert_eq!(ram.load32(slot + REQUEST_BYTES - 4), 1000 * number + 255);
        }
    }

    #[test]
    fn frame_numbers_fill_one_descriptor_after_the_other() {
        let shape = RequestShape::new(3, 4).unwrap();
        let ram = crate::virtio::fake::Ram::new(2 * 48);
        let mut pool = Requests::new(2, shape, || Ok(ram.clone())).unwrap();
        for (frames, expected) in
            [(1, vec![4]), (3, vec![12]), (4, vec![12, 4]), (11, vec![12, 12, 12, 8]), (99, vec![12; 4])]
        {
            let mut request = pool.take(4).unwrap();
            request.collect(frames, |wanted| FrameRun::new(Pfn(500), wanted));
            let segments = pool.write(&request);
            let lengths: Vec<_> = segments.iter().map(|segment| segment.length).collect();
            assert_eq!(lengths, expected, "{frames} frames");
            let numbers = segments.iter().flat_map(|it| {
                let start = (it.address - ram.device_address()) as usize;
                (start..start + it.length as usize).step_by(4).map(|at| ram.load32(at))
            });
            let sent = numbers.clone().count() as u32;
            assert!(numbers.eq(500..500 + sent), "{frames} frames");
            pool.put(request);
        }
    }

    #[test]
    fn tables_are_for_queues_without_room_for_all_requests() {
        let ram = crate::virtio::fake::Ram::new(8 * 4096);
        let pool = Requests::new(8, RequestShape::REGION, || Ok(ram)).unwrap();
        assert_eq!([1, 8, 15, 16, 32768].map(|size| pool.table_entries(size)), [2, 2, 2, 1, 1]);
    }

    #[test]
    fn a_request_keeps_its_descriptor_limit() {
        let ram = crate::virtio::fake::Ram::new(4096);
        let mut pool = Requests::new(2, RequestShape::REGION, || Ok(ram)).unwrap();
        for (descriptors, frames) in [(2, 512), (1, 256), (2, 512), (9, 512)] {
            let mut request = pool.take(descriptors).unwrap();
            request.collect(u64::MAX, |wanted| FrameRun::new(Pfn(0), wanted));
            assert_eq!((request.frames(), pool.write(&request).len()), (frames, descriptors.min(2)));
            pool.put(request);
        }
    }

    #[test]
    fn frame_numbers_ascend_whatever_the_order_of_runs() {
        let mut starts = [900, 100, 500, 300, 700].into_iter();
        let mut request = request();
        request.collect(100, |_| FrameRun::new(Pfn(starts.next()?), 20));
        let sorted: Vec<_> = request.runs().iter().map(|run| run.start().0).collect();
        assert_eq!(sorted, [100, 300, 500, 700, 900]);
    }

    #[test]
    fn shapes_have_bounds() {
        for (frames, descriptors) in [(0, 1), (1, 0), (257, 1), (1, 65)] {
            assert_eq!(RequestShape::new(frames, descriptors), None);
        }
        let shape = RequestShape::new(256, 64).unwrap();
        assert_eq!((shape.total(), shape.within(2).total(), shape.within(0).total()), (16384, 512, 256));
        assert_eq!(RequestShape::default().to_string(), "256x1");
    }
}
