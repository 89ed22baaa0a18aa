//! The kernels that the tests boot.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::script::{printed, script};

/// The kernel that cargo built for this test; `BALLONET_KERNEL` names another build.
pub(crate) fn kernel() -> PathBuf {
    named("BALLONET_KERNEL", env!("CARGO_BIN_EXE_ballonet"))
}

/// The kernel's own tests; `BALLONET_TESTS` names another build.
pub(crate) fn tests() -> PathBuf {
    named("BALLONET_TESTS", env!("CARGO_BIN_EXE_ballonet-tests"))
}

/// The kernel as a bzImage, made once for the whole test program; `None` where what makes it is not available.
pub(crate) fn bzimage() -> Result<Option<PathBuf>, String> {
    static MADE: OnceLock<Result<Option<PathBuf>, String>> = OnceLock::new();
    MADE.get_or_init(|| {
        let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ballonet.bzimage");
        let mut command = script("bzimage.sh");
        command.arg("--output").arg(&output).arg("--kernel").arg(kernel());
        Ok(printed(command, false)?.map(|_| output))
    })
    .clone()
}

fn named(variable: &str, built: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| built.into(), PathBuf::from)
}
