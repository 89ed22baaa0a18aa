//! crosvm: a 32-bit BAR. Private feature bits come with their own queues, after the others, and with more device
//! configuration. Adjacent frames in a request are discarded together.

use crate::behaviour::Behaviour;
use crate::behaviour::Layout;
use crate::behaviour::{Discards, Quirks};
use crate::feature;

/// Working-set reporting: two queues, and the number of bins in the configuration.
const WORKING_SET: u64 = 1 << 8;

impl Behaviour {
    /// crosvm with `--balloon-page-reporting` and working-set reporting, since 2025: queues numbered densely over the
    /// offered features.
    pub fn crosvm() -> Self {
        let before = Self::crosvm_before_2025();
        let quirks = Quirks { own_queues: 2, config_length: Some(20), ..before.quirks };
        let own = 1 << 6 | 1 << 7;
        Self { features: before.features & !own | feature::PAGE_REPORTING | WORKING_SET, quirks, ..before }
    }

    /// crosvm before 2025, whose bits 6 and 7, and the queue of one of them, have its own meaning.
    pub fn crosvm_before_2025() -> Self {
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
                reporting_size: 128,
                own_queues: 1,
                ..Quirks::NONE
            },
            ..Self::cloud_hypervisor()
        }
    }
}
