//! The PC's screen: the loader's framebuffer, or the text mode of a VGA adapter.
//!
//! [`crate::screen`] keeps the contents in memory, together with what the hardware shows; this file writes the
//! difference to the hardware, which is never read. On a framebuffer each line of the log is drawn at once until the
//! main loop begins, so that a machine that hangs shows where. After that [`draw`] draws a frame every 50 ms, a little
//! in each round of that loop, so that the balloon does not wait for the screen. In a virtual machine each access to a
//! VGA adapter exits the guest, so there frames are always at least 50 ms apart.

use core::cell;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::boot::{Framebuffer, PixelFormat};
use crate::console::Page;
use crate::machine::cpu::cpuid;
use crate::machine::lock::Lock;
use crate::machine::memory::frames;
use crate::machine::paging::{self, Access};
use crate::machine::terminal::kept::with_kept;
use crate::machine::terminal::vga;
use crate::machine::time::clock;
use crate::screen::{Advance, Brush, Cell, Change, Fact, LONGEST_LINE, Painter, Screen, Status, Style};

/// Bytes of pixels drawn at a time: some 20 µs to memory that combines writes.
const A_LITTLE: usize = 32 * 1024;

/// The shortest time between the starts of two frames: 50 ms.
const FRAME: u64 = 50_000_000;

/// Columns and rows of the text mode in which firmware leaves a VGA adapter.
const VGA_SIZE: (usize, usize) = (80, 25);

pub(crate) struct Display {
    screen: Screen,
    surface: Option<Surface>,
    /// Each line of the log is drawn at once, or with the next frame if `is_costly`.
    hasty: bool,
    /// Each access exits a virtual machine.
    is_costly: bool,
    /// Changes of this frame that are still to be drawn.
    left: usize,
    /// When the next frame may begin, in nanoseconds since entry.
    next_frame: u64,
}

pub(crate) static DISPLAY: Lock<Display> = Lock::new(Display {
    screen: Screen::empty(),
    surface: None,
    hasty: false,
    is_costly: false,
    left: 0,
    next_frame: 0,
});
/// Whether anything is shown at all; read often.
static PRESENT: AtomicBool = AtomicBool::new(false);

/// Where cells are drawn.
struct Surface {
    start: NonNull<u8>,
    length: usize,
    /// Bytes from a line to the next.
    pitch: usize,
    /// `None` if the hardware takes characters. In a `Cell`, which hides its niche from the outer type: so the static
    /// above is all zeros without a surface, and takes no space in the kernel's file.
    painter: cell::Cell<Option<Painter>>,
    /// The last cell, and how it was painted. In a `Cell` for the same reason.
    last: cell::Cell<Option<(Cell, Brush)>>,
}

// SAFETY: a surface is the only value through which its memory is written, and any CPU may write it.
unsafe impl Send for Surface {}

impl Surface {
    /// The surface of a framebuffer that is mapped at `start`.
    ///
    /// # Safety
    /// All of its bytes are mapped there, writable, as long as the surface lives, and are not memory that Rust knows
    /// of.
    unsafe fn new(start: NonNull<u8>, framebuffer: &Framebuffer) -> Self {
        let pitch = framebuffer.pitch as usize;
        let length = pitch * framebuffer.height as usize;
        Self { start, length, pitch, painter: cell::Cell::new(Painter::new(framebuffer)), last: cell::Cell::new(None) }
    }

    /// How many cells can be drawn at a time.
    fn cells_at_a_time(&self) -> usize {
        let bytes = self.painter.get().map_or(64, |painter| painter.line_length() * painter.cell_height());
        (A_LITTLE / bytes.max(1)).max(1)
    }

    /// Stores the part of a cell that differs.
    fn draw(&mut self, change: Change) {
        let Change { column, row, cell, shown } = change;
        let Some(painter) = self.painter.get() else {
            let (bytes, former) = (cell.bits().to_le_bytes(), shown.bits().to_le_bytes());
            let offset = row * self.pitch + column * 2;
            // An adapter takes the bytes of a word one by one.
            match (bytes[0] == former[0], bytes[1] == former[1]) {
                _ if shown == Cell::UNKNOWN => self.write(offset, &bytes),
                (true, true) => {}
                (false, true) => self.write(offset, &bytes[..1]),
                (true, false) => self.write(offset + 1, &bytes[1..]),
                (false, false) => self.write(offset, &bytes),
            }
            return;
        };
        let brush = painter.next_brush(cell, self.last.get());
        self.last.set(Some((cell, brush)));
        let mut line = [0; LONGEST_LINE];
        let (height, width) = (painter.cell_height(), painter.line_length());
        for y in (0..height).step_by(painter.scale()) {
            let bytes = painter.paint(&brush, y, &mut line);
            for y in y..y + painter.scale() {
                self.write((row * height + y) * self.pitch + column * width, bytes);
            }
        }
    }

