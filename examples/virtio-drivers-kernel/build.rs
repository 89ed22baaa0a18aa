//! Links the kernel as a freestanding image, also where the compiler has only a hosted target.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../machine/linker.ld");
    println!("cargo::rerun-if-changed={script}");
    for argument in ["-nostdlib", "-nostartfiles", "-static", "-no-pie", "-Wl,--build-id=none"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rustc-link-arg-bins=-T{script}");
}
