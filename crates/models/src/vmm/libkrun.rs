//! libkrun: queues numbered as in the specification. It discards reported memory; it implements neither inflating nor
//! deflating, and does not store `actual`. All five queues must be set up. Its device is on MMIO; the model's is on
//! PCI.

use crate::behaviour::{ActualWrites, Quirks};
use crate::behaviour::{Behaviour, Numbering};
use crate::feature;

impl Behaviour {
    /// libkrun.
    pub fn libkrun() -> Self {
        Self {
            features: feature::VERSION_1 | feature::STATS_VQ | feature::FREE_PAGE_HINT | feature::PAGE_REPORTING,
            numbering: Numbering::Fixed,
            pin: true,
            quirks: Quirks {
                ignores_inflate: true,
                actual: ActualWrites::Ignored,
                wants_every_queue: true,
                hint_size: 128,
                reporting_size: 128,
                ..Quirks::NONE
            },
            ..Self::cloud_hypervisor()
        }
        .with_vectors(Some(6))
    }
}
