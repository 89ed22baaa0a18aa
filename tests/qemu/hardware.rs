//! Machines that lack parts, have unusual ones, or fail: the kernel runs as far as possible.

use std::path::PathBuf;
use std::{env, fs, process};

use ballonet_kernel::screen::{GLYPH_HEIGHT, GLYPH_WIDTH, bitmap};
use serde_json::json;

use crate::support::{Completion, Event, Failed, Outcome, Qemu, Trial, Version, Vm, ensure, on};
use crate::{image, trial};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in [Version::V7_2, Version::V10_0] {
        let name = |case: &str| format!("hardware::{version}::{case}");
        let qemu = || Qemu::new(version);
        for (case, machine, source) in [
            ("q35_without_hpet", "q35,hpet=off", "measured by the PM timer"),
            // Without tables from QEMU, SeaBIOS provides its own, but not on a pc.
            ("q35_with_tables_of_the_bios", "q35,acpi=off", "measured by the PM timer"),
            ("pc_without_acpi", "pc,acpi=off", "measured by the PIT"),
            (
                "microvm_without_any_timer",
                "microvm,pcie=on,pit=off,rtc=off,pic=off",
                "no timer of known rate was found",
            ),
        ] {
            trials.push(trial(name(case), qemu().machine(machine), move |vm| serves(vm, source)));
        }
        let old = qemu().cpu("max,-mce,-mca,-pat,-mtrr,-x2apic,-pdpe1gb,-tsc-deadline,-invtsc");
        trials.push(trial(name("cpu_without_optional_features"), old, |vm| serves(vm, "measured by")));
        trials.push(trial(name("tables_of_noise"), with_nonsense(qemu()), |vm| serves(vm, "measured by")));
        trials.push(trial(name("nmi_is_reported_and_survived"), qemu(), nmi));
        trials.push(trial(name("nmi_shows_where_the_kernel_hangs"), qemu(), hang));
        trials.push(trial(name("machine_check_is_named"), qemu(), machine_check));
        for (case, cpu, reason) in [
            ("without_64_bit_mode", "athlon", "has no 64-bit mode (x86-64)"),
            ("of_32_bits", "qemu32", "has no 64-bit mode (x86-64)"),
            ("without_pae", "max,-pae", "lacks PAE"),
            ("without_sse2", "max,-sse2", "lacks SSE2"),
        ] {
            let ends = qemu().cpu(cpu);
            trials.push(trial(name(&format!("cpu_{case}")), ends, move |vm| refuses(vm, reason)));
        }
        let stays = qemu().cpu("athlon").without_debug_exit();
        trials.push(trial(name("cpu_without_64_bit_mode_is_reported_on_the_screen"), stays, refuses_in_text));
        let deaf = qemu().cpu("max,-apic,-x2apic");
        trials.push(trial(name("cpu_without_apic"), deaf, without_apic));
    }
    trials.push(Trial::ignorable_test(
        "hardware::cpu_without_64_bit_mode_is_reported_on_a_framebuffer",
        on_a_framebuffer,
    ));
    // The newer QEMU's firmware sets the MTRRs.
    let bare = Qemu::new(Version::V7_2).machine("microvm,pcie=on").cpu("max,-hypervisor");
    trials.push(trial("hardware::qemu-7.2::uncached_memory_is_reported", bare, uncached));
    trials.push(trial("hardware::pc_without_balloon_shows_itself_and_waits", like_a_pc(), shows_itself));
    trials.push(trial("hardware::only_what_is_driven_masters_the_bus", like_a_pc().balloon(""), bus_masters));
    trials
}

/// The available timers calibrate the clock, and the balloon follows.
fn serves(vm: &mut Vm, source: &str) -> Outcome {
    vm.event_where(&format!("a clock that is {source}"), |event| {
        event.name() == "log"
            && event.text("message").is_ok_and(|text| text.contains("TSC at") && text.contains(source))
    })?;
    vm.event("ready")?;
    vm.balloon_to(vm.memory / 2)?;
    vm.balloon_to(vm.memory)
}

/// On a CPU that cannot run it, the kernel says so, and QEMU ends with failure.
fn refuses(vm: &mut Vm, reason: &str) -> Outcome {
    let line = vm.line_with("cannot run on this CPU")?;
    ensure!(line == format!("ballonet cannot run on this CPU: it {reason}."), "the reason should be told: {line:?}");
    let status = vm.end()?;
    ensure!(status.code() == Some(35), "QEMU should end with status 35: {status}");
    Ok(())
}

