//! Tests the runner of the tests in QEMU, with dummy tests.

// A test program is an ordinary program of the host.
#![allow(clippy::std_instead_of_core, clippy::unwrap_used)]

#[path = "support/runner/mod.rs"]
#[allow(dead_code, unused_imports)]
mod runner;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use runner::clock::{Clock, SLOWEST, running};
use runner::{
    Arguments, Completion, Conclusion, Deadline, Durations, Failed, Plan, Suite, Trial, doubt, note, overload,
};

fn arguments(line: &str) -> Arguments {
    Arguments::parse(line.split_whitespace().map(String::from)).unwrap()
}

/// Runs tests by a command line, and returns the outcome and the output.
fn run(line: &str, trials: Vec<Trial>) -> (Conclusion, String) {
    let arguments = arguments(line);
    let threads = arguments.threads.unwrap_or(1);
    let mut said = Vec::new();
    let mut plan = Plan { arguments, threads, ..Plan::default() };
    let conclusion = runner::run(&mut plan, trials, &mut said).unwrap();
    (conclusion, String::from_utf8(said).unwrap())
}

fn passes(name: &str) -> Trial {
    Trial::test(name, || Ok(())).in_short_suite()
}

fn fails(name: &str) -> Trial {
    Trial::test(name, || Err("it is broken".into())).in_short_suite()
}

/// A test whose first `times` runs fail in doubt, and a counter of its runs.
fn doubtful(name: &str, times: usize) -> (Trial, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let trial = Trial::test(name, move || {
        if counted.fetch_add(1, Ordering::Relaxed) < times {
            doubt("the machine is tired");
            return Err("it took too long".into());
        }
        Ok(())
    });
    (trial.in_short_suite(), runs)
}

/// The lines of finished tests.
fn results(said: &str) -> Vec<&str> {
    said.lines().filter_map(|line| line.split_once("] test ")).map(|(_, result)| result).collect()
}

#[test]
fn the_first_line_counts_and_estimates_and_the_last_is_libtests() {
    let (conclusion, said) = run("", vec![passes("a"), passes("b")]);
    assert!(said.starts_with("\nrunning 2 tests, 1 at a time, for about "), "{said}");
    assert!(
        said.contains("\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in ")
    );
    assert_eq!((conclusion.passed, conclusion.exit_code()), (2, 0));
}

#[test]
fn one_at_a_time_tests_run_in_their_order_and_each_line_counts() {
    let names = ["c", "a", "b"];
    let (_, said) = run("", names.map(passes).into());
    let order: Vec<_> = results(&said).iter().map(|result| result.split(' ').next().unwrap()).collect();
    assert_eq!(order, names);
    for place in ["[1/3  ", "[2/3  ", "[3/3  "] {
        assert!(said.contains(place), "{place:?} is not in {said}");
    }
}

#[test]
fn as_many_run_at_a_time_as_are_asked_for() {
    let meet = Arc::new(Barrier::new(3));
    let trials = (0..3).map(|number| {
        let meet = Arc::clone(&meet);
        Trial::test(format!("{number}"), move || {
            meet.wait();
            Ok(())
        })
    });
    // With fewer threads this would not end.
    let (conclusion, said) = run("--test-threads=3 --include-ignored", trials.collect());
    assert_eq!(conclusion.passed, 3, "{said}");
}

#[test]
fn a_failure_is_explained_at_once_and_again_at_the_end() {
    let (conclusion, said) = run("", vec![fails("bad"), passes("good")]);
    assert_eq!((conclusion.passed, conclusion.failed, conclusion.exit_code()), (1, 1, 101));
    let places: Vec<_> = said.match_indices("it is broken").map(|(at, _)| at).collect();
    let good = said.find("test good ... ok").unwrap();
    assert!(places.len() == 2 && places[0] < good && good < places[1], "{said}");
    assert!(said.contains("failures:\n    bad\n"), "{said}");
    assert!(said.contains("test result: FAILED. 1 passed; 1 failed; "), "{said}");
}

#[test]
fn a_panic_is_a_failure_that_names_its_place() {
    let (conclusion, said) =
        run("", vec![Trial::test("bad", || panic!("no {}", "way")).in_short_suite(), passes("good")]);
    assert_eq!((conclusion.passed, conclusion.failed), (1, 1));
    assert!(said.contains("panicked: no way at tests/runner.rs:"), "{said}");
}

