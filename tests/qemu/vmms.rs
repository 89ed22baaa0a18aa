//! How each VMM starts a kernel, reproduced in QEMU: the same entry state, tables, devices and end.
//!
//! QEMU starts our ELF file by PVH, and a bzImage in real mode. For the other ways, the VMM's loader (rust-vmm's
//! `linux-loader` where the VMM uses it) lays out the kernel. A stub in the same image prepares the protocol's CPU
//! state and boot information, and an RSDP only where the test wants one.

#[path = "vmms/loading.rs"]
mod loading;
#[path = "vmms/stub.rs"]
mod stub;

use std::fs;
use std::path::{Path, PathBuf};

use super::mmio::{Registers, guest};
use super::power::{ends_by_reset, ends_switched_off};
use crate::support::{Completion, Event, Outcome, Qemu, Trial, Version, Vm, ensure, image, on};
use crate::trial;
use loading::Loaded;
use stub::{Entry, Stub, Tables};

/// Hardware-reduced ACPI, no PIT, no PICs, no RTC; the balloon is on PCI.
const REDUCED: &str = "microvm,acpi=on,pcie=on,pit=off,pic=off,rtc=off";
const WITH_ACPI: &str = "microvm,acpi=on";
const WITHOUT_ACPI: &str = "microvm,acpi=off";
/// A device that ACPI also describes, announced as by Firecracker.
const TWICE: &str = "log=json virtio_mmio.device=512@0xfeb02e00:5";

/// The expected behaviour of the kernel.
#[derive(Debug, Clone, Copy)]
struct Expected {
    /// How it was loaded.
    by: &'static str,
    /// What it logs about the tables found.
    tables: &'static str,
    irq: &'static str,
    /// The reset that ends it if there is no power-off.
    end: End,
}

/// The reset that ends a machine without ACPI's S5.
type End = Option<&'static str>;

/// 0xFE to port 0x64.
const KEYBOARD_CONTROLLER: End = Some("the keyboard controller's reset");

const LINUX: &str = "loaded by the Linux boot protocol";
const PVH: &str = "loaded by PVH";
const ACPI: &str = "ACPI FACP";
const MP_TABLE: &str = "MP table: 1 CPU";

pub(crate) fn trials() -> Vec<Trial> {
    use Entry::{Linux32, Linux64, Pvh};
    let mut trials = Vec::new();
    for version in [Version::V7_2, Version::V10_0] {
        let name = |case: &str| format!("vmms::{version}::{case}");
        let mmio = |machine: &str| ending(guest(version, machine, Registers::Modern, "")).device("i8042");
        let pci = |machine: &str| ending(Qemu::new(version).machine(machine));
        let irq = if version == Version::V7_2 { "intx" } else { "msix-shared" };
        let reduced = Expected { by: PVH, tables: ACPI, irq, end: None };
        let by_linux = |expected| Expected { by: LINUX, ..expected };
        let of_mmio = |expected| Expected { irq: "intx", ..expected };
        let without = Expected { by: LINUX, tables: MP_TABLE, irq: "intx", end: KEYBOARD_CONTROLLER };
        let mut started = |case: &str, qemu: Qemu, kernel: Kernel, expected: Expected| {
            let name = name(case);
            trials.push(kernel.started(name, qemu, move |vm| works(vm, expected)));
        };
        let stubbed = |load, entry, tables| Kernel::Loaded(load, Stub { entry, tables });
        let in_place = |load, entry| stubbed(load, entry, Tables::InPlace);
        let as_firecracker = |load, entry| stubbed(load, entry, Tables::AsFirecracker);

        started("cloud_hypervisor::pvh", pci(REDUCED), Kernel::Elf, reduced);
        let bzimage = in_place(Loaded::bzimage, Linux32);
        started("cloud_hypervisor::bzimage", pci(REDUCED), bzimage, by_linux(reduced));
        started("alioth::linux", pci(REDUCED), in_place(Loaded::elf, Linux64), by_linux(reduced));

        let firecracker = || mmio(WITH_ACPI).command_line(TWICE);
        let expected = Expected { end: KEYBOARD_CONTROLLER, ..of_mmio(reduced) };
        started("firecracker::pvh", firecracker(), as_firecracker(Loaded::elf, Pvh), expected);
        let linux = as_firecracker(Loaded::elf, Linux64);
        started("firecracker::linux", firecracker(), linux, by_linux(expected));

        started("libkrun::pvh", mmio(WITHOUT_ACPI), Kernel::Elf, Expected { by: PVH, ..without });
        started("dragonball::linux", mmio(WITHOUT_ACPI), in_place(Loaded::elf, Linux64), without);
        started("stratovirt::bzimage", mmio(WITHOUT_ACPI), in_place(Loaded::bzimage, Linux64), without);
        started("stratovirt::flat", mmio(WITHOUT_ACPI), in_place(Loaded::flat, Linux64), without);

        let q35 = by_linux(reduced);
        started("crosvm::linux", pci("q35"), in_place(Loaded::elf, Linux64), q35);
        started("crosvm::bzimage", pci("q35"), in_place(Loaded::bzimage_at_2_mib, Linux64), q35);
        // Their PCI devices interrupt by lines, but the MP table lists only ISA's: the kernel polls.
        let polled = Expected { irq: "poll", ..without };
        let kvmtool = pci("pc,acpi=off").command_line("log=json irq=poll");
        started("kvmtool::real_mode", kvmtool, Kernel::BzImage, polled);

        for (machine, acpi) in [("q35", true), ("pc", true), (WITH_ACPI, true), (WITHOUT_ACPI, false)] {
            let is_microvm = machine.starts_with("microvm");
            let qemu = if is_microvm { mmio(machine) } else { pci(machine) };
            let expected = if acpi { by_linux(reduced) } else { without };
            let expected = if is_microvm { of_mmio(expected) } else { expected };
            let case = if acpi { machine.split(',').next().unwrap_or(machine) } else { "microvm_without_acpi" };
            started(&format!("qemu::bzimage::{case}"), qemu, Kernel::BzImage, expected);
        }
    }
    trials
}

