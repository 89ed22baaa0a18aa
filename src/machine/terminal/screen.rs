//! The PC's screen: the loader's framebuffer, or the text mode of a VGA adapter.
//!
//! What stands on it is [`crate::screen`]'s business; here it goes to where the hardware sees it. On a framebuffer each
//! line of the log is drawn at once until the main loop begins, so that a machine that gets stuck shows where. Otherwise
//! [`draw`] draws a little in each round of that loop, so that neither the balloon nor a start in a virtual machine,
//! where each access to a VGA adapter leaves the guest, has to wait for the screen.

use core::cell;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::boot::{Framebuffer, PixelFormat};
use crate::console::Page;
use crate::machine::lock::Lock;
use crate::machine::memory::frames;
use crate::machine::paging::{self, Access};
use crate::machine::terminal::kept::with_kept;
use crate::machine::terminal::vga;
use crate::screen::{Cell, Fact, LONGEST_LINE, Painter, Screen, Status, Style};

/// Bytes of pixels drawn at a time: some 20 µs to memory that combines writes.
const A_LITTLE: usize = 32 * 1024;

/// Columns and rows of the text mode that firmware leaves a VGA adapter in.
const VGA_SIZE: (usize, usize) = (80, 25);

pub(crate) struct Display {
    screen: Screen,
    surface: Option<Surface>,
    /// Each line of the log is drawn at once.
    hasty: bool,
}

pub(crate) static DISPLAY: Lock<Display> = Lock::new(Display { screen: Screen::empty(), surface: None, hasty: false });
/// Whether anything is shown at all, asked often.
static PRESENT: AtomicBool = AtomicBool::new(false);

/// Where cells go to.
struct Surface {
    start: NonNull<u8>,
    length: usize,
    /// Bytes from a line to the next.
    pitch: usize,
    /// `None` where the hardware takes characters. In a `Cell`, whose bits mean nothing to what is around it: so the
    /// static above is all zeros without a surface, and takes no room in the kernel's file.
    painter: cell::Cell<Option<Painter>>,
}

// SAFETY: a surface is the only value through which its memory is written, and it does not matter by which CPU.
unsafe impl Send for Surface {}

impl Surface {
    /// The surface of a framebuffer that is mapped at `start`.
    ///
    /// # Safety
    /// All of its bytes are mapped there, writable, as long as the surface lives, and are not memory that Rust knows of.
    unsafe fn new(start: NonNull<u8>, framebuffer: &Framebuffer) -> Self {
        let pitch = framebuffer.pitch as usize;
        let length = pitch * framebuffer.height as usize;
        Self { start, length, pitch, painter: cell::Cell::new(Painter::new(framebuffer)) }
    }

    /// How many cells can be drawn at a time.
    fn cells_at_a_time(&self) -> usize {
        let bytes = self.painter.get().map_or(64, |painter| painter.line_length() * painter.cell_height());
        (A_LITTLE / bytes.max(1)).max(1)
    }

    fn draw(&mut self, column: usize, row: usize, cell: Cell) {
        let Some(painter) = self.painter.get() else {
            self.write(row * self.pitch + column * 2, &cell.bits().to_le_bytes());
            return;
        };
        let brush = painter.brush(cell);
        let mut line = [0; LONGEST_LINE];
        for y in 0..painter.cell_height() {
            let offset = (row * painter.cell_height() + y) * self.pitch + column * painter.line_length();
            self.write(offset, painter.paint(&brush, y, &mut line));
        }
    }

