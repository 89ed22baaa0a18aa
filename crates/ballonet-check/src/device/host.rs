//! Requests to the host, and how a check learns that one is done.

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
/// How many times as long as for a device the host is waited for. It does not count the time for which it stops the
/// virtual machine.
const STALLS: u64 = 5;
/// Targets that are set in turns, in pages: few for any guest, and with bytes that differ.
const TARGETS: [u32; 2] = [0x0123, 0x0245];

impl TestDevice<'_> {
    /// The size that the host wants the balloon to have, in pages.
    pub(crate) fn target(&self) -> u32 {
        self.config.read32(offset_of!(BalloonConfig, num_pages))
    }

    /// Asks the host for something. Returns the target by which it shows that it is done; skips a check without a host
    /// that does it.
    pub(crate) fn request(&mut self, action: HostAction) -> Verdict<u32> {
        let before = self.target();
        let target = if before == TARGETS[0] { TARGETS[1] } else { TARGETS[0] };
        let taken = self.host.borrow_mut().ask_host(action, u64::from(target) * PAGE);
        skip_unless!(taken, "no host program does `{}` here; ballonet-check does it for some VMMs", action.word());
        Ok(target)
    }

    /// Waits until the host has done what it was asked for, with something to do `meanwhile`.
    pub(crate) fn await_host(&mut self, target: u32, mut meanwhile: impl FnMut(&mut Self) -> Verdict) -> Verdict {
        let limit = self.patience.stall * STALLS;
        let done = self.wait(limit, |device| {
            meanwhile(device)?;
            Ok(device.target() == target)
        })?;
        let (now, seconds) = (self.target(), limit / 1_000_000_000);
        ensure!(done, "the host was asked for a target of {target} pages; after {seconds} s num_pages is {now}");
        Ok(())
    }

    /// Has the host do something, and waits for it.
    pub(crate) fn ask_host(&mut self, action: HostAction) -> Verdict {
        let target = self.request(action)?;
        self.await_host(target, |_| Ok(()))
    }

    /// Registers that nothing but the driver changes: a name and a value each.
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
