//! The registers of queues and vectors, the device configuration, and the window to them in configuration space.

use alloc::sync::Arc;

use super::configuration_space::PCI_DATA_END;
use crate::disturbance::{About, undisturbed};
use crate::outcome::{Stop, Verdict, ensure, needs};
use crate::signals::Signals;
use crate::subject::Subject;
use ballonet::balloon::wire::{
    CONFIG_ACTUAL, CONFIG_NUM_PAGES, CONFIG_POISON_VAL, CONFIG_SIZE, FREE_PAGE_HINT, PAGE_POISON,
};
use ballonet::pci::{Capability, ConfigSpace};
use ballonet::platform::{Platform, Registers};
use ballonet::virtio::InterruptMode;
use ballonet::virtio::spec::{CapabilityType, Features, NO_VECTOR, QUEUE_SIZE_MAX, cap, common};

// Queues.

pub fn absent_queues_have_size_0<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    subject.negotiate_least()?;
    let count = subject.common.read16(common::NUM_QUEUES);
    for queue in [count, count.saturating_add(1), 1024, 0x7fff, 0xfffe, 0xffff] {
        let size = if queue < count { 0 } else { subject.queue_size(queue) };
        ensure!(size == 0, "num_queues is {count}, and queue {queue} has {size} entries");
    }
    Ok(())
}

pub fn queues_of_features_are_there<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    use ballonet::balloon::wire::{PAGE_REPORTING, STATS_VQ};
    let (numbers, offered) = (subject.numbers, subject.offered);
    for (feature, queue, name) in [
        (STATS_VQ, numbers.statistics, "statistics"),
        (FREE_PAGE_HINT, numbers.hinting, "free page"),
        (PAGE_REPORTING, numbers.reporting, "reporting"),
    ] {
        ensure!(!offered.contains(feature) || queue.is_some(), "{feature} is offered, and there is no {name} queue");
    }
    subject.negotiate_least()?;
    let count = subject.common.read16(common::NUM_QUEUES);
    let last = subject.present().last().unwrap_or(0);
    ensure!(count > last, "num_queues is {count}, and there is a queue {last}");
    Ok(())
}

pub fn queue_sizes_are_legal<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    for queue in subject.present() {
        let size = subject.sizes[usize::from(queue)];
        ensure!(size <= QUEUE_SIZE_MAX, "queue {queue} has {size} entries, 32768 are the most");
        let packed = subject.offered.contains(Features::RING_PACKED);
        ensure!(packed || size.is_power_of_two(), "queue {queue} has {size} entries, which is no power of two");
    }
    Ok(())
}

pub fn queue_selector_reads_back<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    subject.negotiate_least()?;
    for queue in [1, 0] {
        subject.select(queue);
        let read = subject.common.read16(common::QUEUE_SELECT);
        ensure!(read == queue, "queue {queue} was selected, {read} is read");
    }
    Ok(())
}

pub fn smaller_queue_sizes_read_back<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    for queue in subject.present() {
        let mut size = subject.sizes[usize::from(queue)];
        subject.negotiate_least()?;
        while size > 1 {
            size = 1 << (size - 1).ilog2();
            subject.select(queue);
            subject.common.write16(common::QUEUE_SIZE, size);
            let read = subject.queue_size(queue);
            ensure!(read == size, "queue {queue} was given {size} entries, {read} are read");
        }
    }
    Ok(())
}

pub fn queue_addresses_read_back<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    subject.negotiate_least()?;
    subject.select(0);
    for (place, register) in [common::QUEUE_DESC, common::QUEUE_DRIVER, common::QUEUE_DEVICE].into_iter().enumerate() {
        let address = 0x0000_0012_3456_7000 + 0x1_0000_1000 * place as u64;
        subject.common.write64(register, address);
        let half = |at: usize| u64::from(subject.common.read32(at));
        let read = half(register) | half(register + 4) << 32;
        ensure!(
            read == address,
            "{address:#x} was written to {register:#x} of the common structure, {read:#x} is read"
        );
    }
    Ok(())
}