    /// Writes bytes at an offset, as words as far as they go.
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        if self.length.checked_sub(offset).is_none_or(|left| left < bytes.len()) {
            return;
        }
        // SAFETY: within the surface by the check above, so within what its maker vouched for.
        let mut to = unsafe { self.start.add(offset) };
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            // SAFETY: likewise; x86 stores words at any address.
            unsafe {
                to.cast::<u64>().write_unaligned(u64::from_le_bytes(*word));
                to = to.add(8);
            }
        }
        let (halves, rest) = rest.as_chunks::<2>();
        for half in halves {
            // SAFETY: likewise.
            unsafe {
                to.cast::<u16>().write_unaligned(u16::from_le_bytes(*half));
                to = to.add(2);
            }
        }
        for &byte in rest {
            // SAFETY: likewise; no more than one is left.
            unsafe { to.write(byte) };
        }
    }
}

impl Display {
    /// Draws all that has changed.
    fn draw_all(&mut self) {
        self.draw(usize::MAX);
    }

    fn draw(&mut self, most: usize) {
        let Some(surface) = &mut self.surface else { return };
        for (column, row, cell) in core::iter::from_fn(|| self.screen.grid_mut().take_changed()).take(most) {
            surface.draw(column, row, cell);
        }
    }

    fn draw_if_hasty(&mut self) {
        if self.hasty {
            self.draw_all();
        }
    }
}

/// Begins a screen of the framebuffer's size, else of that of VGA's text mode: it remembers what is shown until it is known
/// where to draw it.
///
/// # Safety
/// The first 4 GiB are mapped one to one until [`suspend`] is called, and the framebuffer is not memory that Rust knows of.
pub(crate) unsafe fn begin(framebuffer: Option<&Framebuffer>, title: fmt::Arguments<'_>) {
    let (columns, rows) = framebuffer.map_or(VGA_SIZE, |framebuffer| {
        Painter::new(framebuffer).map_or((framebuffer.width as usize, framebuffer.height as usize), |painter| {
            (painter.columns, painter.rows)
        })
    });
    let low = framebuffer.filter(|framebuffer| framebuffer.range().is_some_and(|range| range.end() <= 1 << 32));
    let surface = low.and_then(|framebuffer| {
        let start = NonNull::new(framebuffer.address as *mut u8)?;
        // SAFETY: mapped one to one until it is suspended, by the caller's word.
        Some(unsafe { Surface::new(start, framebuffer) })
    });
    DISPLAY.with(|display| {
        display.screen.begin(columns, rows, title);
        display.hasty = framebuffer.is_some();
        display.surface = surface;
        display.draw_all();
    });
    PRESENT.store(true, Ordering::Relaxed);
}

/// Stops drawing: the framebuffer is no longer mapped.
pub(crate) fn suspend() {
    DISPLAY.with(|display| display.surface = None);
}

/// Draws to the framebuffer, through a window of its own.
///
/// # Errors
/// When it cannot be mapped. Nothing is shown then.
pub(crate) fn attach(framebuffer: &Framebuffer) -> Result<(), paging::PagingError> {
    let length = u64::from(framebuffer.pitch) * u64::from(framebuffer.height);
    let access = if framebuffer.format == PixelFormat::Text { Access::Device } else { Access::Framebuffer };
    let window = paging::with(|space| space.open_window(framebuffer.address, length, access, &mut frames::ForTables));
    let start = window.inspect_err(|_| give_up())?;
    // SAFETY: just mapped permanently; the loader says that it is the screen's, and it is no usable memory, or there were no window.
    let surface = unsafe { Surface::new(start, framebuffer) };
    DISPLAY.with(|display| {
        display.surface = Some(surface);
        display.draw_if_hasty();
    });
    if framebuffer.format == PixelFormat::Text {
        vga::hide_cursor();
    }
    Ok(())
}

/// Draws to a VGA adapter in text mode, if there is one that is. Returns whether there is.
pub(crate) fn attach_vga() -> bool {
    let found = vga::find_text_mode(VGA_SIZE).is_some_and(|framebuffer| attach(&framebuffer).is_ok());
    if !found {
        give_up();
    }
    found
}

/// There is no screen.
pub(crate) fn give_up() {
    PRESENT.store(false, Ordering::Relaxed);
    DISPLAY.with(|display| {
        display.surface = None;
        display.screen.end();
    });
}

