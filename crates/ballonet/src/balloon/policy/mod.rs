//! The driver's decisions, without I/O: nothing in this folder accesses a queue, a register or the platform.
//!
//! Each file is a state machine or a measurement. [`target`] leads to the host's target; [`tuning`] collects
//! measurements of the device; [`report_plan`] and [`hint_plan`] decide when free memory is reported and hinted;
//! [`reported_size`] when the host is told the balloon's size; [`oom_policy`] how much is reclaimed for a failing
//! allocation; [`silence`] and [`recoveries`] watch a failing device.

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
