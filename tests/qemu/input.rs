//! Serial ports and keyboards: a line without a reader, ports and interrupts in unusual places, and machines without
//! input.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, process};

use crate::screen::{press_line, wait_for_row};
use crate::support::{Completion, Failed, Outcome, Qemu, Trial, Version, Vm, ensure, on};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in [Version::V7_2, Version::V10_0] {
        let name = |case: &str| format!("input::{version}::{case}");
        let new = move || Qemu::new(version);
        trials.push(on_socket(name("unread_line_blocks_nothing"), move || new().command_line("verbose=on"), unread));
        for (case, machine, base, irq) in [
            ("com1_with_irq_5", "q35", 0x3F8, 5),
            ("com1_with_irq_10", "pc", 0x3F8, 10),
            ("com2", "q35", 0x2F8, 3),
            ("com4", "q35", 0x2E8, 11),
            // The kernel does not try this interrupt: it polls the port.
            ("com1_with_irq_15", "q35", 0x3F8, 15),
        ] {
            let make = move || {
                new()
                    .machine(machine)
                    .without_serial()
                    .device(&format!("isa-serial,chardev=line,iobase={base:#x},irq={irq}"))
                    .option("-chardev", "stdio,id=line")
            };
            trials.push(trial(name(case), make(), move |vm| types(vm, irq)));
        }
        for (signature, revision) in [("SPCR", 2), ("DBG2", 0)] {
            let dead = new().without_serial().option("-chardev", "null,id=dead").option("-chardev", "stdio,id=line");
            let two = ["dead,iobase=0x3f8,irq=4", "line,iobase=0x2f8,irq=3"]
                .into_iter()
                .fold(dead, |qemu, port| qemu.device(&format!("isa-serial,chardev={port}")));
            let path = table(version, signature);
            let named = two.option("-acpitable", &format!("sig={signature},rev={revision},data={}", path.display()));
            let name = name(&format!("port_that_{}_names", signature.to_lowercase()));
            trials.push(trial(name, named, move |vm| at_named_port(vm, signature)));
        }
        let keyless = new().machine("q35,i8042=off").without_serial().command_line("");
        trials.push(trial(name("nobody_can_type"), keyless, nobody));
        trials.push(trial(name("no_keyboard_beside_a_serial_line"), new().machine("q35,i8042=off"), serial_only));
        let bare = new().machine("pc,acpi=off").without_serial();
        trials.push(trial(name("keyboard_without_an_interrupt"), bare, looked_at));
    }
    trials
}

/// A test of a machine whose serial port is a socket that the test may leave unread.
fn on_socket(
    name: String,
    qemu: impl Fn() -> Qemu + Send + Sync + 'static,
    test: impl Fn(&mut Vm, UnixStream) -> Outcome + Send + Sync + 'static,
) -> Trial {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    Trial::ignorable_test(name, move || -> Result<Completion, Failed> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("ballonet-{}-line-{number}", process::id()));
        let socket = Socket(path.clone());
        let qemu = qemu()
            .without_serial()
            .option("-chardev", &format!("socket,id=line,path={},server=on,wait=off", path.display()))
            .device("isa-serial,chardev=line,iobase=0x3f8,irq=4");
        let outcome = on(&qemu, |vm| {
            let stream = UnixStream::connect(&path)?;
            test(vm, stream)
        });
        drop(socket);
        outcome
    })
}

/// A socket's path, removed on drop.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// How long the test waits for the kernel's output.
const PATIENCE: Duration = Duration::from_secs(60);

/// The balloon works while the line has no reader; a returning reader is told how much was lost.
fn unread(vm: &mut Vm, mut line: UnixStream) -> Outcome {
    line.set_nonblocking(true)?;
    let memory = vm.memory;
    // The main loop serves console and balloon in turn: a kernel that waits for the line is late with both.
    for target in [memory / 2, memory, memory / 2] {
        for _ in 0..40 {
            type_line(&mut line, "help")?;
        }
        vm.balloon_to(target)?;
    }
    let mut seen = String::new();
    let end = Instant::now() + PATIENCE;
    let lost = loop {
        ensure!(Instant::now() < end, "a reader that returns should learn how many lines were lost: {seen}");
        read_some(&mut line, &mut seen)?;
        if let Some((before, _)) = seen.split_once(" lines lost: the reader had stopped\r\n") {
            break before.rsplit(' ').next().unwrap_or_default().to_owned();
        }
    };
    ensure!(lost.parse::<u64>().is_ok_and(|lost| lost > 100), "{lost} lines were lost of 100 lists of commands");
    // From here on nothing is lost.
    type_line(&mut line, "frobnicate")?;
    while !seen.contains("there is no command `frobnicate`") {
        ensure!(Instant::now() < end, "a command should be answered again: {seen}");
        read_some(&mut line, &mut seen)?;
    }
    Ok(())
}

