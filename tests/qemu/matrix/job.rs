//! The job of a cell, and the host's checks meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use ballonet::balloon::wire::FEATURES;
use ballonet::virtio::spec::Features;
use serde_json::Value;

use super::cell::Feature;
use crate::support::event::Event;
use crate::support::qmp::{Statistics, TAGS};
use crate::support::random::Random;
use crate::support::{MIB, Outcome, Vm, ensure};

/// Memory that the guest fills with a pattern and keeps throughout.
pub(crate) const HELD: u64 = 32 * MIB;

/// How often the host changes the target.
const CHANGES: usize = 100;

/// The kernel has started as expected.
pub(crate) fn ready(vm: &mut Vm, irq: &str, transport: &str, ring: &str) -> Outcome<Event> {
    let ready = vm.event("ready")?;
    ensure!(ready.text("irq")? == irq, "the interrupts should be {irq}: {ready}");
    ensure!(ready.text("transport")? == transport, "the transport should be {transport}: {ready}");
    ensure!(ready.text("ring")? == ring, "the ring should be {ring}: {ready}");
    Ok(ready)
}

/// The device offers these features and the kernel accepts some of them; QEMU and the kernel agree on that.
pub(crate) fn features(vm: &mut Vm, ready: &Event, expected: &[Feature]) -> Outcome {
    let set = |wanted: fn(&&Feature) -> bool| -> BTreeSet<String> {
        expected.iter().filter(wanted).map(|feature| feature.name.to_owned()).collect()
    };
    let (offered, accepted) = (set(|_| true), set(|feature| feature.accepted));
    let status = vm.qmp.virtio_status()?;
    let statuses = status["status"]["statuses"].to_string();
    ensure!(statuses.contains("VIRTIO_CONFIG_S_DRIVER_OK"), "QEMU sees status {statuses}");
    ensure!(!statuses.contains("FAILED") && !statuses.contains("NEEDS_RESET"), "QEMU sees status {statuses}");
    let host = names(&status["host-features"])?;
    ensure!(host == offered, "the device should offer {offered:?}, and offers {host:?}");
    let guest = names(&status["guest-features"])?;
    ensure!(guest == accepted, "QEMU should see {accepted:?} accepted, and sees {guest:?}");
    let told = ready.get("features").and_then(Value::as_array).ok_or_else(|| format!("no features in {ready}"))?;
    let told: BTreeSet<_> = told.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    ensure!(told == accepted, "the kernel should have accepted {accepted:?}: {ready}");
    Ok(())
}

/// Bit 30, QEMU's `bad feature`: it always offers it, to find drivers that accept anything.
const BAD_FEATURE: u64 = 1 << 30;

/// Our names of QEMU's features. QEMU prints each with a prefix and an explanation, or as a number if this version
/// does not know it.
fn names(features: &Value) -> Outcome<BTreeSet<String>> {
    let known = ["transports", "dev-features"].into_iter().flat_map(|kind| features[kind].as_array());
    let mut names = BTreeSet::new();
    for entry in known.flatten() {
        let word = entry.as_str().and_then(|entry| entry.split(':').next()).ok_or_else(|| format!("{entry}"))?;
        let short = ["VIRTIO_RING_F_", "VIRTIO_BALLOON_F_", "VIRTIO_F_"].iter().find_map(|it| word.strip_prefix(it));
        names.insert(match short.ok_or_else(|| format!("a feature {word:?}"))? {
            "IOMMU_PLATFORM" => "access_platform".into(),
            short => short.to_lowercase(),
        });
    }
    for kind in ["unknown-transports", "unknown-dev-features"] {
        let bits = Features::from_bits_retain(features[kind].as_u64().unwrap_or_default() & !BAD_FEATURE);
        let named = FEATURES.iter().filter(|(_, feature)| bits.contains(*feature));
        ensure!(named.clone().count() as u32 == bits.bits().count_ones(), "features without a name: {bits}");
        names.extend(named.map(|(name, _)| (*name).to_owned()));
    }
    Ok(names)
}

/// The balloon inflates by half of the memory, and the host's resident memory falls.
pub(crate) fn give_half(vm: &mut Vm) -> Outcome {
    let given = vm.memory / 2;
    let before = vm.resident()?;
    vm.balloon_to(vm.memory - given)?;
    let mut fell = 0;
    vm.wait_for("the resident memory to fall by 95 % of what was given", |vm| {
        fell = before.saturating_sub(vm.resident()?);
        Ok((fell >= given / 100 * 95).then_some(()))
    })
    .map_err(|error| format!("{error}: it fell by {} of {} MiB", fell / MIB, given / MIB).into())
}

/// With half of the memory inflated, the answer to QEMU's poll gives that, and all other values are plausible. The
/// initial buffer is recognized by its total.
pub(crate) fn statistics_of_half(vm: &mut Vm) -> Outcome {
    let kept = vm.memory / 2;
    vm.qmp.poll_statistics(1)?;
    let statistics = vm.wait_for("statistics of half the memory", |vm| {
        let statistics = vm.qmp.statistics()?;
        Ok(statistics.get("stat-total-memory").is_some_and(|total| total <= kept).then_some(statistics))
    })?;
    true_statistics(&statistics, kept, 0)
}

