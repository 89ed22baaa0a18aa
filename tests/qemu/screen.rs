//! The keyboard, and the screen, read from the host by pixel or character.

use ballonet_kernel::boot::{Channel, Framebuffer, PixelFormat};
use ballonet_kernel::screen::{Cell, Colour, LONGEST_LINE, Painter, Rect, ScreenLayout, Shares, Style};

use crate::image;
use crate::support::picture::{Picture, distance};
use crate::support::{Completion, Failed, MIB, Outcome, Qemu, Trial, Version, Vm, ensure, on};
use crate::trial;

/// Modes of GRUB's `gfxpayload`: each depth, and sizes up to one with doubled letters. Not 8 bits: GRUB 2.06 itself
/// crashes when it loads a multiboot2 kernel in such a mode.
const MODES: [&str; 6] = ["640x480x24", "800x600x15", "800x600x16", "1024x768x24", "1280x1024x32", "1920x1080x32"];

pub(crate) fn trials() -> Vec<Trial> {
    let newest = || Qemu::new(Version::Newest);
    let mut trials = Vec::new();
    for mode in MODES {
        trials.push(from_image(format!("framebuffer::{mode}"), newest(), mode, move |vm| shows_balloon(vm, mode)));
    }
    let old = Qemu::new(Version::V7_2);
    trials.push(from_image("framebuffer::old_qemu", old, "1024x768x32", |vm| shows_balloon(vm, "1024x768x32")));
    trials.push(from_image("framebuffer::failure_can_be_read", newest().staying(), "800x600x32", panic_on_pixels));
    trials.push(from_image("framebuffer::without_serial", newest().without_serial(), "1024x768x32", on_its_own));
    trials.push(from_image("text::by_grub", newest(), "text", shows_text));
    trials.push(Trial::ignorable_test("screen::framebuffer::by_uefi", by_uefi));
    for version in [Version::V10_0, Version::V7_2] {
        let qemu = || Qemu::new(version);
        let name = |case: &str| format!("screen::text::{version}::{case}");
        trials.push(trial(name("shows_balloon"), qemu(), shows_text));
        trials.push(trial(name("keyboard_types_commands"), qemu(), keyboard));
        let many = (1..12).fold(qemu(), |qemu, number| qemu.device(&format!("edu,id=edu{number}")));
        trials.push(trial(name("the_log_can_be_scrolled"), many, turned_over));
        trials.push(trial(name("machine_is_shown_without_a_balloon"), qemu().without_balloon(), machine));
        trials.push(trial(name("without_serial"), qemu().without_serial(), text_on_its_own));
        trials.push(trial(name("failure_can_be_read"), qemu().staying(), fault_in_text));
    }
    trials.push(trial("screen::off_leaves_it_alone", newest().command_line("log=json screen=off"), off));
    trials.push(trial("screen::absent", newest().without_screen(), absent));
    trials
}

/// A test of a machine on which GRUB has set a video mode.
fn from_image(
    name: impl AsRef<str>,
    qemu: Qemu,
    mode: &'static str,
    test: impl Fn(&mut Vm) -> Outcome + Send + Sync + 'static,
) -> Trial {
    let name = format!("screen::{}", name.as_ref());
    Trial::ignorable_test(name.clone(), move || boot(&name, qemu.clone(), mode, None, &test))
}

fn boot(
    name: &str,
    qemu: Qemu,
    mode: &str,
    firmware: Option<[std::path::PathBuf; 2]>,
    test: impl FnOnce(&mut Vm) -> Outcome,
) -> Result<Completion, Failed> {
    // This must follow the kernel's line: its header would override it.
    let menu = format!("insmod all_video\nmultiboot2 /boot/ballonet log=json\nset gfxpayload={mode}\nboot\n");
    match image::with_menu(&name.replace("::", "-"), &menu)? {
        Some(image) => on(&qemu.patience(image::PATIENCE).stick(image, firmware), test),
        None => Ok(Completion::ignored_with("the tools that make an image are not available here")),
    }
}

