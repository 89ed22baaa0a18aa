//! I/O ports.

use core::arch::asm;

macro_rules! port {
    ($read:ident, $write:ident, $type:ty, $register:tt) => {
        /// Reads a port.
        ///
        /// # Safety
        /// The port's device cannot harm memory.
        pub unsafe fn $read(port: u16) -> $type {
            let value;
            // SAFETY: the caller's promise.
            unsafe { asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value, options(nostack, preserves_flags)) };
            value
        }

        /// Writes a port.
        ///
        /// # Safety
        /// The port's device cannot harm memory.
        pub unsafe fn $write(port: u16, value: $type) {
            // SAFETY: the caller's promise.
            unsafe { asm!(concat!("out dx, ", $register), in("dx") port, in($register) value, options(nostack, preserves_flags)) };
        }
    };
}

port!(read, write, u8, "al");
port!(read32, write32, u32, "eax");
