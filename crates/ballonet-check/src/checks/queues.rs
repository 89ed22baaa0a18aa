//! The registers of queues: sizes, addresses, doorbells, vectors.

use alloc::vec::Vec;
use core::mem::offset_of;

use crate::check::Severity::{Custom, Must};
use crate::check::{Check, Stop, Verdict, ensure, on_balloon, on_device, skip_unless};
use crate::device::{Role, TestDevice};
use ballonet::balloon::wire::FREE_PAGE_HINT;
use ballonet::platform::Registers;
use ballonet::virtio::InterruptMode;
use ballonet::virtio::spec::{CommonConfig, Features, NO_VECTOR, QUEUE_SIZE_MAX};

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(
        Must,
        "absent-queues-have-size-0",
        "4.1.4.3.1",
        "queue_size is 0 for queues that do not exist",
        |device| {
            device.negotiate_least()?;
            // Without num_queues: those after the last that was found.
            let count = match device.common() {
                Ok(common) => common.read16(offset_of!(CommonConfig, num_queues)),
                Err(_) => device.sizes.len() as u16,
            };
            for queue in [count, count.saturating_add(1), 1024, 0x7fff, 0xfffe, 0xffff] {
                let size = if queue < count { 0 } else { device.queue_size(queue) };
                ensure!(size == 0, "num_queues is {count}, and queue {queue} has {size} entries");
            }
            Ok(())
        },
    ),
    on_balloon(
        Must,
        "queues-of-features-are-there",
        "5.5.2",
        "the queue of each offered feature exists, with a number below num_queues",
        |device| {
            use ballonet::balloon::wire::{PAGE_REPORTING, STATS_VQ};
            let (numbers, offered) = (device.numbers, device.offered);
            for (feature, queue, name) in [
                (STATS_VQ, numbers.statistics, "statistics"),
                (FREE_PAGE_HINT, numbers.hinting, "free page"),
                (PAGE_REPORTING, numbers.reporting, "reporting"),
            ] {
                ensure!(
                    !offered.contains(feature) || queue.is_some(),
                    "{feature} is offered, and there is no {name} queue"
                );
            }
            device.negotiate_least()?;
            let count = device.common()?.read16(offset_of!(CommonConfig, num_queues));
            let last = device.present().last().unwrap_or(0);
            ensure!(count > last, "num_queues is {count}, and there is a queue {last}");
            Ok(())
        },
    ),
    on_device(
        Must,
        "queue-sizes-are-legal",
        "4.1.5.1.3",
        "queues have at most 32768 entries, a power of two unless they can be packed",
        |device| {
            for queue in device.present() {
                let size = device.sizes[usize::from(queue)];
                ensure!(size <= QUEUE_SIZE_MAX, "queue {queue} has {size} entries, 32768 are the most");
                let packed = device.offered.contains(Features::RING_PACKED);
                ensure!(packed || size.is_power_of_two(), "queue {queue} has {size} entries, which is no power of two");
            }
            Ok(())
        },
    ),
    on_device(Custom, "queue-selector-reads-back", "4.1.4.3", "queue_select reads back", |device| {
        device.negotiate_least()?;
        for queue in [1, 0] {
            device.select(queue);
            let read = device.common()?.read16(offset_of!(CommonConfig, queue_select));
            ensure!(read == queue, "queue {queue} was selected, {read} is read");
        }
        Ok(())
    }),
    on_device(
        Must,
        "smaller-queue-sizes-read-back",
        "4.1.5.1.3",
        "a smaller queue_size is accepted and reads back",
        |device| {
            for queue in device.present() {
                let mut size = device.sizes[usize::from(queue)];
                device.negotiate_least()?;
                while size > 1 {
                    size = 1 << (size - 1).ilog2();
                    device.select(queue);
                    device.common()?.write16(offset_of!(CommonConfig, queue_size), size);
                    let read = device.queue_size(queue);
                    ensure!(read == size, "queue {queue} was given {size} entries, {read} are read");
                }
            }
            Ok(())
        },
    ),
    on_device(
        Custom,
        "queue-addresses-read-back",
        "4.1.4.3",
        "the three addresses of a queue read back, all 64 bits",
        |device| {
            device.negotiate_least()?;
            device.select(0);
            for (place, register) in [
                offset_of!(CommonConfig, queue_desc),
                offset_of!(CommonConfig, queue_driver),
                offset_of!(CommonConfig, queue_device),
            ]
            .into_iter()
            .enumerate()
            {
                let address = 0x0000_0012_3456_7000 + 0x1_0000_1000 * place as u64;
                let registers = device.common()?;
                registers.write64(register, address);
                let half = |at: usize| u64::from(registers.read32(at));
                let read = half(register) | half(register + 4) << 32;
                ensure!(
                    read == address,
                    "{address:#x} was written to {register:#x} of the common structure, {read:#x} is read"
                );
            }
            Ok(())
        },
    ),
    on_device(Must, "queue-enable-reads-back", "4.1.4.3.1", "queue_enable is 1 once a queue is enabled", |device| {
        let setup = device.plain();
        device.prepare(&setup)?;
        for queue in [device.number(Role::First)?, device.number(Role::Second)?] {
            let shown = device.shows_use(queue);
            let enabled = device.in_use(queue);
            ensure!(shown, "queue {queue} was enabled, and queue_enable is {enabled}");
        }
        Ok(())
    }),
    on_device(Must, "queues-are-apart", "4.1.4.3", "each queue has its own registers", |device| {
        device.modern()?;
        skip_unless!(device.present().count() > 1, "the device has one queue");
        device.negotiate_least()?;
        for (queue, value) in [(0, 0x1000_0000), (1, 0x2000_0000)] {
            device.select(queue);
            device.common()?.write32(offset_of!(CommonConfig, queue_desc), value);
        }
        device.select(0);
        let read = device.common()?.read32(offset_of!(CommonConfig, queue_desc));
        ensure!(read != 0x2000_0000, "queue_desc of queue 0 is {read:#x} after that of queue 1 was written");
        // A device need not show addresses (4.1.4.3.1), and one that does not reveals nothing about its queues.
        skip_unless!(read == 0x1000_0000, "queue_desc cannot be read back: {read:#x} is read");
        Ok(())
    }),
    on_device(
        Must,
        "doorbells-are-in-their-window",
        "4.1.4.4.1",
        "each queue's doorbell lies in the notification structure",
        |device| {
            let wide = device.offered.contains(Features::NOTIFICATION_DATA);
            let width = if wide { 4 } else { 2 };
            let modern = device.modern()?;
            let (multiplier, length) = (u64::from(modern.multiplier), modern.notify.len() as u64);
            device.negotiate_least()?;
            for queue in device.present() {
                device.select(queue);
                let offset =
                    u64::from(device.common()?.read16(offset_of!(CommonConfig, queue_notify_off))) * multiplier;
                ensure!(
                    offset + width <= length,
                    "queue {queue} is kicked by {width} bytes at {offset:#x}, and there are {length:#x} bytes of doorbells"
                );
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "common-structure-has-what-is-offered",
        "4.1.4.3.1",
        "the common structure has the fields of the offered features",
        |device| {
            let length = device.common()?.len();
            for (feature, needed) in [
                (Features::NOTIF_CONFIG_DATA, offset_of!(CommonConfig, queue_notif_config_data) + 2),
                (Features::RING_RESET, offset_of!(CommonConfig, queue_reset) + 2),
                (Features::ADMIN_VQ, size_of::<CommonConfig>()),
            ] {
                ensure!(
                    !device.offered.contains(feature) || length >= needed,
                    "{feature} is offered, and the common structure has {length:#x} bytes, {needed:#x} are needed"
                );
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "vectors-read-back",
        "4.1.5.1.2.1",
        "a vector reads back as written, or as NO_VECTOR if the device refuses it",
        |device| {
            let entries = with_messages(device)?;
            for queue in events(device) {
                for vector in (0..entries.min(8)).chain([entries - 1, NO_VECTOR]) {
                    let read = device.try_vector(queue, vector)?;
                    // The device may be out of a resource; it then reads back as NO_VECTOR.
                    ensure!(
                        read == vector || read == NO_VECTOR,
                        "vector {vector} of {entries} for {queue:?} reads back as {read:#06x}"
                    );
                }
            }
            Ok(())
        },
    ),
    on_device(
        Custom,
        "every-vector-is-taken",
        "4.1.5.1.2.1",
        "any event can use any entry of the MSI-X table",
        |device| {
            let entries = with_messages(device)?;
            for queue in events(device) {
                for vector in 0..entries.min(64) {
                    let read = device.try_vector(queue, vector)?;
                    ensure!(read == vector, "vector {vector} of {entries} for {queue:?} is refused: {read:#06x}");
                }
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "absent-vectors-are-refused",
        "4.1.5.1.2.1",
        "a vector beyond the MSI-X table reads back as NO_VECTOR",
        |device| {
            let entries = with_messages(device)?;
            for queue in [None, Some(0)] {
                for vector in [entries, entries + 1, 0x7ff, 0x800, 0xfffe] {
                    let read = if vector < entries { NO_VECTOR } else { device.try_vector(queue, vector)? };
                    ensure!(
                        read == NO_VECTOR,
                        "the table has {entries} entries, and vector {vector:#x} for {queue:?} reads back as {read:#06x}"
                    );
                }
            }
            Ok(())
        },
    ),
];

/// Turns MSI-X on, with as many entries as are counted and present, after the features are negotiated.
fn with_messages(device: &mut TestDevice<'_>) -> Verdict<u16> {
    let Some(msix) = device.function()?.msix else {
        return Err(Stop::skipped(format_args!("the device has no usable MSI-X")));
    };
    device.negotiate_least()?;
    device.set_up_interrupts(InterruptMode::Shared, 1)?;
    Ok(msix.entries)
}

/// What has a vector: configuration changes, and the first queues.
fn events(device: &TestDevice<'_>) -> Vec<Option<u16>> {
    core::iter::once(None).chain(device.present().take(2).map(Some)).collect()
}
