//! The clock never goes back, and agrees with the machine's timers of known rate.

use alloc::vec::Vec;

use crate::acpi::AddressSpace;
use crate::machine::{Machine, clock};
use x86_64::instructions::port::{Port, PortWriteOnly};

use crate::tests::suite::{Skip, Test, kernel_test, tests};

pub(super) const TESTS: &[Test] =
    tests![it_never_goes_back, the_rate_of_the_tsc_agrees_with_every_timer_of_known_rate,];

kernel_test! {
    fn it_never_goes_back() {
        let mut last = clock::nanoseconds();
        for _ in 0..500_000 {
            let now = clock::nanoseconds();
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
        assert!(last > 0);
    }
}

/// A counter to compare the TSC with: how to read it, its rate in Hz, and its width as a mask.
struct Reference {
    name: &'static str,
    hz: u64,
    mask: u32,
    read: fn(u16) -> u32,
    port: u16,
}

impl Reference {
    /// The ACPI timer.
    fn pm_timer(machine: &Machine) -> Option<Self> {
        let timer = machine.acpi.as_ref()?.fadt.as_ref()?.pm_timer?;
        if timer.register.space != AddressSpace::Io {
            return None;
        }
        let port = u16::try_from(timer.register.address).ok()?;
        // SAFETY: the FADT gives this port for the timer; reading has no effect.
        let read = |port| unsafe { Port::<u32>::new(port).read() };
        Some(Self { name: "PM timer", hz: 3_579_545, mask: 0xFF_FFFF, read, port })
    }

    /// Channel 2 of the 8254, counting down from 65536 repeatedly.
    fn pit() -> Option<Self> {
        const COMMAND: u16 = 0x43;
        const GATE: u16 = 0x61;
        let read = |port| {
            // SAFETY: channel 2 drives only the speaker, which is off; latches and reads its count.
            unsafe {
                PortWriteOnly::<u8>::new(COMMAND).write(0b1000_0000);
                let mut data = Port::<u8>::new(port);
                0xFFFF - u32::from(u16::from_le_bytes([data.read(), data.read()]))
            }
        };
        // SAFETY: opens the gate with the speaker off, and starts the channel as a rate generator.
        unsafe {
            let mut gate = Port::<u8>::new(GATE);
            let former = gate.read();
            gate.write(former & !0b11 | 0b01);
            PortWriteOnly::<u8>::new(COMMAND).write(0b1011_0100);
            let mut data = PortWriteOnly::<u8>::new(0x42);
            data.write(0);
            data.write(0);
        }
        let pit = Self { name: "PIT", hz: 1_193_182, mask: 0xFFFF, read, port: 0x42 };
        let first = pit.count();
        (0..1000).any(|_| pit.count() != first).then_some(pit)
    }

    fn count(&self) -> u32 {
        (self.read)(self.port)
    }

    /// Counter and TSC at one moment: of many tries, the one that took least time.
    fn sample(&self) -> (u32, u64) {
        let tries = (0..64).map(|_| {
            let before = clock::tsc();
            let count = self.count();
            let after = clock::tsc();
            (after - before, (count, before + (after - before) / 2))
        });
        tries.min_by_key(|(spent, _)| *spent).map_or((0, 0), |(_, sample)| sample)
    }

    /// The TSC's rate in Hz by this counter, measured over about 30 ms.
    fn tsc_hz(&self) -> u64 {
        let (first, start) = self.sample();
        let window = (self.hz / 33) as u32;
        while self.count().wrapping_sub(first) & self.mask < window {
            core::hint::spin_loop();
        }
        let (second, end) = self.sample();
        let elapsed = u64::from(second.wrapping_sub(first) & self.mask);
        (u128::from(end - start) * u128::from(self.hz) / u128::from(elapsed)) as u64
    }
}

kernel_test! {
    fn the_rate_of_the_tsc_agrees_with_every_timer_of_known_rate(context) {
        let references = [Reference::pm_timer(&context.machine), Reference::pit()];
        let references: Vec<_> = references.into_iter().flatten().collect();
        if references.is_empty() {
            return Err(Skip::because("there is neither a PM timer nor an 8254"));
        }
        let known = clock::rate().map_or(0, |rate| rate.tsc_hz);
        for reference in references {
            // A busy host may let the counter wrap unseen, which makes the TSC seem faster, never slower.
            let mut rate = 0;
            let agrees = (0..50).any(|_| {
                rate = reference.tsc_hz();
                assert!(rate >= known - known / 50, "{known} Hz, but {rate} Hz by the {}", reference.name);
                rate <= known + known / 50
            });
            assert!(agrees, "{known} Hz, but {rate} Hz by the {}", reference.name);
        }
    }
}
