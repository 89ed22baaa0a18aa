//! The registers of the device, one by one.

use core::mem::offset_of;

use super::{QUEUES, TestDevice};
use crate::check::{Stop, Verdict, ensure, skip_unless};
use crate::ring::Areas;
use ballonet::platform::Registers;
use ballonet::virtio::spec::{CommonConfig, Features, NO_VECTOR, Status};

impl TestDevice<'_> {
    pub(crate) fn status(&self) -> Verdict<Status> {
        match self.common.read8(offset_of!(CommonConfig, device_status)) {
            u8::MAX => Err(Stop::Gone),
            status => Ok(Status::from_bits_retain(status)),
        }
    }

    pub(crate) fn set_status(&mut self, status: Status) {
        self.common.write8(offset_of!(CommonConfig, device_status), status.bits());
    }

    /// A word of the offered features.
    pub(crate) fn feature_word(&mut self, select: u32) -> u32 {
        self.common.write32(offset_of!(CommonConfig, device_feature_select), select);
        self.common.read32(offset_of!(CommonConfig, device_feature))
    }

    pub(crate) fn read_offered(&mut self) -> Features {
        Features::from([self.feature_word(0), self.feature_word(1)])
    }

    pub(crate) fn accept(&mut self, features: Features) {
        for (select, word) in (0..).zip(<[u32; 2]>::from(features)) {
            self.common.write32(offset_of!(CommonConfig, driver_feature_select), select);
            self.common.write32(offset_of!(CommonConfig, driver_feature), word);
        }
    }

    pub(crate) fn select(&mut self, queue: u16) {
        self.common.write16(offset_of!(CommonConfig, queue_select), queue);
    }

    pub(crate) fn queue_size(&mut self, queue: u16) -> u16 {
        self.select(queue);
        self.common.read16(offset_of!(CommonConfig, queue_size))
    }

    /// The numbers of the queues that are there.
    pub(crate) fn present(&self) -> impl Iterator<Item = u16> + use<> {
        let sizes = self.sizes;
        (0..QUEUES as u16).filter(move |queue| sizes[usize::from(*queue)] != 0)
    }

    pub(super) fn set_vector(&mut self, register: usize, vector: u16) -> Verdict {
        self.common.write16(register, vector);
        let read = self.common.read16(register);
        skip_unless!(read != NO_VECTOR, "the device refuses vector {vector}");
        ensure!(read == vector, "vector {vector} reads back as {read:#06x}");
        Ok(())
    }

    pub(crate) fn write_areas(&mut self, areas: Areas) {
        for (register, area) in [
            (offset_of!(CommonConfig, queue_desc), areas.descriptors),
            (offset_of!(CommonConfig, queue_driver), areas.driver),
            (offset_of!(CommonConfig, queue_device), areas.device),
        ] {
            self.common.write64(register, self.arena.address(area));
        }
    }

    /// Where a queue is kicked, and with what.
    pub(crate) fn doorbell(&mut self, queue: u16) -> Verdict<(usize, u16)> {
        self.select(queue);
        let offset = u64::from(self.common.read16(offset_of!(CommonConfig, queue_notify_off)))
            * u64::from(self.pci.multiplier());
        let width = if self.features.contains(Features::NOTIFICATION_DATA) { 4 } else { 2 };
        let (length, address) = (self.notify.len() as u64, self.notify_window.address);
        ensure!(
            offset + width <= length && (address + offset).is_multiple_of(width),
            "the doorbell of queue {queue} is at {offset:#x}, of {length:#x} bytes"
        );
        let number = if self.features.contains(Features::NOTIF_CONFIG_DATA) {
            ensure!(
                self.common.len() >= offset_of!(CommonConfig, queue_notif_config_data) + 2,
                "there is no queue_notif_config_data"
            );
            self.common.read16(offset_of!(CommonConfig, queue_notif_config_data))
        } else {
            queue
        };
        Ok((offset as usize, number))
    }
}
