//! The console for a person at a terminal: long commands, editing keys, and errors for mistyped words.

use std::time::Duration;

use ballonet_kernel::boot::Key;

use crate::support::event::Event;
use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let newest = || Qemu::new(Version::Newest);
    let patient = || newest().patience(Duration::from_secs(180));
    let roomy = || patient().memory(2048 * MIB);
    vec![
        trial("console::a_long_hold_blocks_nothing_and_ends_by_ctrl_c", roomy(), long_hold),
        trial("console::a_hold_that_finds_no_memory_says_where_it_is", patient(), lack),
        trial("console::commands_that_were_typed_ahead_follow_in_order", newest(), in_order),
        trial("console::tab_completes_and_help_explains_one_command", newest(), helps),
        trial("console::typos_get_a_suggestion", newest(), slips),
        trial("console::the_log_can_be_read_again_from_its_beginning", newest(), log_again),
        trial(
            "console::a_terminal_gets_the_log_page_by_page",
            newest().command_line("log=text term=ansi"),
            log_by_page,
        ),
        trial(
            "console::qemu-7.2::random_bytes_come_from_an_entropy_device",
            Qemu::new(Version::V7_2).device("virtio-rng-pci"),
            random_bytes,
        ),
        trial(
            "console::qemu-10.0::random_bytes_come_from_an_entropy_device",
            Qemu::new(Version::V10_0).device("virtio-rng-pci"),
            random_bytes,
        ),
        trial(
            "console::an_entropy_device_that_does_not_answer_is_given_up",
            newest()
                .object("rng-egd,id=egd,chardev=nobody")
                .option("-chardev", "null,id=nobody")
                .device("virtio-rng-pci,rng=egd"),
            silent_entropy,
        ),
        trial("console::without_an_entropy_device_there_are_no_random_bytes", newest(), no_entropy),
        trial(
            "console::programs_log_their_first_round_and_then_little",
            patient().command_line("log=text work=sawtooth:4M"),
            quiet_work,
        ),
    ]
}

/// Waits for a line of the answer with these words.
fn says(vm: &mut Vm, words: &str) -> Outcome<Event> {
    vm.event_where(&format!("console line with {words:?}"), |event| {
        event.name() == "console" && event.text("text").is_ok_and(|text| text.contains(words))
    })
}

/// `mem hold` with more memory than there is. Meanwhile the balloon reaches the host's target; then Ctrl-C ends the
/// hold.
fn long_hold(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    // Both requests wait until the machine continues, so speed does not matter.
    vm.qmp.stop()?;
    vm.serial.type_line("mem hold 1T")?;
    let target = vm.memory - 64 * MIB;
    vm.qmp.set_target(target)?;
    vm.qmp.cont()?;
    vm.wait_for(
        "the balloon to reach its target beside the hold",
        |vm| Ok((vm.qmp.actual()? == target).then_some(())),
    )?;
    vm.serial.type_keys("\u{3}")?;
    let held = vm.event("held")?;
    ensure!(held.text("reason").is_ok_and(|reason| reason.contains("Ctrl-C")), "Ctrl-C should stop it: {held}");
    let bytes = held.count("bytes")?;
    ensure!(bytes > 0 && bytes < target, "a part is held: {held}");
    let verified = vm.ask("mem verify", "verify")?;
    ensure!(verified.flag("ok")? && verified.count("bytes")? == bytes, "the memory held has changed: {verified}");
    vm.serial.type_line("mem release")?;
    says(vm, &format!("released {} KiB", bytes / 1024))?;
    let again = vm.ask("mem verify", "verify")?;
    ensure!(again.count("bytes")? == 0, "nothing is held: {again}");
    Ok(())
}

/// A hold that ends early says where the memory is.
fn lack(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.balloon_to(vm.memory / 2)?;
    let held = vm.ask("mem hold 1T", "held")?;
    let reason = held.text("reason")?;
    let ballooned = format!("{} MiB are with the host", vm.memory / 2 / MIB);
    ensure!(reason.contains("are in use") && reason.contains(&ballooned), "the reason names the host: {held}");
    ensure!(
        reason.contains("the host wants to keep its memory"),
        "the reason says why the balloon does not deflate: {held}"
    );
    vm.ask("mem release", "console")?;
    let held = vm.ask("mem hold 16M", "held")?;
    ensure!(held.text("reason").is_err() && held.count("bytes")? == 16 * MIB, "all of it is held: {held}");
    Ok(())
}

fn in_order(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.serial.type_keys("mem hold 32M\rmem verify\rmem release\rmem verify\rballoon\r")?;
    ensure!(vm.event("held")?.count("bytes")? == 32 * MIB, "32 MiB are held");
    ensure!(vm.event("verify")?.count("bytes")? == 32 * MIB, "32 MiB are looked at");
    says(vm, "released 32768 KiB")?;
    ensure!(vm.event("verify")?.count("bytes")? == 0, "nothing is left");
    says(vm, "are with the host").map(drop)
}

fn helps(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.serial.type_keys("inf\t\r")?;
    says(vm, "loaded by")?;
    vm.serial.type_keys("mem \t")?;
    says(vm, "hold  map  release  verify")?;
    vm.serial.type_keys("h\t16M\r")?;
    ensure!(vm.event("held")?.count("bytes")? == 16 * MIB, "16 MiB are held");
    vm.serial.type_line("help work")?;
    says(vm, "sawtooth, steady, churn or verify")?;
    vm.serial.type_line("help balloon")?;
    let next = vm.event("console")?;
    ensure!(next.text("text")?.contains("balloon"), "one command is explained, and no other: {next}");
    vm.serial.type_line("help options")?;
    Key::ALL.iter().try_for_each(|key| says(vm, &format!("  {key}=")).map(drop))
}

