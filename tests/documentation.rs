//! Compares the documentation with the program: what it describes exists, and what exists is described.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(clippy::std_instead_of_core, clippy::alloc_instead_of_core, reason = "this program has a standard library")]

#[allow(dead_code, unused_imports, unused_macros)]
mod support {
    pub(crate) mod event;
    pub(crate) mod failure;
    pub(crate) mod runner;
}

use std::fs;
use std::path::{Path, PathBuf};

use ballonet_kernel::boot::{KernelOptions, Key};
use ballonet_kernel::console::Usage;
use ballonet_kernel::console::events::{self, FieldSpec, Kind};
use ballonet_kernel::kernel::console::commands;
use support::event::Event;

/// A file or folder of the project.
fn path(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of)
}

fn read(of: &str) -> String {
    fs::read_to_string(path(of)).unwrap_or_else(|error| panic!("{of}: {error}"))
}

/// The files below a folder whose names end in `suffix`, as paths in the project.
fn files(below: &str, suffix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path(below)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{below}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&name, suffix));
        } else if name.ends_with(suffix) {
            found.push(name);
        }
    }
    found.sort();
    found
}

/// All documents.
fn documents() -> Vec<String> {
    let mut documents = files("docs", ".md");
    let others = ["README.md", "ARCHITECTURE.md", "crates/ballonet/README.md", "fuzz/README.md", "deploy/README.md"];
    documents.extend(others.map(String::from));
    documents
}

/// Panics with all findings, one per line.
#[track_caller]
fn expect_nothing(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
}

/// Asserts that the text between two marks in a document is `list`; `BALLONET_WRITE_DOCS=1` updates it.
#[track_caller]
fn expect_list(document: &str, mark: &str, list: &str) {
    let text = read(document);
    let begin = format!("<!-- {mark} -->\n");
    let end = format!("<!-- end of {mark} -->");
    let (head, rest) = text.split_once(&begin).expect("a mark where the list begins");
    let (_, tail) = rest.split_once(&end).expect("a mark where the list ends");
    let expected = format!("{head}{begin}{list}\n{end}{tail}");
    if std::env::var_os("BALLONET_WRITE_DOCS").is_some() {
        fs::write(path(document), expected).unwrap();
    } else {
        assert!(
            text == expected,
            "{document} is out of date: run BALLONET_WRITE_DOCS=1 cargo test --test documentation"
        );
    }
}

