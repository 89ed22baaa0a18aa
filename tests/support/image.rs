//! The kernels that the tests boot.

use std::path::PathBuf;

/// The kernel that cargo built for this test; `BALLONET_KERNEL` names another build.
pub(crate) fn kernel() -> PathBuf {
    named("BALLONET_KERNEL", env!("CARGO_BIN_EXE_ballonet"))
}

/// The kernel's own tests; `BALLONET_TESTS` names another build.
pub(crate) fn tests() -> PathBuf {
    named("BALLONET_TESTS", env!("CARGO_BIN_EXE_ballonet-tests"))
}

fn named(variable: &str, built: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| built.into(), PathBuf::from)
}
