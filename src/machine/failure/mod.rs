//! What happens when the kernel fails, and how the test image survives it.

pub(crate) mod fault;
pub(crate) mod recovery;
