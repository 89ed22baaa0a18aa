//! The types of devices that can be tested, and how QEMU attaches one.

use clap::ValueEnum;

/// A type of device, by its name for the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceType {
    /// The balloon
    Balloon,
    /// An entropy source
    Rng,
    /// A block device, which is only read
    Blk,
    /// A console
    Console,
    /// A network device
    Net,
}

impl DeviceType {
    /// Its name for the kernel's `device=`.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Balloon => "balloon",
            Self::Rng => "rng",
            Self::Blk => "blk",
            Self::Console => "console",
            Self::Net => "net",
        }
    }

    /// QEMU's `-device` for it.
    pub(crate) const fn qemu_device(self) -> &'static str {
        match self {
            Self::Balloon => "virtio-balloon-pci,free-page-reporting=on,deflate-on-oom=on",
            Self::Rng => "virtio-rng-pci",
            Self::Blk => "virtio-blk-pci,drive=disk",
            Self::Console => "virtio-serial-pci",
            Self::Net => "virtio-net-pci,netdev=net",
        }
    }

    /// More words for QEMU: the device's backend. The disk is empty, and the network is isolated.
    pub(crate) const fn qemu_words(self) -> &'static [&'static str] {
        match self {
            Self::Balloon | Self::Rng => &[],
            Self::Blk => &["-blockdev", "driver=null-co,node-name=disk,size=67108864,read-zeroes=on"],
            Self::Console => &["-chardev", "null,id=port", "-device", "virtconsole,chardev=port"],
            Self::Net => &["-netdev", "user,id=net,restrict=on"],
        }
    }
}
