//! Runs the documents' commands, and plays and compares their sessions.
//!
//! The info string of a fenced block gives its kind:
//!
//! | | |
//! |---|---|
//! | `sh` | commands to type in the project's folder. Each runs here, unless its comment begins with `needs` (a requirement) or `takes` (a duration); then only its program and options are checked |
//! | `console` | a session: `$` starts a command (`cargo run` if there is none), `>` a line typed at the kernel's console, `(qemu)` one typed at QEMU's monitor; the rest are answers. `...` stands for omitted lines. The session is played here, and the answers are compared, except for numbers and their units |
//! | `text` | a picture, or output that is not compared |
//! | `json`, `toml` | what it says |
//! | `rust,no_run` | compiled as a documentation test |
//! | `rust,ignore` | a sketch |
//!
//! A script stands in for `cargo`: it makes `run.sh` start the kernel built for the tests, for release builds too.
//! For commands with `mode=`, only the command line is composed and its arguments are parsed.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(clippy::std_instead_of_core, clippy::alloc_instead_of_core, reason = "this program has a standard library")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use ballonet_kernel::boot::KernelOptions;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const DOCUMENTS: &[&str] =
    &["README.md", "ARCHITECTURE.md", "crates/ballonet/README.md", "fuzz/README.md", "deploy/README.md"];

const KINDS: &[&str] = &["sh", "console", "text", "json", "toml", "rust,no_run", "rust,ignore"];

/// The limit for a command or an answer, in seconds; QEMU interprets, and the machine may be busy.
const PATIENCE: u64 = 180;

/// A script's exit status if something is not available on this system.
const UNAVAILABLE: i32 = 3;

/// A fenced block of a document.
struct Block {
    /// Document and line.
    place: String,
    kind: String,
    lines: Vec<String>,
}

fn blocks_of(document: &str, text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), open) {
            (Some(kind), false) => {
                let place = format!("{document}:{}", number + 1);
                blocks.push(Block { place, kind: kind.into(), lines: Vec::new() });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => blocks.last_mut().unwrap().lines.push(line.into()),
            (None, false) => {}
        }
    }
    blocks
}

fn blocks() -> Vec<Block> {
    let docs = fs::read_dir(Path::new(ROOT).join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let docs = docs.filter(|path| path.extension().is_some_and(|it| it == "md"));
    let mut paths: Vec<PathBuf> = DOCUMENTS.iter().map(|name| Path::new(ROOT).join(name)).chain(docs).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        blocks_of(path.strip_prefix(ROOT).unwrap().to_str().unwrap(), &fs::read_to_string(path).unwrap())
    };
    paths.iter().flat_map(read).collect()
}

/// Joins lines that end in a backslash.
fn joined<'a>(lines: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut whole: Vec<String> = Vec::new();
    let mut continues = false;
    for line in lines {
        if continues {
            let last = whole.last_mut().unwrap();
            last.pop();
            last.push_str(line.trim_start());
        } else {
            whole.push(line.clone());
        }
        continues = line.ends_with('\\');
    }
    whole
}

/// Splits a command from the comment behind it.
fn split_comment(line: &str) -> (&str, &str) {
    line.split_once(" # ").map_or((line, ""), |(command, comment)| (command.trim_end(), comment.trim()))
}

/// Whether a comment gives a reason not to run its command.
fn excuses(comment: &str) -> bool {
    ["needs ", "takes "].iter().any(|word| comment.starts_with(word))
}

/// A folder with the fake `cargo` of these tests and its output.
struct Desk(PathBuf);

