//! How the device treats single page frames, and its checks on each.

use crate::queue::{Descriptor, INDIRECT, Request, WRITE};
use crate::world::Bus;
use crate::world::{GuestSide, HostSide};

/// The page frame numbers in a request.
pub(crate) fn pfns(request: &Request) -> Vec<u32> {
    request.bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
}

/// The host takes a frame, which the driver must own, or [`HostSide::Unknown`].
///
/// `away`: the host can reclaim the memory behind it.
pub(crate) fn take_inflated(pfn: u32, away: bool, bus: &mut Bus) {
    if !bus.ram.contains(pfn) {
        return bus.misstep("BAL-OP-01", format!("inflate of {pfn:#x}, which is no RAM"));
    }
    if !matches!(bus.ram.host_side(pfn), HostSide::Guest | HostSide::Unknown | HostSide::Unread) {
        bus.misstep("BAL-OP-01", format!("inflate of {pfn:#x}, which is {:?}", bus.ram.host_side(pfn)));
    }
    if bus.ram.guest_side(pfn) != GuestSide::Driver {
        bus.misstep("BAL-OP-01", format!("inflate of {pfn:#x}, which the driver was not given"));
    }
    bus.ram.set_host_side(pfn, HostSide::Inflating);
    if away {
        bus.ram.discard(pfn);
    } else {
        bus.ram.keep(pfn);
    }
}

/// The host returns a frame, which it must have, or may have ([`HostSide::Unknown`]), untouched.
pub(crate) fn take_deflated(pfn: u32, bus: &mut Bus) {
    if bus.ram.host_side(pfn) == HostSide::Unread {
        return bus.ram.set_host_side(pfn, HostSide::Deflating);
    }
    if !matches!(bus.ram.host_side(pfn), HostSide::Ballooned | HostSide::Unknown) {
        return bus.misstep("BAL-OP-10", format!("deflate of {pfn:#x}, which is {:?}", bus.ram.host_side(pfn)));
    }
    if !bus.ram.untouched(pfn) {
        bus.misstep("BAL-OP-09", format!("{pfn:#x} was written while the host had it"));
    }
    bus.ram.set_host_side(pfn, HostSide::Deflating);
}

/// The frames in a report or hint of free memory, and whether each of its descriptors has the right form.
pub(crate) fn lent(request: &Request) -> (Vec<u32>, bool) {
    let buffers = request.chain.iter().map(|(_, descriptor)| descriptor).filter(|d| d.flags & INDIRECT == 0);
    let right = buffers.clone().all(|d| d.flags & WRITE != 0 && d.address % 4096 == 0 && d.length % 4096 == 0);
    let frames =
        |d: &Descriptor| (d.address / 4096) as u32..(d.address.saturating_add(u64::from(d.length)) / 4096) as u32;
    (buffers.flat_map(frames).collect(), right)
}

/// A frame is reported as free and the host reclaims its memory: the frame must be the driver's and not yet reported.
pub fn take_reported(pfn: u32, bus: &mut Bus) {
    if !bus.ram.contains(pfn) || bus.ram.guest_side(pfn) != GuestSide::Driver {
        return bus.misstep("BAL-REPORT-03", format!("report of {pfn:#x}, which the driver was not given"));
    }
    if bus.ram.host_side(pfn) != HostSide::Guest || bus.ram.is_reported(pfn) {
        bus.misstep("BAL-REPORT-03", format!("report of {pfn:#x}, of which the host knows"));
    }
    bus.ram.set_host_side(pfn, HostSide::Reporting);
    match bus.ram.poison {
        None => bus.ram.discard(pfn),
        // It must keep the announced value.
        Some(_) if bus.ram.is_poisoned(pfn) => {}
        Some(value) => bus.misstep("BAL-REPORT-02", format!("report of {pfn:#x}, which does not hold {value:#x}")),
    }
}

/// The device returns a reported frame, which must be untouched.
pub(crate) fn finish_reported(pfn: u32, bus: &mut Bus) {
    if bus.ram.poison.is_none() && !bus.ram.untouched(pfn) {
        bus.misstep("BAL-REPORT-03", format!("{pfn:#x} was written before its report came back"));
    }
    bus.ram.set_host_side(pfn, HostSide::Guest);
}