pub fn queue_enable_reads_back<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let setup = subject.plain();
    subject.prepare(&setup)?;
    for queue in [subject.numbers.inflate, subject.numbers.deflate] {
        subject.select(queue.number());
        let enabled = subject.common.read16(common::QUEUE_ENABLE);
        ensure!(enabled == 1, "queue {queue} was enabled, and queue_enable is {enabled}");
    }
    Ok(())
}

pub fn queues_are_apart<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    subject.negotiate_least()?;
    let write = |subject: &mut Subject<'_, P>, queue: u16, value: u32| {
        subject.select(queue);
        subject.common.write32(common::QUEUE_DESC, value);
    };
    write(subject, 0, 0x1000_0000);
    write(subject, 1, 0x2000_0000);
    subject.select(0);
    let read = subject.common.read32(common::QUEUE_DESC);
    ensure!(read != 0x2000_0000, "queue_desc of queue 0 is {read:#x} after that of queue 1 was written");
    // Nothing makes a device show addresses (4.1.4.3.1), and one that does not shows nothing of its queues.
    needs!(read == 0x1000_0000, "queue_desc cannot be read back: {read:#x} is read");
    Ok(())
}

pub fn doorbells_are_in_their_window<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let wide = subject.offered.contains(Features::NOTIFICATION_DATA);
    let width = if wide { 4 } else { 2 };
    let (multiplier, length) = (u64::from(subject.site.multiplier()), subject.notify.len() as u64);
    subject.negotiate_least()?;
    for queue in subject.present() {
        subject.select(queue);
        let offset = u64::from(subject.common.read16(common::QUEUE_NOTIFY_OFF)) * multiplier;
        ensure!(
            offset + width <= length,
            "queue {queue} is kicked by {width} bytes at {offset:#x}, and there are {length:#x} bytes of doorbells"
        );
    }
    Ok(())
}

pub fn common_structure_has_what_is_offered<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let length = subject.common.len();
    for (feature, needed) in [
        (Features::NOTIF_CONFIG_DATA, common::QUEUE_NOTIF_CONFIG_DATA + 2),
        (Features::RING_RESET, common::QUEUE_RESET + 2),
        (Features::ADMIN_VQ, common::SIZE_FULL),
    ] {
        ensure!(
            !subject.offered.contains(feature) || length >= needed,
            "{feature} is offered, and the common structure has {length:#x} bytes, {needed:#x} are needed"
        );
    }
    Ok(())
}

// Vectors.

/// Turns MSI-X on, with as many entries as are counted and there are, after the features are settled.
fn with_messages<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict<u16> {
    let Some(msix) = subject.site.msix else {
        return Err(Stop::Skipped("the device has no usable MSI-X".into()));
    };
    subject.negotiate_least()?;
    let isr = Arc::clone(&subject.isr);
    subject.signals = Signals::set_up(&mut subject.site, &isr, InterruptMode::Shared, 1).map_err(Stop::Skipped)?;
    Ok(msix.entries())
}

/// Writes the vector of configuration changes, or of a queue, and reads it back.
fn try_vector<P: Platform>(subject: &mut Subject<'_, P>, queue: Option<u16>, vector: u16) -> u16 {
    let register = match queue {
        Some(queue) => {
            subject.select(queue);
            common::QUEUE_MSIX_VECTOR
        }
        None => common::CONFIG_MSIX_VECTOR,
    };
    subject.common.write16(register, vector);
    subject.common.read16(register)
}

pub fn vectors_read_back<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let entries = with_messages(subject)?;
    for queue in [None, Some(0), Some(1)] {
        for vector in (0..entries.min(8)).chain([entries - 1, NO_VECTOR]) {
            let read = try_vector(subject, queue, vector);
            // The device may have run out of something: then it says so.
            ensure!(
                read == vector || read == NO_VECTOR,
                "vector {vector} of {entries} for {queue:?} reads back as {read:#06x}"
            );
        }
    }
    Ok(())
}

