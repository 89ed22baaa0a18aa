//! How fast the driver moves memory over MMIO beside PCI, in instructions: they depend on the driver and its interrupts
//! alone, not on the load of the host. `scripts/mmio-rate.sh` measures time as well.

use super::{Registers, guest};
use crate::support::{Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

/// The least share of PCI's rate.
const SHARE: f64 = 0.9;

pub(super) fn trials() -> Vec<Trial> {
    let compared = |registers| {
        let counted = |qemu: Qemu| qemu.command_line("log=json mode=bench").counting();
        let pci = counted(Qemu::new(Version::V10_0).machine("microvm,pcie=on"));
        let mmio = counted(guest(Version::V10_0, "microvm", registers, ""));
        let name = format!("mmio::qemu-10.0::{registers}::as_fast_as_pci");
        trial(name, mmio, move |vm| as_fast(vm, &pci))
    };
    Registers::ALL.map(compared).into()
}

fn as_fast(vm: &mut Vm, pci: &Qemu) -> Outcome {
    let ours = rates(vm)?;
    let theirs = rates(&mut vm.beside(pci)?)?;
    for (ours, theirs) in ours.into_iter().zip(theirs) {
        ensure!(ours >= SHARE * theirs, "{ours} over MMIO and {theirs} over PCI, in GiB per 10^9 instructions");
    }
    Ok(())
}

/// Inflating and deflating.
fn rates(vm: &mut Vm) -> Outcome<[f64; 2]> {
    let mut rate = |name: &str| {
        let figure = vm.event_where(name, |event| event.text("name").is_ok_and(|it| it == name))?;
        figure.number("value")
    };
    Ok([rate("driver.inflate")?, rate("driver.deflate")?])
}
