//! The documentation against the program: everything that it names exists, and everything is documented.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(clippy::std_instead_of_core, clippy::alloc_instead_of_core, reason = "this program has a standard library")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ballonet_kernel::boot::{Key, Options, Warning};

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

/// All that people read.
fn documents() -> Vec<String> {
    let mut documents = files("docs", ".md");
    let others = ["README.md", "ARCHITECTURE.md", "crates/ballonet/README.md", "fuzz/README.md", "deploy/README.md"];
    documents.extend(others.map(String::from));
    documents
}

/// What is between backquotes.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The string literals in a piece of source that has no escapes in them.
fn literals(source: &str) -> Vec<&str> {
    source.split('"').skip(1).step_by(2).collect()
}

/// Panics with all that is wrong, one thing a line.
#[track_caller]
fn expect_nothing(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} things are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The table of kernel keys: the keys of a row, and the row.
fn key_rows(text: &str) -> Vec<(Vec<&str>, &str)> {
    let (_, table) = text.split_once("| kernel key |").expect("the table of keys");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| (code_spans(row.split('|').nth(1).unwrap()).collect(), row)).collect()
}

/// The words that a key takes, as the kernel says when it gets another; none where it takes more than words.
fn words_of(key: &str) -> Vec<String> {
    let mut words = Vec::new();
    Options::parse(format!("{key}=!").as_bytes(), &mut |warning| {
        if matches!(warning, Warning::UnknownValue { .. }) {
            let message = warning.to_string();
            let (_, valid) = message.split_once("; valid: ").expect("the valid values");
            words = valid.split(", ").map(String::from).collect();
        }
    });
    let is_word = |word: &String| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    if words.iter().all(is_word) { words } else { Vec::new() }
}

#[test]
fn the_documentation_has_every_key_and_its_words() {
    let text = read("docs/options.md");
    let rows = key_rows(&text);
    let documented: Vec<&str> = rows.iter().flat_map(|(keys, _)| keys.iter().copied()).collect();
    let mut wrong = Vec::new();
    for key in Key::WORDS {
        match documented.iter().filter(|documented| *documented == key).count() {
            1 => {}
            count => wrong.push(format!("the key `{key}` has {count} rows")),
        }
    }
    for (keys, row) in &rows {
        for key in keys {
            if !Key::WORDS.contains(key) {
                wrong.push(format!("there is no key `{key}`"));
            }
            let spans: BTreeSet<&str> = code_spans(row).collect();
            let missing = words_of(key).into_iter().filter(|word| !spans.contains(word.as_str()));
            wrong.extend(missing.map(|word| format!("the row of `{key}` lacks `{word}`")));
        }
    }
    expect_nothing(&wrong);
}

/// The table of events: their names.
fn documented_events(text: &str) -> BTreeSet<String> {
    let (_, table) = text.split_once("| event |").expect("the table of events");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| code_spans(row.split('|').nth(1).unwrap())).map(String::from).collect()
}

#[test]
fn the_documentation_has_every_event() {
    let documented = documented_events(&read("docs/events.md"));
    let sources: Vec<_> = ["src", "crates/ballonet", "crates/ballonet-check"]
        .iter()
        .flat_map(|folder| files(folder, ".rs"))
        .filter(|name| !name.starts_with("src/tests/"))
        .map(|name| read(&name))
        .collect();
    let emitted = sources.iter().flat_map(|source| source.split("emit(").skip(1));
    let emitted: BTreeSet<_> = emitted
        .filter_map(|call| call.trim_start().strip_prefix('"')?.split_once('"').map(|(name, _)| name.to_owned()))
        .collect();
    assert!(emitted.len() > 10, "events were not found in the sources: {emitted:?}");
    let mut wrong: Vec<_> = emitted.difference(&documented).map(|name| format!("`{name}` is not documented")).collect();
    // Some names come out of a variable.
    let is_there = |name: &String| sources.iter().any(|source| source.contains(&format!("\"{name}\"")));
    wrong.extend(documented.iter().filter(|name| !is_there(name)).map(|name| format!("there is no event `{name}`")));
    expect_nothing(&wrong);
}

/// The console's commands, from its source: name, arguments, what it does.
fn commands() -> Vec<[String; 3]> {
    let sources: Vec<_> = files("src/kernel", ".rs").iter().map(|name| read(name)).collect();
    let table = sources.iter().find_map(|source| source.split_once("const COMMANDS")).expect("the table of commands").1;
    let (_, table) = table.split_once(" = ").unwrap();
    let table = literals(table.split_once("];").unwrap().0);
    let (rows, rest) = table.as_chunks::<3>();
    assert!(rest.is_empty() && !rows.is_empty(), "a table of three columns");
    rows.iter().map(|row| row.map(String::from)).collect()
}

/// The list of commands in docs/console.md is the kernel's. `BALLONET_WRITE_DOCS=1` writes it anew.
#[test]
fn the_documentation_lists_the_commands() {
    let text = read("docs/console.md");
    let (head, rest) = text.split_once("<!-- commands -->\n").expect("a mark where the list begins");
    let (_, tail) = rest.split_once("<!-- end of commands -->").expect("a mark where the list ends");
    let mut list = String::from("\n| command | |\n|---|---|\n");
    for [name, arguments, about] in commands() {
        let call = format!("{name} {arguments}").trim_end().replace('|', "\\|");
        list += &format!("| `{call}` | {about} |\n");
    }
    let expected = format!("{head}<!-- commands -->\n{list}\n<!-- end of commands -->{tail}");
    if std::env::var_os("BALLONET_WRITE_DOCS").is_some() {
        fs::write(path("docs/console.md"), expected).unwrap();
    } else {
        assert!(text == expected, "docs/console.md is out of date");
    }
}

/// What headings of a document can be linked to by: in lower case, spaces as hyphens, without punctuation.
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

/// The word that begins `text`: a name of a file or a test program.
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
fn what_is_looked_for_is_found() {
    let keys = "| kernel key | v |\n|---|---|\n| `a` `b` | `on` |\n\n| `c` | |";
    assert_eq!(key_rows(keys), [(vec!["a", "b"], "| `a` `b` | `on` |")]);
    let events = "| event | fields |\n|---|---|\n| `x` | `y` |\n| `v`, `w` | |\n\nThe `u`.";
    assert_eq!(documented_events(events), ["v", "w", "x"].map(String::from).into());
    assert_eq!(words_of("verbose"), ["off", "on"]);
    assert_eq!(words_of("queue-size"), [""; 0], "numbers are no words");
    assert_eq!(word("bench.sh OLD"), "bench.sh");
    assert_eq!(word("qemu.sh."), "qemu.sh");
}
