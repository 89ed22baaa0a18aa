#![no_main]

use ballonet_fuzz::linux;

libfuzzer_sys::fuzz_target!(|input: ballonet_fuzz::linux::Loader<'_>| linux::run(&input));
