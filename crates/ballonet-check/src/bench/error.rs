//! What can keep a case from being measured.

use derive_more::{Display, Error, From};

use ballonet::balloon::BalloonError;
use ballonet::pci::Bdf;
use ballonet::platform::DmaExhausted;
use ballonet::virtio::{InterfaceError, InterruptError, NegotiationError, QueueError, Refusal, TransportError};

/// Why there is no figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error, From)]
pub enum BenchError {
    /// There is no PCI function.
    #[display("there is no function at {_0}")]
    NoFunction(#[error(not(source))] Bdf),
    /// It has no virtio interface that could be used.
    #[display("{_0}")]
    #[from]
    Interface(InterfaceError),
    /// Its registers do not work as they should.
    #[display("{_0}")]
    #[from]
    Transport(TransportError),
    /// No features could be agreed on.
    #[display("{_0}")]
    #[from]
    Negotiation(NegotiationError),
    /// The interrupt mode that was asked for is not to be had.
    #[display("{_0}")]
    #[from]
    Interrupt(InterruptError),
    /// There is no memory for queues and requests.
    #[display("{_0}")]
    #[from]
    Memory(DmaExhausted),
    /// There are too few free page frames.
    #[display("{free} free page frames, {needed} needed")]
    Frames {
        /// How many it takes.
        needed: usize,
        /// How many are free.
        free: usize,
    },
    /// The queue has no room for a single request.
    #[display("a request does not fit: {_0}")]
    #[from]
    Refused(Refusal),
    /// The device broke the rules of a queue.
    #[display("{_0}")]
    #[from]
    Queue(QueueError),
    /// The driver gave up.
    #[display("{_0}")]
    #[from]
    Driver(BalloonError),
    /// The device did not return a request.
    #[display("a request was not returned, or no interrupt told of it, in {waited_ms} ms")]
    Silence {
        /// How long the bench waited, in milliseconds.
        waited_ms: u64,
    },
}
