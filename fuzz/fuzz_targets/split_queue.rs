#![no_main]

use ballonet_fuzz::queue;

libfuzzer_sys::fuzz_target!(|input: queue::Course| queue::run_split(&input));
