//! The reach of a device model: guest RAM, the clock, messages in flight, and the list of missteps.

mod bus;
mod ram;

pub use bus::{Bus, Misstep};
pub use ram::{HostSide, Ram};

pub(crate) use ram::GuestSide;
