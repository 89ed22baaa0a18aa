//! The ways to end or restart a machine, and the order in which they are tried.

use derive_more::Display;

use super::ExitStatus;

/// A way out. Each returns after a bounded time if it does not work, except the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub(crate) enum WayOut {
    /// QEMU's `isa-debug-exit`, the only one that takes a status.
    #[display("isa-debug-exit")]
    DebugExit,
    /// ACPI's state S5: the sleep control register of hardware-reduced machines, else PM1 control.
    #[display("ACPI S5")]
    SoftOff,
    /// 0xFE to the keyboard controller's port 0x64: all that Firecracker, libkrun, Dragonball and `StratoVirt` have.
    #[display("the keyboard controller's reset")]
    KeyboardController,
    /// The FADT's reset register.
    #[display("ACPI's reset register")]
    ResetRegister,
    /// The chipset's reset control register.
    #[display("port 0xCF9")]
    Chipset,
    /// A fault that the CPU cannot deliver.
    #[display("a triple fault")]
    TripleFault,
}

impl WayOut {
    /// To end a virtual machine. A VMM without another way treats a reset as the end.
    const OF_A_VIRTUAL_MACHINE: [Self; 6] = [
        Self::DebugExit,
        Self::SoftOff,
        Self::KeyboardController,
        Self::ResetRegister,
        Self::Chipset,
        Self::TripleFault,
    ];

    /// To restart a machine.
    pub(crate) const TO_REBOOT: [Self; 4] =
        [Self::ResetRegister, Self::Chipset, Self::KeyboardController, Self::TripleFault];

    /// To end the machine. On a PC the port of `isa-debug-exit` may be anything, so it is not written; a PC is never
    /// reset here, and stays on after a failure, so that its screen can be read.
    pub(crate) const fn to_end(status: ExitStatus, has_hypervisor: bool) -> &'static [Self] {
        match (has_hypervisor, status) {
            (true, _) => &Self::OF_A_VIRTUAL_MACHINE,
            (false, ExitStatus::Success) => &[Self::SoftOff],
            (false, ExitStatus::Failure) => &[],
        }
    }

    /// Whether it restarts the machine, unless the VMM ends instead.
    pub(crate) const fn is_reset(self) -> bool {
        !matches!(self, Self::DebugExit | Self::SoftOff)
    }
}

#[cfg(test)]
mod tests {
    use super::WayOut::{Chipset, DebugExit, KeyboardController, ResetRegister, SoftOff, TripleFault};
    use super::*;

    /// A machine in which some ways work: what is tried on it until it ends.
    fn tried(ways: &[WayOut], works: &[WayOut]) -> Vec<WayOut> {
        let end = ways.iter().position(|way| works.contains(way)).map_or(ways.len(), |at| at + 1);
        ways[..end].to_vec()
    }

    #[test]
    fn each_vmm_ends_by_what_it_has_and_nothing_is_tried_after_that() {
        for (vmm, works, last, count) in [
            ("QEMU with isa-debug-exit", &[DebugExit, SoftOff, KeyboardController, Chipset][..], DebugExit, 1),
            ("QEMU q35", &[SoftOff, KeyboardController, ResetRegister, Chipset, TripleFault], SoftOff, 2),
            ("Cloud Hypervisor, Alioth", &[SoftOff, TripleFault], SoftOff, 2),
            ("crosvm", &[SoftOff, Chipset, TripleFault], SoftOff, 2),
            ("Firecracker, libkrun, Dragonball, StratoVirt", &[KeyboardController], KeyboardController, 3),
            ("kvmtool", &[KeyboardController, TripleFault], KeyboardController, 3),
            ("a register alone", &[ResetRegister, TripleFault], ResetRegister, 4),
            ("QEMU pc without ACPI and i8042", &[Chipset, TripleFault], Chipset, 5),
            ("QEMU microvm without ACPI", &[TripleFault], TripleFault, 6),
        ] {
            for status in [ExitStatus::Success, ExitStatus::Failure] {
                let tried = tried(WayOut::to_end(status, true), works);
                assert_eq!((tried.last(), tried.len()), (Some(&last), count), "{vmm}");
            }
        }
    }

    #[test]
    fn a_pc_is_switched_off_after_a_success_only_and_never_reset() {
        assert_eq!(WayOut::to_end(ExitStatus::Success, false), [SoftOff]);
        assert_eq!(WayOut::to_end(ExitStatus::Failure, false), []);
    }

    #[test]
    fn a_reset_is_no_end_while_there_is_another_and_the_last_way_always_works() {
        let ways = WayOut::to_end(ExitStatus::Success, true);
        assert!(ways.is_sorted_by_key(|way| way.is_reset()));
        assert_eq!((ways.last(), WayOut::TO_REBOOT.last()), (Some(&TripleFault), Some(&TripleFault)));
        assert!(WayOut::TO_REBOOT.iter().all(|way| way.is_reset()));
    }
}
