//! Machines of unusual sizes and layouts: the kernel boots on each, and the balloon works.

use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm};
use crate::trial;

const GIB: u64 = 1024 * MIB;

pub(crate) fn trials() -> Vec<Trial> {
    let newest = || Qemu::new(Version::Newest);
    let old = || Qemu::new(Version::V7_2);
    let mut layouts = vec![
        ("cpu::qemu64", newest().cpu("qemu64")),
        ("cpu::without_x2apic", newest().cpu("max,-x2apic")),
        ("bridge::pcie_root_port", newest().device("pcie-root-port,id=port0,chassis=1,slot=1").balloon("bus=port0")),
        (
            "bridge::pcie_root_port_on_qemu-7.2",
            old().device("pcie-root-port,id=port0,chassis=1,slot=1").balloon("bus=port0"),
        ),
        ("bridge::pcie_to_pci", newest().device("pcie-pci-bridge,id=bridge").balloon("bus=bridge,addr=3")),
        (
            "bridge::pci_on_pc",
            newest().machine("pc").device("pci-bridge,id=bridge,chassis_nr=1").balloon("bus=bridge,addr=5"),
        ),
        (
            "bridge::pci_behind_pci_by_line",
            newest()
                .machine("pc")
                .device("pci-bridge,id=outer,chassis_nr=1,addr=9")
                .device("pci-bridge,id=inner,chassis_nr=2,bus=outer,addr=2")
                .balloon("bus=inner,addr=7,vectors=0"),
        ),
        ("bridge::pcie_root_port_on_microvm", {
            newest().machine("microvm,pcie=on").device("pcie-root-port,id=port0,chassis=1,slot=1").balloon("bus=port0")
        }),
        ("many_devices::q35", crowded(newest())),
        ("many_devices::pc", crowded(newest().machine("pc"))),
        ("many_devices::microvm", crowded(newest().machine("microvm,pcie=on"))),
    ];
    for (name, size) in
        [("16_mib", 16 * MIB), ("3_gib", 3 * GIB), ("4_gib", 4 * GIB), ("6_gib", 6 * GIB), ("20_gib", 20 * GIB)]
    {
        for (machine, properties) in [("q35", "q35"), ("pc", "pc"), ("microvm", "microvm,pcie=on")] {
            let name: &str = format!("memory::{name}::{machine}").leak();
            layouts.push((name, newest().machine(properties).memory(size)));
        }
    }
    layouts.into_iter().map(|(name, qemu)| trial(format!("layouts::{name}"), qemu, works)).collect()
}

/// A machine with 24 devices that the kernel has no driver for, of two kinds.
fn crowded(mut qemu: Qemu) -> Qemu {
    for number in 0..24 {
        qemu = qemu.device(if number % 2 == 0 { "virtio-rng-pci" } else { "pci-testdev" });
    }
    qemu
}

/// Inflates by an eighth of the memory, at most a GiB, and deflates again.
fn works(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.balloon_to(vm.memory - (vm.memory / 8).min(GIB))?;
    vm.balloon_to(vm.memory)
}