    /// Makes all of it black.
    fn clear(&mut self) {
        const BLACK: [u8; 512] = [0; 512];
        let mut offset = 0;
        while offset < self.length {
            let part = BLACK.len().min(self.length - offset);
            self.write(offset, BLACK.get(..part).unwrap_or_default());
            offset += part;
        }
    }

    /// The common contents of a few sampled text cells; `None` if they differ. Only in text mode.
    fn uniform(&self) -> Option<Cell> {
        /// The number of sampled cells, each three rows below the previous one and a column to the right.
        const LOOKS: usize = 8;
        const APART: usize = 241;
        let at = |index: usize| {
            let offset = index * APART * 2;
            // SAFETY: within the surface, by the check; reading text memory has no effect.
            (offset + 2 <= self.length).then(|| unsafe { self.start.add(offset).cast::<u16>().read_volatile() })
        };
        let first = at(0)?;
        (1..LOOKS).all(|index| at(index) == Some(first)).then(|| Cell::from_bits(first))
    }

    /// Writes bytes at an offset, as words as far as they go.
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        if self.length.checked_sub(offset).is_none_or(|left| left < bytes.len()) {
            return;
        }
        // SAFETY: within the surface by the check above, so within what the caller of `new` promised.
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
        for change in core::iter::from_fn(|| self.screen.grid_mut().take_changed()).take(most) {
            surface.draw(change);
        }
    }

    fn draw_if_hasty(&mut self) {
        if !self.hasty {
            return;
        }
        let now = clock::rough_nanoseconds();
        if !self.is_costly || now >= self.next_frame {
            self.next_frame = now + FRAME;
            self.draw_all();
        }
    }

    /// Whether a frame is being drawn, or may begin.
    fn may_draw(&self, now: u64) -> bool {
        self.has_changed() && (self.left > 0 || now >= self.next_frame)
    }

    /// Whether something changed that is not shown yet.
    fn has_changed(&self) -> bool {
        self.surface.is_some() && self.screen.grid().has_changed()
    }

    /// Draws a part of the frame, or begins one.
    fn draw_part(&mut self, now: u64) {
        if !self.may_draw(now) {
            return;
        }
        if self.left == 0 {
            self.left = self.screen.grid().changes();
            self.next_frame = now + FRAME;
        }
        let most = self.surface.as_ref().map_or(0, Surface::cells_at_a_time).min(self.left);
        self.draw(most);
        self.left = if self.has_changed() { self.left - most } else { 0 };
    }
}

/// Begins a screen of the framebuffer's size, else of VGA text mode's: it stores its contents until it is known where
/// to draw them.
///
/// # Safety
/// The first 4 GiB are mapped one to one until [`suspend`] is called, and the framebuffer is not memory that Rust knows
/// of.
pub(crate) unsafe fn begin(framebuffer: Option<&Framebuffer>, title: fmt::Arguments<'_>) {
    let (columns, rows) = framebuffer.map_or(VGA_SIZE, |framebuffer| {
        Painter::new(framebuffer).map_or((framebuffer.width as usize, framebuffer.height as usize), |painter| {
            (painter.columns, painter.rows)
        })
    });
    let low = framebuffer.filter(|framebuffer| framebuffer.range().is_some_and(|range| range.end() <= 1 << 32));
    let surface = low.and_then(|framebuffer| {
        let start = NonNull::new(framebuffer.address as *mut u8)?;
        // SAFETY: mapped one to one until it is suspended, as the caller promises.
        Some(unsafe { Surface::new(start, framebuffer) })
    });
    DISPLAY.with(|display| {
        display.screen.begin(columns, rows, title);
        display.hasty = framebuffer.is_some();
        display.is_costly = framebuffer.is_some_and(is_costly);
        display.surface = surface;
        if let Some(surface) = display.surface.as_mut().filter(|surface| surface.painter.get().is_some()) {
            surface.clear();
            display.screen.grid_mut().assume(Cell::BLANK);
        }
        display.draw_if_hasty();
    });
    PRESENT.store(true, Ordering::Relaxed);
}