#[test]
fn a_doubtful_failure_is_tried_once_more_when_all_others_are_over() {
    let (trial, runs) = doubtful("tired", 1);
    let (conclusion, said) = run("", vec![trial, passes("good")]);
    assert_eq!((conclusion.passed, conclusion.failed, runs.load(Ordering::Relaxed)), (2, 0, 2));
    let order = results(&said);
    assert!(order[0].starts_with("tired ... not proved: the machine is tired; will be tried again, alone"), "{said}");
    assert!(order[1].starts_with("good ... ok") && order[2].starts_with("tired ... ok"), "{said}");
    assert!(said.contains("passed when tried again, alone: tired (first: it took too long)\n"), "{said}");
}

#[test]
fn a_doubtful_failure_that_comes_again_is_one() {
    let (trial, runs) = doubtful("hangs", usize::MAX);
    let (conclusion, said) = run("", vec![trial]);
    assert_eq!((conclusion.failed, conclusion.exit_code(), runs.load(Ordering::Relaxed)), (1, 101, 2));
    assert!(said.contains("test hangs ... FAILED, and alone too"), "{said}");
    assert!(!said.contains("passed when"), "{said}");
}

#[test]
fn a_failure_without_doubt_is_not_tried_again() {
    let (_, said) = run("", vec![fails("bad")]);
    assert!(!said.contains("again"), "{said}");
}

#[test]
fn reruns_are_limited() {
    let (trials, runs): (Vec<_>, Vec<_>) = (0..50).map(|number| doubtful(&format!("{number}"), usize::MAX)).unzip();
    let (conclusion, _) = run("", trials);
    let runs: usize = runs.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    assert_eq!(conclusion.failed, 50);
    assert!(runs > 50 && runs < 70, "{runs} runs");
}

#[test]
fn tests_impossible_here_are_ignored_with_the_reason() {
    let trial = Trial::ignorable_test("new", || Ok(Completion::ignored_with("there is no QEMU 10.0")));
    let (conclusion, said) = run("", vec![trial.in_short_suite()]);
    assert_eq!((conclusion.passed, conclusion.ignored, conclusion.exit_code()), (0, 1, 0));
    assert!(said.contains("test new ... ignored, there is no QEMU 10.0"), "{said}");
    assert!(said.contains("\nignored: 1, there is no QEMU 10.0\n"), "{said}");
}

#[test]
fn the_short_suite_is_the_default_and_the_rest_is_counted() {
    let trials = || vec![passes("a"), Trial::test("b", || Err(Failed::from("not in the short suite")))];
    let (conclusion, said) = run("", trials());
    assert_eq!((conclusion.passed, conclusion.failed, conclusion.filtered_out), (1, 0, 1));
    assert!(said.contains("running 1 test of the short suite"), "{said}");
    assert!(said.contains("not in the short suite: 1; everything runs by `BALLONET_SUITE=all cargo test`\n"), "{said}");
    assert_eq!(run("b", trials()).0.failed, 1, "what is asked for by name runs");
    let short = |line: &str, suite| Arguments { suite, ..arguments(line) }.is_short();
    assert!(short("", None) && short("b", Some(Suite::Short)) && !short("", Some(Suite::All)));
}

#[test]
fn filters_choose() {
    let names = ["life::reset", "life::reboot", "matrix::reset"];
    let chosen = |line: &str| -> Vec<&str> {
        let arguments = arguments(line);
        names.into_iter().filter(|name| arguments.choose(name)).collect()
    };
    assert_eq!(chosen(""), names);
    assert_eq!(chosen("life::"), names[..2]);
    assert_eq!(chosen("reboot matrix"), names[1..]);
    assert_eq!(chosen("reset --skip matrix"), names[..1]);
    assert_eq!(chosen("--exact life::re"), [""; 0]);
    assert_eq!(chosen("--exact life::reset --skip=life"), names[..1]);
    let (conclusion, _) = run("life", names.map(passes).into());
    assert_eq!((conclusion.passed, conclusion.filtered_out), (2, 1));
}

#[test]
fn ignored_tests_run_on_request() {
    let trials = || vec![passes("a"), fails("b").with_ignored_flag(true)];
    let counts = |line| {
        let (conclusion, _) = run(line, trials());
        [conclusion.passed, conclusion.failed, conclusion.ignored, conclusion.filtered_out]
    };
    assert_eq!(counts(""), [1, 0, 1, 0]);
    assert_eq!(counts("--ignored"), [0, 1, 0, 1]);
    assert_eq!(counts("--include-ignored"), [1, 1, 0, 0]);
}

#[test]
fn a_list_has_every_name_and_runs_nothing() {
    let mut said = Vec::new();
    let plan = Plan { arguments: arguments("--list --format terse"), ..Plan::default() };
    let conclusion = runner::list(&plan, &[passes("a"), fails("b")], &mut said).unwrap();
    assert_eq!((String::from_utf8(said).unwrap().as_str(), conclusion.exit_code()), ("a: test\nb: test\n", 0));
}