/// A machine whose end the test can observe.
fn ending(qemu: Qemu) -> Qemu {
    qemu.without_debug_exit().option("-action", "reboot=shutdown").memory(stub::MEMORY)
}

/// The argument of QEMU's `-kernel`.
#[derive(Clone, Copy)]
enum Kernel {
    /// Our ELF file.
    Elf,
    /// The same as a bzImage.
    BzImage,
    /// The ELF file as a loader lays it out, with a stub.
    Loaded(fn(&Path) -> Outcome<Option<Loaded>>, Stub),
}

impl Kernel {
    fn started(
        self,
        name: String,
        qemu: Qemu,
        test: impl Fn(&mut Vm) -> Outcome + Send + Sync + Copy + 'static,
    ) -> Trial {
        if let Self::Elf = self {
            return trial(name, qemu, test);
        }
        Trial::ignorable_test(name.clone(), move || {
            let missing = || Ok(Completion::ignored_with("what makes a bzImage can't be had here"));
            let Some(kernel) = self.image(&name)? else { return missing() };
            let outcome = on(&qemu.clone().image(kernel.clone()), test);
            if let Self::Loaded(..) = self {
                fs::remove_file(kernel)?;
            }
            outcome
        })
    }

    /// The file for QEMU; `None` if it cannot be made.
    fn image(self, name: &str) -> Outcome<Option<PathBuf>> {
        let (load, stub) = match self {
            Self::Elf => return Ok(Some(image::kernel())),
            Self::BzImage => return Ok(image::bzimage()?),
            Self::Loaded(load, stub) => (load, stub),
        };
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name.replace("::", "-"));
        let Some(loaded) = load(&image::kernel())? else { return Ok(None) };
        fs::write(&path, stub.around(&loaded)?)?;
        Ok(Some(path))
    }
}

/// The kernel was loaded as expected, found its tables, has a working balloon, and ends the machine.
fn works(vm: &mut Vm, expected: Expected) -> Outcome {
    for words in [expected.by, expected.tables] {
        let said = |event: &Event| event.text("message").is_ok_and(|message| message.contains(words));
        vm.event_where(words, said)?;
    }
    let ready = vm.event("ready")?;
    ensure!(ready.text("irq")? == expected.irq, "interrupts are not {}: {ready}", expected.irq);
    vm.balloon_to(vm.memory / 2)?;
    vm.balloon_to(vm.memory)?;
    vm.serial.type_line("poweroff")?;
    ends_switched_off(vm)?;
    ends_by_reset(vm, expected.end)
}
