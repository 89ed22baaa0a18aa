//! What a driver lends its device, and how it goes back.

use crate::platform::Platform;
use crate::virtio::queue::Quiesced;
use crate::virtio::transport::TransportError;

/// What a driver lends its device: queues and DMA memory. They return only against the proof that the device has
/// stopped.
pub trait Parts<P: Platform> {
    /// Gives everything back to the platform.
    fn release(self, platform: &mut P, proof: &Quiesced);
}

/// Parts of which set-up may have failed to make any.
impl<P: Platform, T: Parts<P>> Parts<P> for Option<T> {
    fn release(self, platform: &mut P, proof: &Quiesced) {
        if let Some(parts) = self {
            parts.release(platform, proof);
        }
    }
}

/// Gives a driver's parts back, or leaks them if the device may still use their memory.
pub(super) fn give_back<P: Platform, T: Parts<P>>(
    platform: &mut P,
    parts: T,
    stopped: Result<Quiesced, TransportError>,
) -> Result<(), TransportError> {
    match stopped {
        Ok(proof) => {
            parts.release(platform, &proof);
            Ok(())
        }
        Err(error) => {
            // Dropping them could give their memory back.
            core::mem::forget(parts);
            Err(error)
        }
    }
}
