//! Checks the conformance table, `docs/conformance.tsv`: each clause of the specification that applies to a PCI
//! balloon driver, with its proof. Fails if a proof is gone because a test was renamed, deleted or ignored.
//!
//! It looks tests up in the sources, not in the lists of test programs: this is fast, needs neither QEMU nor loom,
//! and also finds tests that this build does not compile.

#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "the parts are written as a library of this test program")]
#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(clippy::std_instead_of_core, clippy::alloc_instead_of_core, reason = "this program has a standard library")]

#[path = "conformance/proof.rs"]
mod proof;
#[path = "conformance/sources.rs"]
mod sources;
#[path = "conformance/table.rs"]
mod table;

use proof::Proof;
use sources::Sources;
use table::{Standing, Table};

/// Reads a file of the project.
fn read(path: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/").to_owned() + path;
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Panics with all findings, one per line.
#[track_caller]
fn expect_nothing(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_table_has_every_clause_once_and_in_full() {
    expect_nothing(&Table::parse(&read("docs/conformance.tsv")).flaws());
}

#[test]
fn every_proof_of_the_table_is_alive() {
    let (table, sources) = (Table::parse(&read("docs/conformance.tsv")), Sources::of_the_project());
    let dead = table.rows.iter().flat_map(|row| {
        let proofs = row.proofs.iter();
        proofs.filter_map(|proof| Proof::find(proof, &sources).err().map(|why| format!("{}: {proof}: {why}", row.id)))
    });
    expect_nothing(&dead.collect::<Vec<_>>());
}

#[test]
fn every_proof_of_the_companion_is_alive() {
    let (text, sources) = (read("docs/conformance.md"), Sources::of_the_project());
    let quoted: Vec<_> = text.split('`').skip(1).step_by(2).filter(|word| Proof::is_one(word)).collect();
    assert!(quoted.len() >= table::DEFECTS, "{} proofs for {} defects", quoted.len(), table::DEFECTS);
    let dead =
        quoted.iter().filter_map(|proof| Proof::find(proof, &sources).err().map(|why| format!("{proof}: {why}")));
    expect_nothing(&dead.collect::<Vec<_>>());
}

#[test]
fn the_companion_counts_rightly() {
    let (table, text) = (Table::parse(&read("docs/conformance.tsv")), read("docs/conformance.md"));
    for standing in Standing::ALL {
        let count = table.rows.iter().filter(|row| row.standing == Some(standing)).count();
        let line = format!("| {} | {count} |", standing.word());
        assert!(text.contains(&line), "docs/conformance.md should say {line}");
    }
}

/// The smallest project in which every kind of proof is found.
fn small_project() -> Sources {
    Sources::in_memory([
        ("crates/ballonet/src/lib.rs", "pub mod ring;\n/// ```compile_fail\n"),
        (
            "crates/ballonet/src/ring.rs",
            "fn index() {}\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn it_wraps() {}\n\n    #[test]\n    #[ignore]\n    \
             fn it_sleeps() {}\n\n    // #[test]\n    // fn it_is_a_comment() {}\n\n    proptest! {\n        #[test]\n        \
             fn it_holds(index: u16) {}\n    }\n    #[cfg(loom)]\n    #[test]\n    fn it_depends() {}\n}\n",
        ),
        ("crates/ballonet/tests/driver/main.rs", "mod hand;\nmod hostile;\n"),
        ("crates/ballonet/tests/driver/hand.rs", "(Slip, \"INIT-02\"),\n"),
        ("crates/ballonet/tests/driver/hostile.rs", "each! {\n    one_word\n}\n"),
        ("crates/ballonet/tests/driver/forgotten.rs", "#[test]\nfn nobody_runs_it() {}\n"),
        ("crates/models/src/common.rs", "bus.misstep(\"INIT-02\", x);\nbus.misstep(\"INIT-03\", x);\n"),
        ("tests/qemu/main.rs", "mod life;\n"),
        ("tests/qemu/life.rs", "trial(\"life::reset\", newest(), reset);\nfn other() {}\n"),
        ("src/tests/mod.rs", "mod timer;\n"),
        ("src/tests/timer.rs", "kernel_test! {\n    /// Not before its time.\n    fn it_never_fires_early() {}\n}\n"),
        ("crates/ballonet/tests/loom/main.rs", "macro_rules! proofs {\n    #[test]\n    fn no_kick_is_lost() {}\n}\n"),
    ])
}

#[test]
fn a_living_test_of_each_kind_is_found() {
    let sources = small_project();
    for proof in [
        "lib:ring::tests::it_wraps",
        "lib:ring::tests::it_holds",
        "doctest:lib",
        "driver:hostile::one_word",
        "machine:timer::it_never_fires_early",
        "qemu:life::reset",
        "loom:no_kick_is_lost",
        "model:INIT-02",
    ] {
        assert_eq!(Proof::find(proof, &sources), Ok(()), "{proof}");
    }
}

#[test]
fn a_test_that_is_gone_ignored_or_nowhere_declared_is_missed() {
    let sources = small_project();
    for proof in [
        "lib:ring::tests::it_wrapped",
        "lib:ring::tests::it_wrap",
        "lib:ring::tests::index",
        "lib:ring::tests::it_sleeps",
        "lib:ring::tests::it_is_a_comment",
        "lib:ring::tests::it_depends",
        "lib:rings::tests::it_wraps",
        "lib:ring::test::it_wraps",
        "doctest:ring",
        "driver:hostile::two_words",
        "driver:forgotten::nobody_runs_it",
        "machine:timer::it_fires",
        "qemu:life::other",
        "qemu:life::eset",
        "loom:no_interrupt_is_lost",
        // Named by the model, but no misstep shows that the model reports it.
        "model:INIT-03",
        "model:INIT-04",
        "fuzz:nothing",
        "elsewhere:ring::tests::it_wraps",
        "it_wraps",
    ] {
        assert!(Proof::find(proof, &sources).is_err(), "{proof}");
    }
}

#[test]
fn flaws_of_a_table_are_named() {
    let whole = read("docs/conformance.tsv");
    let line = |id: &str| whole.lines().find(|line| line.starts_with(&format!("{id}\t"))).unwrap().to_owned();
    let status = line("STATUS-01");
    let changed = |from: &str, to: &str| {
        let text = whole.replacen(from, to, 1);
        assert_ne!(text, whole);
        Table::parse(&text).flaws()
    };
    let cells: Vec<&str> = status.split('\t').collect();
    for (what, to) in [
        ("twice", format!("{status}\n{status}")),
        ("missing", line("STATUS-02")),
        ("of an unknown area", status.replacen("STATUS", "STATE", 1)),
        ("of a number that there is not", status.replacen("STATUS-01", "STATUS-09", 1)),
        ("without words", status.replacen(cells[3], "", 1)),
        ("without a section", status.replacen(cells[1], " ", 1)),
        ("of an unknown level", status.replacen("\tMUST\t", "\tWANTS\t", 1)),
        ("of an unknown standing", status.replacen("\tproved\t", "\tbelieved\t", 1)),
        ("without proof", status.replacen(cells[5], "", 1)),
        (
            "with the same proof twice",
            status.replacen(cells[5], &format!("{0} {0}", cells[5].split(' ').next().unwrap()), 1),
        ),
        ("cut short", cells[..5].join("\t")),
    ] {
        assert!(!changed(&status, &to).is_empty(), "a clause {what}");
    }
    let argued = whole.lines().find(|line| line.contains("\tn-a\t")).unwrap();
    let (start, _) = argued.rsplit_once('\t').unwrap();
    assert!(!changed(argued, &format!("{start}\t")).is_empty(), "a clause that does not apply, and no reason");
}
