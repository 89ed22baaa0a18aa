//! The log as it is kept, to be read again.

use core::fmt;

use crate::console::Record;
use crate::machine::lock::Lock;
use crate::screen::Style;

/// Every line of the log, so that it can be shown again.
static KEPT: Lock<Record> = Lock::new(Record::new());

/// Keeps a line.
pub(super) fn keep(style: Style, text: fmt::Arguments<'_>) {
    KEPT.with(|kept| kept.push(style.bits(), text));
}

/// Runs `action` on the log as it is kept. It must not log.
pub(crate) fn with_kept<R>(action: impl FnOnce(&Record) -> R) -> R {
    KEPT.with(|kept| action(kept))
}
