//! The device configuration, and the window in configuration space to all registers.

use core::mem::offset_of;

use crate::check::Severity::{Custom, Must};
use crate::check::{Check, Stop, Verdict, ensure, on_balloon, on_device, skip_unless};
use crate::device::{About, TestDevice, undisturbed};
use ballonet::balloon::wire::{BalloonConfig, PAGE_POISON};
use ballonet::pci::{Capability, ConfigSpace};
use ballonet::platform::Registers;
use ballonet::virtio::spec::{CapabilityType, CommonConfig, PciAccessCapability, PciCapability};

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(
        Must,
        "configuration-is-long-enough",
        "2.5",
        "the device configuration has the fields of the offered features",
        |device| {
            let needed = device.kind.config_length(device.offered);
            let length = device.config.len();
            ensure!(length >= needed, "the device configuration has {length} bytes, {needed} are needed");
            Ok(())
        },
    ),
    on_device(
        Must,
        "configuration-is-there-before-features-ok",
        "2.5.2",
        "configuration fields can be read before FEATURES_OK",
        |device| {
            let length = device.kind.config.min(8);
            skip_unless!(length >= 4, "devices of this type have no field that does not depend on a feature");
            undisturbed(device, About::Target, |device| {
                device.begin()?;
                for field in (0..length).step_by(4) {
                    device.begin()?;
                    let before = device.config.read32(field);
                    device.negotiate_least()?;
                    let after = device.config.read32(field);
                    ensure!(
                        before == after,
                        "the field at {field} is {before} before FEATURES_OK, and {after} after it"
                    );
                }
                Ok(())
            })
        },
    ),
    on_balloon(
        Custom,
        "configuration-reads-the-same-in-parts",
        "2.5",
        "a field reads the same in 8, 16 and 32 bits",
        |device| {
            let setup = device.plain();
            undisturbed(device, About::Signals, |device| {
                device.start(&setup)?;
                // A value whose parts differ.
                device.config.write32(offset_of!(BalloonConfig, actual), 0x0102_0304);
                let outcome = reads_the_same_in_parts(device);
                device.config.write32(offset_of!(BalloonConfig, actual), 0);
                outcome
            })
        },
    ),
    on_device(
        Custom,
        "generation-holds-still",
        "2.5",
        "config_generation does not change while the configuration does not",
        |device| {
            let setup = device.plain();
            undisturbed(device, About::Generation, |device| {
                device.start(&setup)?;
                let Some(before) = device.generation() else {
                    return Err(Stop::skipped(format_args!("the legacy interface has no config_generation")));
                };
                for _ in 0..8 {
                    if device.config.len() >= 4 {
                        let _ = device.config.read32(0);
                    }
                    let generation = device.generation().unwrap_or(0);
                    ensure!(
                        generation == before,
                        "config_generation goes from {before} to {generation} while nothing changes"
                    );
                }
                Ok(())
            })
        },
    ),
    on_balloon(Must, "actual-is-kept", "5.5.4", "actual is stored as written", |device| {
        let setup = device.plain();
        device.start(&setup)?;
        for value in [1, 0x0102_0304, 0] {
            device.config.write32(offset_of!(BalloonConfig, actual), value);
            let read = device.config.read32(offset_of!(BalloonConfig, actual));
            ensure!(read == value, "actual was written with {value:#x}, {read:#x} is read");
        }
        Ok(())
    }),
    on_balloon(
        Must,
        "writing-actual-leaves-the-target",
        "5.5.4",
        "writing actual does not change num_pages",
        |device| {
            let setup = device.plain();
            undisturbed(device, About::Target, |device| {
                device.start(&setup)?;
                let before = device.config.read32(offset_of!(BalloonConfig, num_pages));
                device.config.write32(offset_of!(BalloonConfig, actual), before.wrapping_add(7));
                let after = device.config.read32(offset_of!(BalloonConfig, num_pages));
                device.config.write32(offset_of!(BalloonConfig, actual), 0);
                ensure!(before == after, "num_pages goes from {before} to {after} when actual is written");
                Ok(())
            })
        },
    ),
    on_balloon(Must, "poison-value-is-kept", "5.5.6.6", "poison_val is stored as written", |device| {
        skip_unless!(device.offered.contains(PAGE_POISON), "the device does not offer PAGE_POISON");
        skip_unless!(
            device.config.len() >= offset_of!(BalloonConfig, poison_val) + 4,
            "the device configuration has no room for poison_val"
        );
        let features = device.least() | PAGE_POISON;
        skip_unless!(device.negotiate(features)?, "the device does not take the features {features}");
        for value in [0xaaaa_aaaa, 0] {
            device.config.write32(offset_of!(BalloonConfig, poison_val), value);
            let read = device.config.read32(offset_of!(BalloonConfig, poison_val));
            ensure!(read == value, "poison_val was written with {value:#x}, {read:#x} is read");
        }
        Ok(())
    }),
    on_device(
        Must,
        "pci-access-reads-registers",
        "4.1.4.9.1",
        "a read of pci_cfg_data reads the BAR, in 1, 2 and 4 bytes",
        |device| {
            device.begin()?;
            device.common()?.write32(offset_of!(CommonConfig, device_feature_select), 0);
            for (field, width) in [
                (offset_of!(CommonConfig, device_status), 1),
                (offset_of!(CommonConfig, num_queues), 2),
                (offset_of!(CommonConfig, device_feature), 4),
            ] {
                let access = point(device, field, width)?;
                let through = read_window(&device.platform.config(), access, width)?;
                let registers = device.common()?;
                let direct = match width {
                    1 => registers.read8(field).into(),
                    2 => registers.read16(field).into(),
                    _ => registers.read32(field),
                };
                ensure!(
                    through == direct,
                    "{field:#x} of the common structure is {direct:#x}, and {through:#x} through pci_cfg_data"
                );
            }
            Ok(())
        },
    ),
    on_device(Must, "pci-access-writes-registers", "4.1.4.9.1", "a write of pci_cfg_data writes the BAR", |device| {
        device.begin()?;
        for select in [1, 0] {
            let access = point(device, offset_of!(CommonConfig, device_feature_select), 4)?;
            let written =
                access.write32(&mut device.platform.config(), offset_of!(PciAccessCapability, pci_cfg_data), select);
            written.map_err(|error| Stop::failed(format_args!("{error}")))?;
            let read = device.common()?.read32(offset_of!(CommonConfig, device_feature_select));
            ensure!(
                read == select,
                "{select} was written to device_feature_select through pci_cfg_data, {read} is read"
            );
        }
        Ok(())
    }),
];

