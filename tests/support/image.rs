//! The kernels that the tests boot.

use std::path::PathBuf;

/// The kernel itself, as cargo built it for this test; `BALLONET_KERNEL` names another build of it.
pub(crate) fn kernel() -> PathBuf {
    named("BALLONET_KERNEL", env!("CARGO_BIN_EXE_ballonet"))
}

/// The kernel's own tests; `BALLONET_TESTS` names another build of them.
pub(crate) fn tests() -> PathBuf {
    named("BALLONET_TESTS", env!("CARGO_BIN_EXE_ballonet-tests"))
}

fn named(variable: &str, built: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| built.into(), PathBuf::from)
}
