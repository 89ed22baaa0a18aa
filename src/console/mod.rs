//! The pure half of talking to people and to programs over a serial line: JSON objects, line editing, progress lines,
//! console commands. Text in, text out; who sends it is somebody else's business.

#![forbid(unsafe_code)]

mod json;
mod line_editor;
mod progress;

pub use json::Object;
pub use line_editor::{Edit, LineEditor};
pub use progress::Movement;
