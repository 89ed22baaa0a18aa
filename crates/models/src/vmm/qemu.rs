//! QEMU: one discard for each frame, descriptors and chains of any length, queues numbered over the offered features,
//! `actual` written in any pieces. Its legacy interface is that of every model (`legacy.rs`): bit 30 makes it forget
//! all features, frame 0 resets it. While a round of hints is open, the hint command reads as STOP.

use crate::behaviour::Layout;
use crate::behaviour::{ActualWrites, Quirks};
use crate::behaviour::{Behaviour, Handling, Numbering};
use crate::feature;

impl Behaviour {
    /// QEMU 7.2: transitional id, no MSI-X, each kick handled before its store returns.
    pub fn qemu_7_2() -> Self {
        Self {
            device_id: 0x1002,
            revision: 0,
            features: feature::VERSION_1
                | feature::EVENT_IDX
                | feature::INDIRECT_DESC
                | feature::RING_RESET
                | feature::STATS_VQ
                | feature::PAGE_POISON,
            numbering: Numbering::Dense,
            queue_size: 128,
            handling: Handling::AtOnce,
            quirks: Quirks {
                longest_descriptor: u32::MAX,
                actual: ActualWrites::Any,
                hint_size: 1024,
                stop_while_hinting: true,
                ..Quirks::NONE
            },
            first_status: 0,
            reset_time: 0,
            queue_reset_time: 0,
            ..Self::conforming()
        }
        .with_vectors(None)
    }

    /// QEMU 10.0 with this `vectors=`; kicks are handled in its main loop.
    pub fn qemu_10(vectors: u16) -> Self {
        let vectors = if vectors == 0 { None } else { Some(vectors) };
        Self { handling: Handling::Later(50_000), layout: Layout::qemu(true), ..Self::qemu_7_2() }.with_vectors(vectors)
    }
}
