#![no_main]

use ballonet_fuzz::console;

libfuzzer_sys::fuzz_target!(|keys: &[u8]| console::run(keys));
