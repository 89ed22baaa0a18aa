//! Single requests that a check composes itself, and their answers.

use alloc::vec::Vec;

use super::kind::Payload;
use super::{Role, Shape, TestDevice};
use crate::ring::Part;
use crate::verdict::Verdict;

/// The result of a request.
pub(crate) struct Answer {
    /// The bytes that the device says it wrote.
    pub(crate) used: u32,
    /// The present contents of all that it could have written.
    pub(crate) bytes: Vec<u8>,
}

/// A request that was added: its id, and its descriptors.
pub(crate) type Offered = (u16, Vec<Part>);

impl TestDevice<'_> {
    /// Sends one request: `readable`, then room for `writable` bytes; waits for the answer.
    pub(crate) fn ask(&mut self, role: Role, readable: &[u8], writable: usize, shape: &Shape) -> Verdict<Answer> {
        let mark = self.arena.mark();
        let (_, chain) = self.offer(role, readable, writable, shape)?;
        self.submit(role)?;
        self.drain(role, 0)?;
        let used = self.take_done(role)?.last().map_or(0, |used| used.length);
        let bytes = self.bytes_of(&chain);
        self.arena.rewind(mark);
        Ok(Answer { used, bytes })
    }

    /// Adds a request that the check composed; does not publish it. Returns its id and descriptors.
    pub(crate) fn offer(&mut self, role: Role, readable: &[u8], writable: usize, shape: &Shape) -> Verdict<Offered> {
        self.is_plain = false;
        let payload = Payload { readable: readable.to_vec(), writable };
        let chain = self.place(&payload, shape)?;
        let descriptors = if shape.indirect { 1 } else { chain.len() as u16 };
        self.needs_room(role, descriptors)?;
        let table = self.table(chain.len(), shape.indirect)?;
        let id = self.add(role, &chain, table)?;
        Ok((id, chain))
    }

    /// The memory of the descriptors that the device may write.
    pub(crate) fn bytes_of(&self, chain: &[Part]) -> Vec<u8> {
        let start = self.arena.address(0);
        let written = chain.iter().filter(|part| part.writable);
        written.flat_map(|part| self.arena.read((part.address - start) as usize, part.length as usize)).collect()
    }
}
