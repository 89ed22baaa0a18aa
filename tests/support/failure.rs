//! Why a test failed: any error, or a sentence.

use std::error::Error;

/// Any error will do: a test only reports it.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// What a step of a test comes to.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Ends the test with a message unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        // Not `!`: a comparison with NaN holds neither way, and must end the test.
        if $condition {
        } else {
            return Err(format!($($message)+).into());
        }
    };
}
pub(crate) use ensure;
