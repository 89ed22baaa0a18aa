//! crosvm: a 32-bit BAR. Feature bits 6 and 7, and the queue of one of them, have crosvm's own meaning. Adjacent
//! frames in a request are discarded together.

use crate::behaviour::Behaviour;
use crate::behaviour::Layout;
use crate::behaviour::{Discards, Quirks};
use crate::feature;

impl Behaviour {
    /// crosvm.
    pub fn crosvm() -> Self {
        Self {
            features: feature::VERSION_1
                | feature::EVENT_IDX
                | feature::MUST_TELL_HOST
                | feature::STATS_VQ
                | feature::DEFLATE_ON_OOM
                | 1 << 6
                | 1 << 7,
            layout: Layout::crosvm(),
            pin: true,
            quirks: Quirks {
                longest_descriptor: u32::MAX,
                discards: Discards::Adjacent,
                own_queue: true,
                ..Quirks::NONE
            },
            ..Self::cloud_hypervisor()
        }
    }
}
