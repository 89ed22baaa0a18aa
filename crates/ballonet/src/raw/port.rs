//! The I/O instructions of x86, one for each width.

use core::arch::asm;

/// A width that the I/O instructions have.
pub(super) trait PortValue: Copy {
    /// Reads a port.
    ///
    /// # Safety
    /// The port belongs to the caller, and reading it does not affect memory that Rust knows of.
    unsafe fn read(port: u16) -> Self;

    /// Writes a port.
    ///
    /// # Safety
    /// The port belongs to the caller, and writing it does not affect memory that Rust knows of.
    unsafe fn write(self, port: u16);
}

macro_rules! port_value {
    ($type:ty, $register:tt) => {
        impl PortValue for $type {
            #[inline]
            unsafe fn read(port: u16) -> Self {
                let value;
                // SAFETY: the caller's promise; the instruction changes nothing but the register.
                unsafe {
                    asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value,
                        options(nostack, preserves_flags));
                }
                value
            }

            #[inline]
            unsafe fn write(self, port: u16) {
                // SAFETY: the caller's promise; the instruction changes nothing but the port.
                unsafe {
                    asm!(concat!("out dx, ", $register), in("dx") port, in($register) self,
                        options(nostack, preserves_flags));
                }
            }
        }
    };
}

port_value!(u8, "al");
port_value!(u16, "ax");
port_value!(u32, "eax");
