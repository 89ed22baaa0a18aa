//! The portable half of the console: events as JSON, line editing and completion, progress lines, the log in memory.
//! Text in, text out: nothing here does I/O.

#![forbid(unsafe_code)]

mod completion;
mod count;
pub mod events;
mod json;
mod line_editor;
mod progress;
mod quiet;
mod record;
mod redraw;

pub use completion::Usage;
pub(crate) use completion::{Completion, complete};
pub(crate) use count::count;
pub(crate) use json::Object;
pub(crate) use line_editor::Page;
pub use line_editor::{Edit, LineEditor};
pub(crate) use progress::Movement;
pub(crate) use quiet::Quiet;
pub(crate) use record::Record;
pub(crate) use redraw::{ERASE_LINE, redraw};