/// The same where nothing ends QEMU: the machine halts, and its screen says why.
fn refuses_in_text(vm: &mut Vm) -> Outcome {
    vm.line_with("cannot run on this CPU")?;
    vm.line_with("can be turned off")?;
    let mut rows = vm.qmp.physical_memory(0xB8000, 80 * 4 * 2)?;
    rows = rows.into_iter().step_by(2).collect();
    let rows = String::from_utf8_lossy(&rows).into_owned();
    let told = rows.contains("ballonet cannot run on this CPU: it has no 64-bit mode (x86-64).");
    ensure!(told, "the screen should say why: {rows:?}");
    ensure!(rows.contains("Nothing else happens; the machine can be turned off."), "and what then: {rows:?}");
    Ok(())
}

/// GRUB has set a graphics mode.
fn on_a_framebuffer() -> Result<Completion, Failed> {
    const WIDTH: usize = 1024;
    let menu = format!("insmod all_video\nmultiboot2 /boot/ballonet log=json\nset gfxpayload={WIDTH}x768x32\nboot\n");
    let Some(image) = image::with_menu("hardware-old-cpu", &menu)? else {
        return Ok(Completion::ignored_with("the tools that make an image are not available here"));
    };
    let qemu = Qemu::new(Version::Newest).cpu("athlon").without_debug_exit();
    on(&qemu.patience(image::PATIENCE).stick(image, None), |vm| {
        vm.line_with("cannot run on this CPU")?;
        vm.line_with("can be turned off")?;
        let picture = vm.qmp.screen()?;
        ensure!(picture.width == WIDTH, "GRUB's mode should be kept: {} pixels wide", picture.width);
        let words = "ballonet cannot run on this CPU: it has no 64-bit mode (x86-64).";
        for (column, letter) in words.bytes().enumerate() {
            let bitmap = bitmap(letter);
            for (x, y) in (0..GLYPH_HEIGHT).flat_map(|y| (0..GLYPH_WIDTH).map(move |x| (x, y))) {
                let is_set = bitmap[y] & 0x80 >> x != 0;
                // An empty line comes first.
                let pixel = picture.pixel(GLYPH_WIDTH * column + x, GLYPH_HEIGHT + y);
                let expected = if is_set { [255; 3] } else { [0; 3] };
                ensure!(pixel == expected, "{:?} at column {column}, pixel {x}, {y}", char::from(letter));
            }
        }
        Ok(())
    })
}

