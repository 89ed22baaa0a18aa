//! What a balloon does with single page frames, and what it checks of each.

use super::bus::Bus;
use super::queue::Request;
use super::ram::{GuestSide, HostSide};

/// The page frame numbers in a request.
pub fn pfns(request: &Request) -> Vec<u32> {
    request.bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
}

/// The host takes a frame: it must be the driver's to give.
pub fn take_inflated(pfn: u32, bus: &mut Bus) {
    if !bus.ram.contains(pfn) {
        return bus.misstep("BAL-OP-01", format!("inflate of {pfn:#x}, which is no RAM"));
    }
    if bus.ram.host_side(pfn) != HostSide::Guest {
        bus.misstep("BAL-OP-01", format!("inflate of {pfn:#x}, which is {:?}", bus.ram.host_side(pfn)));
    }
    if bus.ram.guest_side(pfn) != GuestSide::Driver {
        bus.misstep("BAL-OP-01", format!("inflate of {pfn:#x}, which the driver was not given"));
    }
    bus.ram.set_host_side(pfn, HostSide::Inflating);
    bus.ram.discard(pfn);
}

/// The host gives a frame back: it must have it, untouched.
pub fn take_deflated(pfn: u32, bus: &mut Bus) {
    if bus.ram.host_side(pfn) != HostSide::Ballooned {
        return bus.misstep("BAL-OP-10", format!("deflate of {pfn:#x}, which is {:?}", bus.ram.host_side(pfn)));
    }
    if !bus.ram.untouched(pfn) {
        bus.misstep("BAL-OP-09", format!("{pfn:#x} was written while the host had it"));
    }
    bus.ram.set_host_side(pfn, HostSide::Deflating);
}
