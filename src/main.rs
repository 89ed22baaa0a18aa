//! The ballonet kernel's image. The kernel itself is [`ballonet_kernel::kernel`].
#![no_std]
#![no_main]

ballonet_kernel::image!(ballonet_kernel::kernel);
