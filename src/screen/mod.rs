//! The PC's own console, without I/O: the contents of its screen, and the keys of its keyboard.
//!
//! A `Screen` is a grid of characters with the log on the left, a picture of the balloon on the right and the prompt
//! below. It remembers which cells have changed; the machine layer takes those one by one and has them painted by a
//! [`Painter`], or stores them as they are where the hardware takes characters. Nothing here allocates: the log begins
//! before there is a heap, and continues when the heap is broken.

#![forbid(unsafe_code)]

mod cell;
mod font;
mod grid;
mod keyboard;
mod layout;
mod painter;
mod picture;
mod status;
mod text_area;

pub use cell::{Cell, Colour, Style};
pub use font::{GLYPH_HEIGHT, GLYPH_WIDTH, bitmap};
pub(crate) use grid::{Change, Grid, MOST_COLUMNS, MOST_ROWS};
pub(crate) use keyboard::Keyboard;
pub use layout::{Rect, ScreenLayout};
pub use painter::{Brush, LONGEST_LINE, Painter};
pub(crate) use picture::Screen;
pub use status::Shares;
pub(crate) use status::{Fact, Status};
pub(crate) use text_area::{Advance, TextArea};
