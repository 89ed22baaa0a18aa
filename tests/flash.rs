//! `run.sh flash` writes to USB sticks and nothing else. A file plays the stick, and a script plays `lsblk`.

// A test program is an ordinary program of the host.
#![allow(clippy::std_instead_of_core)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The output of `lsblk` for a stick that may be written to: column and value.
const STICK: &[(&str, &str)] = &[
    ("NAME", "sdx"),
    ("TYPE", "disk"),
    ("RM", "1"),
    ("RO", "0"),
    ("MOUNTPOINTS", ""),
    ("VENDOR", "ACME"),
    ("MODEL", "Stick\\x203000"),
    ("SERIAL", "4711"),
    ("SIZE", "16777216"),
    ("NAME,TYPE", "sdx disk\nsdx1 part"),
];

const IMAGE_BYTES: usize = 1_000_000;
const STICK_BYTES: usize = 2_000_000;

/// A folder with a stick, an image, and the programs that a test replaces.
struct Desk {
    folder: PathBuf,
}

impl Desk {
    /// `name` separates the tests; `changes` replace values of `lsblk`.
    fn new(name: &str, changes: &[(&str, &str)]) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("flash-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("bin")).expect("the folder is ours");
        let desk = Self { folder };
        let image: Vec<u8> = (0..IMAGE_BYTES).map(|at| (at * 7 % 251) as u8).collect();
        fs::write(desk.image(), image).expect("the folder is ours");
        fs::write(desk.stick(), vec![0xEE; STICK_BYTES]).expect("the folder is ours");
        for (column, value) in STICK.iter().chain(changes) {
            fs::write(desk.folder.join(column), format!("{value}\n")).expect("the folder is ours");
        }
        let answer = format!(
            "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" != --output ] || column=$2; shift; done\ncat '{}'/\"$column\"\n",
            desk.folder.display()
        );
        desk.program("lsblk", &answer);
        desk
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.folder.join("bin").join(name);
        fs::write(&path, text).expect("the folder is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the folder is ours");
    }

    fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    fn stick(&self) -> PathBuf {
        self.folder.join("sdx")
    }

    /// Flashes the stick and types an answer.
    fn flash(&self, answer: &str) -> Output {
        let path = std::env::var("PATH").expect("there is a PATH");
        let mut child = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/run.sh"))
            .arg("flash")
            .arg("--image")
            .arg(self.image())
            .arg(self.stick())
            .env("PATH", format!("{}:{path}", self.folder.join("bin").display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the script starts");
        // A refusing script does not read.
        let _ = writeln!(child.stdin.take().expect("it is piped"), "{answer}");
        child.wait_with_output().expect("it ends")
    }

    fn is_untouched(&self) -> bool {
        fs::read(self.stick()).expect("the folder is ours").iter().all(|byte| *byte == 0xEE)
    }

    /// Expects a refusal with these words and an untouched stick.
    fn refuses(&self, answer: &str, words: &str) {
        let output = self.flash(answer);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{words:?} is not in: {said}");
        assert!(self.is_untouched(), "something was written");
    }
}

#[test]
fn a_stick_whose_name_is_typed_again_is_written_and_nothing_behind_the_image() {
    let desk = Desk::new("writes", &[]);
    let output = desk.flash(&desk.stick().display().to_string());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("ACME Stick 3000") && said.contains("4711"), "what it is should be shown: {said}");
    let (stick, image) =
        (fs::read(desk.stick()).expect("the folder is ours"), fs::read(desk.image()).expect("the folder is ours"));
    assert_eq!((stick.len(), stick[..IMAGE_BYTES] == image), (STICK_BYTES, true));
    assert!(stick[IMAGE_BYTES..].iter().all(|byte| *byte == 0xEE));
}

#[test]
fn another_name_and_no_name_write_nothing() {
    let desk = Desk::new("asks", &[]);
    desk.refuses("", "nothing was written");
    desk.refuses("yes", "`yes` is not");
}

#[test]
fn all_but_free_removable_disks_are_refused() {
    for (name, change, words) in [
        ("partition", ("TYPE", "part"), "a part, not a whole disk"),
        ("fixed", ("RM", "0"), "not removable"),
        ("protected", ("RO", "1"), "write-protected"),
        ("mounted", ("MOUNTPOINTS", "\n/media/a\\x20stick"), "mounted at /media/a stick"),
        ("in_use", ("TYPE", "disk\npart\ncrypt"), "in use by sdx1"),
        ("small", ("SIZE", "999999"), "smaller than the image"),
        ("unknown", ("NAME", ""), "not a block device"),
    ] {
        let use_by = ("NAME,TYPE", "sdx disk\nsdx1 crypt");
        let changes = if name == "in_use" { vec![change, use_by] } else { vec![change] };
        let desk = Desk::new(name, &changes);
        desk.refuses(&desk.stick().display().to_string(), words);
    }
}

#[test]
fn a_wrong_read_back_is_reported() {
    let desk = Desk::new("forgets", &[]);
    desk.program("dd", "#!/bin/sh\nexit 0\n");
    desk.refuses(&desk.stick().display().to_string(), "differs from the image");
}
