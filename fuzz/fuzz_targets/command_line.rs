#![no_main]

use ballonet_fuzz::command_line;

libfuzzer_sys::fuzz_target!(|input: Vec<command_line::Piece<'_>>| command_line::run(&input));
