//! What can keep a case from being measured.

use derive_more::{Display, Error, From};

use ballonet::balloon::BalloonError;
use ballonet::platform::DmaExhausted;
use ballonet::virtio::{BringUpError, QueueError, Refusal, TransportError};

/// Why there is no figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error, From)]
pub enum BenchError {
    /// The device cannot be started.
    #[display("{_0}")]
    BringUp(BringUpError),
    /// Its registers do not work as they should.
    #[display("{_0}")]
    #[from]
    Transport(TransportError),
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

impl From<BringUpError> for BenchError {
    fn from(error: BringUpError) -> Self {
        match error {
            BringUpError::Transport(error) => error.into(),
            BringUpError::Memory(error) => error.into(),
            error => Self::BringUp(error),
        }
    }
}
