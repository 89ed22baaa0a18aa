//! Why a test failed: any error, or a message.

use std::error::Error;

use super::runner::doubt;

/// Any error: a test only reports it.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// The result of a step of a test.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// A failure that a loaded machine can cause without a bug in the kernel: the test runs again, alone.
pub(crate) fn doubtful(why: &str) -> Failure {
    doubt(why);
    why.into()
}

/// Ends the test with a message unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        // Not `!`: every comparison with NaN is false, and must end the test.
        if $condition {
        } else {
            return Err(format!($($message)+).into());
        }
    };
}
pub(crate) use ensure;

/// Like [`ensure!`], with a failure that is [`doubtful`].
#[allow(unused_macros)]
macro_rules! ensure_or_doubt {
    ($condition:expr, $($message:tt)+) => {
        if $condition {
        } else {
            return Err($crate::support::failure::doubtful(&format!($($message)+)));
        }
    };
}
pub(crate) use ensure_or_doubt;
