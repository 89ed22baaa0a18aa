//! A test, and its result.

use std::any::Any;
use std::cell::RefCell;
use std::fmt::Display;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;
use std::time::{Duration, Instant};

use super::clock;

/// If the machine is this many times slower than an idle one, a failure gives no verdict at once. Tests that run in
/// parallel do not make it that slow.
const OVERLOADED: f64 = 3.0;

type Test = dyn Fn() -> Result<Completion, Failed> + Send + Sync;

/// A named test. It can run more than once.
pub(crate) struct Trial {
    pub(crate) name: String,
    pub(crate) is_ignored: bool,
    pub(crate) is_short: bool,
    test: Box<Test>,
}

/// The end of a test that does not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Completion {
    Completed,
    /// This machine cannot run the test; with the reason.
    Ignored(String),
}

impl Completion {
    pub(crate) fn ignored_with(reason: impl Display) -> Self {
        Self::Ignored(reason.to_string())
    }
}

/// Why a test failed. Any error can become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed(pub(crate) String);

impl<M: Display> From<M> for Failed {
    fn from(message: M) -> Self {
        Self(message.to_string())
    }
}

/// The result of one run of a test.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) result: Result<Completion, Failed>,
    /// Why the machine may have caused the failure.
    pub(crate) doubt: Option<String>,
    /// What the test noted.
    pub(crate) notes: String,
    /// Real time.
    pub(crate) took: Duration,
    /// The same time on the tests' clock.
    pub(crate) took_idle: Duration,
}

impl Trial {
    pub(crate) fn test(name: impl Into<String>, test: impl Fn() -> Result<(), Failed> + Send + Sync + 'static) -> Self {
        Self::ignorable_test(name, move || test().map(|()| Completion::Completed))
    }

    /// A test that may prove impossible on this machine.
    pub(crate) fn ignorable_test(
        name: impl Into<String>,
        test: impl Fn() -> Result<Completion, Failed> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), is_ignored: false, is_short: false, test: Box::new(test) }
    }

    /// Whether it runs only if ignored tests are requested.
    pub(crate) fn with_ignored_flag(self, is_ignored: bool) -> Self {
        Self { is_ignored, ..self }
    }

    /// Makes it part of the short suite.
    pub(crate) fn in_short_suite(self) -> Self {
        Self { is_short: true, ..self }
    }

    /// Runs it on this thread.
    pub(crate) fn run(&self, no_capture: bool) -> Verdict {
        catch_panics();
        CURRENT.set(Some(Current { name: self.name.clone(), no_capture, ..Current::default() }));
        let (start, start_idle) = (Instant::now(), clock::now());
        let outcome = panic::catch_unwind(AssertUnwindSafe(&self.test));
        let (took, took_idle) = (start.elapsed(), clock::now().saturating_sub(start_idle));
        let current = CURRENT.take().unwrap_or_default();
        let result = outcome.unwrap_or_else(|payload| Err(Failed(current.panic.unwrap_or_else(|| words(&*payload)))));
        Verdict { result, doubt: current.doubt, notes: current.notes, took, took_idle }
    }
}

/// Why any failure may come from the machine, if it was that loaded during the test.
pub(crate) fn overload(took: Duration, took_idle: Duration) -> Option<String> {
    let times = took.as_secs_f64() / took_idle.as_secs_f64();
    (times >= OVERLOADED).then(|| format!("the machine was {times:.1} times as slow as an idle one"))
}

/// The output so far of the test on this thread.
#[derive(Default)]
struct Current {
    name: String,
    no_capture: bool,
    notes: String,
    doubt: Option<String>,
    panic: Option<String>,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

fn with_current(act: impl FnOnce(&mut Current)) {
    CURRENT.with_borrow_mut(|current| current.as_mut().map(act));
}

/// Keeps a line of output, shown on request or if the test fails.
pub(crate) fn note(text: &str) {
    with_current(|current| {
        if current.no_capture {
            println!("{}: {text}", current.name);
        }
        current.notes += text;
        current.notes.push('\n');
    });
}

/// Marks the failure that this test is about to report as possibly the machine's: the test then runs again, alone.
pub(crate) fn doubt(why: &str) {
    with_current(|current| current.doubt = Some(why.to_owned()));
}

/// Turns a test's panic into its failure message, so that it does not mix with other results.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !keep_panic(info) {
                usual(info);
            }
        }));
    });
}

/// Whether the panic was a test's.
fn keep_panic(info: &PanicHookInfo<'_>) -> bool {
    let place = info.location().map(|place| format!(" at {place}")).unwrap_or_default();
    let mut is_kept = false;
    with_current(|current| {
        current.panic = Some(format!("{}{place}", words(info.payload())));
        is_kept = true;
    });
    is_kept
}

fn words(payload: &dyn Any) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("for no stated reason"))
}
