//! Ring features of QEMU 10.0, and every kind of ring and request: in order, indirect tables, chains, and queues that
//! the kernel makes smaller.

use std::time::Duration;

use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

/// A case: its name, properties of the device, words of the command line, a feature that must be accepted, and the
/// queue size.
#[rustfmt::skip]
const CASES: [(&str, &str, &str, Option<&str>, u64); 10] = [
    ("in_order",              "in_order=on",                            "",                                      Some("in_order"),      128),
    ("in_order_packed",       "in_order=on,packed=on",                  "",                                      Some("in_order"),      128),
    ("in_order_chains",       "in_order=on,indirect_desc=off",          "request=64x4",                          Some("in_order"),      128),
    ("in_order_tables",       "in_order=on,packed=on",                  "request=64x4 queue-size=7",             Some("in_order"),      7),
    ("tables",                "",                                       "request=256x2",                         Some("indirect_desc"), 128),
    ("tables_packed",         "packed=on,event_idx=off",                "request=100x3",                         Some("indirect_desc"), 128),
    ("chains",                "indirect_desc=off",                      "request=33x5 queue-size=8",             None,                  8),
    ("chains_packed",         "packed=on",                              "request=33x5 features=-indirect_desc",  None,                  128),
    ("one_entry",             "",                                       "queue-size=1",                          Some("ring_reset"),    1),
    ("one_entry_packed",      "packed=on,event_idx=off",                "queue-size=1 request=256x2",            None,                  1),
];

pub(crate) fn trials() -> Vec<Trial> {
    CASES
        .into_iter()
        .map(|(name, balloon, words, feature, size)| {
            let qemu = Qemu::new(Version::V10_0)
                .balloon(if balloon.is_empty() { "vectors=6" } else { balloon })
                .command_line(&format!("log=json {words}"))
                .patience(Duration::from_secs(120));
            trial(format!("rings::{name}"), qemu, move |vm| works(vm, feature, size))
        })
        .collect()
}

/// Inflates and deflates three times, which wraps any ring, and polls statistics.
fn works(vm: &mut Vm, feature: Option<&str>, size: u64) -> Outcome {
    let ready = vm.event("ready")?.to_string();
    if let Some(feature) = feature {
        ensure!(ready.contains(&format!("\"{feature}\"")), "{feature} should have been accepted: {ready}");
    }
    vm.serial.type_line("virtio")?;
    let entries = if size == 1 { "1 entry".to_owned() } else { format!("{size} entries") };
    vm.event_where(&format!("answer that queues have {entries}"), |event| {
        event.text("text").is_ok_and(|text| text.contains(&format!("queue stats: {entries}")))
    })?;
    let held = vm.ask("mem hold 32M", "held")?;
    ensure!(held.count("bytes")? == 32 * MIB, "32 MiB should be held: {held}");
    for _ in 0..3 {
        vm.balloon_to(vm.memory / 4)?;
        vm.balloon_to(vm.memory)?;
    }
    let offered = vm.qmp.statistics()?.last_update;
    vm.qmp.poll_statistics(1)?;
    vm.wait_for("statistics", |vm| Ok((vm.qmp.statistics()?.last_update > offered).then_some(())))?;
    let verified = vm.ask("mem verify", "verify")?;
    ensure!(verified.flag("ok")?, "the memory held has changed: {verified}");
    Ok(())
}
