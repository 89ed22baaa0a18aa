//! Firecracker over PCI: five queues of 256. It reads only the head of a chain; a descriptor of more than 256 frames is
//! never completed. Its configuration has 12 bytes. The frames of a request are sorted, and discarded range by range.
//! It starts only with every queue set up, its BARs return the bare size after all ones, and it interrupts only by
//! MSI-X, for every buffer.

use crate::behaviour::Behaviour;
use crate::behaviour::{Chains, Discards, Long, Quirks, RegisterQuirks, Resets};
use crate::feature;

impl Behaviour {
    /// Firecracker with all its features.
    pub fn firecracker() -> Self {
        Self {
            features: feature::VERSION_1
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
                config_length: Some(12),
                wants_every_queue: true,
                ignores_suppression: true,
                no_isr: true,
                registers: RegisterQuirks {
                    bare_bar_sizes: true,
                    hides_accepted: true,
                    takes_any_feature: true,
                    ..RegisterQuirks::NONE
                },
                ..Quirks::NONE
            },
            ..Self::cloud_hypervisor()
        }
    }

    /// Firecracker up to 1.16, whose balloon cannot be reset once it was started: the status becomes 0 and stays 0.
    pub fn firecracker_1_16() -> Self {
        let firecracker = Self::firecracker();
        Self { quirks: Quirks { resets: Resets::LockUp, ..firecracker.quirks }, ..firecracker }
    }

    /// Firecracker up to 1.16 on MMIO, where a reset from `DRIVER` on ends in `FAILED`.
    pub fn firecracker_1_16_on_mmio() -> Self {
        Self::firecracker_failing().on_mmio()
    }

    /// The device of [`Self::firecracker_1_16_on_mmio`], on PCI.
    pub fn firecracker_failing() -> Self {
        let firecracker = Self::firecracker();
        Self { quirks: Quirks { resets: Resets::EndInFailed, ..firecracker.quirks }, ..firecracker }
    }
}