fn by_uefi() -> Result<Completion, Failed> {
    match image::ovmf()? {
        Some(firmware) => boot("screen-by-uefi", Qemu::new(Version::Newest), "auto", Some(firmware), |vm| {
            // The firmware also writes to the serial port, as plain text. SMBIOS is found by UEFI's tables: there is
            // none below 1 MiB.
            let firmware = vm.line_with(r#""message":"firmware: "#)?;
            ensure!(firmware.contains("(SMBIOS "), "UEFI's firmware has SMBIOS: {firmware}");
            Look::at(vm)?.expect_title()?;
            bar_follows(vm)
        }),
        None => Ok(Completion::ignored_with("UEFI firmware is not available here")),
    }
}

/// A screenshot, and a painter for the expected picture.
struct Look {
    picture: Picture,
    painter: Painter,
}

impl Look {
    fn at(vm: &mut Vm) -> Outcome<Self> {
        let picture = vm.qmp.screen()?;
        let channel = |position| Channel { position, width: 8 };
        let format = PixelFormat::Rgb([channel(16), channel(8), channel(0)]);
        let (width, height) = (picture.width as u32, picture.height as u32);
        let framebuffer = Framebuffer { address: 0, pitch: width * 4, width, height, depth: 24, format };
        let painter = Painter::new(&framebuffer).ok_or("a picture has pixels")?;
        Ok(Self { picture, painter })
    }

    fn area(&self) -> Rect {
        Rect { column: 0, row: 0, columns: self.painter.columns, rows: self.painter.rows }
    }

    /// The expected pixels of a cell, line by line.
    fn painted(&self, cell: Cell) -> Vec<Vec<[u8; 3]>> {
        let brush = self.painter.brush(cell);
        let line = |y| {
            let mut bytes = [0; LONGEST_LINE];
            let bytes = self.painter.paint(&brush, y, &mut bytes);
            bytes.chunks(3).map(|pixel| [pixel[2], pixel[1], pixel[0]]).collect()
        };
        (0..self.painter.cell_height()).map(line).collect()
    }

    /// Whether a cell looks as expected. Low colour depths are slightly off.
    fn has(&self, column: usize, row: usize, cell: Cell) -> bool {
        let painted = self.painted(cell);
        let (left, top) = (column * painted[0].len(), row * painted.len());
        painted.iter().enumerate().all(|(y, line)| {
            let matches =
                |(x, colour): (usize, &[u8; 3])| distance(self.picture.pixel(left + x, top + y), *colour) <= 16;
            line.iter().enumerate().all(matches)
        })
    }

    fn reads(&self, column: usize, row: usize, text: &str, style: Style) -> bool {
        text.chars().enumerate().all(|(index, letter)| self.has(column + index, row, Cell::of(letter, style)))
    }

    fn expect_title(&self) -> Outcome {
        let title = format!(" ballonet {}, loaded by multiboot2 ", env!("CARGO_PKG_VERSION"));
        ensure!(self.reads(0, 0, &title, Style::TITLE), "the first line should read {title:?}");
        ensure!(
            !self.reads(0, 0, &title.replace("boot", "loot"), Style::TITLE),
            "a single different letter should be detected"
        );
        Ok(())
    }

    /// The share of the bar that has the balloon's colour.
    fn ballooned(&self) -> f64 {
        let status = ScreenLayout::of(self.area()).status;
        let rows = status.row + 1..status.row + 4;
        let cells =
            rows.flat_map(|row| (status.column..status.column + status.columns).map(move |column| (column, row)));
        let cells: Vec<_> = cells.collect();
        let counts = Shares::default().parts().map(|(.., colour)| {
            let block = Cell::new(Cell::BLOCK, Style::new(colour, Colour::Black));
            cells.iter().filter(|(column, row)| self.has(*column, *row, block)).count()
        });
        counts[3] as f64 / counts.iter().sum::<usize>().max(1) as f64
    }
}

fn shows_balloon(vm: &mut Vm, mode: &str) -> Outcome {
    vm.event_where("what the screen is", |event| {
        event.text("message").is_ok_and(|message| message.starts_with("screen: "))
    })?;
    vm.event("ready")?;
    let look = Look::at(vm)?;
    let size = format!("{}x{}x", look.picture.width, look.picture.height);
    ensure!(mode.starts_with(&size), "mode {mode} was requested, but the screen has {size}");
    look.expect_title()?;
    bar_follows(vm)
}

/// The balloon's share of the bar equals its share of the memory.
fn bar_follows(vm: &mut Vm) -> Outcome {
    let memory = vm.memory;
    for target in [memory / 2, memory / 4, memory] {
        vm.balloon_to(target)?;
        let expected = (memory - target) as f64 / memory as f64;
        let mut seen = 0.0;
        vm.wait_for("the bar to follow", |vm| {
            seen = Look::at(vm)?.ballooned();
            Ok(((seen - expected).abs() < 0.03).then_some(()))
        })
        .map_err(|error| format!("{error}: {seen} of the bar, {expected} of the memory"))?;
    }
    Ok(())
}

/// Only the screen shows the kernel's progress; commands come from the keyboard.
fn on_its_own(vm: &mut Vm) -> Outcome {
    vm.wait_for("the title", |vm| Ok(Look::at(vm)?.expect_title().is_ok().then_some(())))?;
    bar_follows(vm)?;
    vm.qmp.press(&["b", "o", "shift-1"])?;
    vm.wait_for("what was typed", |vm| {
        let look = Look::at(vm)?;
        Ok(look.reads(0, look.area().rows - 1, "> bo!", Style::STRONG).then_some(()))
    })
}

fn panic_on_pixels(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.serial.type_line("fault panic")?;
    vm.event_where("panic", |event| event.name() == "panic")?;
    vm.wait_for("the report", |vm| {
        let look = Look::at(vm)?;
        let title = format!(" ballonet {} has failed", env!("CARGO_PKG_VERSION"));
        let panic = |row| look.reads(0, row, "PANIC panicked at ", Style::STRONG);
        let told = look.reads(0, 0, &title, Style::ALARM) && (2..37).any(panic);
        Ok(told.then_some(()))
    })
}

/// The text on a VGA adapter, row by row; a solid cell is `#`. It is on firmware's page or on the next one, which only
/// the kernel writes: the adapter shows the page with the kernel's title.
fn text(vm: &mut Vm) -> Outcome<Vec<String>> {
    let behind = text_at(vm, 0xB9000)?;
    if behind[0].starts_with(" ballonet ") { Ok(behind) } else { text_at(vm, 0xB8000) }
}

fn text_at(vm: &mut Vm, address: u64) -> Outcome<Vec<String>> {
    let bytes = vm.qmp.physical_memory(address, 80 * 25 * 2)?;
    let letter = |cell: &[u8]| match cell[0] {
        Cell::BLOCK => '#',
        Cell::VERTICAL => '|',
        code @ b' '..=b'~' => char::from(code),
        _ => ' ',
    };
    Ok(bytes.chunks(160).map(|row| row.chunks(2).map(letter).collect()).collect())
}

/// Waits until a row of the text starts with `words`. Returns the row.
pub(crate) fn wait_for_row(vm: &mut Vm, words: &str) -> Outcome<usize> {
    let mut seen = Vec::new();
    let row = vm.wait_for("words on the screen", |vm| {
        seen = text(vm)?;
        Ok(seen.iter().position(|row| row.starts_with(words)))
    });
    row.map_err(|error| format!("{error}: {words:?} in\n{}", seen.join("\n")).into())
}

/// Presses the keys of a command, and Enter.
pub(crate) fn press_line(vm: &mut Vm, command: &str) -> Outcome {
    let keys: Vec<_> = command.chars().map(String::from).collect();
    vm.qmp.press(&keys.iter().map(String::as_str).chain(["ret"]).collect::<Vec<_>>())
}

fn expect_text_title(vm: &mut Vm) -> Outcome {
    let row = wait_for_row(vm, &format!(" ballonet {}, loaded by ", env!("CARGO_PKG_VERSION")))?;
    ensure!(row == 0, "the title stands in row {row}");
    Ok(())
}

/// Waits until the picture beside the log shows a balloon of this size.
fn wait_for_ballooned(vm: &mut Vm, bytes: u64) -> Outcome {
    let words = format!("|  # ballooned {:>12} MiB", bytes / MIB).replace("|  ", "| ");
    let mut seen = Vec::new();
    vm.wait_for("the picture of the balloon", |vm| {
        seen = text(vm)?;
        Ok(seen.iter().any(|row| row.get(49..).is_some_and(|right| right.starts_with(&words))).then_some(()))
    })
    .map_err(|error| format!("{error}: {words:?} in\n{}", seen.join("\n")).into())
}

fn shows_text(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    expect_text_title(vm)?;
    let memory = vm.memory;
    for target in [memory / 2, memory] {
        vm.balloon_to(target)?;
        wait_for_ballooned(vm, memory - target)?;
    }
    Ok(())
}

/// Typed text appears, can be edited, and works like input from the serial line.
fn keyboard(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.qmp.press(&["i", "n", "g", "backspace", "f"])?;
    wait_for_row(vm, "> inf ")?;
    vm.qmp.press(&["o", "ret"])?;
    let answer = vm.event("console")?;
    ensure!(answer.text("text")?.starts_with("ballonet"), "`info` should answer: {answer}");
    wait_for_row(vm, "> info")?;
    vm.qmp.press(&["up", "ret"])?;
    vm.event_where("the answer to the same command", |event| {
        event.name() == "console" && event.text("text").is_ok_and(|text| text.starts_with("ballonet"))
    })?;
    vm.qmp.press(&["i", "r", "q", "ret"])?;
    let count = vm.event_where("the keyboard's interrupts", |event| {
        event.name() == "irq" && event.text("name").is_ok_and(|name| name == "keyboard")
    })?;
    ensure!(count.count("count")? >= 10, "each key interrupts: {count}");
    Ok(())
}

/// Page Up scrolls back to the first line; Page Down scrolls to the last. Typing also scrolls to the last.
fn turned_over(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    expect_text_title(vm)?;
    wait_for_row(vm, "[")?;
    let first = |seen: &[String]| seen[1].contains("ballonet") && seen[1].contains("starts, loaded by");
    ensure!(!first(&text(vm)?), "the first line should have scrolled off");
    vm.qmp.press(&["pgup"])?;
    wait_for_hint(vm)?;
    for _ in 0..8 {
        vm.qmp.press(&["pgup"])?;
    }
    let mut seen = Vec::new();
    vm.wait_for("the first line of the log", |vm| {
        seen = text(vm)?;
        Ok(first(&seen).then_some(()))
    })
    .map_err(|error| format!("{error}: in\n{}", seen.join("\n")))?;
    for _ in 0..9 {
        vm.qmp.press(&["pgdn"])?;
    }
    vm.wait_for("the end of the log", |vm| {
        seen = text(vm)?;
        Ok((!seen.iter().any(|row| row.contains("Page Down")) && !first(&seen)).then_some(()))
    })
    .map_err(|error| format!("{error}: in\n{}", seen.join("\n")))?;
    vm.qmp.press(&["pgup"])?;
    wait_for_hint(vm)?;
    vm.serial.type_line("info")?;
    wait_for_row(vm, "> info")?;
    wait_for_row(vm, "up ").map(drop)
}

fn wait_for_hint(vm: &mut Vm) -> Outcome {
    let mut seen = Vec::new();
    vm.wait_for("the hint at what follows", |vm| {
        seen = text(vm)?;
        Ok(seen[23].contains("Page Down").then_some(()))
    })
    .map_err(|error| format!("{error}: in\n{}", seen.join("\n")).into())
}

/// Without a balloon, the screen shows the machine instead, and the last log lines have what a bug report by photo
/// needs.
fn machine(vm: &mut Vm) -> Outcome {
    vm.event("no-device")?;
    let mut seen = Vec::new();
    vm.wait_for("the machine beside the log", |vm| {
        seen = text(vm)?;
        let right = |words: &str| seen.iter().any(|row| row.get(49..).is_some_and(|right| right.contains(words)));
        let left = |words: &str| seen.iter().any(|row| row.get(..49).is_some_and(|left| left.contains(words)));
        let machine = right("MACHINE") && right("QEMU Standard PC") && right("CPU") && right("FIRMWARE");
        Ok((machine && left("CPU: ") && left("machine: QEMU") && left("firmware: ")).then_some(()))
    })
    .map_err(|error| format!("{error}: in\n{}", seen.join("\n")).into())
}

/// Without a serial port the kernel boots, shows its progress, and ends on a command from the keyboard.
fn text_on_its_own(vm: &mut Vm) -> Outcome {
    expect_text_title(vm)?;
    let memory = vm.memory;
    vm.balloon_to(memory / 2)?;
    wait_for_ballooned(vm, memory / 2)?;
    vm.qmp.press(&["p", "o", "w", "e", "r", "o", "f", "f"])?;
    wait_for_row(vm, "> poweroff")?;
    // QEMU may be gone before it answers.
    let _ = vm.qmp.press(&["ret"]);
    let status = vm.end()?;
    ensure!(status.code() == Some(33), "QEMU should end with status 33: {status}");
    Ok(())
}

/// The screen shows registers, backtrace and version, and the end of the log.
fn fault_in_text(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    expect_text_title(vm)?;
    vm.serial.type_line("fault page")?;
    vm.event_where("fault", |event| event.name() == "fault")?;
    let version = env!("CARGO_PKG_VERSION");
    for words in
        [&format!(" ballonet {version} has failed"), "FAULT #PF page fault", "  rip 0x", "  rax 0x", "  backtrace"]
    {
        wait_for_row(vm, words)?;
    }
    let rows = text(vm)?;
    let fault = rows.iter().position(|row| row.starts_with("FAULT")).unwrap_or(0);
    let log = rows.iter().take(fault).filter(|row| row.starts_with('[')).count();
    ensure!(log >= 2, "what led to the fault should stand above it:\n{}", rows.join("\n"));
    Ok(())
}

fn off(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.balloon_to(vm.memory / 2)?;
    let seen = text(vm)?;
    ensure!(!seen[0].contains("ballonet"), "the screen should be unchanged:\n{}", seen.join("\n"));
    Ok(())
}

fn absent(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.balloon_to(vm.memory / 2)?;
    let told = vm.serial.all().iter().any(|line| line.text.contains("screen: "));
    ensure!(!told, "the log should not mention a screen");
    Ok(())
}
