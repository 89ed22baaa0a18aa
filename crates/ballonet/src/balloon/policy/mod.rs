//! What the driver decides, without I/O: no queue, no register and no platform is in reach of this folder.
//!
//! Each file is a state machine or a measurement. [`target`] leads to the host's target; [`tuning`] collects what was
//! measured of the device; [`report_plan`] and [`hint_plan`] say when free memory is reported and hinted;
//! [`reported_size`] when the host is told how far the balloon is; [`oom_policy`] how much is reclaimed for a failing
//! allocation; [`silence`] and [`recoveries`] watch over a failing device.

pub(super) mod chain_support;
pub(super) mod held_hints;
pub(super) mod hint_plan;
pub(super) mod kick_limit;
pub(super) mod oom_policy;
pub(super) mod path;
pub(super) mod pre_reported;
pub(super) mod recoveries;
pub(super) mod report_plan;
pub(super) mod reported_size;
pub(super) mod request_shape;
pub(super) mod silence;
pub(super) mod target;
pub(super) mod tuning;
