//! Each VMM's way to start a kernel, rebuilt in QEMU: the same entry state, tables, devices and end.
//!
//! QEMU starts our ELF file by PVH and a bzImage in real mode. For the other ways the loader of the VMM, rust-vmm's
//! `linux-loader` where it uses that, lays the kernel out; a stub in the same image makes the processor's state and the boot
//! information of the protocol, and no RSDP but where the test wants it.

#[path = "vmms/loading.rs"]
mod loading;
#[path = "vmms/stub.rs"]
mod stub;

use std::fs;
use std::path::{Path, PathBuf};

use super::mmio::{Registers, guest};
use super::power::ends_switched_off;
use crate::support::{Completion, Event, Outcome, Qemu, Trial, Version, Vm, ensure, image, on};
use crate::trial;
use loading::Loaded;
use stub::{Entry, RootPointer, Stub};

/// Hardware-reduced ACPI, no PIT, no PICs, no RTC; the balloon is on PCI.
const REDUCED: &str = "microvm,acpi=on,pcie=on,pit=off,pic=off,rtc=off";
const WITH_ACPI: &str = "microvm,acpi=on";
const WITHOUT_ACPI: &str = "microvm,acpi=off";
/// A device that ACPI names too, as Firecracker announces it.
const TWICE: &str = "log=json virtio_mmio.device=512@0xfeb02e00:5";

/// What is expected of the kernel.
#[derive(Debug, Clone, Copy)]
struct Expected {
    /// How it was loaded.
    by: &'static str,
    /// What it says of the tables that it found.
    tables: &'static str,
    irq: &'static str,
    end: End,
}

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// ACPI S5.
    SoftOff,
    /// A reset, since nothing switches it off.
    Reset,
}

const LINUX: &str = "loaded by the Linux boot protocol";
const PVH: &str = "loaded by PVH";
const ACPI: &str = "ACPI FACP";
const MP_TABLE: &str = "MP table: 1 CPU";

pub(crate) fn trials() -> Vec<Trial> {
    use Entry::{Linux32, Linux64, Pvh};
    let mut trials = Vec::new();
    for version in [Version::V7_2, Version::V10_0] {
        let name = |case: &str| format!("vmms::{version}::{case}");
        let mmio = |machine: &str| ending(guest(version, machine, Registers::Modern, ""));
        let pci = |machine: &str| ending(Qemu::new(version).machine(machine));
        let irq = if version == Version::V7_2 { "intx" } else { "msix-shared" };
        let reduced = Expected { by: PVH, tables: ACPI, irq, end: End::SoftOff };
        let by_linux = |expected| Expected { by: LINUX, ..expected };
        let of_mmio = |expected| Expected { irq: "intx", ..expected };
        let without = Expected { by: LINUX, tables: MP_TABLE, irq: "intx", end: End::Reset };
        let mut started = |case: &str, qemu: Qemu, kernel: Kernel, expected: Expected| {
            let name = name(case);
            trials.push(kernel.started(name, qemu, move |vm| works(vm, expected)));
        };
        let stubbed = |load, entry, root_pointer| Kernel::Loaded(load, Stub { entry, root_pointer });
        let in_place = |load, entry| stubbed(load, entry, RootPointer::InPlace);
        let moved = |load, entry| stubbed(load, entry, RootPointer::Moved);

        started("cloud_hypervisor::pvh", pci(REDUCED), Kernel::Elf, reduced);
        let bzimage = in_place(Loaded::bzimage, Linux32);
        started("cloud_hypervisor::bzimage", pci(REDUCED), bzimage, by_linux(reduced));
        started("alioth::linux", pci(REDUCED), in_place(Loaded::elf, Linux64), by_linux(reduced));

        let firecracker = || mmio(WITH_ACPI).command_line(TWICE);
        started("firecracker::pvh", firecracker(), moved(Loaded::elf, Pvh), of_mmio(reduced));
        let linux = moved(Loaded::elf, Linux64);
        started("firecracker::linux", firecracker(), linux, of_mmio(by_linux(reduced)));

        started("libkrun::pvh", mmio(WITHOUT_ACPI), Kernel::Elf, Expected { by: PVH, ..without });
        started("dragonball::linux", mmio(WITHOUT_ACPI), in_place(Loaded::elf, Linux64), without);
        started("stratovirt::bzimage", mmio(WITHOUT_ACPI), in_place(Loaded::bzimage, Linux64), without);
        started("stratovirt::flat", mmio(WITHOUT_ACPI), in_place(Loaded::flat, Linux64), without);

        let q35 = by_linux(reduced);
        started("crosvm::linux", pci("q35"), in_place(Loaded::elf, Linux64), q35);
        started("crosvm::bzimage", pci("q35"), in_place(Loaded::bzimage_at_2_mib, Linux64), q35);
        // Their PCI devices interrupt by lines of an MP table, which names ISA's only: polled.
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

/// A machine of which the test sees how it ends.
fn ending(qemu: Qemu) -> Qemu {
    qemu.without_debug_exit().option("-action", "reboot=shutdown").memory(stub::MEMORY)
}

/// What QEMU's `-kernel` is.
#[derive(Clone, Copy)]
enum Kernel {
    /// Our ELF file.
    Elf,
    /// The same as a bzImage.
    BzImage,
    /// The same as a loader lays it out, and a stub.
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

    /// The file for QEMU; `None` where it cannot be made.
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

/// The kernel was loaded as expected, found its tables, has a balloon that works, and ends the machine.
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
    let reset = vm.serial.all().iter().any(|line| line.text.contains("it is ended by a reset"));
    ensure!(reset == (expected.end == End::Reset), "it should end by {:?}", expected.end);
    Ok(())
}