pub(super) fn reads_the_same_in_parts(device: &TestDevice<'_>) -> Verdict {
    for offset in [offset_of!(BalloonConfig, num_pages), offset_of!(BalloonConfig, actual)] {
        let whole = device.config.read32(offset);
        let halves = [0, 2].map(|at| device.config.read16(offset + at));
        let bytes = [0, 1, 2, 3].map(|at| device.config.read8(offset + at));
        let by_halves = u32::from(halves[1]) << 16 | u32::from(halves[0]);
        ensure!(by_halves == whole, "{offset:#x} is {whole:#x} in 32 bits, and {by_halves:#x} in 16 at a time");
        let by_bytes = u32::from_le_bytes(bytes);
        ensure!(by_bytes == whole, "{offset:#x} is {whole:#x} in 32 bits, and {by_bytes:#x} in 8 at a time");
    }
    Ok(())
}

/// The window, pointed at an offset of the common structure.
fn point(device: &mut TestDevice<'_>, field: usize, width: u32) -> Verdict<Capability> {
    device.modern()?;
    let Some(access) = device.function()?.access() else {
        return Err(Stop::skipped(format_args!("the device has no PCI configuration access capability")));
    };
    let common = device.function()?.structures.iter().find(|structure| structure.kind == CapabilityType::Common);
    let Some((bar, start)) = common.map(|common| (common.bar, common.offset as u32)) else {
        return Err(Stop::skipped(format_args!("the device has no common configuration capability")));
    };
    let config = &mut device.platform.config();
    let failed = |error| Stop::failed(format_args!("{error}"));
    let length = access.read8(config, offset_of!(PciCapability, cap_len)).map_err(failed)?;
    ensure!(
        length >= CapabilityType::PciAccess.capability_size(),
        "the capability has cap_len {length}, and no room for its data"
    );
    access.write8(config, offset_of!(PciCapability, bar), bar).map_err(failed)?;
    access.write32(config, offset_of!(PciCapability, offset), start + field as u32).map_err(failed)?;
    access.write32(config, offset_of!(PciCapability, length), width).map_err(failed)?;
    Ok(access)
}

fn read_window<C: ConfigSpace>(config: &C, access: Capability, width: u32) -> Verdict<u32> {
    let at = offset_of!(PciAccessCapability, pci_cfg_data);
    let value = match width {
        1 => access.read8(config, at).map(u32::from),
        2 => access.read16(config, at).map(u32::from),
        _ => access.read32(config, at),
    };
    value.map_err(|error| Stop::failed(format_args!("{error}")))
}