/// Whether each access exits a virtual machine: text goes to emulated registers there, pixels to memory.
fn is_costly(framebuffer: &Framebuffer) -> bool {
    framebuffer.format == PixelFormat::Text && cpuid::has_hypervisor()
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
    // SAFETY: just mapped permanently; the loader says that it is the screen's, and it is not usable memory, else
    // mapping it would have failed.
    let surface = unsafe { Surface::new(start, framebuffer) };
    DISPLAY.with(|display| {
        display.surface = Some(surface);
        display.is_costly = is_costly(framebuffer);
        display.draw_if_hasty();
    });
    if framebuffer.format == PixelFormat::Text {
        vga::hide_cursor();
    }
    Ok(())
}

/// Draws to a VGA adapter, if there is one in text mode. Returns whether there is.
///
/// In a virtual machine uses a page that seems to be blank already, if there is one, since most cells are blank.
pub(crate) fn attach_vga() -> bool {
    let found = vga::find_text_mode(VGA_SIZE).is_some_and(|text| attach_blank_page(text) || attach(&text).is_ok());
    if !found {
        give_up();
    }
    found
}

fn attach_blank_page(text: Framebuffer) -> bool {
    let page = vga::page_behind(text);
    if !is_costly(&page) || attach(&page).is_err() {
        return false;
    }
    let blank = DISPLAY.with(|display| {
        let cell = display.surface.as_ref()?.uniform().filter(|cell| cell.looks_like(Cell::BLANK))?;
        display.screen.grid_mut().assume(cell);
        Some(())
    });
    if blank.is_some() {
        vga::show_page_behind();
    }
    blank.is_some()
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
        display.screen.set_advance(match () {
            () if hasty => Advance::Half,
            () if display.is_costly => Advance::Third,
            () => Advance::Line,
        });
        display.hasty = hasty;
        // The balloon comes first.
        display.next_frame = if hasty { 0 } else { clock::nanoseconds() + FRAME };
        display.draw_if_hasty();
    });
    match DISPLAY.with(|display| display.is_costly) {
        _ if hasty => {}
        true => DISPLAY.with(|display| display.screen.make_room()),
        // If the log scrolled by halves, there is room for more of it.
        false => turn(Page::End),
    }
}

/// Scrolls the log.
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

/// Goes back to the end of the log, if it is scrolled.
pub(crate) fn return_to_end() {
    if is_present() && DISPLAY.with(|display| display.screen.is_turned()) {
        turn(Page::End);
    }
}

/// Clears the log's area, and redraws the whole screen: it may show something that is not the kernel's.
pub(crate) fn clear_log() {
    if is_present() {
        DISPLAY.with(|display| {
            display.screen.clear_log();
            display.screen.grid_mut().assume(Cell::UNKNOWN);
        });
    }
}

/// Shows the machine's names, until there is more to show.
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

/// Shows a hint instead of the prompt.
pub(crate) fn show_hint(hint: &str) {
    if is_present() {
        DISPLAY.with(|display| display.screen.show_hint(hint));
    }
}

/// Whether something must be drawn now. `now` in nanoseconds since entry.
pub(crate) fn is_pending(now: u64) -> bool {
    is_present() && DISPLAY.with(|display| display.may_draw(now))
}

/// When something that has changed may be drawn.
pub(crate) fn next_frame() -> Option<u64> {
    let waits = is_present() && DISPLAY.with(|display| display.has_changed());
    waits.then(|| DISPLAY.with(|display| display.next_frame))
}

/// Draws a few of the changed cells, of one frame after the other. `now` in nanoseconds since entry.
pub(crate) fn draw(now: u64) {
    if is_present() {
        DISPLAY.with(|display| display.draw_part(now));
    }
}

/// Draws all that has changed, unless a drawing is in progress: before the kernel ends, and for failure reports.
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
            (display.hasty, display.is_costly) = (true, false);
            display.draw_all();
        });
    }
}

/// Continues the log where it is.
pub(crate) fn write(text: &str) {
    if is_present() {
        DISPLAY.try_with(|display| {
            display.screen.write(text);
            display.draw_if_hasty();
        });
    }
}
