//! Interrupts and exceptions: controllers, vectors, and the way into Rust.

pub(crate) mod frame;
pub(crate) mod io_apic;
pub(crate) mod lines;
pub(crate) mod local_apic;
pub(crate) mod machine_check;
pub(crate) mod nmi;
pub(crate) mod numbers;
pub(crate) mod pic;
pub(crate) mod traps;
pub(crate) mod vectors;
