//! Configuration space: IDs, capabilities, MSI-X.

use crate::check::Severity::{Custom, Must, Should};
use crate::check::{Check, ensure, fail, on_function, skip_unless};
use crate::device::{Kind, PciFunction};
use ballonet::virtio::spec::{CapabilityType, CommonConfig, legacy};

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_function(
        Must,
        "transitional-subsystem-is-the-device-type",
        "4.1.2.3",
        "a transitional device's subsystem ID is its device type",
        |pci| {
            skip_unless!(is_transitional(pci), "device {:#06x} is not transitional", pci.function.device);
            let subsystem = pci.function.subsystem.map_or(0, |subsystem| subsystem.device);
            let expected = pci.device_type().unwrap_or(0);
            ensure!(subsystem == expected, "the subsystem ID is {subsystem:#06x}, not {expected}");
            Ok(())
        },
    ),
    on_function(Must, "transitional-revision-is-0", "4.1.2.3", "a transitional device has revision 0", |pci| {
        skip_unless!(is_transitional(pci), "device {:#06x} is not transitional", pci.function.device);
        let revision = pci.function.revision;
        ensure!(revision == legacy::REVISION, "the revision is {revision}");
        Ok(())
    }),
    on_function(
        Should,
        "modern-revision-is-1-or-higher",
        "4.1.2.1",
        "a device that is not transitional has revision 1 or higher",
        |pci| {
            skip_unless!(is_modern(pci), "device {:#06x} is transitional", pci.function.device);
            let revision = pci.function.revision;
            ensure!(revision >= 1, "the revision is {revision}");
            Ok(())
        },
    ),
    on_function(
        Should,
        "modern-subsystem-is-0x40-or-higher",
        "4.1.2.1",
        "a device that is not transitional has a subsystem ID of 0x40 or higher",
        |pci| {
            skip_unless!(is_modern(pci), "device {:#06x} is transitional", pci.function.device);
            let subsystem = pci.function.subsystem.map_or(0, |subsystem| subsystem.device);
            ensure!(subsystem >= 0x40, "the subsystem ID is {subsystem:#06x}");
            Ok(())
        },
    ),
    on_function(
        Must,
        "capability-list-is-whole",
        "4.1.4",
        "the capability list ends: no loop, no link out of it",
        |pci| {
            if let Some(error) = &pci.broken {
                fail!("{error}");
            }
            Ok(())
        },
    ),
    on_function(Must, "capabilities-are-long-enough", "4.1.4", "cap_len covers the fields of each capability", |pci| {
        for structure in &pci.structures {
            let (length, needed) = (structure.capability_length, structure.kind.capability_size());
            let (kind, at) = (structure.kind, structure.capability.offset);
            ensure!(length >= needed, "the {kind} capability at {at:#x} has cap_len {length}, {needed} are needed");
        }
        Ok(())
    }),
    on_function(
        Must,
        "structures-are-all-there",
        "4.1.4",
        "the common, notification and ISR structures exist, and the device configuration where the type has one",
        |pci| {
            use CapabilityType::{Common, Device, Isr, Notify};
            skip_unless!(!is_legacy_only(pci), "the function has a legacy interface only");
            let config = pci.device_type().is_some_and(|number| Kind::of(number).config > 0);
            for kind in [Common, Notify, Isr, Device].into_iter().take(if config { 4 } else { 3 }) {
                ensure!(pci.structures.iter().any(|structure| structure.kind == kind), "there is no {kind} capability");
            }
            Ok(())
        },
    ),
    on_function(
        Must,
        "structures-lie-in-their-bars",
        "4.1.4",
        "each structure lies in a BAR that the function has",
        |pci| {
            // Indices above 5 are reserved, and drivers must ignore them.
            for structure in pci.structures.iter().filter(|structure| structure.has_place() && structure.bar <= 5) {
                let (kind, index, offset, length) = (structure.kind, structure.bar, structure.offset, structure.length);
                match pci.bars.get(index) {
                    Ok(bar) => ensure!(
                        offset.checked_add(length).is_some_and(|end| end <= bar.size) && length != 0,
                        "{kind}: {offset:#x}+{length:#x} is no part of BAR{index} of {:#x} bytes",
                        bar.size
                    ),
                    Err(error) => fail!("{kind}: {error}"),
                }
            }
            Ok(())
        },
    ),
    on_function(
        Must,
        "structures-are-aligned",
        "4.1.4.3.1",
        "common and device structures are aligned to 4 bytes, doorbells to 2",
        |pci| {
            for structure in &pci.structures {
                let (kind, offset, align) = (structure.kind, structure.offset, structure.align());
                ensure!(offset.is_multiple_of(align), "{kind}: offset {offset:#x} is no multiple of {align}");
            }
            Ok(())
        },
    ),
    on_function(
        Must,
        "structures-are-long-enough",
        "4.1.4.3.1",
        "each structure has the length that its type needs",
        |pci| {
            let config = pci.device_type().map_or(0, |number| Kind::of(number).config);
            for structure in &pci.structures {
                let needed = match structure.kind {
                    CapabilityType::Common => CommonConfig::SIZE as u64,
                    CapabilityType::Notify => 2,
                    CapabilityType::Isr => 1,
                    CapabilityType::Device => config as u64,
                    _ => continue,
                };
                let (kind, length) = (structure.kind, structure.length);
                ensure!(length >= needed, "{kind}: length {length}, {needed} are needed");
            }
            Ok(())
        },
    ),
    on_function(Custom, "structures-do-not-overlap", "4.1.4", "no two structures share bytes of a BAR", |pci| {
        let placed = || pci.structures.iter().filter(|structure| structure.has_place() && structure.bar <= 5);
        for (place, one) in placed().enumerate() {
            for other in placed().skip(place + 1).filter(|other| other.bar == one.bar && other.kind != one.kind) {
                let apart = one.offset.saturating_add(one.length) <= other.offset
                    || other.offset.saturating_add(other.length) <= one.offset;
                ensure!(
                    apart,
                    "BAR{}: {} at {:#x}+{:#x} and {} at {:#x}+{:#x}",
                    one.bar,
                    one.kind,
                    one.offset,
                    one.length,
                    other.kind,
                    other.offset,
                    other.length
                );
            }
        }
        Ok(())
    }),
    on_function(
        Must,
        "notify-multiplier-is-legal",
        "4.1.4.4.1",
        "notify_off_multiplier is 0 or an even power of two",
        |pci| {
            let notify = pci.structures.iter().find(|structure| structure.kind == CapabilityType::Notify);
            let Some(notify) = notify else {
                skip_unless!(false, "there is no notification capability");
                return Ok(());
            };
            let multiplier = notify.extra;
            let legal = multiplier == 0 || multiplier.is_power_of_two() && multiplier.is_multiple_of(2);
            ensure!(legal, "notify_off_multiplier is {multiplier:#x}, which is neither 0 nor an even power of two");
            Ok(())
        },
    ),
    on_function(Must, "pci-access-is-there", "4.1.4.9.1", "a PCI configuration access capability exists", |pci| {
        skip_unless!(!pci.structures.is_empty(), "the device has no virtio capability");
        ensure!(pci.access().is_some(), "there is no capability of type {}", CapabilityType::PciAccess as u8);
        Ok(())
    }),
    on_function(
        Must,
        "msix-is-usable",
        "4.1.5.1.2",
        "the MSI-X table and pending bits lie apart in memory BARs",
        |pci| {
            skip_unless!(pci.has_msix, "the function has no MSI-X capability");
            if let Some(error) = &pci.msix_error {
                fail!("{error}");
            }
            Ok(())
        },
    ),
    on_function(Should, "msix-has-two-vectors", "4.1.5.1.2.1", "MSI-X has at least two vectors", |pci| {
        let Some(msix) = pci.msix else {
            skip_unless!(false, "the function has no usable MSI-X");
            return Ok(());
        };
        ensure!(msix.entries >= 2, "there is {} vector", msix.entries);
        Ok(())
    }),
];

fn is_modern(pci: &PciFunction) -> bool {
    !pci.may_be_legacy()
}

fn is_transitional(pci: &PciFunction) -> bool {
    pci.may_be_legacy()
}

/// Whether it has no structure of the modern interface: a legacy function, or one whose host hides that interface.
fn is_legacy_only(pci: &PciFunction) -> bool {
    pci.structures.is_empty() && pci.may_be_legacy()
}
