#![no_main]

use ballonet_fuzz::boot_info;

libfuzzer_sys::fuzz_target!(|input: ballonet_fuzz::boot_info::Loader<'_>| boot_info::run(&input));
