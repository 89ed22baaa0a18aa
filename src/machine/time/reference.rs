//! Timers of known rate, against which the clocks are measured.

use x86_64::instructions::port::Port;

use super::choice::ClockSource;
use crate::acpi::Hpet;
use crate::machine::devices::mmio::Window;
use crate::machine::memory::frames;
use crate::machine::paging::{self, Access};
use ballonet::platform::Registers;

/// A counter of known rate, independent of the TSC.
pub(crate) enum Reference {
    /// ACPI's timer at a port, and its mask.
    PmTimerPort(u16, u32),
    /// The main counter of the event timers, and its period in femtoseconds.
    Hpet(Window, u32),
    /// Channel 2 of the 8254, which drives the speaker.
    Pit,
    /// None: it does not count.
    None,
}

const PM_TIMER_HZ: u64 = 3_579_545;
const PIT_HZ: u64 = 1_193_182;
/// Femtoseconds in a second.
const FEMTOSECONDS: u64 = 1_000_000_000_000_000;

const HPET_PERIOD: usize = 0x04;
const HPET_CONFIGURATION: usize = 0x10;
const HPET_COUNTER: usize = 0xF0;
/// The longest period that the specification allows: 100 ns.
const HPET_SLOWEST: u32 = 100_000_000;

const PIT_CHANNEL_2: u16 = 0x42;
const PIT_COMMAND: u16 = 0x43;
/// Port 61h: gate of channel 2 (bit 0), speaker (bit 1).
const SPEAKER: u16 = 0x61;
/// Channel 2, low then high byte, rate generator, binary.
const PIT_RATE_CHANNEL_2: u8 = 0b1011_0100;
/// Latch channel 2.
const PIT_LATCH_CHANNEL_2: u8 = 0b1000_0000;

impl Reference {
    /// Its rate.
    pub(crate) fn hz(&self) -> u64 {
        match self {
            Self::PmTimerPort(..) => PM_TIMER_HZ,
            Self::Hpet(_, period) => FEMTOSECONDS / u64::from(*period),
            Self::Pit => PIT_HZ,
            Self::None => 1,
        }
    }

    /// The counter's implemented bits.
    pub(crate) fn mask(&self) -> u32 {
        match self {
            Self::PmTimerPort(_, mask) => *mask,
            Self::Hpet(..) | Self::None => u32::MAX,
            Self::Pit => 0xFFFF,
        }
    }

    /// The counter, counting up.
    pub(crate) fn read(&self) -> u32 {
        match self {
            // SAFETY: the FADT says that the PM timer is at this port; reading it has no effect.
            Self::PmTimerPort(port, _) => unsafe { Port::<u32>::new(*port).read() },
            Self::Hpet(window, _) => window.read32(HPET_COUNTER),
            // SAFETY: only this code uses channel 2: it drives just the speaker, which is off.
            Self::Pit => unsafe {
                Port::<u8>::new(PIT_COMMAND).write(PIT_LATCH_CHANNEL_2);
                let mut data = Port::<u8>::new(PIT_CHANNEL_2);
                let (low, high) = (data.read(), data.read());
                0xFFFF - u32::from(u16::from_le_bytes([low, high]))
            },
            Self::None => 0,
        }
    }

    /// The timer of a source, set up; `None` if the source is no timer, or does not exist. `hpet`: its address in the
    /// tables.
    pub(crate) fn open(source: ClockSource, hpet: Option<&Hpet>) -> Option<Self> {
        match source {
            ClockSource::PmTimer(port, mask) => Some(Self::PmTimerPort(port, mask)),
            ClockSource::Hpet => Self::hpet(hpet?),
            ClockSource::Pit => Some(Self::pit()),
            _ => None,
        }
    }

    fn hpet(hpet: &Hpet) -> Option<Self> {
        const LENGTH: u64 = 1024;
        let base = hpet.base.as_u64();
        let start =
            paging::with(|space| space.open_window(base, LENGTH, Access::Device, &mut frames::ForTables)).ok()?;
        // SAFETY: just mapped permanently; the HPET's counter touches no memory.
        let mut window = unsafe { Window::memory(start, LENGTH as usize) };
        let period = window.read32(HPET_PERIOD);
        if period == 0 || period > HPET_SLOWEST {
            return None;
        }
        let configuration = window.read32(HPET_CONFIGURATION);
        window.write32(HPET_CONFIGURATION, configuration | 1);
        Some(Self::Hpet(window, period))
    }

    fn pit() -> Self {
        // SAFETY: opens the gate of channel 2 with the speaker off, and lets it count down from 65536 over and over.
        unsafe {
            let mut speaker = Port::<u8>::new(SPEAKER);
            let former = speaker.read();
            speaker.write(former & !0b11 | 0b01);
            Port::<u8>::new(PIT_COMMAND).write(PIT_RATE_CHANNEL_2);
            let mut data = Port::<u8>::new(PIT_CHANNEL_2);
            data.write(0);
            data.write(0);
        }
        Self::Pit
    }
}
