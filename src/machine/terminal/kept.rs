//! The stored log, to be read again.

use core::fmt;

use crate::console::Record;
use crate::machine::lock::Lock;
use crate::screen::Style;

/// The stored lines of the log.
static KEPT: Lock<Record> = Lock::new(Record::new());

/// Stores a line.
pub(super) fn keep(style: Style, text: fmt::Arguments<'_>) {
    KEPT.with(|kept| kept.push(style.bits(), text));
}

/// Runs `action` on the stored log. It must not log.
pub(crate) fn with_kept<R>(action: impl FnOnce(&Record) -> R) -> R {
    KEPT.with(|kept| action(kept))
}
