//! The serial line loses nothing, and any text stays one line of JSON.

use core::fmt::Write as _;

use crate::console::events;
use crate::machine::log::{self as serial, Raw};

use crate::tests::suite::{Skip, Test, kernel_test, tests};

pub(super) const TESTS: &[Test] = tests![nothing_written_is_dropped, what_json_cannot_hold_is_escaped,];

kernel_test! {
    fn nothing_written_is_dropped() {
        // More than any FIFO holds.
        for _ in 0..64 {
            serial::emit(&events::Filler {
                text: "0123456789012345678901234567890123456789012345678901234567890123456789",
            });
        }
        let _ = Raw.write_str("");
        assert_eq!(serial::with_serial(|serial| serial.dropped()), 0);
    }
}

kernel_test! {
    fn what_json_cannot_hold_is_escaped() {
        if serial::is_text() {
            return Err(Skip::because("the log is text"));
        }
        // The reader of the line fails if this is not one JSON object.
        log::info!("quotes \" \\ / controls \0 \x07 \x1b \x7f \n \r \t others \u{85} \u{2028} é 漢 🎈");
    }
}
