//! Cloud Hypervisor: one BAR, a vector more than queues, and a device configuration of 8 bytes of which `actual` is to be
//! written whole. Descriptors of more than 256 frames are passed over, and their requests completed.

use crate::models::behaviour::{Behaviour, feature};
use crate::models::layout::Layout;
use crate::models::quirks::{Long, Quirks};

impl Behaviour {
    /// Cloud Hypervisor with `free_page_reporting=on` and statistics.
    pub fn cloud_hypervisor() -> Self {
        Self {
            device_id: 0x1045,
            revision: 1,
            features: feature::VERSION_1
                | feature::EVENT_IDX
                | feature::DEFLATE_ON_OOM
                | feature::STATS_VQ
                | feature::PAGE_REPORTING,
            layout: Layout::cloud_hypervisor(),
            vectors: Some(5),
            quirks: Quirks { long: Long::Skipped, ..Quirks::NONE },
            ..Self::qemu_10(2)
        }
    }
}
