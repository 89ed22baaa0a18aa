//! Names of classes, and of the vendors and devices in virtual machines.
//!
//! Short, in the words of `lspci`. No decision depends on a name.

use super::capability::id;
use super::{ClassCode, Function};

/// The kind of a function; the base class's name if the sub-class is not listed.
pub(crate) fn class(class: ClassCode) -> &'static str {
    let known = CLASSES.iter().find(|(code, _)| *code == [class.base, class.sub]);
    known.map_or_else(|| base_class(class.base), |(_, name)| name)
}

/// The vendor's name, if listed.
pub(crate) fn vendor(vendor: u16) -> Option<&'static str> {
    VENDORS.iter().find(|(id, _)| *id == vendor).map(|(_, name)| *name)
}

/// The device's name without its vendor, if listed.
pub(crate) fn device(function: &Function) -> Option<&'static str> {
    let ids = (function.vendor, function.device);
    DEVICES.iter().find(|(vendor, device, _)| (*vendor, *device) == ids).map(|(.., name)| *name)
}

/// A capability's name.
pub(crate) fn capability(capability: u8) -> &'static str {
    match capability {
        0x00 => "null",
        id::POWER_MANAGEMENT => "power management",
        0x02 => "AGP",
        0x03 => "vital product data",
        0x04 => "slot identification",
        id::MSI => "MSI",
        0x06 => "CompactPCI hot swap",
        0x07 => "PCI-X",
        0x08 => "HyperTransport",
        id::VENDOR => "vendor-specific",
        0x0A => "debug port",
        0x0C => "hot-plug",
        0x0D => "subsystem of a bridge",
        id::PCI_EXPRESS => "PCI Express",
        id::MSI_X => "MSI-X",
        0x12 => "SATA",
        0x13 => "advanced features",
        _ => "unknown",
    }
}

fn base_class(base: u8) -> &'static str {
    match base {
        0x00 => "Unclassified device",
        0x01 => "Mass storage controller",
        0x02 => "Network controller",
        0x03 => "Display controller",
        0x04 => "Multimedia controller",
        0x05 => "Memory controller",
        0x06 => "Bridge",
        0x07 => "Communication controller",
        0x08 => "Generic system peripheral",
        0x09 => "Input device controller",
        0x0A => "Docking station",
        0x0B => "Processor",
        0x0C => "Serial bus controller",
        0x0D => "Wireless controller",
        0x0E => "Intelligent controller",
        0x0F => "Satellite communications controller",
        0x10 => "Encryption controller",
        0x11 => "Signal processing controller",
        0x12 => "Processing accelerators",
        0x13 => "Non-essential instrumentation",
        _ => "Unassigned class",
    }
}

/// Base class and sub-class (PCI Code and ID Assignment 1.11, 1).
const CLASSES: &[([u8; 2], &str)] = &[
    ([0x00, 0x01], "VGA compatible unclassified device"),
    ([0x01, 0x00], "SCSI storage controller"),
    ([0x01, 0x01], "IDE interface"),
    ([0x01, 0x04], "RAID bus controller"),
    ([0x01, 0x06], "SATA controller"),
    ([0x01, 0x08], "Non-Volatile memory controller"),
    ([0x02, 0x00], "Ethernet controller"),
    ([0x03, 0x00], "VGA compatible controller"),
    ([0x03, 0x02], "3D controller"),
    ([0x04, 0x01], "Multimedia audio controller"),
    ([0x04, 0x03], "Audio device"),
    ([0x05, 0x00], "RAM memory"),
    ([0x06, 0x00], "Host bridge"),
    ([0x06, 0x01], "ISA bridge"),
    ([0x06, 0x04], "PCI bridge"),
    ([0x06, 0x07], "CardBus bridge"),
    ([0x07, 0x00], "Serial controller"),
    ([0x07, 0x80], "Communication controller"),
    ([0x08, 0x05], "SD Host controller"),
    ([0x08, 0x06], "IOMMU"),
    ([0x0C, 0x03], "USB controller"),
    ([0x0C, 0x05], "SMBus"),
];

