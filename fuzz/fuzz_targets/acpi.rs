#![no_main]

use ballonet_fuzz::acpi;

libfuzzer_sys::fuzz_target!(|input: ballonet_fuzz::acpi::Firmware<'_>| acpi::run(&input));
