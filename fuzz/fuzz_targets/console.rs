#![no_main]

use ballonet_fuzz::console;

libfuzzer_sys::fuzz_target!(|input: ballonet_fuzz::console::Input<'_>| console::run(&input));
