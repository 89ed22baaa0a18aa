//! Why a case cannot be measured.

use derive_more::{Display, Error, From};

use ballonet::balloon::BalloonError;
use ballonet::platform::DmaExhausted;
use ballonet::virtio::{BringUpError, QueueError, Refusal};

/// Why there is no figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error, From)]
pub enum BenchError {
    /// The device cannot be brought up.
    #[display("{_0}")]
    #[from]
    BringUp(BringUpError),
    /// There is no memory for requests.
    #[display("{_0}")]
    #[from]
    Memory(DmaExhausted),
    /// There are too few free page frames.
    #[display("{free} free page frames, {needed} needed")]
    Frames {
        /// Frames that it takes.
        needed: usize,
        /// Frames that are free.
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
    #[display("in {waited_ms} ms no request was returned, or no interrupt came for it")]
    Silence {
        /// How long the bench waited, in milliseconds.
        waited_ms: u64,
    },
}
