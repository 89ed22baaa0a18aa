#![no_main]

use ballonet_fuzz::balloon;

libfuzzer_sys::fuzz_target!(|input: balloon::MmioCourse| balloon::run_mmio(&input));