const VENDORS: &[(u16, &str)] = &[
    (0x1002, "AMD/ATI"),
    (0x1013, "Cirrus Logic"),
    (0x1022, "AMD"),
    (0x10DE, "NVIDIA Corporation"),
    (0x10EC, "Realtek"),
    (0x1234, "QEMU"),
    (0x1414, "Microsoft Corporation"),
    (0x144D, "Samsung"),
    (0x14E4, "Broadcom"),
    (0x15AD, "VMware"),
    (0x1AF4, "Red Hat, Inc."),
    (0x1B36, "Red Hat, Inc."),
    (0x8086, "Intel Corporation"),
];

const DEVICES: &[(u16, u16, &str)] = &[
    (0x1013, 0x00B8, "GD 5446"),
    (0x1234, 0x1111, "standard VGA"),
    (0x1AF4, 0x1000, "Virtio network device"),
    (0x1AF4, 0x1001, "Virtio block device"),
    (0x1AF4, 0x1002, "Virtio memory balloon"),
    (0x1AF4, 0x1003, "Virtio console"),
    (0x1AF4, 0x1004, "Virtio SCSI"),
    (0x1AF4, 0x1005, "Virtio RNG"),
    (0x1AF4, 0x1009, "Virtio filesystem"),
    (0x1AF4, 0x1041, "Virtio 1.0 network device"),
    (0x1AF4, 0x1042, "Virtio 1.0 block device"),
    (0x1AF4, 0x1043, "Virtio 1.0 console"),
    (0x1AF4, 0x1044, "Virtio 1.0 RNG"),
    (0x1AF4, 0x1045, "Virtio 1.0 memory balloon"),
    (0x1AF4, 0x1048, "Virtio 1.0 SCSI"),
    (0x1AF4, 0x1049, "Virtio 1.0 9P transport"),
    (0x1AF4, 0x1050, "Virtio 1.0 GPU"),
    (0x1AF4, 0x1052, "Virtio 1.0 input"),
    (0x1AF4, 0x1053, "Virtio 1.0 socket"),
    (0x1AF4, 0x1057, "Virtio 1.0 IOMMU"),
    (0x1AF4, 0x1058, "Virtio 1.0 memory device"),
    (0x1AF4, 0x105A, "Virtio 1.0 filesystem"),
    (0x1AF4, 0x105B, "Virtio 1.0 persistent memory"),
    (0x1AF4, 0x1110, "Inter-VM shared memory"),
    (0x1B36, 0x0001, "QEMU PCI-PCI bridge"),
    (0x1B36, 0x0002, "QEMU PCI 16550A adapter"),
    (0x1B36, 0x0005, "QEMU PCI test device"),
    (0x1B36, 0x0008, "QEMU PCIe host bridge"),
    (0x1B36, 0x0009, "QEMU PCI expander bridge"),
    (0x1B36, 0x000B, "QEMU PCIe expander bridge"),
    (0x1B36, 0x000C, "QEMU PCIe root port"),
    (0x1B36, 0x000D, "QEMU xHCI host controller"),
    (0x1B36, 0x000E, "QEMU PCIe-to-PCI bridge"),
    (0x1B36, 0x0010, "QEMU NVMe controller"),
    (0x1B36, 0x0100, "QXL paravirtual graphics card"),
    (0x8086, 0x0D57, "Cloud Hypervisor host bridge"),
    (0x8086, 0x100E, "82540EM Gigabit Ethernet"),
    (0x8086, 0x10D3, "82574L Gigabit Ethernet"),
    (0x8086, 0x1237, "440FX - 82441FX PMC [Natoma]"),
    (0x8086, 0x244E, "82801 PCI bridge"),
    (0x8086, 0x2918, "82801IB (ICH9) LPC"),
    (0x8086, 0x2922, "82801IR (ICH9R) AHCI"),
    (0x8086, 0x2930, "82801I (ICH9) SMBus"),
    (0x8086, 0x2934, "82801I (ICH9) USB UHCI"),
    (0x8086, 0x293E, "82801I (ICH9) HD audio"),
    (0x8086, 0x29C0, "82G33/G31/P35/P31 DRAM controller"),
    (0x8086, 0x3420, "7500/5520/5500/X58 root port 0"),
    (0x8086, 0x7000, "82371SB PIIX3 ISA"),
    (0x8086, 0x7010, "82371SB PIIX3 IDE"),
    (0x8086, 0x7020, "82371SB PIIX3 USB"),
    (0x8086, 0x7113, "82371AB/EB/MB PIIX4 ACPI"),
];
