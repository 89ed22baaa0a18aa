//! Alioth: five queues of 256, independent of the accepted features, numbered densely over those; packed rings;
//! interrupts only by MSI-X. It offers every feature, and implements inflating and reporting: deflate requests complete
//! and do nothing, statistics and hints never come back. It has no window in configuration space. Most of its registers
//! accept any value.

use crate::behaviour::Layout;
use crate::behaviour::{Behaviour, Numbering};
use crate::behaviour::{Quirks, RegisterQuirks};
use crate::feature;

impl Behaviour {
    /// Alioth with free page reporting.
    pub fn alioth() -> Self {
        Self {
            device_id: 0x1045,
            revision: 1,
            features: feature::VERSION_1
                | feature::EVENT_IDX
                | feature::RING_PACKED
                | feature::MUST_TELL_HOST
                | feature::STATS_VQ
                | feature::DEFLATE_ON_OOM
                | feature::FREE_PAGE_HINT
                | feature::PAGE_POISON
                | feature::PAGE_REPORTING,
            layout: Layout::alioth(),
            numbering: Numbering::Negotiated,
            queue_size: 256,
            vectors: Some(6),
            pin: false,
            quirks: Quirks {
                longest_descriptor: u32::MAX,
                hint_size: 256,
                reporting_size: 256,
                no_isr: true,
                registers: RegisterQuirks {
                    shows_upper_halves: true,
                    takes_any_feature: true,
                    takes_any_vector: true,
                    keeps_queue_sizes: true,
                    no_generation: true,
                    ..RegisterQuirks::NONE
                },
                ..Quirks::NONE
            },
            ..Self::qemu_10(2)
        }
    }
}