/// Whether there is a screen.
pub(crate) fn is_present() -> bool {
    PRESENT.load(Ordering::Relaxed)
}

/// From now on each line of the log is drawn at once; or else what changes is drawn by [`draw`], a little at a time.
pub(crate) fn set_hasty(hasty: bool) {
    DISPLAY.with(|display| {
        display.screen.set_smooth(!hasty);
        display.hasty = hasty;
        display.draw_if_hasty();
    });
    if !hasty {
        // Where the log moved by halves, there is room for more of it.
        turn(Page::End);
    }
}

/// Turns over the log.
pub(crate) fn turn(page: Page) {
    if is_present() {
        with_kept(|kept| {
            DISPLAY.with(|display| {
                display.screen.turn(kept, page);
                display.draw_if_hasty();
            });
        });
    }
}

/// Goes back to the end of the log, if another part of it is seen.
pub(crate) fn return_to_end() {
    if is_present() && DISPLAY.with(|display| display.screen.is_turned()) {
        turn(Page::End);
    }
}

/// Clears the log's area.
pub(crate) fn clear_log() {
    if is_present() {
        DISPLAY.with(|display| display.screen.clear_log());
    }
}

/// Shows what machine this is, until there is more to show.
pub(crate) fn show_facts(facts: &[Fact<'_>]) {
    if is_present() {
        DISPLAY.with(|display| {
            display.screen.show_facts(facts);
            display.draw_if_hasty();
        });
    }
}

/// Writes a line of the log.
pub(crate) fn line(style: Style, text: fmt::Arguments<'_>) {
    if is_present() {
        DISPLAY.with(|display| {
            display.screen.line(style, text);
            display.draw_if_hasty();
        });
    }
}

/// Shows the balloon, and how often each interrupt has come.
pub(crate) fn show_status<'i>(status: &Status<'_>, interrupts: impl Iterator<Item = (&'i str, u64)>) {
    DISPLAY.with(|display| display.screen.show_status(status, interrupts));
}

/// Shows the line being typed behind a prompt, with the cursor before its last `right_of_cursor` characters.
pub(crate) fn show_prompt(prompt: &str, line: &str, right_of_cursor: usize) {
    if is_present() {
        DISPLAY.with(|display| display.screen.show_prompt(prompt, line, right_of_cursor));
    }
}

/// Shows a hint where the prompt would be.
pub(crate) fn show_hint(hint: &str) {
    if is_present() {
        DISPLAY.with(|display| display.screen.show_hint(hint));
    }
}

/// Whether something waits to be drawn.
pub(crate) fn is_pending() -> bool {
    is_present() && DISPLAY.with(|display| display.surface.is_some() && display.screen.grid().has_changed())
}

/// Draws a few of the changed cells.
pub(crate) fn draw() {
    if is_present() {
        DISPLAY.with(|display| {
            let most = display.surface.as_ref().map_or(0, Surface::cells_at_a_time);
            display.draw(most);
        });
    }
}

/// Draws all that has changed, unless somebody is drawing: before the end, and for the kernel's last words.
pub(crate) fn flush() {
    if is_present() {
        DISPLAY.try_with(Display::draw_all);
    }
}

/// Takes the screen for the failure report.
///
/// # Safety
/// The holder of the lock never runs again.
pub(crate) unsafe fn begin_report(title: fmt::Arguments<'_>) {
    // SAFETY: the caller's promise.
    unsafe { DISPLAY.force_unlock() };
    if is_present() {
        DISPLAY.try_with(|display| {
            display.screen.begin_report(title);
            display.hasty = true;
            display.draw_all();
        });
    }
}

/// Goes on with the log where it stands.
pub(crate) fn write(text: &str) {
    if is_present() {
        DISPLAY.try_with(|display| {
            display.screen.write(text);
            display.draw_if_hasty();
        });
    }
}