pub fn every_vector_is_taken<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let entries = with_messages(subject)?;
    for queue in [None, Some(0), Some(1)] {
        for vector in 0..entries.min(64) {
            let read = try_vector(subject, queue, vector);
            ensure!(read == vector, "vector {vector} of {entries} for {queue:?} is refused: {read:#06x}");
        }
    }
    Ok(())
}

pub fn absent_vectors_are_refused<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let entries = with_messages(subject)?;
    for queue in [None, Some(0)] {
        for vector in [entries, entries + 1, 0x7ff, 0x800, 0xfffe] {
            let read = if vector < entries { NO_VECTOR } else { try_vector(subject, queue, vector) };
            ensure!(
                read == NO_VECTOR,
                "the table has {entries} entries, and vector {vector:#x} for {queue:?} reads back as {read:#06x}"
            );
        }
    }
    Ok(())
}

// Device configuration.

pub fn configuration_is_long_enough<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let needed = match subject.offered {
        offered if offered.contains(PAGE_POISON) => 16,
        offered if offered.contains(FREE_PAGE_HINT) => 12,
        _ => CONFIG_SIZE,
    };
    let length = subject.device.len();
    ensure!(length >= needed, "the device configuration has {length} bytes, {needed} are needed");
    Ok(())
}

pub fn configuration_is_there_before_features_ok<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    undisturbed(subject, About::Target, |subject| {
        subject.begin()?;
        let before = subject.device.read32(CONFIG_NUM_PAGES);
        subject.negotiate_least()?;
        let after = subject.device.read32(CONFIG_NUM_PAGES);
        ensure!(before == after, "num_pages is {before} before FEATURES_OK, and {after} after it");
        Ok(())
    })
}

pub fn configuration_reads_the_same_in_parts<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let setup = subject.plain();
    undisturbed(subject, About::Signals, |subject| {
        subject.start(&setup)?;
        // A value whose parts differ.
        subject.device.write32(CONFIG_ACTUAL, 0x0102_0304);
        let outcome = reads_the_same_in_parts(subject);
        subject.device.write32(CONFIG_ACTUAL, 0);
        outcome
    })
}

fn reads_the_same_in_parts<P: Platform>(subject: &Subject<'_, P>) -> Verdict {
    for offset in [CONFIG_NUM_PAGES, CONFIG_ACTUAL] {
        let whole = subject.device.read32(offset);
        let halves = [0, 2].map(|at| subject.device.read16(offset + at));
        let bytes = [0, 1, 2, 3].map(|at| subject.device.read8(offset + at));
        let by_halves = u32::from(halves[1]) << 16 | u32::from(halves[0]);
        ensure!(by_halves == whole, "{offset:#x} is {whole:#x} in 32 bits, and {by_halves:#x} in 16 at a time");
        let by_bytes = u32::from_le_bytes(bytes);
        ensure!(by_bytes == whole, "{offset:#x} is {whole:#x} in 32 bits, and {by_bytes:#x} in 8 at a time");
    }
    Ok(())
}

pub fn generation_holds_still<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let setup = subject.plain();
    undisturbed(subject, About::Generation, |subject| {
        subject.start(&setup)?;
        let before = subject.common.read8(common::CONFIG_GENERATION);
        for _ in 0..8 {
            let _ = subject.device.read32(CONFIG_NUM_PAGES);
            let generation = subject.common.read8(common::CONFIG_GENERATION);
            ensure!(generation == before, "config_generation goes from {before} to {generation} while nothing changes");
        }
        Ok(())
    })
}

pub fn actual_is_kept<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let setup = subject.plain();
    subject.start(&setup)?;
    for value in [1, 0x0102_0304, 0] {
        subject.device.write32(CONFIG_ACTUAL, value);
        let read = subject.device.read32(CONFIG_ACTUAL);
        ensure!(read == value, "actual was written with {value:#x}, {read:#x} is read");
    }
    Ok(())
}

