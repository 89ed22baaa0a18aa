//! Resources that a driver lends to its device, and their release.

use crate::platform::Platform;
use crate::virtio::queue::Quiesced;
use crate::virtio::transport::TransportError;

/// A driver's resources lent to its device: queues and DMA memory. Releasing them takes the proof that the device has
/// stopped.
pub trait Parts<P: Platform> {
    /// Releases everything to the platform.
    fn release(self, platform: &mut P, proof: &Quiesced);
}

/// Parts that set-up may have failed to create.
impl<P: Platform, T: Parts<P>> Parts<P> for Option<T> {
    fn release(self, platform: &mut P, proof: &Quiesced) {
        if let Some(parts) = self {
            parts.release(platform, proof);
        }
    }
}

/// Releases a driver's parts, or leaks them if the device may still use their memory.
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
            // Dropping them could free their memory.
            core::mem::forget(parts);
            Err(error)
        }
    }
}
