//! libkrun: queues with the numbers that the specification gives them. It discards what is reported to it; inflating and
//! deflating it does not implement, and `actual` it does not keep. All five queues have to be set up. Its device is not on PCI;
//! the model's is.

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