/// Without a local APIC no interrupt can arrive: the panic says so.
fn without_apic(vm: &mut Vm) -> Outcome {
    let panic = vm.line_with(r#""event":"panic""#)?;
    ensure!(panic.contains("local APIC: this CPU has none"), "the reason should be told: {panic}");
    let status = vm.end()?;
    ensure!(status.code() == Some(35), "QEMU should end with status 35: {status}");
    Ok(())
}

/// This microvm's firmware leaves the MTRRs off: without a hypervisor, the machine would be very slow.
fn uncached(vm: &mut Vm) -> Outcome {
    vm.event_where("a warning of uncached memory", |event| {
        event.name() == "log"
            && event.text("level").is_ok_and(|level| level == "warning")
            && event.text("message").is_ok_and(|text| text.contains("is uncached from 0x100000 on"))
    })?;
    vm.event("ready")?;
    vm.balloon_to(vm.memory / 2)
}

/// Random tables beside firmware's: QEMU gives each a header with valid length and checksum.
fn with_nonsense(qemu: Qemu) -> Qemu {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("nonsense");
    // The random bytes include names that scans look for, lengths that leave the table, and loops.
    let mut noise = b"\x08_S5_\x12\xff\xff_S5_\x08_S5_\x12\x06\x04\x0c\xff".repeat(20);
    noise.extend((0..=255).chain((0..=255).rev()).cycle().take(5000));
    // The same in every run. Renamed into place, so that a concurrent reader sees the whole file.
    let new = path.with_extension(process::id().to_string());
    let written = fs::write(&new, noise).and_then(|()| fs::rename(&new, &path));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    ["SSDT", "APIC", "FACP", "MCFG", "HPET", "XXXX"]
        .into_iter()
        .fold(qemu, |qemu, signature| qemu.option("-acpitable", &format!("sig={signature},data={}", path.display())))
}

/// An NMI without a known cause is reported, and so is the next one.
fn nmi(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    for count in 1..=3 {
        vm.qmp.inject_nmi()?;
        let told = vm.event("nmi")?;
        ensure!(told.count("count")? == count, "{count} have come: {told}");
        vm.ask("info", "console")?;
    }
    vm.balloon_to(vm.memory / 2)
}

/// A second NMI before the main loop has reported the first means that the kernel hangs; the report shows where.
fn hang(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.serial.type_line("fault hang")?;
    // Two NMIs at once count as one, so send them until the fault is reported.
    vm.wait_for("the kernel to be shown", |vm| {
        let shown = |line: &str| line.contains(r#""event":"fault""#);
        if vm.serial.all().iter().any(|line| shown(&line.text)) {
            return Ok(Some(()));
        }
        // QEMU may have ended meanwhile.
        let _ = vm.qmp.inject_nmi();
        std::thread::sleep(std::time::Duration::from_millis(50));
        Ok(None)
    })
    .or_else(|failure| if vm.end().is_ok() { Ok(()) } else { Err(failure) })?;
    let fault = vm.event("fault")?;
    ensure!(fault.count("vector")? == 2, "an NMI should be reported: {fault}");
    ensure!(fault.get("backtrace").is_some(), "the way there should be shown: {fault}");
    let status = vm.end()?;
    ensure!(status.code() == Some(35), "QEMU should end with status 35: {status}");
    Ok(())
}

/// Valid, uncorrected, enabled, with an address, context corrupt, and an error code of a cache.
const STATUS: u64 = 0xB600_0000_0000_0135;

fn machine_check(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    let complaint = vm.qmp.monitor(&format!("mce 0 4 {STATUS:#x} 0x5 0x12345000 0x8c"))?;
    ensure!(complaint.trim().is_empty(), "QEMU should raise a machine check: {complaint}");
    let cause = vm.event("cause")?;
    let told = cause.text("message")?;
    ensure!(
        told.starts_with("bank 4: uncorrected error in a cache at 0x12345000, after which"),
        "the bank should be named: {cause}"
    );
    let fault = vm.event("fault")?;
    ensure!(fault.count("vector")? == 18, "a machine check should be reported: {fault}");
    let status = vm.end()?;
    ensure!(status.code() == Some(35), "QEMU should end with status 35: {status}");
    Ok(())
}

/// A machine with a PC's devices, without a balloon, but with a slot for one.
fn like_a_pc() -> Qemu {
    let qemu = Qemu::new(Version::Newest).without_balloon().global("ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off");
    let devices = ["pcie-root-port,id=port0,chassis=1,slot=1", "e1000e", "qemu-xhci", "intel-hda", "nec-usb-xhci"];
    devices.into_iter().fold(qemu, Qemu::device).command_line("log=json hotplug=prompt")
}

/// The console shows PCI, ACPI, CPU and memory; a hot-plugged balloon works.
fn shows_itself(vm: &mut Vm) -> Outcome {
    let told = vm.event("no-device")?;
    ensure!(told.text("message")?.contains("`pci`, `acpi`, `info` and `mem`"), "the commands should be listed: {told}");
    for (command, expected) in [
        ("pci", "82574L"),
        ("acpi", "FACP"),
        ("acpi", "1 CPU, 1 IOAPIC"),
        ("acpi", "reset by writing 0xf to I/O 0xcf9"),
        ("info", "CPU: "),
        ("info", "MACHINE: QEMU "),
        ("info", "FIRMWARE: "),
        ("info", "TSC: "),
        ("mem", "ballooned"),
    ] {
        vm.serial.type_line(command)?;
        vm.event_where(&format!("`{command}` to show {expected:?}"), |event| says(event, expected))?;
    }
    vm.qmp.device_add(&json!({ "driver": "virtio-balloon-pci", "id": "balloon0", "bus": "port0" }))?;
    vm.event("ready")?;
    vm.balloon_to(vm.memory / 2)
}

fn says(event: &Event, words: &str) -> bool {
    event.name() == "console" && event.text("text").is_ok_and(|text| text.contains(words))
}

/// Only the balloon and its upstream ports may master the bus; other devices stay as firmware left them.
fn bus_masters(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.serial.type_line("pci -v")?;
    vm.ask("info", "console")?;
    vm.event_where("the end of `info`", |event| says(event, "up "))?;
    let lines = vm.serial.all();
    let texts = lines.iter().filter_map(|line| Event::parse(&line.text).ok()).filter(|event| event.name() == "console");
    let texts: Vec<_> = texts.filter_map(|event| event.text("text").map(str::to_owned).ok()).collect();
    let mut function = "";
    let mut masters = Vec::new();
    for text in &texts {
        if text.contains("may master the bus") {
            masters.push(function);
        } else if !text.starts_with(' ') {
            function = text;
        }
    }
    ensure!(masters.iter().any(|name| name.contains("balloon")), "the balloon should master the bus: {masters:?}");
    for other in ["82574L", "Audio", "[0c03]"] {
        ensure!(texts.iter().any(|text| text.contains(other)), "{other} should be listed: {texts:?}");
    }
    for other in ["82574L", "Audio"] {
        ensure!(!masters.iter().any(|name| name.contains(other)), "{other} has no driver: {masters:?}");
    }
    Ok(())
}
