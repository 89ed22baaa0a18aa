//! The test image. The tests are in [`ballonet_kernel::tests`].
#![no_std]
#![no_main]

ballonet_kernel::image!(ballonet_kernel::tests);
