//! Hands the two kernel images their link arguments; the library and the tests are ordinary host programs.

fn main() {
    println!("cargo::rerun-if-changed=linker.ld");
    println!("cargo::rerun-if-changed=build.rs");
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo names the package's folder");
    let hosted = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os != "none");
    let script = format!("-T{root}/linker.ld");
    // A hosted target links through the C compiler, a bare one calls the linker itself.
    let arguments: &[&str] = if hosted {
        &[
            "-nostdlib",
            "-nostartfiles",
            "-static",
            "-no-pie",
            "-Wl,--build-id=none",
            "-Wl,-zmax-page-size=4096",
            "-Wl,-zseparate-code",
            &script,
        ]
    } else {
        &["--build-id=none", "-zmax-page-size=4096", &script]
    };
    for image in ["ballonet", "ballonet-tests"] {
        for argument in arguments {
            println!("cargo::rustc-link-arg-bin={image}={argument}");
        }
    }
}
