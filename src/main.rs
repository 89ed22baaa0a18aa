//! The ballonet kernel: its entry point and what only an image defines. All else is in `kernel`.
#![no_std]
#![no_main]

extern crate alloc;

mod kernel;
mod symbols;

use ballonet_kernel::machine::fault;

ballonet_kernel::entry_point!(kernel::run);

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    fault::report_panic(info)
}