pub fn writing_actual_leaves_the_target<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let setup = subject.plain();
    undisturbed(subject, About::Target, |subject| {
        subject.start(&setup)?;
        let before = subject.device.read32(CONFIG_NUM_PAGES);
        subject.device.write32(CONFIG_ACTUAL, before.wrapping_add(7));
        let after = subject.device.read32(CONFIG_NUM_PAGES);
        subject.device.write32(CONFIG_ACTUAL, 0);
        ensure!(before == after, "num_pages goes from {before} to {after} when actual is written");
        Ok(())
    })
}

pub fn poison_value_is_kept<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    needs!(subject.offered.contains(PAGE_POISON), "the device does not offer PAGE_POISON");
    needs!(subject.device.len() >= CONFIG_POISON_VAL + 4, "the device configuration has no room for poison_val");
    let features = subject.least() | PAGE_POISON;
    needs!(subject.negotiate(features)?, "the device does not take the features {features}");
    for value in [0xaaaa_aaaa, 0] {
        subject.device.write32(CONFIG_POISON_VAL, value);
        let read = subject.device.read32(CONFIG_POISON_VAL);
        ensure!(read == value, "poison_val was written with {value:#x}, {read:#x} is read");
    }
    Ok(())
}

// The window in configuration space.

/// The window pointed at a place of the common structure.
fn point<P: Platform>(subject: &mut Subject<'_, P>, field: usize, width: u32) -> Verdict<Capability> {
    let Some(access) = subject.site.access() else {
        return Err(Stop::Skipped("the device has no PCI configuration access capability".into()));
    };
    let common = subject.site.structures.iter().find(|structure| structure.kind == CapabilityType::Common);
    let Some((bar, start)) = common.map(|common| (common.bar, common.offset as u32)) else {
        return Err(Stop::Skipped("the device has no common configuration capability".into()));
    };
    let config = subject.site.platform.config();
    let failed = |error| Stop::Failed(alloc::format!("{error}"));
    let length = access.read8(config, cap::LENGTH as u8).map_err(failed)?;
    ensure!(length >= PCI_DATA_END, "the capability has cap_len {length}, and no room for its data");
    access.write8(config, cap::BAR as u8, bar).map_err(failed)?;
    access.write32(config, cap::BAR_OFFSET as u8, start + field as u32).map_err(failed)?;
    access.write32(config, cap::BAR_LENGTH as u8, width).map_err(failed)?;
    Ok(access)
}

fn read_window<C: ConfigSpace>(config: &C, access: Capability, width: u32) -> Verdict<u32> {
    let at = cap::PCI_DATA as u8;
    let value = match width {
        1 => access.read8(config, at).map(u32::from),
        2 => access.read16(config, at).map(u32::from),
        _ => access.read32(config, at),
    };
    value.map_err(|error| Stop::Failed(alloc::format!("{error}")))
}

pub fn pci_access_reads_registers<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    subject.begin()?;
    subject.common.write32(common::DEVICE_FEATURE_SELECT, 0);
    for (field, width) in [(common::DEVICE_STATUS, 1), (common::NUM_QUEUES, 2), (common::DEVICE_FEATURE, 4)] {
        let access = point(subject, field, width)?;
        let through = read_window(subject.site.platform.config(), access, width)?;
        let direct = match width {
            1 => subject.common.read8(field).into(),
            2 => subject.common.read16(field).into(),
            _ => subject.common.read32(field),
        };
        ensure!(
            through == direct,
            "{field:#x} of the common structure is {direct:#x}, and {through:#x} through pci_cfg_data"
        );
    }
    Ok(())
}

pub fn pci_access_writes_registers<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    subject.begin()?;
    for select in [1, 0] {
        let access = point(subject, common::DEVICE_FEATURE_SELECT, 4)?;
        let written = access.write32(subject.site.platform.config(), cap::PCI_DATA as u8, select);
        written.map_err(|error| Stop::Failed(alloc::format!("{error}")))?;
        let read = subject.common.read32(common::DEVICE_FEATURE_SELECT);
        ensure!(read == select, "{select} was written to device_feature_select through pci_cfg_data, {read} is read");
    }
    Ok(())
}
