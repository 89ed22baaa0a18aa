//! The image for USB sticks and CDs, booted by BIOS and UEFI, and its menu.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::registers;
use crate::support::script::{printed, script};
use crate::support::{Completion, Failed, MIB, Outcome, Qemu, Trial, Version, Vm, ensure, image, on};

/// A boot by firmware and GRUB takes longer than one by QEMU alone; by UEFI some 5 s on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// The boot medium and firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Medium {
    Stick,
    Disc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Firmware {
    Bios,
    Uefi,
}

pub(crate) fn trials() -> Vec<Trial> {
    use Firmware::{Bios, Uefi};
    use Medium::{Disc, Stick};
    let qemu = |machine: &str| Qemu::new(Version::Newest).machine(machine).patience(PATIENCE);
    let mut trials = Vec::new();
    let mut add = |name: &str, qemu, menu, medium, firmware, test: fn(&mut Vm) -> Outcome| {
        trials.push(Trial::ignorable_test(format!("image::{name}"), move || boot(&qemu, menu, medium, firmware, test)));
    };
    add("bios_stick_serves", qemu("q35"), Menu::Ours, Stick, Bios, serves);
    add("bios_stick_serves_on_pc", qemu("pc"), Menu::Ours, Stick, Bios, serves);
    add("bios_disc_serves", qemu("q35"), Menu::Ours, Disc, Bios, serves);
    add("uefi_stick_serves", qemu("q35"), Menu::Ours, Stick, Uefi, serves);
    add("uefi_disc_serves", qemu("q35"), Menu::Ours, Disc, Uefi, serves);
    add("old_qemu_serves", Qemu::new(Version::V7_2).patience(PATIENCE), Menu::Ours, Stick, Bios, serves);
    add("menu_checks_the_device", qemu("q35"), Menu::Ours, Stick, Bios, checks);
    add("menu_measures_the_device", qemu("q35"), Menu::Ours, Stick, Bios, measures);
    add("menu_tells_all", qemu("q35"), Menu::Ours, Stick, Bios, tells_all);
    add("menu_names_a_cpu_without_64_bit_mode", qemu("pc").cpu("athlon"), Menu::Ours, Stick, Bios, names_an_old_cpu);
    add("first_entry_starts_by_itself", qemu("q35"), Menu::Ours, Stick, Bios, starts_by_itself);
    add("bios_stick_serves_a_bzimage", qemu("q35"), Menu::BzImage, Stick, Bios, serves_a_bzimage);
    add("bios_puts_it_elsewhere", qemu("q35"), Menu::Elsewhere, Stick, Bios, loaded_elsewhere);
    add("uefi_puts_it_elsewhere", qemu("q35"), Menu::Elsewhere, Stick, Uefi, loaded_elsewhere);
    add("uefi_puts_registers_above_4_gib", qemu("q35"), Menu::Json, Stick, Uefi, registers_above_4_gib);
    add("reset_starts_afresh", qemu("q35"), Menu::Json, Stick, Bios, reset);
    trials
}

/// Boots a machine from the image, if the programs to make it are available here.
fn boot(
    qemu: &Qemu,
    menu: Menu,
    medium: Medium,
    firmware: Firmware,
    test: fn(&mut Vm) -> Outcome,
) -> Result<Completion, Failed> {
    let missing = |what: &str| Ok(Completion::ignored_with(format!("{what} is not available here")));
    let Some(image) = menu.image()? else { return missing("what makes an image") };
    let firmware = match firmware {
        Firmware::Bios => None,
        Firmware::Uefi => match ovmf()? {
            Some(ovmf) => Some(ovmf),
            None => return missing("UEFI firmware"),
        },
    };
    let qemu = match medium {
        Medium::Stick => qemu.clone().stick(image, firmware),
        Medium::Disc => qemu.clone().disc(image, firmware),
    };
    on(&qemu, test)
}

/// GRUB's configuration, and which kernel it starts.
#[derive(Debug, Clone, Copy)]
enum Menu {
    /// The default menu.
    Ours,
    /// Boots at once, with a JSON log.
    Json,
    /// The same, with a kernel that asks not to be loaded below [`ELSEWHERE`].
    Elsewhere,
    /// The same menu as people get, with a bzImage.
    BzImage,
}

impl Menu {
    fn text(self) -> Option<&'static str> {
        match self {
            Self::Ours | Self::BzImage => None,
            Self::Json | Self::Elsewhere => Some("multiboot2 /boot/ballonet log=json\nboot\n"),
        }
    }

    /// The image with this menu, made once per test program.
    fn image(self) -> Result<Option<PathBuf>, String> {
        static IMAGES: [OnceLock<Result<Option<PathBuf>, String>>; 4] = [const { OnceLock::new() }; 4];
        IMAGES[self as usize].get_or_init(|| make(self)).clone()
    }
}

fn make(menu: Menu) -> Result<Option<PathBuf>, String> {
    let folder = folder(&format!("{menu:?}"))?;
    let mut kernel = image::kernel();
    if matches!(menu, Menu::Elsewhere) {
        kernel = elsewhere(&kernel, &folder)?;
    }
    if matches!(menu, Menu::BzImage) {
        let Some(made) = image::bzimage()? else { return Ok(None) };
        kernel = made;
    }
    make_in(&folder, &kernel, menu.text())
}

/// Makes an image with the test's own menu. No two tests use the same `name`.
pub(crate) fn with_menu(name: &str, menu: &str) -> Result<Option<PathBuf>, String> {
    make_in(&folder(name)?, &image::kernel(), Some(menu))
}

fn folder(name: &str) -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("image-{name}"));
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

