//! Firecracker over PCI: five queues of 256. Of a chain only the head is read; a descriptor of more than 256 frames is
//! never completed. The frames of a request are sorted, and discarded range by range.

use crate::models::behaviour::{Behaviour, feature};
use crate::models::quirks::{Chains, Discards, Long, Quirks};

impl Behaviour {
    /// Firecracker with everything that it has.
    pub fn firecracker() -> Self {
        Self {
            features: feature::VERSION_1
                | feature::EVENT_IDX
                | feature::DEFLATE_ON_OOM
                | feature::STATS_VQ
                | feature::FREE_PAGE_HINT
                | feature::PAGE_REPORTING,
            queue_size: 256,
            vectors: Some(6),
            quirks: Quirks {
                long: Long::Lost,
                chains: Chains::HeadOnly,
                discards: Discards::Sorted,
                hint_size: 256,
                reporting_size: 256,
                ..Quirks::NONE
            },
            ..Self::cloud_hypervisor()
        }
    }
}
