//! The pure half of talking to people and to programs over a serial line: JSON objects, line editing and completion,
//! progress lines, the log as it is kept. Text in, text out; who sends it is somebody else's business.

#![forbid(unsafe_code)]

mod completion;
mod count;
mod json;
mod line_editor;
mod progress;
mod quiet;
mod record;

pub(crate) use completion::{Command, Completion, complete};
pub(crate) use count::count;
pub use json::Object;
pub(crate) use line_editor::Page;
pub use line_editor::{Edit, LineEditor};
pub use progress::Movement;
pub(crate) use quiet::Quiet;
pub(crate) use record::Record;
