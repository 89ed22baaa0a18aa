#![no_main]

use ballonet_fuzz::config_space;

libfuzzer_sys::fuzz_target!(|input: config_space::Machine<'_>| config_space::run(&input));
