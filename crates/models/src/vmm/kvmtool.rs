//! kvmtool: statistics only. The device itself counts frames into `actual`, and its configuration takes any bytes. It
//! reads only the first buffer of a request; the used length is the number of frames. Interrupts come for every
//! request.

use crate::behaviour::Behaviour;
use crate::behaviour::{ActualWrites, Chains, Discards, Quirks};
use crate::feature;

impl Behaviour {
    /// kvmtool's modern PCI device.
    pub fn kvmtool() -> Self {
        Self {
            device_id: 0x1045,
            revision: 1,
            features: feature::VERSION_1 | feature::STATS_VQ,
            queue_size: 128,
            quirks: Quirks {
                longest_descriptor: u32::MAX,
                chains: Chains::HeadOnly,
                discards: Discards::Each,
                actual: ActualWrites::Any,
                config_length: Some(16),
                counts_actual: true,
                claims_frames: true,
                ignores_suppression: true,
                ..Quirks::NONE
            },
            ..Self::qemu_10(33)
        }
    }
}
