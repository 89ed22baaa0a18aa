//! The suite: every test of the image, in a fixed order, each isolated from the others.
//!
//! A test is a function in its module's list `TESTS`. It fails by a panic or a fault, which ends only this test. It
//! may report that this machine cannot show what it is about. After a failure, the suite cleans up as far as other
//! tests need it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::machine::recovery::{self, Ending};
use crate::machine::{Machine, clock, io_apic, timer, vectors};
use ballonet::pci::Tree;
use x86_64::instructions::interrupts;

use crate::tests::report::{self, Outcome, Tally};
use crate::tests::support::MASKED;

/// Tests with this prefix fail on purpose.
const FAILS_ON_PURPOSE: &str = "expected_failure_";

/// What a test works with.
pub(super) struct Context {
    /// The machine, initialized.
    pub machine: Machine,
    /// The PCI devices.
    pub tree: Tree,
}

/// Why this machine cannot show what a test is about.
#[derive(Debug)]
pub(super) struct Skip(&'static str);

impl Skip {
    /// Skips for this reason.
    pub(super) fn because(reason: &'static str) -> Self {
        Self(reason)
    }
}

/// The result of a test function: `Ok` if it passed.
pub(super) type Verdict = Result<(), Skip>;

/// A test.
#[derive(Debug)]
pub(super) struct Test {
    /// Its name, which states what it proves.
    pub name: &'static str,
    /// The module it is in.
    pub module: &'static str,
    /// Runs it.
    pub run: fn(&mut Context) -> Verdict,
}

impl Test {
    /// Module and name: `paging::page_0_is_not_mapped`.
    pub(super) fn path(&self) -> String {
        let module = self.module.rsplit_once("::").map_or(self.module, |(_, module)| module);
        format!("{module}::{}", self.name)
    }
}

/// Defines a test: a function that passes unless it returns early or fails. [`tests!`] registers it.
macro_rules! kernel_test {
    (fn $name:ident() $body:block) => {
        $crate::tests::suite::kernel_test! { fn $name(_context) $body }
    };
    (fn $name:ident($context:ident) $body:block) => {
        fn $name($context: &mut $crate::tests::suite::Context) -> $crate::tests::suite::Verdict {
            $body
            Ok(())
        }
    };
}
pub(crate) use kernel_test;

/// Registers the tests of a module, in this order. The compiler reports an unregistered test as unused.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        &[$($crate::tests::suite::Test { name: stringify!($name), module: module_path!(), run: $name }),*]
    };
}
pub(crate) use tests;

/// The tests of all modules.
fn all() -> impl Iterator<Item = &'static Test> {
    super::TESTS.into_iter().flatten()
}

/// Runs the tests that the command line selects. Returns whether all ended as they should; without tests, fails.
pub(super) fn run(context: &mut Context) -> bool {
    let options = context.machine.options();
    let (list, chosen) = (options.list, options.test.map(ToString::to_string));
    let mut tests: Vec<_> = all().collect();
    if let Some(name) = &chosen {
        let exact = tests.iter().any(|test| test.name == name);
        tests.retain(|test| if exact { test.name == name } else { test.path().contains(name.as_str()) });
    }
    if list {
        tests.iter().for_each(|test| report::name(test));
        return !tests.is_empty();
    }
    let mut tally = Tally::default();
    for test in tests {
        let fails_on_purpose = test.name.starts_with(FAILS_ON_PURPOSE);
        let (outcome, nanoseconds) = run_one(context, test);
        tally.add(&outcome, fails_on_purpose);
        report::outcome(test, &outcome, nanoseconds, fails_on_purpose);
    }
    report::summary(&tally);
    tally.is_success()
}

fn run_one(context: &mut Context, test: &Test) -> (Outcome, u64) {
    let before = Belongings::now();
    report::begin(test);
    let start = clock::nanoseconds();
    // Off before and after: handlers left behind by a failed test must not run outside it.
    interrupts::disable();
    let ending = recovery::catch(|| {
        interrupts::enable();
        (test.run)(context)
    });
    interrupts::disable();
    let nanoseconds = clock::nanoseconds() - start;
    vectors::note_progress();
    before.restore();
    interrupts::enable();
    let outcome = match ending {
        Ending::Returned(Ok(())) => Outcome::Passed,
        Ending::Returned(Err(Skip(reason))) => Outcome::Skipped(reason),
        Ending::Panicked(panic) => Outcome::Panicked(panic),
        Ending::Faulted(fault) => Outcome::Faulted(fault),
    };
    (outcome, nanoseconds)
}

/// Resources that a failed test does not release.
struct Belongings {
    vectors: Vec<u8>,
    /// Interrupt lines that are not masked.
    lines: Vec<u32>,
}

impl Belongings {
    fn now() -> Self {
        Self { vectors: owned_vectors().collect(), lines: open_lines().collect() }
    }

    /// Stops the timer, masks lines that were not open at the start, and frees vectors that were not allocated then.
    fn restore(self) {
        recovery::watch();
        timer::take_back();
        timer::take_fired();
        for gsi in open_lines().filter(|gsi| !self.lines.contains(gsi)) {
            io_apic::set_masked(gsi, true);
        }
        for vector in owned_vectors().filter(|vector| !self.vectors.contains(vector)) {
            vectors::release(vector);
        }
    }
}

fn open_lines() -> impl Iterator<Item = u32> {
    (0..io_apic::end()).filter(|&gsi| io_apic::entry(gsi).is_some_and(|entry| entry & MASKED == 0))
}

fn owned_vectors() -> impl Iterator<Item = u8> {
    vectors::views().filter(|view| !view.name.is_empty()).map(|view| view.vector)
}