fn slips(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    for (slip, answer) in [
        ("balloon 200", "type `balloon 200` in QEMU's monitor (Ctrl-A C"),
        ("hlep", "did you mean `help`?"),
        ("help rebot", "did you mean `reboot`?"),
        ("frobnicate", "there is no command `frobnicate`; `help`"),
        ("mem hold lots", "`lots`"),
    ] {
        vm.serial.type_line(slip)?;
        says(vm, answer)?;
    }
    Ok(())
}

/// `log` prints each line once, and its output is not logged again.
fn log_again(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    for _ in 0..2 {
        vm.serial.type_line("log all")?;
        let first = vm.event("console")?;
        let text = first.text("text")?;
        ensure!(text.contains("ballonet") && text.contains("starts, loaded by"), "the beginning: {first}");
        for words in ["CPU: ", "machine: ", "firmware: "] {
            says(vm, words)?;
        }
        vm.serial.type_line("frobnicate")?;
        says(vm, "there is no command `frobnicate`")?;
    }
    vm.serial.type_line("log all")?;
    vm.serial.type_line("info")?;
    says(vm, "starts, loaded by")?;
    let mut starts = 1;
    loop {
        let line = vm.event("console")?;
        let text = line.text("text")?;
        if text.starts_with("command line: ") {
            break;
        }
        starts += usize::from(text.contains("starts, loaded by"));
    }
    ensure!(starts == 1, "the first line should appear once, not {starts} times");
    Ok(())
}

/// On a terminal the log pauses after a page: Space continues, q quits, and any other key starts the next command.
fn log_by_page(vm: &mut Vm) -> Outcome {
    vm.line_with("`help` lists")?;
    vm.serial.type_line("log")?;
    vm.line_with("starts, loaded by")?;
    vm.serial.type_keys("qinfo\r")?;
    vm.line_with("command line: ")?;
    let told = |vm: &Vm| vm.serial.all().iter().filter(|line| line.text.contains("] firmware: ")).count();
    ensure!(told(vm) == 1, "the first page ends before the last lines of the start");
    vm.serial.type_line("log")?;
    vm.line_with("starts, loaded by")?;
    vm.serial.type_keys(" ")?;
    vm.line_with("] firmware: ")?;
    vm.serial.type_line("acpi")?;
    vm.line_with("power button: pressed 0 times")?;
    vm.serial.type_keys("\u{c}acpi\r")?;
    vm.line_with("\u{1b}[H\u{1b}[2J").map(drop)
}

/// The answer: random bytes, as two digits each.
fn random(vm: &mut Vm, command: &str, count: u64) -> Outcome<String> {
    let answer = vm.ask(command, "random")?;
    let bytes = answer.text("bytes")?;
    let right = bytes.len() as u64 == 2 * count && bytes.bytes().all(|digit| digit.is_ascii_hexdigit());
    ensure!(right && answer.count("count")? == count, "{count} bytes: {answer}");
    Ok(bytes.to_string())
}

/// Answers differ, the device can be queried again, and the balloon beside it works.
fn random_bytes(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    let first = random(vm, "random", 16)?;
    let before = vm.ask("resources", "resources")?;
    let second = random(vm, "random", 16)?;
    ensure!(first != second, "two answers are the same: {first}");
    random(vm, "random 1", 1)?;
    let longest = random(vm, "random 64", 64)?;
    ensure!(!longest.contains(&"0".repeat(64)), "32 bytes in a row are 0: {longest}");
    let after = vm.ask("resources", "resources")?;
    for what in ["dma", "vectors", "lines", "mappings"] {
        ensure!(before.count(what)? == after.count(what)?, "{what} leak: {before}, then {after}");
    }
    for slip in ["0", "65", "-1", "many"] {
        vm.serial.type_line(&format!("random {slip}"))?;
        says(vm, &format!("invalid number of bytes `{slip}`; valid: 1 to 64"))?;
    }
    vm.balloon_to(vm.memory / 2)
}

/// The wait ends, the balloon works, and the device can be queried again.
fn silent_entropy(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    for _ in 0..2 {
        vm.serial.type_line("random")?;
        says(vm, "has not answered in 50 ms")?;
    }
    vm.balloon_to(vm.memory / 2)
}

fn no_entropy(vm: &mut Vm) -> Outcome {
    vm.event("ready")?;
    vm.serial.type_line("random")?;
    says(vm, "there is no virtio entropy device").map(drop)
}

/// Later rounds continue without a log line each.
fn quiet_work(vm: &mut Vm) -> Outcome {
    vm.line_with("that was the first round")?;
    let told = |vm: &Vm| vm.serial.all().iter().filter(|line| line.text.contains("work: sawtooth is")).count();
    let first = told(vm);
    let mut asked = 0;
    loop {
        vm.serial.type_line("work")?;
        asked += 1;
        let line = vm.line_with("work: sawtooth is")?;
        if line.contains("after 3 rounds") {
            break;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    // A slow machine may take over a minute, after which a line is due.
    let more = told(vm).saturating_sub(first + asked);
    ensure!(first >= 3 && more <= 2, "{first} lines of the first round, and {more} of the next two");
    Ok(())
}