impl Desk {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("snippets-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let script = format!(
            r#"#!/usr/bin/env bash
set -euo pipefail
unknown() {{ echo "cargo: what is $*?" >&2; exit 101; }}
case ${{1-}} in
  run)
    shift
    while [[ $# -gt 0 && $1 != -- ]]; do [[ $1 == --release ]] || unknown "run $1"; shift; done
    [[ $# -eq 0 ]] || shift
    echo "$*" >'{folder}/arguments'
    export QEMU_ARGS="${{QEMU_ARGS-}} ${{MORE_QEMU_ARGS-}}"
    exec '{ROOT}/run.sh' '{kernel}' "$@"
    ;;
  build)
    mkdir -p "$CARGO_TARGET_DIR/release"
    cp '{kernel}' "$CARGO_TARGET_DIR/release/ballonet"
    ;;
  test)
    while [[ $# -gt 0 ]]; do
      case $1 in
        --test) [[ -e '{ROOT}'/tests/$2.rs || -e '{ROOT}'/tests/$2/main.rs ]] || unknown "test $2"; shift ;;
        *::) [[ -e '{ROOT}'/tests/qemu/${{1%%::*}}.rs ]] || unknown "test $1" ;;
      esac
      shift
    done
    ;;
  *) unknown "$@" ;;
esac
"#,
            folder = folder.display(),
            kernel = env!("CARGO_BIN_EXE_ballonet"),
        );
        let cargo = folder.join("cargo");
        fs::write(&cargo, script).unwrap();
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    /// A shell command with a time limit, in the project's folder, with the fake `cargo`.
    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("timeout");
        shell.args(["--kill-after=10", &PATIENCE.to_string(), "bash", "-euo", "pipefail", "-c", command]);
        for name in ["MACHINE", "MEMORY", "CPUS", "CPU", "ACCEL", "BALLOON", "QMP", "QEMU", "QEMU_ARGS", "DRY_RUN"] {
            shell.env_remove(name);
        }
        let path = std::env::var("PATH").unwrap();
        shell
            .current_dir(ROOT)
            .env("PATH", format!("{}:{path}", self.0.display()))
            .env("CARGO_TARGET_DIR", self.0.join("target"));
        shell
    }

    /// The kernel's warnings about the arguments of the last `cargo run`.
    fn complaints(&self) -> Vec<String> {
        let Ok(line) = fs::read_to_string(self.0.join("arguments")) else { return Vec::new() };
        let mut complaints = Vec::new();
        KernelOptions::parse(line.trim().as_bytes(), &mut |warning| complaints.push(warning.to_string()));
        complaints
    }
}

/// Runs a command; if it starts a kernel, `poweroff` ends it. Returns the failure.
fn run(desk: &Desk, command: &str) -> Option<String> {
    let _ = fs::remove_file(desk.0.join("arguments"));
    let mut shell = desk.shell(command);
    if command.contains("mode=") {
        shell.env("DRY_RUN", "1");
    }
    // Input may be lost before the kernel has a serial port.
    let typed = desk.0.join("typed");
    fs::write(&typed, "\n\npoweroff\n").unwrap();
    let output = shell.stdin(fs::File::open(typed).unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Some(desk.complaints().join("; ")).filter(|complaints| !complaints.is_empty()),
        Some(UNAVAILABLE) => {
            eprintln!("skipped, not available here: {command}: {said}");
            None
        }
        status => Some(format!("status {status:?}: {said}")),
    }
}

/// Checks a command without running it. Returns the failure.
fn look_at(desk: &Desk, command: &str) -> Option<String> {
    if !desk.shell(&format!("bash -n <<'END'\n{command}\nEND")).status().unwrap().success() {
        return Some("the shell does not understand it".into());
    }
    let words: Vec<&str> = command.split_whitespace().collect();
    let script = words.iter().position(|word| word.starts_with("scripts/") || *word == "./run.sh")?;
    let (program, options) = match words[script..] {
        [run, part @ ("image" | "flash" | "bzimage"), ref options @ ..] => (format!("{run} {part}"), options),
        [program, ref options @ ..] => (program.into(), options),
        [] => return None,
    };
    let help = desk.shell(&format!("{program} --help")).output().unwrap();
    if !help.status.success() {
        return Some(format!("{program} has no help"));
    }
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let unknown = options.iter().find(|option| option.starts_with("--") && !help.contains(**option));
    unknown.map(|option| format!("{program} has no {option}"))
}

