//! The devices of real VMMs, each with its quirks.

mod alioth;
mod cloud_hypervisor;
mod crosvm;
mod dragonball;
mod firecracker;
mod kvmtool;
mod libkrun;
mod qemu;
mod stratovirt;

use crate::behaviour::Behaviour;

impl Behaviour {
    /// The device of each VMM by name, also with packed rings, whether that VMM has them or not. libkrun's is left out:
    /// it takes no frames.
    pub fn every_vmm() -> Vec<(String, Self)> {
        let split = Self::every_split_vmm().into_iter().map(|(name, behaviour)| (name.to_string(), behaviour));
        let packed = Self::every_split_vmm().into_iter().map(|(name, b)| (format!("{name}, packed"), b.packed()));
        split.chain(packed).collect()
    }

    /// [`Self::every_vmm`], and MMIO devices of both versions, as in QEMU's microvm and Firecracker.
    pub fn every_device() -> Vec<(String, Self)> {
        let on_mmio = [
            ("letter on MMIO", Self::conforming().on_mmio()),
            ("letter on MMIO, packed", Self::conforming().packed().on_mmio()),
            ("letter on legacy MMIO", Self::conforming().on_legacy_mmio()),
            ("QEMU 7.2 on MMIO", Self::qemu_7_2().on_mmio()),
            ("QEMU 10 on legacy MMIO", Self::qemu_10(0).on_legacy_mmio()),
            ("Firecracker on MMIO", Self::firecracker().on_mmio()),
            ("StratoVirt", Self::stratovirt()),
            ("Dragonball", Self::dragonball()),
        ];
        let on_mmio = on_mmio.map(|(name, behaviour)| (name.to_string(), behaviour));
        Self::every_vmm().into_iter().chain(on_mmio).collect()
    }

    fn every_split_vmm() -> Vec<(&'static str, Self)> {
        vec![
            ("letter", Self::conforming()),
            ("QEMU 7.2", Self::qemu_7_2()),
            ("QEMU 10, vectors=6", Self::qemu_10(6)),
            ("QEMU 10, vectors=2", Self::qemu_10(2)),
            ("QEMU 10, vectors=0", Self::qemu_10(0)),
            ("Cloud Hypervisor", Self::cloud_hypervisor()),
            ("Firecracker", Self::firecracker()),
            ("Alioth", Self::alioth()),
            ("crosvm", Self::crosvm()),
            ("crosvm before 2025", Self::crosvm_before_2025()),
            ("kvmtool", Self::kvmtool()),
        ]
    }
}
