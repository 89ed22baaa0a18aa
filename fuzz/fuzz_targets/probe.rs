#![no_main]

use ballonet_fuzz::balloon;

libfuzzer_sys::fuzz_target!(|input: balloon::Setup| balloon::run_probe(&input));
