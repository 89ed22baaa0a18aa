//! The traditional memory balloon (virtio 1.4, 5.5): gives page frames to the host and takes them back.
//!
//! [`Balloon`] drives a device; what it does next is decided by [`Plan`], a state machine without I/O.

#![forbid(unsafe_code)]

mod ahead;
mod batch;
mod chains;
mod counters;
mod driver;
mod engine;
mod error;
mod hint_plan;
mod hinter;
mod hints;
mod lifecycle;
mod options;
mod pace;
mod parts;
mod plan;
mod poison;
mod probe;
mod progress;
mod queue_reset;
mod queues;
mod recovery;
mod relief;
mod relieve;
mod report_plan;
mod reporter;
mod requests;
mod round;
mod running;
mod send;
mod shape;
mod silence;
mod statistics;
pub mod wire;
mod withheld;

pub use chains::Chains;
pub use counters::Counters;
pub use driver::Balloon;
pub use engine::Manner;
pub use error::BalloonError;
pub use hint_plan::{HintAction, HintOutcome, HintPlan, HintReport};
pub use options::Options;
pub use pace::{Rates, Way};
pub use plan::{Action, Plan};
pub use probe::find_queues;
pub use progress::{BalloonStatus, Changes, Next, Progress};
pub use queues::{BalloonQueue, MissingQueue, QueueNumbers, resolve};
pub use recovery::{ResetReason, ResetReport};
pub use relief::{ReliefPlan, ReliefPolicy, ReliefSource};
pub use relieve::{Relief, ReliefError};
pub use report_plan::{Grant, ReportPlan, ReportPolicy};
pub use shape::RequestShape;
pub use statistics::{MemoryStatistics, Statistics};
