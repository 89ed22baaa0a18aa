#![no_main]

use ballonet_fuzz::multiboot2;

libfuzzer_sys::fuzz_target!(|input: ballonet_fuzz::multiboot2::Loader<'_>| multiboot2::run(&input));
