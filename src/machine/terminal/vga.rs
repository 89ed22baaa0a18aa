//! A VGA adapter in text mode, for machines whose loader passes no screen.

use x86_64::instructions::port::{Port, PortReadOnly};

use crate::boot::{Framebuffer, PixelFormat};

/// Physical address of the text that a colour adapter shows.
const TEXT: u64 = 0xB8000;

/// Bytes of the text that follows the one that firmware shows.
const PAGE: u64 = 0x1000;

/// Miscellaneous output register, as read: bit 0: the registers are those of a colour adapter; bit 1: the CPU can
/// access its memory.
const MISCELLANEOUS: u16 = 0x3CC;
const REACHABLE_COLOUR: u8 = 0b11;
/// Index registers, each followed by its data register: of the graphics controller and of the CRT controller.
const GRAPHICS: u16 = 0x3CE;
const CRT: u16 = 0x3D4;

/// Graphics controller: which memory is mapped where, and whether it holds pixels.
const MAPPING: u8 = 0x06;
/// Memory at 0xB8000, 32 KiB of it, and text.
const MAPPING_BITS: u8 = 0b1101;
const MAPPING_TEXT: u8 = 0b1100;

/// CRT controller: columns minus one; scan lines per row minus one; the cursor's first line, and cursor off; high bits;
/// scan lines shown minus one.
const COLUMNS: u8 = 0x01;
const ROW_HEIGHT: u8 = 0x09;
const CURSOR: u8 = 0x0A;
const CURSOR_OFF: u8 = 1 << 5;
const OVERFLOW: u8 = 0x07;
/// CRT controller: the start of the shown text, in cells; the high and the low byte.
const START: [u8; 2] = [0x0C, 0x0D];
const LINES: u8 = 0x12;

/// The text memory of a VGA adapter that shows text of this many columns and rows; `None` if there is none. Only reads
/// ports, which read as absent on machines without VGA.
pub(crate) fn find_text_mode((columns, rows): (usize, usize)) -> Option<Framebuffer> {
    // SAFETY: VGA's register, or nothing; reading has no effect.
    let miscellaneous: u8 = unsafe { PortReadOnly::new(MISCELLANEOUS).read() };
    // An absent port reads as all ones.
    if miscellaneous == 0xFF || miscellaneous & REACHABLE_COLOUR != REACHABLE_COLOUR {
        return None;
    }
    if read(GRAPHICS, MAPPING)? & MAPPING_BITS != MAPPING_TEXT || usize::from(read(CRT, COLUMNS)?) + 1 != columns {
        return None;
    }
    let overflow = usize::from(read(CRT, OVERFLOW)?);
    let lines = usize::from(read(CRT, LINES)?) | (overflow & 0x02) << 7 | (overflow & 0x40) << 3;
    let row_height = usize::from(read(CRT, ROW_HEIGHT)? & 0x1F) + 1;
    if (lines + 1) / row_height != rows {
        return None;
    }
    let (width, height) = (columns as u32, rows as u32);
    Some(Framebuffer { address: TEXT, pitch: 2 * width, width, height, depth: 16, format: PixelFormat::Text })
}

/// The page after `text`, unwritten since the BIOS cleared all text memory when it set the mode.
pub(crate) fn page_behind(text: Framebuffer) -> Framebuffer {
    Framebuffer { address: text.address + PAGE, ..text }
}

/// Makes the adapter show the page of [`page_behind`].
pub(crate) fn show_page_behind() {
    let cells = (PAGE / 2) as u16;
    for (register, byte) in START.into_iter().zip(cells.to_be_bytes()) {
        // SAFETY: an index register of VGA and its data, of an adapter that was found; it only changes which text is
        // shown.
        unsafe {
            Port::<u8>::new(CRT).write(register);
            Port::<u8>::new(CRT + 1).write(byte);
        }
    }
}

/// Turns off the adapter's own cursor. Does nothing without an adapter.
pub(crate) fn hide_cursor() {
    if let Some(start) = read(CRT, CURSOR) {
        // SAFETY: the register was just selected, and answers.
        unsafe { Port::new(CRT + 1).write(start | CURSOR_OFF) };
    }
}

/// An indexed register; `None` if the index register does not keep the index.
fn read(index: u16, register: u8) -> Option<u8> {
    // SAFETY: an index register of VGA and its data, or nothing; reading data has no effect.
    unsafe {
        let mut select = Port::<u8>::new(index);
        select.write(register);
        (select.read() == register).then(|| Port::new(index + 1).read())
    }
}