/// Types a line, as far as the socket accepts it.
fn type_line(line: &mut UnixStream, command: &str) -> Outcome {
    match line.write_all(format!("{command}\r").as_bytes()) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error.into()),
        _ => Ok(()),
    }
}

fn read_some(line: &mut UnixStream, seen: &mut String) -> Outcome {
    let mut bytes = [0; 4096];
    match line.read(&mut bytes) {
        Ok(count) => seen.push_str(&String::from_utf8_lossy(&bytes[..count])),
        Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(2)),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// The port carries the log and takes commands, whatever its address.
fn types(vm: &mut Vm, irq: u64) -> Outcome {
    let how = vm.event_where("how the port interrupts", |event| {
        event.text("message").is_ok_and(|message| message.starts_with("serial port at "))
    })?;
    let how = how.text("message")?.to_owned();
    if irq == 15 {
        ensure!(how.contains("its interrupt does not arrive, so it is polled"), "it cannot interrupt: {how}");
    } else {
        ensure!(how.contains(&format!("interrupts by GSI {irq} ")), "it interrupts by line {irq}: {how}");
    }
    vm.event("ready")?;
    for _ in 0..3 {
        vm.ask("info", "console")?;
    }
    vm.balloon_to(vm.memory / 2)
}

/// The body of a table that names COM2, in a file for QEMU, which gives it a header.
fn table(version: Version, signature: &str) -> PathBuf {
    let register = [1, 8, 0, 1, 0xF8, 0x02, 0, 0, 0, 0, 0, 0];
    let body = match signature {
        // A full 16550, ISA interrupt 3, 115200 baud.
        "SPCR" => [&[0; 4][..], &register, &[1, 3, 0, 0, 0, 0], &[7, 0, 1, 0, 3, 0], &[0xFF; 4], &[0; 12]].concat(),
        // One device, right behind this; of 38 bytes, one register and a name; a serial port, a full 16550.
        _ => [
            &[44, 0, 0, 0, 1, 0, 0, 0][..],
            &[0, 38, 0, 1, 2, 0, 36, 0, 0, 0, 0, 0, 0x00, 0x80, 0, 0, 0, 0, 22, 0, 34, 0],
            &register,
            b"\0\0.\0",
        ]
        .concat(),
    };
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{signature}-{version}-{}", process::id()));
    fs::write(&path, body).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// Although there is a COM1, the log uses the port that firmware's table names, from the first line on.
fn at_named_port(vm: &mut Vm, signature: &str) -> Outcome {
    vm.event_where("the first line", |event| {
        event.text("message").is_ok_and(|message| message.contains(" starts, loaded by "))
    })?;
    let named = format!("serial port: I/O 0x2f8, as {signature} says");
    vm.event_where("why this port", |event| event.text("message").is_ok_and(|message| message == named))?;
    types(vm, 3)
}

/// The screen says what the user can do, and has no prompt.
fn nobody(vm: &mut Vm) -> Outcome {
    let row = wait_for_row(vm, "no keyboard can be used (USB is not driven): the power button switches off")?;
    ensure!(row == 24, "it stands where the prompt would, not in row {row}");
    vm.balloon_to(vm.memory / 2)?;
    // QEMU may be gone before it answers.
    let _ = vm.qmp.system_powerdown();
    let status = vm.end()?;
    ensure!(status.code() == Some(33), "QEMU should end with status 33: {status}");
    Ok(())
}

fn serial_only(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.event_where("where commands are typed", |event| {
        event.text("message").is_ok_and(|message| message.starts_with("commands are typed on the serial line"))
    })?;
    wait_for_row(vm, "> ")?;
    vm.ask("info", "console").map(drop)
}

/// A keyboard whose interrupt never arrives still works.
fn looked_at(vm: &mut Vm) -> Outcome {
    wait_for_row(vm, "> ")?;
    press_line(vm, "mem")?;
    wait_for_row(vm, "> mem")?;
    vm.balloon_to(vm.memory / 2)?;
    // QEMU may be gone before it answers.
    let _ = press_line(vm, "poweroff");
    let status = vm.end()?;
    ensure!(status.code() == Some(33), "QEMU should end with status 33: {status}");
    Ok(())
}
