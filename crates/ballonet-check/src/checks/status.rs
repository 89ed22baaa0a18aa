//! The device status byte, and what a reset clears.

use core::mem::offset_of;

use crate::check::Severity::{Custom, Must};
use crate::check::{Check, Stop, Verdict, ensure, fail, on_device, skip_unless};
use crate::device::{Start, TestDevice};
use ballonet::platform::Registers;
use ballonet::virtio::InterruptMode;
use ballonet::virtio::spec::{CommonConfig, Features, NO_VECTOR, Status};

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(Must, "reset-clears-status", "2.4.1", "device_status is 0 after a reset", |device| {
        device.set_status(Status::ACKNOWLEDGE);
        device.set_status(Status::ACKNOWLEDGE | Status::DRIVER);
        device.reset()
    }),
    on_device(Must, "status-bits-read-back", "2.1.2", "status bits that the driver sets are read back", |device| {
        let mut set = Status::empty();
        for bit in [Status::ACKNOWLEDGE, Status::DRIVER] {
            set |= bit;
            device.set_status(set);
            let status = device.status()?;
            ensure!(status == set, "status {set} was written and {status} is read");
        }
        set |= Status::FAILED;
        device.set_status(set);
        let status = device.status()?;
        ensure!(status == set, "status {set} was written and {status} is read");
        Ok(())
    }),
    on_device(Must, "features-ok-sticks", "2.2.2", "FEATURES_OK stays set with the minimal feature set", |device| {
        skip_unless!(!device.is_legacy(), "the legacy interface has no FEATURES_OK");
        let least = device.least();
        let taken = device.negotiate(least)?;
        let status = device.status()?;
        ensure!(taken, "of the features {least} the device takes none: the status is {status}");
        Ok(())
    }),
    on_device(Must, "driver-ok-sticks", "3.1.1", "DRIVER_OK stays set", |device| {
        let setup = device.plain();
        device.start(&setup)
    }),
    on_device(
        Custom,
        "queues-of-declined-features-may-be-left-out",
        "3.1.1",
        "the device starts without the queues of features that were not accepted",
        |device| {
            match device.try_start() {
                // It fails for another reason than missing queues.
                Err(stop) if stop.is_failed() => return Err(Stop::skipped(format_args!("{}", stop.reason()))),
                outcome => outcome?,
            }
            if let Start::WithEveryQueue(reason) = &device.obstacles.start {
                fail!("{reason}; it does with all of them");
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "reset-works-in-every-state",
        "2.4.1",
        "a reset completes in every state of initialization",
        |device| {
            let acknowledged = Status::ACKNOWLEDGE;
            let found = acknowledged | Status::DRIVER;
            for steps in
                [&[][..], &[acknowledged], &[acknowledged, found], &[acknowledged, acknowledged | Status::FAILED]]
            {
                steps.iter().for_each(|status| device.set_status(*status));
                device.reset()?;
            }
            let least = device.least();
            device.negotiate(least)?;
            device.reset()?;
            let setup = device.plain();
            device.prepare(&setup)?;
            device.stop()?;
            device.start(&setup)?;
            device.stop()
        },
    ),
    on_device(Must, "reset-disables-queues", "4.1.4.3.1", "queue_enable is 0 after a reset", |device| {
        let setup = device.plain();
        device.start(&setup)?;
        // Right after this reset: another reset could clear it instead.
        device.stop()?;
        for queue in device.present() {
            let enabled = device.in_use(queue);
            ensure!(enabled == 0, "queue {queue} has queue_enable {enabled} after a reset");
        }
        Ok(())
    }),
    on_device(
        Must,
        "reset-restores-queue-sizes",
        "4.1.4.3.1",
        "queue_size is the device's maximum again after a reset",
        |device| {
            let mut setup = device.plain();
            setup.size = 2;
            device.start(&setup)?;
            device.stop()?;
            device.negotiate_least()?;
            for queue in device.present() {
                let (size, before) = (device.queue_size(queue), device.sizes[usize::from(queue)]);
                ensure!(size == before, "queue {queue} has {size} entries after a reset, and had {before}");
            }
            Ok(())
        },
    ),
    on_device(Must, "reset-unmaps-vectors", "4.1.5.1.2.1", "every vector is NO_VECTOR after a reset", |device| {
        skip_unless!(device.function()?.msix.is_some(), "the device has no usable MSI-X");
        // On the legacy interface the vectors are there only while MSI-X is on.
        device.modern()?;
        let mut setup = device.plain();
        setup.mode = InterruptMode::Shared;
        device.start(&setup)?;
        device.negotiate_least()?;
        let config = device.common()?.read16(offset_of!(CommonConfig, config_msix_vector));
        ensure!(config == NO_VECTOR, "config_msix_vector is {config:#06x} after a reset");
        for queue in device.present() {
            device.select(queue);
            let vector = device.common()?.read16(offset_of!(CommonConfig, queue_msix_vector));
            ensure!(vector == NO_VECTOR, "queue {queue} has vector {vector:#06x} after a reset");
        }
        Ok(())
    }),
    on_device(Must, "reset-forgets-features", "2.4.1", "features can be negotiated again after a reset", |device| {
        let usable = device.usable();
        skip_unless!(!device.is_legacy(), "a legacy device does not say what it takes");
        skip_unless!(device.negotiate(usable)?, "the device does not take the features {usable}");
        let shows = device.modern().is_ok();
        let readable = shows && read_accepted(device)? == usable;
        device.reset()?;
        // Other features must be negotiable now.
        let least = device.least();
        ensure!(device.negotiate(least)?, "after {usable} and a reset the device does not take {least}");
        // A device need not show what was accepted (4.1.4.3.1), so only one that did can be wrong.
        if !shows {
            return Ok(());
        }
        let read = read_accepted(device)?;
        ensure!(!readable || read == least, "driver_feature reads {read} after {usable}, a reset and {least}");
        Ok(())
    }),
];

/// The accepted features as the device shows them, on modern PCI.
pub(super) fn read_accepted(device: &mut TestDevice<'_>) -> Verdict<Features> {
    let registers = device.common()?;
    let mut words = [0; 2];
    for (select, word) in (0..).zip(&mut words) {
        registers.write32(offset_of!(CommonConfig, driver_feature_select), select);
        *word = registers.read32(offset_of!(CommonConfig, driver_feature));
    }
    Ok(Features::from(words))
}