/// Every statistic is present and plausible for a guest with `memory` bytes that holds `held` of them.
fn true_statistics(statistics: &Statistics, memory: u64, held: u64) -> Outcome {
    for tag in TAGS {
        statistics.need(tag)?;
    }
    let total = statistics.need("stat-total-memory")?;
    let free = statistics.need("stat-free-memory")?;
    let available = statistics.need("stat-available-memory")?;
    ensure!(total <= memory && total >= memory / 10 * 9, "the total is {total} of {memory}");
    ensure!(free <= total - held, "{free} of {total} bytes are free, with {held} held");
    ensure!(free >= total / 10 * 8, "only {free} of {total} bytes are free");
    ensure!(available <= total, "{available} of {total} bytes are available");
    ensure!(statistics.need("stat-disk-caches")? == 0, "there is no disk to cache");
    let swapped = statistics.need("stat-swap-in")? + statistics.need("stat-swap-out")?;
    ensure!(swapped == 0, "there is nowhere to swap");
    Ok(())
}

/// The first answer to QEMU's poll has every statistic, each plausible; a later one shows the changes.
pub(crate) fn statistics(vm: &mut Vm) -> Outcome {
    // The initial buffer does not count. QEMU distinguishes answers only by the second of their arrival.
    let offered = vm.qmp.statistics()?.last_update;
    vm.wait_for("the second after the first statistics", |_| Ok((now()? > offered).then_some(())))?;
    vm.qmp.poll_statistics(1)?;
    let first =
        vm.wait_for("statistics", |vm| Ok(Some(vm.qmp.statistics()?).filter(|it| it.last_update != offered)))?;
    true_statistics(&first, vm.memory, HELD)?;

    let free = first.need("stat-free-memory")?;
    let given = vm.memory / 4;
    vm.balloon_to(vm.memory - given)?;
    // The answer to one poll may date from before the balloon came to rest; the next one does not.
    let mut updates = 0;
    let mut last = vm.qmp.statistics()?.last_update;
    let second = vm.wait_for("two more updates of the statistics", |vm| {
        let statistics = vm.qmp.statistics()?;
        updates += u32::from(statistics.last_update != last);
        last = statistics.last_update;
        Ok((updates == 2).then_some(statistics))
    })?;
    let less = free.saturating_sub(second.need("stat-free-memory")?);
    ensure!(less.abs_diff(given) < MIB, "{given} bytes were inflated, but {less} fewer are free");
    vm.qmp.poll_statistics(0)?;
    vm.balloon_to(vm.memory)
}

/// The time, in seconds since 1970.
fn now() -> Outcome<u64> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs())
}

/// The guest fills memory with a pattern.
pub(crate) fn hold(vm: &mut Vm) -> Outcome {
    let held = vm.ask(&format!("mem hold {}M", HELD / MIB), "held")?;
    ensure!(held.count("bytes")? == HELD, "{HELD} bytes should be held: {held}");
    Ok(())
}

/// The host changes the target: sometimes after the guest has reached it, mostly before.
pub(crate) fn changes(vm: &mut Vm, seed: &str) -> Outcome {
    let mut random = Random::seeded_by(seed);
    for change in 0..CHANGES {
        let target = random.within(vm.memory / 4, vm.memory) / 4096 * 4096;
        if change % 20 == 0 {
            vm.balloon_to(target)?;
        } else {
            vm.qmp.set_target(target)?;
            std::thread::sleep(Duration::from_millis(random.within(0, 40)));
        }
    }
    vm.balloon_to(vm.memory)
}

/// The memory that the guest holds still has its pattern.
pub(crate) fn verify(vm: &mut Vm) -> Outcome {
    let verified = vm.ask("mem verify", "verify")?;
    ensure!(verified.flag("ok")? && verified.count("bytes")? == HELD, "the memory held has changed: {verified}");
    Ok(())
}

/// The step's interrupts did the work, and no others.
pub(crate) fn interrupts(vm: &mut Vm, step: &str) -> Outcome {
    let expected: &[&str] = match step {
        "msix" => &["virtio0-config", "virtio0-inflate", "virtio0-deflate", "virtio0-stats"],
        "msix-shared" => &["virtio0-config", "virtio0-virtqueues"],
        "intx" => &["virtio0"],
        _ => return Ok(()),
    };
    vm.serial.type_line("irq")?;
    for name in expected {
        let vector = vm.event_where(&format!("irq event of {name}"), |event| {
            event.name() == "irq" && event.text("name").is_ok_and(|text| text == *name)
        })?;
        ensure!(vector.count("count")? > 0, "this vector has never fired: {vector}");
    }
    Ok(())
}
