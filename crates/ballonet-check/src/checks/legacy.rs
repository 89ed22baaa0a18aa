//! The legacy interface over PCI or MMIO: queues in blocks of pages, no `FEATURES_OK`.

use super::formats::SINGLE;
use crate::check::Severity::{Custom, Must};
use crate::check::{Check, Verdict, ensure, on_device, skip_unless};
use crate::device::{Damage, Role, Shape, StartOptions, TestDevice, Transport, mmio, ports};
use crate::ring::LEGACY_PAGE;
use ballonet::platform::Registers;
use ballonet::virtio::InterruptMode;
use ballonet::virtio::spec::{Features, NO_VECTOR, Status};

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(
        Must,
        "legacy-starts-without-features-ok",
        "3.1.2",
        "DRIVER_OK sticks without FEATURES_OK before it",
        |device| {
            let setup = device.plain();
            device.start(&setup)?;
            let status = device.status()?;
            let expected = Status::ACKNOWLEDGE | Status::DRIVER | Status::DRIVER_OK;
            ensure!(status == expected, "{expected} was set, and the status is {status}");
            device.exchange_cleanly(16, &Shape::PLAIN)
        },
    ),
    on_device(
        Must,
        "legacy-works-without-any-feature",
        "2.2.3",
        "the device works for a driver that accepts no feature",
        |device| {
            let setup = StartOptions { features: Features::empty(), ..device.plain() };
            device.start(&setup)?;
            device.exchange_cleanly(16, &SINGLE)
        },
    ),
    on_device(
        Must,
        "legacy-queue-sizes-are-powers-of-two",
        "2.7",
        "the size of each queue is a power of two",
        |device| {
            for queue in device.present() {
                let size = device.sizes[usize::from(queue)];
                ensure!(size.is_power_of_two(), "queue {queue} has {size} entries");
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "legacy-queue-sizes-hold-still",
        "4.1.5.1.3",
        "a queue has the same size before and after it is used, and after a reset",
        |device| {
            let setup = device.plain();
            device.start(&setup)?;
            device.stop()?;
            device.begin()?;
            for queue in device.present() {
                let (before, now) = (device.sizes[usize::from(queue)], device.queue_size(queue));
                ensure!(before == now, "queue {queue} has {now} entries, and had {before}");
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "legacy-queue-pages-begin-at-0",
        "4.1.5.1.3",
        "the page of each queue is 0 after a reset",
        |device| {
            device.begin()?;
            expect_no_pages(device)
        },
    ),
    on_device(
        Must,
        "legacy-queue-pages-read-back",
        "4.1.5.1.3",
        "the page of a queue reads back as written",
        |device| {
            let setup = device.plain();
            device.prepare(&setup)?;
            for (queue, page) in pages(device) {
                let read = device.in_use(queue);
                ensure!(read == page, "page {page:#x} was given to queue {queue}, and {read:#x} is read");
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "legacy-reset-takes-queues-back",
        "2.4.1",
        "the page of a queue that was used is 0 after a reset",
        |device| {
            let setup = device.plain();
            device.start(&setup)?;
            device.exchange(16, &Shape::PLAIN)?;
            device.stop()?;
            expect_no_pages(device)
        },
    ),
    on_device(
        Must,
        "legacy-page-0-takes-a-queue-back",
        "4.1.5.1.3",
        "writing page 0 ends the use of a queue, and the device can be started again",
        |device| {
            let setup = device.plain();
            device.prepare(&setup)?;
            let number = device.number(Role::First)?;
            device.select(number);
            match &mut device.transport {
                Transport::Legacy(legacy) => legacy.ports.write32(ports::QUEUE_ADDRESS, 0),
                Transport::Mmio(mmio) => mmio.registers.write32(mmio::QUEUE_PFN, 0),
                Transport::Modern(_) => {}
            }
            let page = device.in_use(number);
            ensure!(page == 0, "page 0 was given to queue {number}, and {page:#x} is read");
            device.start(&setup)?;
            device.exchange_cleanly(16, &Shape::PLAIN)
        },
    ),
    on_device(
        Must,
        "legacy-queues-can-move",
        "2.7.2",
        "after a reset queues work at other pages than before",
        |device| {
            let setup = device.plain();
            for pages in [0, 1, 3] {
                device.prepare_at(&setup, pages * LEGACY_PAGE)?;
                device.go()?;
                device.exchange_cleanly(16, &Shape::PLAIN)?;
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "legacy-padding-is-left-alone",
        "2.7.2",
        "the bytes between the available ring and the used ring's page are not written",
        |device| {
            let setup = device.plain();
            device.start(&setup)?;
            device.exchange(64, &SINGLE)?;
            device.expect_no_damage(Some(Damage::Outside))
        },
    ),
    on_device(Must, "legacy-features-have-32-bits", "2.2.3", "no feature is offered beyond bit 31", |device| {
        skip_unless!(device.mmio().is_ok(), "legacy PCI has one register for features");
        device.begin()?;
        for select in [1, 2, u32::MAX] {
            let word = device.feature_word(select);
            ensure!(word == 0, "feature word {select:#x} is {word:#x}");
        }
        Ok(())
    }),
    on_device(
        Must,
        "legacy-configuration-is-there-at-once",
        "2.5.3",
        "the configuration reads the same before and after the features are accepted",
        |device| {
            let length = device.kind.config.min(4);
            skip_unless!(length == 4, "devices of this type have no field that does not depend on a feature");
            device.reset()?;
            let before = device.config.read32(0);
            device.negotiate_least()?;
            let after = device.config.read32(0);
            ensure!(before == after, "the first field is {before:#x}, and {after:#x} after negotiation");
            Ok(())
        },
    ),
    on_device(
        Custom,
        "legacy-fields-have-the-cpus-order",
        "2.5.3",
        "a field is the same in 32 bits and as bytes in the CPU's order",
        |device| {
            skip_unless!(device.kind.config >= 4, "devices of this type have no such field");
            device.begin()?;
            let whole = device.config.read32(0);
            let bytes = u32::from_ne_bytes([0, 1, 2, 3].map(|at| device.config.read8(at)));
            ensure!(whole == bytes, "the first field is {whole:#x} in 32 bits, and {bytes:#x} by bytes");
            Ok(())
        },
    ),
    on_device(
        Custom,
        "legacy-accepted-features-read-back",
        "4.1.4.10",
        "accepted features read back, on PCI",
        |device| {
            device.legacy()?;
            let usable = device.usable();
            device.negotiate(usable)?;
            let read = device.legacy()?.ports.read32(ports::DRIVER_FEATURES);
            let [expected, _]: [u32; 2] = usable.into();
            ensure!(read == expected, "features {expected:#x} were accepted, {read:#x} are read");
            Ok(())
        },
    ),
    on_device(
        Must,
        "legacy-configuration-moves-with-msix",
        "4.1.4.10",
        "on PCI the configuration begins after the vectors while MSI-X is on, and in their place while it is off",
        |device| {
            skip_unless!(
                device.kind.config >= 4,
                "devices of this type have no field that does not depend on a feature"
            );
            with_messages(device, false)?;
            let off = device.config.read32(0);
            with_messages(device, true)?;
            let on = device.config.read32(0);
            ensure!(off == on, "the first field is {off:#x} with MSI-X off, and {on:#x} with it on");
            Ok(())
        },
    ),
    on_device(
        Must,
        "legacy-vectors-begin-with-none",
        "4.1.5.1.2.1",
        "on PCI the vectors of queues and configuration are NO_VECTOR after a reset",
        |device| {
            with_messages(device, true)?;
            let vector = device.legacy()?.ports.read16(ports::CONFIG_MSIX_VECTOR);
            ensure!(vector == NO_VECTOR, "the vector of the configuration is {vector:#06x} after a reset");
            for queue in device.present() {
                device.select(queue);
                let vector = device.legacy()?.ports.read16(ports::QUEUE_MSIX_VECTOR);
                ensure!(vector == NO_VECTOR, "the vector of queue {queue} is {vector:#06x} after a reset");
            }
            Ok(())
        },
    ),
];

/// Fails unless the page of each queue is 0, as after a reset.
fn expect_no_pages(device: &mut TestDevice<'_>) -> Verdict {
    for queue in device.present() {
        let page = device.in_use(queue);
        ensure!(page == 0, "queue {queue} has page {page:#x} after a reset");
    }
    Ok(())
}

/// The queues that are set up, and their pages.
fn pages(device: &TestDevice<'_>) -> alloc::vec::Vec<(u16, u32)> {
    let page = |at: usize| (device.arena.address(at) / LEGACY_PAGE as u64) as u32;
    device.queues.iter().map(|queue| (queue.index, page(queue.areas.descriptors))).collect()
}

/// Resets a device on PCI, and negotiates, with MSI-X on or off.
fn with_messages(device: &mut TestDevice<'_>, on: bool) -> Verdict {
    device.legacy()?;
    let has = device.function()?.msix.is_some();
    skip_unless!(has, "the device has no usable MSI-X");
    device.stop()?;
    device.negotiate_least()?;
    let (mode, vectors) = if on { (InterruptMode::Shared, 1) } else { (InterruptMode::Polling, 0) };
    device.set_up_interrupts(mode, vectors)
}
