//! Cloud Hypervisor: one BAR, one more vector than queues, and a device configuration of 8 bytes in which `actual` must
//! be written whole. Descriptors of more than 256 frames are skipped, and their requests complete. It interrupts only
//! by MSI-X, for every buffer. Its registers read 0 before `DRIVER`; accepted features and queue addresses always read
//! 0.

use crate::behaviour::Behaviour;
use crate::behaviour::Layout;
use crate::behaviour::{Long, Quirks, RegisterQuirks};
use crate::feature;

impl Behaviour {
    /// Cloud Hypervisor with `free_page_reporting=on` and statistics.
    pub fn cloud_hypervisor() -> Self {
        Self {
            device_id: 0x1045,
            revision: 1,
            features: feature::VERSION_1 | feature::DEFLATE_ON_OOM | feature::STATS_VQ | feature::PAGE_REPORTING,
            layout: Layout::cloud_hypervisor(),
            vectors: Some(5),
            pin: false,
            quirks: Quirks {
                long: Long::Skipped,
                ignores_suppression: true,
                no_isr: true,
                registers: RegisterQuirks {
                    silent_until_driver: true,
                    hides_accepted: true,
                    hides_addresses: true,
                    takes_any_feature: true,
                    takes_any_vector: true,
                    ..RegisterQuirks::NONE
                },
                ..Quirks::NONE
            },
            ..Self::qemu_10(2)
        }
    }
}
