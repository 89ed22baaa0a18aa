//! The proofs of a clause, and whether they still exist and run.
//!
//! | proof | what it is |
//! |---|---|
//! | `lib:module::tests::name` | a test of the library |
//! | `doctest:module` | an example in the library's documentation that must not compile |
//! | `driver:module::name` | a test of the whole driver against a device model |
//! | `model:CLAUSE` | the strict device model detects a breach of the clause (a deliberate one proves that), and has found none |
//! | `loom:name` | a model of the queues' protocol, for each kind of ring |
//! | `fuzz:name` | a fuzz target |
//! | `machine:module::name` | a test of the machine layer |
//! | `qemu:module::name` | a test of the kernel in QEMU; the last part of a name that has parts |

use crate::sources::{Module, Sources};

/// What proves a clause.
pub struct Proof;

/// The kinds of proof that are functions in a tree of modules: kind, root file, module in it.
const FUNCTIONS: [(&str, &str, &[&str]); 4] = [
    ("lib", "crates/ballonet/src/lib.rs", &[]),
    ("driver", "crates/ballonet/tests/driver/main.rs", &[]),
    ("loom", "crates/ballonet/tests/loom/main.rs", &[]),
    ("machine", "src/tests/mod.rs", &[]),
];

/// The other kinds.
const OTHERS: [&str; 4] = ["doctest", "model", "fuzz", "qemu"];

impl Proof {
    /// Whether a word has the form of a proof.
    pub fn is_one(word: &str) -> bool {
        let Some((kind, name)) = word.split_once(':') else { return false };
        let known = FUNCTIONS.iter().any(|(known, ..)| *known == kind) || OTHERS.contains(&kind);
        known && !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_:-".contains(c))
    }

    /// Looks up a proof.
    ///
    /// # Errors
    /// When the proof does not exist or does not run; the error says why.
    pub fn find(proof: &str, sources: &Sources) -> Result<(), String> {
        let (kind, name) = proof.split_once(':').ok_or("no kind of proof")?;
        let path: Vec<&str> = name.split("::").collect();
        let (last, modules) = path.split_last().ok_or("no name")?;
        if let Some((_, root, inside)) = FUNCTIONS.iter().find(|(known, ..)| *known == kind) {
            let module = descend(Module::root(sources, root)?, inside.iter().chain(modules))?;
            return module.find_test(last);
        }
        match kind {
            "qemu" => descend(Module::root(sources, "tests/qemu/main.rs")?, modules.iter())?.find_name(last),
            "doctest" => {
                let root = Module::root(sources, "crates/ballonet/src/lib.rs")?;
                let module = if name == "lib" { root } else { descend(root, path.iter())? };
                module.find_uncompilable()
            }
            "fuzz" => find_target(name, sources),
            "model" => find_check(name, sources),
            _ => Err("no such kind of proof".into()),
        }
    }
}

fn descend<'s, 'n>(root: Module<'s>, path: impl Iterator<Item = &'n &'n str>) -> Result<Module<'s>, String> {
    path.into_iter().try_fold(root, |module, name| module.child(name))
}

/// A fuzz target is a file, and a program of the package.
fn find_target(name: &str, sources: &Sources) -> Result<(), String> {
    let file = sources.read(&format!("fuzz/fuzz_targets/{name}.rs"));
    let declared = sources.read("fuzz/Cargo.toml").is_some_and(|text| text.contains(&format!("name = \"{name}\"")));
    if file.is_some() && declared { Ok(()) } else { Err("no such fuzz target".into()) }
}

/// The model must name the clause, and a deliberate misstep must prove that it detects a breach.
fn find_check(clause: &str, sources: &Sources) -> Result<(), String> {
    let quoted = format!("\"{clause}\"");
    let named = |of: &dyn Fn(&str) -> bool| sources.files().any(|(path, text)| of(path) && text.contains(&quoted));
    if !named(&|path| path.starts_with("crates/models/src/")) {
        return Err("no device model names this clause".into());
    }
    if !named(&|path| path.starts_with("crates/ballonet/tests/driver/")) {
        return Err("no deliberate misstep proves that the device model detects a breach".into());
    }
    Ok(())
}