/// Makes an image in a folder; `menu` replaces the default menu.
fn make_in(folder: &Path, kernel: &Path, menu: Option<&str>) -> Result<Option<PathBuf>, String> {
    let output = folder.join("ballonet.img");
    let mut command = script("image.sh");
    command.arg("--output").arg(&output).arg("--kernel").arg(kernel);
    if let Some(text) = menu {
        let path = folder.join("grub.cfg");
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        command.arg("--menu").arg(path);
    }
    Ok(printed(command, false)?.map(|_| output))
}

/// The lowest address for a kernel that must not load at its usual place.
const ELSEWHERE: u32 = 64 << 20;

/// A copy of a kernel whose multiboot2 header requests other addresses.
fn elsewhere(kernel: &Path, folder: &Path) -> Result<PathBuf, String> {
    // The relocatable tag (Multiboot2 2.0, 3.1.14): type 10, 24 bytes, and the least address.
    const TAG: [u8; 12] = [10, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0x20, 0];
    let mut bytes = fs::read(kernel).map_err(|error| format!("{}: {error}", kernel.display()))?;
    let at = bytes.windows(TAG.len()).position(|window| window == TAG).ok_or("there is no relocatable tag")?;
    bytes[at + 8..at + 12].copy_from_slice(&ELSEWHERE.to_le_bytes());
    let copy = folder.join("ballonet");
    fs::write(&copy, bytes).map_err(|error| format!("{}: {error}", copy.display()))?;
    Ok(copy)
}

pub(crate) fn ovmf() -> Result<Option<[PathBuf; 2]>, String> {
    static OVMF: OnceLock<Result<Option<[PathBuf; 2]>, String>> = OnceLock::new();
    OVMF.get_or_init(|| {
        let Some(paths) = printed(script("ovmf.sh"), true)? else { return Ok(None) };
        let (code, variables) = paths.trim_end().split_once('\n').ok_or("ovmf.sh prints two paths")?;
        Ok(Some([code.into(), variables.into()]))
    })
    .clone()
}

/// Waits for the menu and presses the key of an entry.
fn choose(vm: &mut Vm, key: &str) -> Outcome {
    // The names of the entries share a line with the menu's frame.
    vm.line_with("Use the")?;
    vm.serial.type_keys(key)
}

/// The kernel starts, the balloon follows the host, and the console answers.
fn serves(vm: &mut Vm) -> Outcome {
    serves_by(vm, "multiboot2")
}

/// GRUB's command `linux` enters a bzImage in protected mode.
fn serves_a_bzimage(vm: &mut Vm) -> Outcome {
    serves_by(vm, "the Linux boot protocol")
}

fn serves_by(vm: &mut Vm, protocol: &str) -> Outcome {
    choose(vm, "1")?;
    vm.line_with(&format!("starts, loaded by {protocol}"))?;
    let missing = vm.serial.all().into_iter().find(|line| line.text.contains("error: file"));
    ensure!(missing.is_none(), "GRUB lacks a module: {missing:?}");
    vm.line_with("ready: ")?;
    let memory = vm.memory;
    vm.balloon_to(memory / 2)?;
    vm.balloon_to(memory)?;
    vm.serial.type_line("poweroff")?;
    vm.end().map(drop)
}

fn checks(vm: &mut Vm) -> Outcome {
    choose(vm, "2")?;
    vm.line_with("TAP version 13")?;
    vm.line_with(" failed, ")?;
    vm.end().map(drop)
}

fn measures(vm: &mut Vm) -> Outcome {
    choose(vm, "3")?;
    vm.line_with("starts, loaded by multiboot2")?;
    let status = vm.end()?;
    ensure!(status.code() == Some(33), "measuring should end with success, not {status}");
    Ok(())
}

fn tells_all(vm: &mut Vm) -> Outcome {
    choose(vm, "4")?;
    vm.line_with("virtio common configuration")?;
    vm.line_with("ready: ").map(drop)
}

/// Where the kernel cannot run, the menu says so and boots nothing.
fn names_an_old_cpu(vm: &mut Vm) -> Outcome {
    vm.line_with("This CPU has no 64-bit mode")?;
    choose(vm, "0")?;
    vm.end().map(drop)
}

/// Nobody presses a key.
fn starts_by_itself(vm: &mut Vm) -> Outcome {
    vm.line_with("ready: ").map(drop)
}

/// The kernel works wherever GRUB loads it.
fn loaded_elsewhere(vm: &mut Vm) -> Outcome {
    // Firmware uses the serial port first.
    vm.line_with("starts, loaded by multiboot2")?;
    vm.event("ready")?;
    vm.serial.type_line("info")?;
    let told =
        vm.event_where("place of the image", |event| event.text("text").is_ok_and(|it| it.starts_with("image: ")))?;
    let place = told.text("text")?.trim_start_matches("image: 0x").split('-').next().unwrap_or_default();
    let place = u64::from_str_radix(place, 16)?;
    ensure!(place >= ELSEWHERE.into() && place.is_multiple_of(2 * MIB), "the image lies at {place:#x}");
    vm.ask("mem hold 64M", "held")?;
    vm.balloon_to(vm.memory / 2)?;
    let verified = vm.ask("mem verify", "verify")?;
    ensure!(verified.flag("ok")?, "memory has changed: {verified}");
    vm.balloon_to(vm.memory)
}

fn registers_above_4_gib(vm: &mut Vm) -> Outcome {
    // Firmware uses the serial port first.
    vm.line_with("starts, loaded by multiboot2")?;
    registers::works(vm, 4096 * MIB)
}

fn reset(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.balloon_to(vm.memory / 2)?;
    vm.qmp.system_reset()?;
    vm.event("ready")?;
    vm.balloon_to(vm.memory)
}
