//! Events of the image with the kernel's own tests.

use super::declare::events;
use super::field::{Field, Microseconds, Milliseconds, declare};
use super::spec::{Event, EventSpec};
use crate::console::json::Object;

events! {
    /// A test in the image (`list=on`).
    "test-name" => TestName<'e> {
        name: &'e str, "the test";
        module: &'e str, "its module";
    }

    /// The outcome of a test.
    "test" => Test<'e> {
        name: &'e str, "the test";
        outcome: &'e str, "`ok`, `skipped` or `failed`";
        ms_taken: Milliseconds, "how long it took";
        us_taken: Microseconds, "the same";
        message: Option<&'e str>, "why it was skipped, or how it failed";
        file: Option<&'e str>, "the source file of a panic";
        line: Option<u32>, "the line in it";
    }

    /// The end of a run.
    "summary" => Summary {
        passed: u64, "tests passed";
        failed: u64, "tests failed";
        failed_on_purpose: u64, "tests that failed as their names demand";
        skipped: u64, "tests skipped";
    }

    /// Text to fill the serial line.
    "filler" => Filler<'e> {
        text: &'e str, "the text";
    }
}
