//! Input and output for users and programs: the serial line, the screen and the keyboard.

mod input;
mod kept;
pub(crate) mod keyboard;
pub(crate) mod line;
pub(crate) mod log;
pub(crate) mod ring;
pub(crate) mod screen;
pub(crate) mod serial;
pub(crate) mod text;
pub(crate) mod vga;
