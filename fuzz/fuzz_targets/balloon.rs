#![no_main]

use ballonet_fuzz::balloon;

libfuzzer_sys::fuzz_target!(|input: balloon::Course| balloon::run(&input));
