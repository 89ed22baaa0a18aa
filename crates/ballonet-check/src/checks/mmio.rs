//! The registers of virtio over MMIO: identity, selectors, interrupts, shared memory (4.2.2).

use crate::check::Severity::{Custom, Must, Should};
use crate::check::{Check, Stop, Verdict, ensure, on_device, skip_unless};
use crate::device::{About, Role, Shape, TestDevice, mmio, undisturbed};
use ballonet::platform::Registers;
use ballonet::virtio::spec::{ISR_CONFIG, ISR_QUEUE};

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(Must, "mmio-magic-value-is-virt", "4.2.2.1", "MagicValue is 0x74726976", |device| {
        let magic = read(device, mmio::MAGIC_VALUE)?;
        ensure!(magic == mmio::MAGIC, "MagicValue is {magic:#x}");
        Ok(())
    }),
    on_device(Custom, "mmio-version-is-2", "4.2.2.1", "Version is 2; 1 is the legacy interface", |device| {
        let version = read(device, mmio::VERSION)?;
        ensure!(version == 2, "Version is {version}");
        Ok(())
    }),
    on_device(
        Must,
        "mmio-identity-holds-still",
        "4.2.2",
        "MagicValue, Version, DeviceID and VendorID read the same in every state",
        |device| {
            let identity = identity(device)?;
            let setup = device.plain();
            device.start(&setup)?;
            let running = self::identity(device)?;
            ensure!(identity == running, "the four are {identity:x?}, and {running:x?} after DRIVER_OK");
            device.stop()?;
            let after = self::identity(device)?;
            ensure!(identity == after, "the four are {identity:x?}, and {after:x?} after a reset");
            Ok(())
        },
    ),
    on_device(Must, "mmio-device-id-is-a-type", "4.2.2.1", "DeviceID is not 0", |device| {
        let number = read(device, mmio::DEVICE_ID)?;
        ensure!(number != 0, "DeviceID is 0, and the device works");
        Ok(())
    }),
    on_device(
        Must,
        "mmio-feature-words-follow-the-selector",
        "4.2.2.1",
        "DeviceFeatures shows the word that was selected last, in any order",
        |device| {
            device.begin()?;
            let words = <[u32; 2]>::from(device.offered);
            for select in [1, 0, 0, 1, 0] {
                skip_unless!(!device.is_legacy() || words[1] == 0, "a legacy device has one word");
                let word = device.feature_word(select);
                let expected = words[select as usize];
                ensure!(word == expected, "feature word {select} is {word:#x}, and was {expected:#x}");
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "mmio-queue-sizes-follow-the-selector",
        "4.2.2.1",
        "QueueSizeMax is that of the queue that was selected last, in any order",
        |device| {
            device.negotiate_least()?;
            let last = device.present().last().unwrap_or(0);
            for queue in [last, 0, last + 1, 0, last] {
                let (size, expected) =
                    (device.queue_size(queue), device.sizes.get(usize::from(queue)).copied().unwrap_or(0));
                ensure!(size == expected, "queue {queue} has {size} entries, and had {expected}");
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "mmio-queue-ready-0-takes-a-queue-back",
        "4.2.2.2",
        "QueueReady reads 0 after 0 was written",
        |device| {
            modern(device)?;
            let setup = device.plain();
            device.prepare(&setup)?;
            let queue = device.number(Role::First)?;
            device.select(queue);
            write(device, mmio::QUEUE_READY, 0)?;
            let ready = device.in_use(queue);
            ensure!(ready == 0, "0 was written to QueueReady of queue {queue}, and {ready} is read");
            device.start(&setup)?;
            device.exchange_cleanly(16, &Shape::PLAIN)
        },
    ),
    on_device(
        Must,
        "mmio-reset-clears-queue-ready",
        "4.2.2.1",
        "QueueReady of every queue is 0 after a reset",
        |device| {
            modern(device)?;
            let setup = device.plain();
            device.start(&setup)?;
            device.exchange(16, &Shape::PLAIN)?;
            device.stop()?;
            for queue in device.present() {
                let ready = device.in_use(queue);
                ensure!(ready == 0, "queue {queue} has QueueReady {ready} after a reset");
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "mmio-interrupt-status-tells-of-used-buffers",
        "4.2.2.1",
        "bit 0 of InterruptStatus is set after buffers were used",
        |device| {
            let status = after_traffic(device)?;
            ensure!(status & QUEUE != 0, "InterruptStatus is {status:#x} after buffers were used");
            Ok(())
        },
    ),
    on_device(
        Must,
        "mmio-interrupt-ack-clears",
        "4.2.2.1",
        "bits that are written to InterruptACK are cleared",
        |device| {
            undisturbed(device, About::Signals, |device| {
                let status = after_traffic(device)?;
                write(device, mmio::INTERRUPT_ACK, status)?;
                let left = read(device, mmio::INTERRUPT_STATUS)?;
                ensure!(left == 0, "InterruptStatus is {status:#x}, and {left:#x} after that was acknowledged");
                Ok(())
            })
        },
    ),
    on_device(
        Must,
        "mmio-interrupt-ack-clears-no-other-bit",
        "4.2.2.1",
        "acknowledging a configuration change leaves the bit for used buffers",
        |device| {
            let status = after_traffic(device)?;
            skip_unless!(status & QUEUE != 0, "the bit for used buffers is not set");
            write(device, mmio::INTERRUPT_ACK, ISR_CONFIG.into())?;
            let left = read(device, mmio::INTERRUPT_STATUS)?;
            ensure!(left & QUEUE != 0, "InterruptStatus is {left:#x} after only bit 1 was acknowledged");
            Ok(())
        },
    ),
    on_device(
        Should,
        "mmio-interrupt-status-is-0-while-idle",
        "4.2.2.1",
        "bit 0 of InterruptStatus is clear if no buffer was used",
        |device| {
            undisturbed(device, About::Signals, |device| {
                let setup = device.plain();
                device.start(&setup)?;
                device.wait_quiet()?;
                let status = read(device, mmio::INTERRUPT_STATUS)?;
                ensure!(status & QUEUE == 0, "InterruptStatus is {status:#x} with no buffer used");
                Ok(())
            })
        },
    ),
    on_device(
        Must,
        "mmio-interrupt-status-has-no-undefined-bits",
        "4.2.2.1",
        "undefined bits of InterruptStatus are 0",
        |device| {
            let status = after_traffic(device)?;
            ensure!(status & !(QUEUE | u32::from(ISR_CONFIG)) == 0, "InterruptStatus is {status:#x}");
            Ok(())
        },
    ),
    on_device(Must, "mmio-reset-clears-interrupt-status", "4.2.2.1", "InterruptStatus is 0 after a reset", |device| {
        modern(device)?;
        undisturbed(device, About::Signals, |device| {
            after_traffic(device)?;
            device.reset()?;
            let status = read(device, mmio::INTERRUPT_STATUS)?;
            ensure!(status == 0, "InterruptStatus is {status:#x} after a reset");
            Ok(())
        })
    }),
    on_device(
        Must,
        "mmio-absent-shared-memory-has-length-all-ones",
        "4.2.2.1",
        "SHMLen reads as -1 for a region that does not exist",
        |device| {
            modern(device)?;
            for region in [0xfe, 0xff] {
                write(device, mmio::SHM_SEL, region)?;
                let halves = [read(device, mmio::SHM_LEN)?, read(device, mmio::SHM_LEN + 4)?];
                ensure!(halves == [u32::MAX; 2], "shared memory {region} has length {halves:x?} in two halves");
            }
            Ok(())
        },
    ),
    on_device(
        Custom,
        "mmio-absent-shared-memory-has-base-all-ones",
        "4.2.2.1",
        "SHMBase reads as -1 for a region that does not exist",
        |device| {
            modern(device)?;
            write(device, mmio::SHM_SEL, 0xff)?;
            let halves = [read(device, mmio::SHM_BASE)?, read(device, mmio::SHM_BASE + 4)?];
            ensure!(halves == [u32::MAX; 2], "shared memory 255 has base {halves:x?} in two halves");
            Ok(())
        },
    ),
    on_device(
        Custom,
        "mmio-configuration-reads-the-same-in-parts",
        "4.2.2.2",
        "a field of the configuration is the same in 8, 16 and 32 bits",
        |device| {
            skip_unless!(
                device.kind.config >= 4,
                "devices of this type have no field that does not depend on a feature"
            );
            undisturbed(device, About::Target, |device| {
                device.negotiate_least()?;
                let whole = device.config.read32(0);
                let halves = [0, 2].map(|at| device.config.read16(at));
                let bytes = u32::from_le_bytes([0, 1, 2, 3].map(|at| device.config.read8(at)));
                let by_halves = u32::from(halves[1]) << 16 | u32::from(halves[0]);
                ensure!(
                    whole == by_halves && whole == bytes,
                    "the first field is {whole:#x} in 32 bits, {by_halves:#x} in 16, {bytes:#x} in 8"
                );
                Ok(())
            })
        },
    ),
];

/// The bit for used buffers.
const QUEUE: u32 = ISR_QUEUE as u32;

fn read(device: &mut TestDevice<'_>, register: usize) -> Verdict<u32> {
    Ok(device.mmio()?.registers.read32(register))
}

fn write(device: &mut TestDevice<'_>, register: usize, value: u32) -> Verdict {
    device.mmio()?.registers.write32(register, value);
    Ok(())
}

/// Requires registers of version 2.
fn modern(device: &mut TestDevice<'_>) -> Verdict {
    if device.is_legacy() { Err(Stop::skipped(format_args!("registers of version 1 do not have it"))) } else { Ok(()) }
}

fn identity(device: &mut TestDevice<'_>) -> Verdict<[u32; 4]> {
    let registers = [mmio::MAGIC_VALUE, mmio::VERSION, mmio::DEVICE_ID, mmio::VENDOR_ID];
    let device = device.mmio()?;
    Ok(registers.map(|register| device.registers.read32(register)))
}

/// Starts the device without interrupts and has it use buffers. Returns `InterruptStatus`, not acknowledged.
fn after_traffic(device: &mut TestDevice<'_>) -> Verdict<u32> {
    let setup = device.plain();
    device.start(&setup)?;
    device.transfer(Role::First, 0..8, &Shape::PLAIN)?;
    let mut status = 0;
    device.settle(1, |device| {
        status |= read(device, mmio::INTERRUPT_STATUS)?;
        Ok(status & QUEUE != 0)
    })?;
    Ok(status)
}
