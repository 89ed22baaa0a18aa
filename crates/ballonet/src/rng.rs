//! The entropy device (virtio 1.4, 5.4): asks the host for random bytes. The shortest complete driver of this library.

use derive_more::{Display, Error, From};

use crate::platform::{DmaMemory, Platform};
use crate::virtio::spec::{DeviceType, Features};
use crate::virtio::{
    BringUpError, Chain, DeviceHandle, DeviceOptions, Parts, QueueError, QueueIndex, QueueSetup, Quiesced, Running,
    Segment, Setup, TransportError, UsedLength, Virtqueue,
};

/// The most bytes of a request.
pub const REQUEST_SIZE: usize = 4096;

/// The features that the driver implements. The device type has none of its own (5.4.3).
const IMPLEMENTED: Features = Features::VERSION_1
    .union(Features::EVENT_IDX)
    .union(Features::RING_PACKED)
    .union(Features::IN_ORDER)
    .union(Features::ACCESS_PLATFORM)
    .union(Features::ANY_LAYOUT);

/// Why there are no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error, From)]
#[non_exhaustive]
pub enum RngError {
    /// The device broke the rules of its queue.
    #[display("requests queue: {_0}")]
    Queue(QueueError),
    /// It returned an empty buffer, in violation of 5.4.6.2.
    #[display("the device returned an empty buffer")]
    Empty,
}

/// The queue (`requestq`, 5.4.2) and its buffer.
struct Lent<P: Platform> {
    queue: Virtqueue<P::Memory, ()>,
    /// `Some` once the queue exists.
    buffer: Option<P::Memory>,
}

impl<P: Platform> Parts<P> for Lent<P> {
    fn release(self, platform: &mut P, proof: &Quiesced) {
        drop(self.queue.release(platform, proof));
        if let Some(buffer) = self.buffer {
            platform.release_dma(buffer);
        }
    }
}

/// A driver and its device. It ends by [`Rng::shutdown`].
#[must_use = "the device runs until it is shut down"]
pub struct Rng<P: Platform> {
    /// The running device: its interrupts and its doorbell.
    pub running: Running<P>,
    lent: Lent<P>,
}

impl<P: Platform> Rng<P> {
    /// Starts a driver for the entropy device `device`: a PCI function, or whatever else [`DeviceHandle`] names.
    ///
    /// # Errors
    /// When there is no entropy device, or it cannot be started; everything is undone.
    #[doc(alias = "virtrng_probe")]
    pub fn probe(
        platform: &mut P,
        device: impl Into<DeviceHandle>,
        options: DeviceOptions,
    ) -> Result<Self, BringUpError> {
        let setup = Setup::open(platform, device, options, DeviceType::ENTROPY, |_, _| IMPLEMENTED, |_, _| {})?;
        let (connected, lent, ()) =
            setup.connect(platform, None, |platform, setup, lent| -> Result<_, BringUpError> {
                let (index, name, used_length) = (QueueIndex::FIRST, Some("requests"), UsedLength::Strict);
                let layout = setup.layout(index, 1)?;
                let queue =
                    setup.add_queue(platform, &QueueSetup { index, name, layout, indirect_entries: 0, used_length })?;
                let lent = lent.insert(Lent { queue, buffer: None });
                lent.buffer = Some(platform.allocate_dma(REQUEST_SIZE, REQUEST_SIZE)?);
                Ok(())
            })?;
        Ok(Self { running: connected.run(), lent: lent.expect("set-up creates it or fails") })
    }

    /// Asks for `length` bytes, of 1 to [`REQUEST_SIZE`]. Does nothing while a request is in flight.
    pub fn request(&mut self, length: usize) {
        let length = length.clamp(1, REQUEST_SIZE) as u32;
        let Some(buffer) = &self.lent.buffer else { return };
        // A legacy device's queue has room for more requests, but there is only one buffer.
        if self.lent.queue.outstanding() > 0 {
            return;
        }
        let segment = Segment { address: buffer.device_address(), length };
        if self.lent.queue.add(Chain::writable(&[segment]), ()).is_ok() {
            // Before `publish`: otherwise the device might complete the request before it sees that an interrupt is
            // wanted.
            let _ = self.lent.queue.arm(1);
            self.running.publish(&mut self.lent.queue);
        }
    }

    /// Takes a completed request: fills `bytes` from its start and returns how many bytes there are; `None` if there is
    /// none yet.
    ///
    /// # Errors
    /// When the device broke the rules; then only [`Rng::shutdown`] is useful.
    pub fn poll(&mut self, bytes: &mut [u8]) -> Result<Option<usize>, RngError> {
        self.running.interrupts.take();
        let Some(completion) = self.lent.queue.pop()? else { return Ok(None) };
        let count = bytes.len().min(completion.written as usize);
        if let Some(buffer) = &self.lent.buffer {
            buffer.read_bytes(0, &mut bytes[..count]);
        }
        if completion.written == 0 { Err(RngError::Empty) } else { Ok(Some(count)) }
    }

    /// Stops the device and releases everything.
    ///
    /// # Errors
    /// When the device does not finish its reset; it keeps its queue and buffer.
    #[doc(alias = "virtrng_remove")]
    pub fn shutdown(self, platform: &mut P) -> Result<(), TransportError> {
        self.running.stop(platform, Some(self.lent), false)
    }
}
