//! StratoVirt's microvm: a device on MMIO whose every queue has 256 entries. The frames of a request are sorted, and
//! discarded range by range. Its private feature comes with a queue after the others, and with more configuration.

use crate::behaviour::Behaviour;
use crate::behaviour::{Discards, Numbering, Quirks};
use crate::feature;

impl Behaviour {
    /// StratoVirt with `deflate-on-oom=true`, `free-page-reporting=true` and `auto-balloon=true`.
    pub fn stratovirt() -> Self {
        Self::stratovirt_with(1 << 16)
    }

    /// StratoVirt whose private feature was bit 6.
    pub fn stratovirt_before_2023() -> Self {
        Self::stratovirt_with(1 << 6)
    }

    fn stratovirt_with(own: u64) -> Self {
        Self {
            features: feature::VERSION_1 | feature::DEFLATE_ON_OOM | feature::PAGE_REPORTING | own,
            numbering: Numbering::Dense,
            queue_size: 256,
            quirks: Quirks {
                longest_descriptor: u32::MAX,
                discards: Discards::Sorted,
                reporting_size: 256,
                own_queues: 1,
                config_length: Some(24),
                ..Quirks::NONE
            },
            ..Self::conforming()
        }
        .on_mmio()
    }
}
