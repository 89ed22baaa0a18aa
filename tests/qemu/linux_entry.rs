//! The kernel entered by the Linux boot protocol, as Firecracker, crosvm, Dragonball and StratoVirt do.
//!
//! QEMU speaks that protocol only for a bzImage. So a stub, loaded with the kernel, prepares what the protocol
//! requires: the zero page with its memory map, one-to-one page tables, and long mode; and no RSDP except where the
//! test wants one.

#[path = "linux_entry/stub.rs"]
mod stub;

use super::mmio::{Registers, guest};
use crate::support::{Event, Outcome, Trial, Version, Vm, ensure, image, on};
use stub::{Mode, Stub};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in [Version::V7_2, Version::V10_0] {
        for (mode, bits) in [(Mode::Long, 64), (Mode::Protected, 32)] {
            let name = |case: &str| format!("linux_entry::{version}::{bits}_bit::{case}");
            // Dragonball, StratoVirt, Firecracker without ACPI.
            let stub = Stub { mode, root_pointer: stub::RootPointer::InPlace };
            trials
                .push(started(name("mp_table"), version, "microvm,acpi=off", stub, |vm| works(vm, "MP table: 1 CPU")));
            let stub = Stub { mode, root_pointer: stub::RootPointer::Moved };
            let moved = |vm: &mut Vm| works(vm, "ACPI FACP");
            trials.push(started(name("rsdp_in_the_bios_area"), version, "microvm,acpi=on", stub, moved));
        }
    }
    trials
}

/// A machine with a balloon on MMIO, started by the stub.
fn started(name: String, version: Version, machine: &'static str, stub: Stub, test: fn(&mut Vm) -> Outcome) -> Trial {
    Trial::ignorable_test(name.clone(), move || {
        let file = name.replace("::", "-");
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
        std::fs::write(&path, stub.around(&std::fs::read(image::kernel())?)?)?;
        let qemu = guest(version, machine, Registers::Modern, "");
        let outcome = on(&qemu.memory(stub::MEMORY).image(path.clone()), test);
        std::fs::remove_file(path)?;
        outcome
    })
}

/// The kernel was entered by the Linux protocol, found what `tables` says, and has a working balloon.
fn works(vm: &mut Vm, tables: &'static str) -> Outcome {
    for words in ["loaded by the Linux boot protocol", tables] {
        let said = |event: &Event| event.text("message").is_ok_and(|message| message.contains(words));
        vm.event_where(words, said)?;
    }
    let ready = vm.event("ready")?;
    ensure!(ready.text("irq")? == "intx", "interrupts should be routed by the tables: {ready}");
    vm.balloon_to(vm.memory / 2)?;
    vm.balloon_to(vm.memory)
}