#[test]
fn notes_are_shown_on_request_and_with_a_failure() {
    let noting = |fails: bool| {
        Trial::test("n", move || {
            note("seed 7");
            if fails { Err("bad".into()) } else { Ok(()) }
        })
    };
    let shown = |line, fails| run(line, vec![noting(fails).in_short_suite()]).1.contains("seed 7");
    assert!(!shown("", false) && shown("--show-output", false) && shown("", true));
}

#[test]
fn quiet_shows_what_did_not_pass_and_the_end() {
    let (_, said) = run("-q", vec![passes("good"), fails("bad")]);
    assert!(!said.contains("test good") && said.contains("test bad ... FAILED"), "{said}");
    assert!(said.contains("test result: FAILED."), "{said}");
}

#[test]
fn bad_arguments_are_named() {
    for (line, words) in [
        ("--test-threads 0", "--test-threads 0: a whole number from 1"),
        ("--test-threads", "--test-threads needs a value"),
        ("--frobnicate", "unknown option --frobnicate"),
        ("--exact=yes", "unknown option --exact=yes"),
        ("--format json", "--format json: only"),
    ] {
        let why = Arguments::parse(line.split(' ').map(String::from)).unwrap_err();
        assert!(why.contains(words), "{line}: {why}");
    }
    assert!(Suite::parse("everything").unwrap_err().contains("BALLONET_SUITE=everything"));
    for text in ["0.5", "101", "much", "NaN"] {
        assert!(runner::parse_patience(text).unwrap_err().contains(&format!("BALLONET_PATIENCE={text}")));
    }
    assert_eq!(runner::parse_patience("2.5"), Ok(2.5));
}

#[test]
fn the_clock_goes_slower_on_a_loaded_machine_and_never_stands() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut clock = Clock::new(start);
    assert_eq!(clock.at(after(10)), Duration::from_secs(10));
    clock.set_pace(after(10), 4.0);
    assert_eq!(clock.at(after(50)), Duration::from_secs(20));
    // Idle: never faster than real time.
    clock.set_pace(after(50), 0.1);
    assert_eq!(clock.at(after(60)), Duration::from_secs(30));
    for pace in [1e9, f64::INFINITY, f64::NAN] {
        let shown = clock.at(after(60));
        clock.set_pace(after(60), pace);
        let passed = clock.at(after(61)) - shown;
        assert!(passed >= Duration::from_secs(1).div_f64(SLOWEST), "{pace}: {passed:?}");
    }
}

#[test]
fn a_failure_on_an_overloaded_machine_is_in_doubt() {
    let seconds = Duration::from_secs;
    assert_eq!(overload(seconds(20), seconds(10)), None);
    assert_eq!(overload(seconds(0), seconds(0)), None);
    assert!(overload(seconds(40), seconds(10)).is_some_and(|why| why.contains("4.0 times as slow")));
}

#[test]
fn a_deadline_passes_and_says_so() {
    let deadline = Deadline::after(Duration::from_millis(20));
    assert!(deadline.wait().is_ok_and(|wait| wait <= Duration::from_millis(500)));
    let why = loop {
        match deadline.wait() {
            Ok(wait) => std::thread::sleep(wait),
            Err(why) => break why,
        }
    };
    assert!(why.starts_with("the time is up after "), "{why}");
}

#[test]
fn the_machine_is_read() {
    assert_eq!(running("0.31 1.07 0.86 5/321 4711\n"), Some(4));
    assert_eq!(running("0.31 1.07 0.86 0/321 4711\n"), Some(0));
    assert_eq!(running("nonsense"), None);
    assert_eq!(runner::available_memory("MemTotal: 9 kB\nMemAvailable:    4194304 kB\n"), Some(4_194_304));
    assert_eq!(runner::available_memory(""), None);
}

#[test]
fn durations_are_kept_and_give_the_estimate() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("durations-of-the-runner-s-tests");
    let mut durations = Durations::load(file.clone());
    durations.record("slow", Duration::from_secs(600));
    durations.save();
    let kept = Durations::load(file.clone());
    std::fs::remove_file(file).unwrap();
    assert_eq!(kept.expected("slow"), Duration::from_secs(600));
    assert!(kept.expected("new") < Duration::from_secs(60));
    let mut said = Vec::new();
    let mut plan = Plan { threads: 1, durations: kept, ..Plan::default() };
    runner::run(&mut plan, vec![passes("slow")], &mut said).unwrap();
    let said = String::from_utf8(said).unwrap();
    let minutes = said.split_once("for about ").and_then(|(_, rest)| rest.split(' ').next()).unwrap();
    assert!(minutes.parse::<u32>().unwrap() >= 10, "{said}");
    assert!(said.contains(" minutes\n"), "{said}");
}
