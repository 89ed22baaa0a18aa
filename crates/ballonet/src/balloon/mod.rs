//! The traditional memory balloon (virtio 1.4, 5.5): gives page frames to the host and takes them back.
//!
//! [`Balloon`] drives a device on a [`BalloonPlatform`]. The parts, each of which depends only on those before it:
//!
//! - `wire` and `queue_numbers`: the specification's constants, encodings and queue numbers;
//! - `policy`: decisions, without I/O;
//! - `queues`: pages (inflate and deflate), statistics, reporting and hinting, one file or folder each, with the same
//!   steps: *make*, *complete*, *send*, *arm*, *release*;
//! - `driver`: a device's life, from start to shutdown, and one round of work, [`Balloon::poll`].

#![forbid(unsafe_code)]

mod counters;
mod driver;
mod error;
mod find;
mod options;
mod platform;
mod policy;
mod queue_numbers;
mod queues;
mod status;
pub mod wire;

pub use counters::Counters;
pub use driver::{Balloon, ReclaimError, Reclaimed, find_queues};
pub use error::BalloonError;
pub use find::find;
pub use options::Options;
pub use platform::{BalloonPlatform, Statistics};
pub use policy::chain_support::ChainSupport;
pub use policy::hint_plan::{HintOutcome, HintReport};
pub use policy::oom_policy::OomPolicy;
pub use policy::path::{Path, PathRates};
pub use policy::report_plan::ReportPolicy;
pub use policy::request_shape::RequestShape;
pub use policy::tuning::SendStrategy;
pub use queue_numbers::{BalloonQueue, MissingQueue, QueueNumbers, resolve};
pub use status::{BalloonStatus, Changes, Next, Progress, ResetReason, ResetReport};
