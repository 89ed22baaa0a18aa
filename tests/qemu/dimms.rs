//! Memory that the firmware's map omits: DIMMs present at boot are used, other memory is not. If the balloon falls
//! short, it gives the true reason.

use serde_json::json;

use crate::support::{Event, MIB, Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

/// Size of the DIMM.
const DIMM: u64 = 256 * MIB;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in [Version::V7_2, Version::V10_0] {
        for machine in ["q35", "pc"] {
            let name = |case: &str| format!("dimms::{version}::{machine}::{case}");
            let with_slots = |machine: &str| Qemu::new(version).machine(machine).option("-m", "slots=4,maxmem=4G");
            let with_memory =
                |machine: &str| with_slots(machine).object(&format!("memory-backend-ram,id=m1,size={DIMM}"));
            let plugged = with_memory(machine).device("pc-dimm,memdev=m1");
            trials.push(trial(name("a_present_one_is_used"), plugged, is_used));
            trials.push(trial(name("a_later_one_explains_a_small_balloon"), with_memory(machine), comes_later));
            let others = with_memory(&format!("{machine},nvdimm=on"))
                .object("memory-backend-ram,id=m2,size=512M")
                .device("nvdimm,memdev=m1,id=nvdimm0")
                .device("virtio-mem-pci,memdev=m2,id=mem0,requested-size=256M");
            trials.push(trial(name("other_memory_devices_are_left_alone"), others, others_are_left_alone));
        }
    }
    trials
}

fn message(vm: &mut Vm, words: &str) -> Outcome<String> {
    let has_words = |event: &Event| event.text("message").is_ok_and(|text| text.contains(words));
    Ok(vm.event_where(words, |event| event.name() == "log" && has_words(event))?.text("message")?.to_owned())
}

/// The host counts a DIMM as guest memory, and can inflate into it.
fn is_used(vm: &mut Vm) -> Outcome {
    message(vm, "is the DIMM in slot 0")?;
    vm.event("ready")?;
    // More than the memory without the DIMM.
    ensure!(vm.memory == 512 * MIB, "the test is made for 512 MiB");
    vm.balloon_to(160 * MIB)?;
    vm.balloon_to(vm.memory + DIMM)
}

/// A DIMM plugged in later, unknown to the guest: the host may ask for more memory than the guest has.
fn comes_later(vm: &mut Vm) -> Outcome {
    message(vm, "may be plugged in at 0x100000000")?;
    vm.event("ready")?;
    vm.qmp.device_add(&json!({ "driver": "pc-dimm", "memdev": "m1", "id": "dimm0" }))?;
    vm.qmp.set_target(160 * MIB)?;
    let short = vm.event("short")?;
    let reason = short.text("message")?;
    ensure!(reason.contains("the guest has only 511 MiB"), "the reason should be the true one: {reason}");
    vm.balloon_to(vm.memory + DIMM)
}

/// NVDIMM and virtio-mem are not used; both are logged.
fn others_are_left_alone(vm: &mut Vm) -> Outcome {
    message(vm, "is persistent (SRAT): left as it is")?;
    message(vm, "there is no driver for virtio-mem")?;
    vm.event("ready")?;
    let used = vm.serial.all().iter().any(|line| line.text.contains("is the DIMM in slot"));
    ensure!(!used, "neither is a DIMM");
    vm.balloon_to(vm.memory / 2)
}
