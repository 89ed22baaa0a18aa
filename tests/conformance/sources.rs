//! The sources, and the tests in them. Parsing relies on rustfmt: a block ends at the line that has only its closing
//! brace, indented like the line that opened it.

use std::collections::BTreeMap;
use std::path::Path;

/// The folders with sources.
const FOLDERS: [&str; 4] = ["src", "crates", "tests", "fuzz"];

/// The text of every source file without comments, by path from the project's root.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<String, String>);

impl Sources {
    /// Reads the sources of this project.
    pub fn of_the_project() -> Self {
        let mut sources = Self::default();
        for folder in FOLDERS {
            sources.add_folder(Path::new(env!("CARGO_MANIFEST_DIR")), folder);
        }
        sources
    }

    /// Sources made of paths and texts.
    pub fn in_memory<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(files.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect())
    }

    fn add_folder(&mut self, root: &Path, folder: &str) {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { return };
        for entry in entries.map(Result::unwrap) {
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            // Skip build output and corpora beside the fuzz targets.
            if entry.file_type().unwrap().is_dir() {
                if path != "fuzz/target" && path != "fuzz/corpus" {
                    self.add_folder(root, &path);
                }
            } else if path.ends_with(".rs") || path.ends_with(".toml") {
                self.0.insert(path, std::fs::read_to_string(entry.path()).unwrap());
            }
        }
    }

    /// The text of a file.
    pub fn read(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    /// All files: path and text.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

/// A module: its lines, and the folder of its child modules.
#[derive(Debug)]
pub struct Module<'s> {
    sources: &'s Sources,
    lines: Vec<&'s str>,
    folder: String,
}

impl<'s> Module<'s> {
    /// The crate with this root file.
    pub fn root(sources: &'s Sources, path: &str) -> Result<Self, String> {
        let text = sources.read(path).ok_or_else(|| format!("there is no {path}"))?;
        let (folder, _) = path.rsplit_once('/').unwrap_or_default();
        Ok(Self { sources, lines: text.lines().collect(), folder: folder.to_owned() })
    }

    /// The module of this name, if this one declares it.
    pub fn child(&self, name: &str) -> Result<Self, String> {
        let folder = format!("{}/{name}", self.folder);
        let declares = |line: &str, end: &str| {
            let line = line.trim();
            // Matches `mod`, `pub mod`, `pub(super) mod` and so on.
            let (visibility, rest) = line.split_once("mod ").unwrap_or((line, ""));
            let is_visibility = visibility.is_empty() || (visibility.starts_with("pub") && visibility.ends_with(' '));
            is_visibility && rest.strip_suffix(end) == Some(name)
        };
        if let Some(start) = self.lines.iter().position(|line| declares(line, " {")) {
            return Ok(Self { sources: self.sources, lines: self.block(start), folder });
        }
        if self.lines.iter().any(|line| declares(line, ";")) {
            let text =
                [format!("{folder}.rs"), format!("{folder}/mod.rs")].iter().find_map(|path| self.sources.read(path));
            let text = text.ok_or_else(|| format!("there is no file of {folder}"))?;
            return Ok(Self { sources: self.sources, lines: text.lines().collect(), folder });
        }
        Err(format!("no module {name} is declared in {}", self.folder))
    }

    /// The lines inside the block that line `start` opens.
    fn block(&self, start: usize) -> Vec<&'s str> {
        let indentation = &self.lines[start][..self.lines[start].len() - self.lines[start].trim_start().len()];
        let end = format!("{indentation}}}");
        self.lines[start + 1..].iter().take_while(|line| **line != end).copied().collect()
    }

    /// Looks for a test of this name: a function with the attribute, one that the kernel's macro registers, or a name
    /// on a line of its own that a macro turns into a test.
    pub fn find_test(&self, name: &str) -> Result<(), String> {
        let is_it = |line: &str| {
            let (_, declaration) = line.split_once("fn ").unwrap_or_default();
            declaration.strip_prefix(name).is_some_and(|rest| rest.starts_with('('))
        };
        let code = |line: &str| !line.trim_start().starts_with("//");
        let function = self.lines.iter().position(|line| code(line) && is_it(line));
        let outcome =
            function.map_or_else(|| Err(format!("no such test in {}", self.folder)), |at| self.check_attributes(at));
        let listed = self.lines.iter().position(|line| line.trim() == name);
        let opening = listed.and_then(|at| self.lines[..at].iter().rfind(|line| line.ends_with('{')));
        match opening {
            Some(opening) if opening.trim_end_matches(" {").ends_with('!') => Ok(()),
            _ => outcome,
        }
    }

    /// Whether the function at line `at` is a test that runs.
    fn check_attributes(&self, at: usize) -> Result<(), String> {
        let belongs = |line: &&&str| {
            let line = line.trim_start();
            line.starts_with("#[") || line.starts_with("//") || line.ends_with("kernel_test! {")
        };
        let above: Vec<_> = self.lines[..at].iter().rev().take_while(belongs).chain([&self.lines[at]]).collect();
        let has = |what: &str| above.iter().any(|line| !line.trim_start().starts_with("//") && line.contains(what));
        if has("#[ignore") {
            return Err("it is ignored".into());
        }
        if has("#[cfg(") {
            return Err("it is compiled conditionally".into());
        }
        if has("#[test]") || has("kernel_test! {") { Ok(()) } else { Err("it is no test".into()) }
    }

    /// Looks for a string equal to this name, or a path that ends with it.
    pub fn find_name(&self, name: &str) -> Result<(), String> {
        let strings = self.lines.iter().flat_map(|line| line.split('"').skip(1).step_by(2));
        let mut ends = strings.map(|string| string.rsplit("::").next().unwrap_or_default());
        if ends.any(|end| end == name) { Ok(()) } else { Err(format!("no test of this name in {}", self.folder)) }
    }

    /// Looks for an example that must fail to compile.
    pub fn find_uncompilable(&self) -> Result<(), String> {
        let found = self.lines.iter().any(|line| line.trim_start().starts_with("/// ```compile_fail"));
        if found { Ok(()) } else { Err("no example that must fail to compile".into()) }
    }
}
