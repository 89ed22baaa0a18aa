//! Dragonball, Kata Containers' VMM: a device on MMIO. It reads only the first buffer of a request, and its reporting
//! queue has 128 entries.

use crate::behaviour::Behaviour;
use crate::behaviour::{Chains, Numbering, Quirks};
use crate::feature;

impl Behaviour {
    /// Dragonball with deflate-on-OOM and free page reporting.
    pub fn dragonball() -> Self {
        Self {
            features: feature::VERSION_1 | feature::DEFLATE_ON_OOM | feature::PAGE_REPORTING,
            numbering: Numbering::Dense,
            queue_size: 128,
            quirks: Quirks {
                longest_descriptor: u32::MAX,
                chains: Chains::HeadOnly,
                reporting_size: 128,
                config_length: Some(16),
                ..Quirks::NONE
            },
            ..Self::conforming()
        }
        .on_mmio()
    }
}