#[test]
fn every_block_says_what_it_is() {
    let blocks = blocks();
    assert!(blocks.len() > 25, "only {} blocks were found", blocks.len());
    let mut wrong: Vec<String> = Vec::new();
    for Block { place, kind, lines } in &blocks {
        if !KINDS.contains(&kind.as_str()) {
            wrong.push(format!("{place}: there is no kind `{kind}`; there are {KINDS:?}"));
        }
        let is_session = |line: &String| ["$ ", "> ", "(qemu) "].iter().any(|prompt| line.starts_with(prompt));
        if kind != "console" && lines.iter().any(is_session) {
            wrong.push(format!("{place}: a session is of the kind `console`"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_command_works() {
    let desk = Desk::new("commands");
    let newest = desk.shell("scripts/qemu.sh 10.0").output().unwrap().status.success();
    let mut wrong = Vec::new();
    let mut ran = 0;
    for Block { place, lines, .. } in blocks().iter().filter(|block| block.kind == "sh") {
        for line in joined(lines) {
            let (command, comment) = split_comment(&line);
            let trouble = if excuses(comment) || (command.contains("qemu.sh 10.0") && !newest) {
                look_at(&desk, command)
            } else {
                ran += 1;
                run(&desk, command)
            };
            wrong.extend(trouble.map(|trouble| format!("{place}: {command}: {trouble}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ran > 12, "only {ran} commands were run");
}

/// A line without what differs between runs: numbers, units, and column widths.
fn shape(line: &str) -> String {
    let is_number = |word: &str| {
        word.contains(|c: char| c.is_ascii_digit()) && word.chars().all(|c| c.is_ascii_hexdigit() || "x.".contains(c))
    };
    let mut shape = String::new();
    for word in line.split_whitespace() {
        for part in word.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || "._".contains(c))) {
            let (text, end) = match part.char_indices().next_back() {
                Some((at, last)) if !(last.is_ascii_alphanumeric() || "._".contains(last)) => part.split_at(at),
                _ => (part, ""),
            };
            let text = match text {
                number if is_number(number) => "#",
                "KiB" | "MiB" | "GiB" => "B",
                "ms" | "s" => "s",
                other => other,
            };
            shape.push_str(text);
            shape.push_str(end);
        }
        shape.push(' ');
    }
    shape
}

/// The monitor's output up to its next prompt.
fn until_prompt(socket: &mut UnixStream) -> std::io::Result<String> {
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(b"\n(qemu) ") {
        socket.read_exact(&mut byte)?;
        said.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// A session with a kernel in QEMU.
struct Session {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    /// Number of lines of `seen` already compared.
    compared: usize,
    monitor: PathBuf,
}

impl Session {
    fn start(desk: &Desk, command: &str) -> Self {
        // The path of a socket must be short.
        let monitor = std::env::temp_dir().join(format!("ballonet-{}.monitor", std::process::id()));
        let mut child = desk
            .shell(command)
            .env("MORE_QEMU_ARGS", format!("-monitor unix:{},server=on,wait=off", monitor.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, seen: Vec::new(), compared: 0, monitor }
    }

    /// The index of the first line from `from` on that `wanted` accepts; `what` names it.
    fn find(&mut self, from: usize, what: &str, wanted: impl Fn(&str) -> bool) -> Result<usize, String> {
        let deadline = Instant::now() + Duration::from_secs(PATIENCE);
        let mut at = from;
        loop {
            while at == self.seen.len() {
                let left = deadline.saturating_duration_since(Instant::now());
                let line = self.lines.recv_timeout(left);
                let line = line.map_err(|_| format!("no line is {what}, after:\n{}", self.seen[from..].join("\n")))?;
                self.seen.push(line);
            }
            if wanted(&self.seen[at]) {
                return Ok(at);
            }
            at += 1;
        }
    }

    fn expect(&mut self, line: &str) -> Result<(), String> {
        let wanted = shape(line);
        let at = self.find(self.compared, &format!("{line:?} ({wanted:?})"), |line| shape(line) == wanted)?;
        self.compared = at + 1;
        Ok(())
    }

    /// Waits for the console: input before that is lost.
    fn await_console(&mut self) -> Result<(), String> {
        self.find(0, "the console's", |line| line.contains("`help` lists")).map(drop)
    }

    fn type_line(&mut self, line: &str) -> Result<(), String> {
        self.await_console()?;
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").map_err(|error| format!("{line}: {error}"))
    }

    fn ask_monitor(&mut self, line: &str) -> Result<(), String> {
        self.await_console()?;
        let talk = || {
            let mut socket = UnixStream::connect(&self.monitor)?;
            socket.set_read_timeout(Some(Duration::from_secs(PATIENCE)))?;
            until_prompt(&mut socket)?;
            socket.write_all(format!("{line}\n").as_bytes())?;
            until_prompt(&mut socket)
        };
        let answer = talk().map_err(|error| format!("(qemu) {line}: {error}"))?;
        if answer.contains("rror") || answer.contains("unknown command") {
            Err(format!("(qemu) {line}: {answer}"))
        } else {
            Ok(())
        }
    }

    /// Powers the machine off.
    fn end(mut self) -> Result<(), String> {
        self.type_line("poweroff")?;
        // `timeout` limits the wait.
        let status = self.child.wait().map_err(|error| error.to_string())?;
        let _ = fs::remove_file(&self.monitor);
        if status.success() { Ok(()) } else { Err(format!("{status}, after:\n{}", self.seen.join("\n"))) }
    }
}

fn hold(desk: &Desk, block: &Block) -> Result<(), String> {
    let lines = joined(&block.lines);
    let command = lines.iter().find_map(|line| line.strip_prefix("$ ")).unwrap_or("cargo run");
    let mut session = Session::start(desk, command);
    for line in &lines {
        if line.starts_with("$ ") || line == "..." {
        } else if let Some(typed) = line.strip_prefix("> ") {
            session.type_line(typed)?;
        } else if let Some(typed) = line.strip_prefix("(qemu) ") {
            session.ask_monitor(typed)?;
        } else {
            session.expect(line)?;
        }
    }
    session.end()?;
    let complaints = desk.complaints();
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("; ")) }
}

#[test]
fn every_session_matches() {
    let desk = Desk::new("sessions");
    // The sessions come from the QEMU of Debian 12.
    let qemu = desk.shell("scripts/qemu.sh 7.2").output().unwrap();
    if qemu.status.code() == Some(UNAVAILABLE) {
        eprintln!("skipped: QEMU 7.2 is not available here");
        return;
    }
    let blocks: Vec<Block> = blocks().into_iter().filter(|block| block.kind == "console").collect();
    assert!(blocks.len() >= 4, "only {} sessions were found", blocks.len());
    let held = blocks.iter().map(|block| hold(&desk, block).map_err(|error| format!("{}: {error}", block.place)));
    let wrong: Vec<String> = held.filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn blocks_and_comments_are_parsed() {
    let blocks = blocks_of("d", "a\n```sh\nb \\\n  c # takes 2 minutes\n```\n```\nd\n```\n");
    let kinds: Vec<_> = blocks.iter().map(|block| (block.place.as_str(), block.kind.as_str())).collect();
    assert_eq!(kinds, [("d:2", "sh"), ("d:6", "")]);
    assert_eq!(joined(&blocks[0].lines), ["b c # takes 2 minutes"]);
    assert_eq!(split_comment("b c  # takes 2 minutes"), ("b c", "takes 2 minutes"));
    assert!(excuses("takes 2 minutes") && !excuses("it takes long") && !excuses(""));
    let line = "[   3.317] virtio0: 312 MiB, 3.59 GiB/s in 85 ms at 0x1f-0x2f";
    assert_eq!(shape(line), shape("[  13.001] virtio0: 0 MiB, 900.10 MiB/s in 1.2 s at 0x0-0xff"));
    assert_ne!(shape(line), shape("[   3.317] virtio1: 312 MiB, 3.59 GiB/s in 85 ms at 0x1f-0x2f"));
}
