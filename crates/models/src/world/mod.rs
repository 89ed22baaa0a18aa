//! What a device model can reach: guest RAM, the clock, messages on their way, and the list of missteps.

mod bus;
mod ram;

pub use bus::{Bus, Misstep};
pub use ram::{HostSide, Ram};

pub(crate) use ram::GuestSide;
