//! Cloud Hypervisor: one BAR, a vector more than queues, and a device configuration of 8 bytes of which `actual` is to be
//! written whole. Descriptors of more than 256 frames are passed over, and their requests completed. It interrupts by MSI-X
//! only, for every buffer. Its registers say nothing before `DRIVER`; what was accepted, and where queues are, it does not show.

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
