//! The public names of the published crates, listed in `tests/public-api/`: a review shows every change, and each
//! needs a line in the changelog. `BALLONET_WRITE_DOCS=1` rewrites the lists.

// A test program is an ordinary program of the host.
#![allow(clippy::std_instead_of_core)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

#[test]
fn the_public_names_of_ballonet_are_those_listed() {
    check("ballonet", &["--features", "raw"]);
}

#[test]
fn the_public_names_of_ballonet_virtio_drivers_are_those_listed() {
    check("ballonet-virtio-drivers", &[]);
}

fn check(package: &str, options: &[&str]) {
    let names = Crate::documented(package, options).names().into_iter().collect::<Vec<_>>().join("\n") + "\n";
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/public-api/{package}.txt"));
    if env::var_os("BALLONET_WRITE_DOCS").is_some() {
        fs::write(&list, names).expect("the list can be written");
        return;
    }
    let listed = fs::read_to_string(&list).expect("the list is kept");
    let (listed, names): (BTreeSet<_>, BTreeSet<_>) = (listed.lines().collect(), names.lines().collect());
    let (gone, new): (Vec<_>, Vec<_>) = (listed.difference(&names).collect(), names.difference(&listed).collect());
    assert!(
        gone.is_empty() && new.is_empty(),
        "the public names of {package} changed; gone: {gone:#?}, new: {new:#?}\nif that is meant, add a line to its \
         changelog and run this test with BALLONET_WRITE_DOCS=1"
    );
}

/// Rustdoc's description of a crate.
struct Crate(Value);

impl Crate {
    /// Runs rustdoc with JSON output, which is an unstable option.
    fn documented(package: &str, options: &[&str]) -> Self {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("public-api");
        let output = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["rustdoc", "--locked", "--quiet", "--lib", "-p", package, "--target-dir"])
            .arg(&target)
            .args(options)
            .args(["--", "-Zunstable-options", "--output-format=json"])
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "rustdoc: {}", String::from_utf8_lossy(&output.stderr));
        let file = target.join(format!("doc/{}.json", package.replace('-', "_")));
        Self(serde_json::from_slice(&fs::read(file).expect("rustdoc wrote it")).expect("rustdoc writes JSON"))
    }

    fn names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let root = &self.0["root"];
        let name = self.item(root).expect("the crate is an item")["name"].as_str().expect("it has a name");
        self.module(root, name, &mut names);
        names
    }

    /// The item with this ID; `None` if it belongs to another crate.
    fn item(&self, id: &Value) -> Option<&Value> {
        self.0["index"].get(id.to_string().trim_matches('"'))
    }

    /// The items with the IDs in a list.
    fn items<'a>(&'a self, ids: &'a Value) -> impl Iterator<Item = &'a Value> {
        ids.as_array().into_iter().flatten().filter_map(|id| self.item(id))
    }

    fn module(&self, id: &Value, path: &str, names: &mut BTreeSet<String>) {
        for item in self.item(id).into_iter().flat_map(|module| self.items(&module["inner"]["module"]["items"])) {
            match item["inner"].get("use") {
                Some(used) => match self.item(&used["id"]) {
                    Some(target) => self.add(target, &format!("{path}::{}", text(&used["name"])), names),
                    None => drop(names.insert(format!("use {path}::{}", text(&used["name"])))),
                },
                None => self.add(item, &format!("{path}::{}", text(&item["name"])), names),
            }
        }
    }

    /// Adds the item known by `path`, and its parts.
    fn add(&self, item: &Value, path: &str, names: &mut BTreeSet<String>) {
        let Some((kind, inner)) = item["inner"].as_object().and_then(|inner| inner.iter().next()) else { return };
        if kind == "module" {
            return self.module(&item["id"], path, names);
        }
        let is_open = item["attrs"].to_string().contains("non_exhaustive");
        names.insert(format!("{}{kind} {path}", if is_open { "non_exhaustive " } else { "" }));
        let fields = &inner["kind"]["plain"]["fields"];
        for part in self.items(fields).chain(self.items(&inner["variants"])).chain(self.items(&inner["items"])) {
            self.part(part, path, names);
        }
        for block in self.items(&inner["impls"]).filter(|block| block["inner"]["impl"]["trait"].is_null()) {
            let public = self.items(&block["inner"]["impl"]["items"]).filter(|part| part["visibility"] == "public");
            public.for_each(|part| self.part(part, path, names));
        }
    }

    /// Adds a part (field, variant, method) of the item known by `path`; methods with their arguments.
    fn part(&self, part: &Value, path: &str, names: &mut BTreeSet<String>) {
        let Some((kind, inner)) = part["inner"].as_object().and_then(|inner| inner.iter().next()) else { return };
        let arguments = inner["sig"]["inputs"].as_array().map(|inputs| {
            let inputs: Vec<_> = inputs.iter().map(|input| text(&input[0])).collect();
            format!("({})", inputs.join(", "))
        });
        names.insert(format!("{kind} {path}::{}{}", text(&part["name"]), arguments.unwrap_or_default()));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
