//! What configuration space says: IDs, capabilities, MSI-X.

use crate::outcome::{Verdict, ensure, needs};
use crate::site::Site;
use ballonet::pci::capability::id;
use ballonet::platform::Platform;
use ballonet::virtio::spec::{CapabilityType, DeviceType, cap, common, legacy};

pub fn transitional_subsystem_is_the_device_type<P: Platform>(site: &mut Site<'_, P>) -> Verdict {
    needs!(is_transitional(site), "device {:#06x} is not transitional", site.function.device());
    let subsystem = site.function.subsystem().map_or(0, |subsystem| subsystem.device);
    let balloon = DeviceType::BALLOON.number;
    ensure!(subsystem == balloon, "the subsystem ID is {subsystem:#06x}, not {balloon}");
    Ok(())
}

pub fn transitional_revision_is_0<P: Platform>(site: &mut Site<'_, P>) -> Verdict {
    needs!(is_transitional(site), "device {:#06x} is not transitional", site.function.device());
    let revision = site.function.revision();
    ensure!(revision == legacy::REVISION, "the revision is {revision}");
    Ok(())
}

pub fn modern_revision_is_1_or_higher<P: Platform>(site: &mut Site<'_, P>) -> Verdict {
    needs!(is_modern(site), "device {:#06x} is transitional", site.function.device());
    let revision = site.function.revision();
    ensure!(revision >= 1, "the revision is {revision}");
    Ok(())
}

pub fn modern_subsystem_is_0x40_or_higher<P: Platform>(site: &mut Site<'_, P>) -> Verdict {
    needs!(is_modern(site), "device {:#06x} is transitional", site.function.device());
    let subsystem = site.function.subsystem().map_or(0, |subsystem| subsystem.device);
    ensure!(subsystem >= 0x40, "the subsystem ID is {subsystem:#06x}");
    Ok(())
}

fn is_modern<P: Platform>(site: &Site<'_, P>) -> bool {
    site.function.device() == DeviceType::BALLOON.modern()
}

fn is_transitional<P: Platform>(site: &Site<'_, P>) -> bool {
    Some(site.function.device()) == DeviceType::BALLOON.transitional
}

pub fn capability_list_is_whole<P: Platform>(site: &mut Site<'_, P>) -> Verdict {
    if let Some(error) = &site.broken {
        ensure!(false, "{error}");
    }
    Ok(())
}

pub fn capabilities_are_long_enough<P: Platform>(site: &mut Site<'_, P>) -> Verdict {
    for structure in &site.structures {
        let (length, needed) = (structure.capability_length, structure.needed());
        let (kind, at) = (structure.kind, structure.capability.offset());
        ensure!(length >= needed, "the {kind} capability at {at:#x} has cap_len {length}, {needed} are needed");
    }
    Ok(())
}

pub fn structures_lie_in_their_bars<P: Platform>(site: &mut Site<'_, P>) -> Verdict {
    // Indices above 5 are reserved, and for drivers to pass over.
    for structure in site.structures.iter().filter(|structure| structure.has_place() && structure.bar <= 5) {
        let (kind, index, offset, length) = (structure.kind, structure.bar, structure.offset, structure.length);
        match site.bars.get(index) {
            Ok(bar) => ensure!(
                offset.checked_add(length).is_some_and(|end| end <= bar.size()) && length != 0,
                "{kind}: {offset:#x}+{length:#x} is no part of BAR{index} of {:#x} bytes",
                bar.size()
            ),
            Err(error) => ensure!(false, "{kind}: {error}"),
        }
    }
    Ok(())
}

pub fn structures_are_all_there<P: Platform>(site: &mut Site<'_, P>) -> Verdict {
    use CapabilityType::{Common, Device, Isr, Notify};
    for kind in [Common, Notify, Isr, Device] {
        ensure!(site.structures.iter().any(|structure| structure.kind == kind), "there is no {kind} capability");
    }
    Ok(())
}

pub fn structures_are_aligned<P: Platform>(site: &mut Site<'_, P>) -> Verdict {
    for structure in &site.structures {
        let (kind, offset, align) = (structure.kind, structure.offset, structure.align());
        ensure!(offset.is_multiple_of(align), "{kind}: offset {offset:#x} is no multiple of {align}");
    }
    Ok(())
}

pub fn structures_are_long_enough<P: Platform>(site: &mut Site<'_, P>) -> Verdict {
    for structure in &site.structures {
        let needed = match structure.kind {
            CapabilityType::Common => common::SIZE as u64,
            CapabilityType::Notify => 2,
            CapabilityType::Isr => 1,
            CapabilityType::Device => ballonet::balloon::wire::CONFIG_SIZE as u64,
            _ => continue,
        };
        let (kind, length) = (structure.kind, structure.length);
        ensure!(length >= needed, "{kind}: length {length}, {needed} are needed");
    }
    Ok(())
}

pub fn structures_do_not_overlap<P: Platform>(site: &mut Site<'_, P>) -> Verdict {
    let placed = || site.structures.iter().filter(|structure| structure.has_place() && structure.bar <= 5);
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
}

pub fn notify_multiplier_is_legal<P: Platform>(site: &mut Site<'_, P>) -> Verdict {
    let notify = site.structures.iter().find(|structure| structure.kind == CapabilityType::Notify);
    let Some(notify) = notify else {
        needs!(false, "there is no notification capability");
        return Ok(());
    };
    let multiplier = notify.extra;
    let legal = multiplier == 0 || multiplier.is_power_of_two() && multiplier.is_multiple_of(2);
    ensure!(legal, "notify_off_multiplier is {multiplier:#x}, which is neither 0 nor an even power of two");
    Ok(())
}

pub fn pci_access_is_there<P: Platform>(site: &mut Site<'_, P>) -> Verdict {
    needs!(!site.structures.is_empty(), "the device has no virtio capability");
    ensure!(site.access().is_some(), "there is no capability of type {}", CapabilityType::PciAccess as u8);
    Ok(())
}

pub fn msix_is_usable<P: Platform>(site: &mut Site<'_, P>) -> Verdict {
    let config = &*site.platform.config();
    let capability = site.function.capability(config, id::MSI_X);
    needs!(matches!(capability, Ok(Some(_))), "the function has no MSI-X capability");
    let found = ballonet::pci::Msix::find(config, &site.function, &site.bars);
    if let Err(error) = found {
        ensure!(false, "{error}");
    }
    Ok(())
}

pub fn msix_has_two_vectors<P: Platform>(site: &mut Site<'_, P>) -> Verdict {
    let Some(msix) = site.msix else {
        needs!(false, "the function has no usable MSI-X");
        return Ok(());
    };
    ensure!(msix.entries() >= 2, "there is {} vector", msix.entries());
    Ok(())
}

/// The capability's own length has room for its data register.
pub(super) const PCI_DATA_END: u8 = cap::PCI_DATA as u8 + 4;
