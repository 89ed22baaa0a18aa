//! Requests to the host, and how a check detects their completion.

use core::mem::offset_of;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{TestDevice, Transport};
use crate::host::HostAction;
use crate::verdict::{Verdict, ensure, skip_unless};
use ballonet::balloon::wire::BalloonConfig;
use ballonet::platform::Registers;
use ballonet::virtio::spec::CommonConfig;

/// Bytes of a page, in which a balloon counts.
const PAGE: u64 = 4096;
/// The wait for the host, as a multiple of the wait for a device. Time during which the virtual machine is stopped does
/// not count.
const STALLS: u64 = 5;
/// Targets that are set in turn, in pages: small for any guest, and with distinct bytes.
const TARGETS: [u32; 2] = [0x0123, 0x0245];

impl TestDevice<'_> {
    /// The size that the host wants the balloon to have, in pages.
    pub(crate) fn target(&self) -> u32 {
        self.config.read32(offset_of!(BalloonConfig, num_pages))
    }

    /// Requests an action of the host. Returns the target that signals its completion; skips the check if no host can
    /// do it.
    pub(crate) fn request(&mut self, action: HostAction) -> Verdict<u32> {
        let before = self.target();
        let target = if before == TARGETS[0] { TARGETS[1] } else { TARGETS[0] };
        let taken = self.host.borrow_mut().ask_host(action, Some(u64::from(target) * PAGE));
        skip_unless!(taken, "no host program performs `{}` here; ballonet-check does for some VMMs", action.word());
        Ok(target)
    }

    /// Waits until the host has completed the request, running `meanwhile`.
    pub(crate) fn await_host(&mut self, target: u32, mut meanwhile: impl FnMut(&mut Self) -> Verdict) -> Verdict {
        let limit = self.patience.stall * STALLS;
        let done = self.wait(limit, |device| {
            meanwhile(device)?;
            Ok(device.target() == target)
        })?;
        let (now, seconds) = (self.target(), limit / 1_000_000_000);
        ensure!(done, "a target of {target} pages was requested from the host; after {seconds} s num_pages is {now}");
        Ok(())
    }

    /// Requests an action of the host, and waits for it.
    pub(crate) fn ask_host(&mut self, action: HostAction) -> Verdict {
        let target = self.request(action)?;
        self.await_host(target, |_| Ok(()))
    }

    /// Registers that only the driver changes: a name and a value each.
    pub(crate) fn settings(&mut self) -> Verdict<Vec<(String, u64)>> {
        let mut settings = Vec::from([(String::from("the status"), u64::from(self.status()?.bits()))]);
        if let Transport::Modern(modern) = &mut self.transport {
            for select in [0, 1] {
                modern.common.write32(offset_of!(CommonConfig, driver_feature_select), select);
                let word = modern.common.read32(offset_of!(CommonConfig, driver_feature));
                settings.push((format!("driver_feature {select}"), word.into()));
            }
            let vector = modern.common.read16(offset_of!(CommonConfig, config_msix_vector));
            settings.push((String::from("config_msix_vector"), vector.into()));
        }
        for queue in self.present() {
            settings.push((format!("the size of queue {queue}"), self.queue_size(queue).into()));
            settings.push((format!("the enable register of queue {queue}"), self.in_use(queue).into()));
            if let Transport::Modern(modern) = &self.transport {
                let vector = modern.common.read16(offset_of!(CommonConfig, queue_msix_vector));
                settings.push((format!("queue_msix_vector of queue {queue}"), vector.into()));
                for (field, name) in [
                    (offset_of!(CommonConfig, queue_desc), "queue_desc"),
                    (offset_of!(CommonConfig, queue_driver), "queue_driver"),
                    (offset_of!(CommonConfig, queue_device), "queue_device"),
                ] {
                    let [low, high] = [0, 4].map(|at| u64::from(modern.common.read32(field + at)));
                    settings.push((format!("{name} of queue {queue}"), high << 32 | low));
                }
            }
        }
        Ok(settings)
    }
}
