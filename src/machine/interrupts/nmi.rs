//! Non-maskable interrupts: the cause of one, and whether the kernel can continue.
//!
//! A board error shows in port 61h and ends the kernel. Any other NMI comes from a button, a management controller or a
//! watchdog: it is noted, with the address that it interrupted, and the main loop reports it. If a second one comes
//! before that, the kernel hangs; it ends, and the registers are shown. The kernel also sends NMIs itself: to stop the
//! other CPUs after a failure, and to make a CPU that takes no interrupts flush its TLB.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use derive_more::Display;
use x86_64::instructions::port::PortReadOnly;

use crate::machine::interrupts::frame::TrapFrame;
use crate::machine::paging::tlb;
use crate::machine::smp::cpu::Cpu;
use crate::machine::smp::registry;

/// The vector (SDM vol. 3, table 7-1).
pub(crate) const VECTOR: u8 = 2;

/// The cause of an NMI by port 61h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
enum Cause {
    #[display("the bus reports a system error (SERR#)")]
    SystemError,
    #[display("a board reports an error (IOCHK#)")]
    ChannelCheck,
}

impl Cause {
    /// Decodes the value of port 61h: usually no cause, and none if there is no such port.
    const fn of(port: u8) -> Option<Self> {
        const SYSTEM_ERROR: u8 = 1 << 7;
        const CHANNEL_CHECK: u8 = 1 << 6;
        match port {
            0xFF => None,
            _ if port & SYSTEM_ERROR != 0 => Some(Self::SystemError),
            _ if port & CHANNEL_CHECK != 0 => Some(Self::ChannelCheck),
            _ => None,
        }
    }

    fn now() -> Option<Self> {
        // SAFETY: the port with the speaker's gate and the board's error bits; reading it has no effect.
        Self::of(unsafe { PortReadOnly::<u8>::new(0x61).read() })
    }
}

/// NMIs so far, on any CPU.
static COUNT: AtomicU64 = AtomicU64::new(0);
/// One has interrupted the boot CPU, whose main loop has not reported it yet.
static UNREPORTED: AtomicBool = AtomicBool::new(false);
/// The address that the last one of those interrupted.
static INTERRUPTED: AtomicU64 = AtomicU64::new(0);

/// Does what another CPU requested by the NMI. Returns whether that explains the NMI and no failure is being reported
/// here.
pub(crate) fn is_of_the_kernel() -> bool {
    registry::stop_if_asked() || tlb::catch_up_by_nmi()
}

/// Notes an external NMI. Returns whether the kernel can continue: the cause was no error, and the main loop has made
/// progress since the last one.
pub(crate) fn note(frame: &TrapFrame) -> bool {
    COUNT.fetch_add(1, Ordering::Relaxed);
    let is_life_missing = Cpu::this().is_boot() && {
        INTERRUPTED.store(frame.rip, Ordering::Relaxed);
        UNREPORTED.swap(true, Ordering::Release)
    };
    Cause::now().is_none() && !is_life_missing
}

/// Why one is fatal.
pub(crate) fn why_fatal() -> impl core::fmt::Display {
    struct Why(Option<Cause>);
    impl core::fmt::Display for Why {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            match self.0 {
                Some(cause) => write!(f, "{cause}"),
                None => f.write_str("the kernel has not reported the previous NMI: it hangs here"),
            }
        }
    }
    Why(Cause::now())
}

/// How many NMIs have come, and which address the last one interrupted, if there was one since the last call.
pub(crate) fn take_unreported() -> Option<(u64, u64)> {
    let unreported = has_unreported() && UNREPORTED.swap(false, Ordering::Acquire);
    unreported.then(|| (COUNT.load(Ordering::Relaxed), INTERRUPTED.load(Ordering::Relaxed)))
}

/// Whether an NMI is not reported yet.
pub(crate) fn has_unreported() -> bool {
    UNREPORTED.load(Ordering::Acquire)
}

#[cfg(test)]
mod tests {
    use super::Cause;

    #[test]
    fn the_port_tells_of_errors_of_the_board_and_of_nothing_else() {
        assert_eq!(Cause::of(0b1000_0000), Some(Cause::SystemError));
        assert_eq!(Cause::of(0b0100_0001), Some(Cause::ChannelCheck));
        // Speaker, timer and refresh bits; then no port at all.
        for harmless in [0, 0b0011_1111, 0xFF] {
            assert_eq!(Cause::of(harmless), None);
        }
    }
}
