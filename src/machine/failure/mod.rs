//! What happens when the kernel fails, and how the test image survives it.

pub(crate) mod fault;
#[cfg(feature = "test-image")]
pub(crate) mod recovery;
