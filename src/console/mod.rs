//! The pure half of talking to people and to programs over a serial line: JSON objects, line editing and completion,
//! progress lines, the log as it is kept. Text in, text out; who sends it is somebody else's business.

#![forbid(unsafe_code)]

mod completion;
mod count;
pub mod events;
mod json;
mod line_editor;
mod progress;
mod quiet;
mod record;

pub use completion::{Completion, Usage, complete};
pub use count::{Count, count};
pub use json::Object;
pub use line_editor::{Edit, LineEditor, Page};
pub use progress::Movement;
pub use quiet::Quiet;
pub use record::Record;