/// An option's values: words as code, and descriptions of open values.
fn values_of(key: Key) -> String {
    let words = key.valid().choices().map(|word| format!("`{word}`"));
    let others = Some(key.valid().others()).filter(|others| !others.is_empty()).map(String::from);
    words.chain(others).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_documentation_lists_the_options() {
    let mut list = String::from("\n| key | values | if not given | |\n|---|---|---|---|\n");
    let defaults = KernelOptions::default();
    for &key in Key::ALL {
        let default = match defaults.value(key).to_string() {
            empty if empty.is_empty() => empty,
            value => format!("`{value}`"),
        };
        list += &format!("| `{key}` | {} | {default} | {} |\n", values_of(key), key.help());
    }
    expect_list("docs/options.md", "options", &list);
}

/// A field's JSON type, with the unit of a number.
fn form_of(field: &FieldSpec) -> String {
    let form = match field.kind {
        Kind::Whole => "whole number",
        Kind::Decimal => "number",
        Kind::Boolean => "`true` or `false`",
        Kind::Text => "string",
        Kind::Texts => "list of strings",
        Kind::Hex => "string, `0x…`",
        Kind::Hexes => "list of strings, `0x…`",
    };
    let optional = if field.optional { ", optional" } else { "" };
    match field.unit {
        "" => format!("{form}{optional}"),
        unit => format!("{unit}{optional}"),
    }
}

#[test]
fn the_documentation_lists_the_events() {
    let mut list = String::new();
    for (title, events) in events::groups() {
        list += &format!("\n## {title}\n");
        for event in events {
            list += &format!("\n**`{}`**: {}\n", event.name, event.about.trim());
            if !event.fields.is_empty() {
                list += "\n| field | | |\n|---|---|---|\n";
            }
            for field in event.fields {
                list += &format!("| `{}` | {} | {} |\n", field.name, form_of(field), field.about);
            }
        }
    }
    expect_list("docs/events.md", "events", &list);
}

#[test]
fn the_documentation_lists_the_commands() {
    let mut list = String::from("\n| command | |\n|---|---|\n");
    for Usage { name, arguments, about } in commands() {
        let call = format!("{name} {arguments}").trim_end().replace('|', "\\|");
        list += &format!("| `{call}` | {about} |\n");
    }
    expect_list("docs/console.md", "commands", &list);
}

/// The tests in QEMU parse events with this: an event that differs from its declaration fails them.
#[test]
fn an_event_must_be_as_declared() {
    let error = |line: &str| Event::parse(line).map(drop).map_err(|error| error.to_string());
    assert_eq!(error(r#"{"event":"report","ms":1,"name":"virtio0","bytes":4096}"#), Ok(()));
    assert_eq!(error(r#"{"event":"held","ms":1,"bytes":0}"#), Ok(()), "`reason` is optional");
    for (line, wrong) in [
        (r#"{"event":"reports","ms":1}"#, "an undeclared event"),
        (r#"{"event":"report","ms":1,"name":"virtio0","bytes":1,"count":1}"#, "an undeclared field `count`"),
        (r#"{"event":"report","ms":1,"bytes":1}"#, "no `name`"),
        (r#"{"event":"report","ms":1,"name":"virtio0","bytes":"1"}"#, "`bytes` is not Whole"),
        (r#"{"event":"nmi","ms":1,"count":1,"interrupted":"12"}"#, "`interrupted` is not Hex"),
    ] {
        assert!(error(line).is_err_and(|error| error.starts_with(wrong)), "{line}");
    }
}

/// The link anchors of a document's headings: lower case, hyphens for spaces, no punctuation.
fn anchors(document: &Path) -> Vec<String> {
    let text = fs::read_to_string(document).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: char| match c {
        ' ' => Some('-'),
        c => (c.is_alphanumeric() || matches!(c, '-' | '_')).then(|| c.to_ascii_lowercase()),
    };
    headings.map(|heading| heading.chars().filter_map(kept).collect()).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for document in documents() {
        let text = read(&document);
        let folder = path(&document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let (target, anchor) = link.split_once('#').map_or((link, None), |(target, anchor)| (target, Some(anchor)));
            if link.contains("://") {
                continue;
            }
            let file = if target.is_empty() { folder.clone() } else { folder.parent().unwrap().join(target) };
            let is_there = file.exists() && anchor.is_none_or(|anchor| anchors(&file).iter().any(|it| it == anchor));
            if !is_there {
                wrong.push(format!("{document}: {link}"));
            }
        }
    }
    expect_nothing(&wrong);
}

#[test]
fn the_index_has_every_page() {
    let index = read("docs/README.md");
    let is_missing = |page: &String| !index.contains(&format!("]({page})"));
    let pages = files("docs", ".md").into_iter().filter_map(|page| page.strip_prefix("docs/").map(String::from));
    let missing: Vec<_> = pages.filter(|page| page != "README.md").filter(is_missing).collect();
    expect_nothing(&missing);
}

/// The word at the start of `text`: a file name or the name of a test program.
fn word(text: &str) -> &str {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "._-/".contains(c))).next().unwrap().trim_end_matches('.')
}

#[test]
fn every_script_and_test_program_in_a_command_exists() {
    let mut wrong = Vec::new();
    let mut found = 0;
    for document in documents() {
        let text = read(&document);
        let scripts = text.split("scripts/").skip(1).map(word).filter(|name| !name.is_empty());
        let scripts = scripts.map(|name| vec![format!("scripts/{name}")]);
        let tests = text.split("--test ").skip(1).map(word).filter(|name| !name.is_empty());
        let tests = tests.map(|name| {
            let folders = ["", "crates/ballonet/", "crates/ballonet-check/"];
            folders.map(|folder| [format!("{folder}tests/{name}.rs"), format!("{folder}tests/{name}/main.rs")]).concat()
        });
        for candidates in scripts.chain(tests) {
            found += 1;
            if !candidates.iter().any(|candidate| path(candidate).is_file()) {
                wrong.push(format!("{document}: {}", candidates[0]));
            }
        }
    }
    assert!(found > 20, "only {found} commands were found");
    expect_nothing(&wrong);
}

#[test]
fn the_helpers_find_what_they_look_for() {
    assert_eq!(values_of(Key::verbose), "`off`, `on`");
    assert_eq!(values_of(Key::poison), "`off`, 0x00 to 0xff");
    assert_eq!(word("bench.sh OLD"), "bench.sh");
    assert_eq!(word("qemu.sh."), "qemu.sh");
}
