//! Slots against a model of a port's registers: one that keeps to the specification, and ones that do not.

use core::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::pci::express::Indicator;

const MS: u64 = 1_000_000;
/// Where the model has its PCI Express capability.
const EXPRESS: u16 = 0x40;
const SLOT_CONTROL: u16 = EXPRESS + 0x18;
const SLOT_STATUS: u16 = EXPRESS + 0x1A;

/// A port's faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools)]
struct Quirks {
    /// It never reports a completed command.
    mute: bool,
    /// These events cannot be cleared.
    stuck: u16,
    /// Presence changes whenever status is read.
    flaps: bool,
    /// The link never comes up.
    no_link: bool,
    /// The card never answers.
    no_answer: bool,
    /// The card never becomes ready.
    never_ready: bool,
}

/// A port and its card.
struct Port {
    capabilities: SlotCapabilities,
    control: u16,
    /// Events that were not cleared.
    events: Cell<u16>,
    card: Cell<bool>,
    gone: bool,
    quirks: Quirks,
    /// Commands written while one was not done, or that toggled the interlock.
    missteps: Vec<String>,
    writes: usize,
}

const FULL: SlotCapabilities = SlotCapabilities::ATTENTION_BUTTON
    .union(SlotCapabilities::POWER_CONTROLLER)
    .union(SlotCapabilities::LATCH_SENSOR)
    .union(SlotCapabilities::ATTENTION_INDICATOR)
    .union(SlotCapabilities::POWER_INDICATOR)
    .union(SlotCapabilities::INTERLOCK)
    .union(SlotCapabilities::HOT_PLUG);

impl Port {
    fn new(card: bool, powered: bool, quirks: Quirks) -> Self {
        Self {
            capabilities: FULL,
            control: if powered { 0x01C0 } else { 0x07C0 },
            events: Cell::new(0),
            card: Cell::new(card),
            gone: false,
            quirks,
            missteps: Vec::new(),
            writes: 0,
        }
    }

    fn bdf() -> Bdf {
        Bdf::new(0, 0, 1, 0).unwrap()
    }

    fn happen(&self, event: SlotStatus) {
        self.events.set(self.events.get() | event.bits());
    }

    fn insert(&self, card: bool) {
        self.card.set(card);
        self.happen(SlotStatus::PRESENCE_CHANGED | SlotStatus::LINK_CHANGED);
    }

    fn powered(&self) -> bool {
        self.control & SlotControl::POWER_OFF.bits() == 0
    }

    fn power_indicator(&self) -> u16 {
        self.control >> 8 & 3
    }

    fn status(&self) -> u16 {
        if self.quirks.flaps {
            self.insert(!self.card.get());
        }
        let present = if self.card.get() { SlotStatus::PRESENT.bits() } else { 0 };
        self.events.get() | self.quirks.stuck | present
    }

    fn register(&self, function: Bdf, offset: u16) -> u32 {
        if function == Bdf::new(0, 1, 0, 0).unwrap() {
            let answers = self.card.get() && self.powered() && !self.quirks.no_answer;
            return match offset {
                0 if answers && self.quirks.never_ready => 0xFFFF_0001,
                0 if answers => 0x1045_1AF4,
                _ => u32::MAX,
            };
        }
        if function != Self::bdf() || self.gone {
            return u32::MAX;
        }
        let link = self.card.get() && self.powered() && !self.quirks.no_link;
        match offset {
            0x00 => 0x000C_1B36,
            0x04 => 0x0010_0000,
            0x08 => 0x0604_0000,
            0x0C => 0x0001_0000,
            0x18 => 0x0001_0100,
            0x34 => EXPRESS.into(),
            0x40 => 0x0142_0010,
            0x4C => 1 << 20,
            0x50 => u32::from(link) << 29,
            0x54 => self.capabilities.bits() | 7 << 19,
            SLOT_CONTROL => u32::from(self.control) | u32::from(self.status()) << 16,
            _ => 0,
        }
    }
}

impl ConfigSpace for Port {
    fn size(&self, _: u16, bus: u8) -> u16 {
        if bus < 2 { 4096 } else { 0 }
    }

    fn read8(&self, function: Bdf, offset: u16) -> u8 {
        (self.read32(function, offset & !3) >> (8 * (offset & 3))) as u8
    }

    fn read16(&self, function: Bdf, offset: u16) -> u16 {
        (self.read32(function, offset & !3) >> (8 * (offset & 3))) as u16
    }

    fn read32(&self, function: Bdf, offset: u16) -> u32 {
        self.register(function, offset)
    }

    fn write8(&mut self, _: Bdf, offset: u16, value: u8) {
        self.missteps.push(format!("wrote {value:#x} as a byte at {offset:#x}"));
    }

    fn write16(&mut self, function: Bdf, offset: u16, value: u16) {
        assert_eq!(function, Self::bdf());
        self.writes += 1;
        match offset {
            SLOT_CONTROL => {
                let running = self.events.get() & SlotStatus::COMMAND_COMPLETED.bits() != 0;
                if running && !self.quirks.mute {
                    self.missteps.push(format!("wrote slot control {value:#x} before the last command was seen done"));
                }
                if value & SlotControl::INTERLOCK.bits() != 0 {
                    self.missteps.push(format!("toggled the interlock by {value:#x}"));
                }
                self.control = value;
                if !self.quirks.mute {
                    self.happen(SlotStatus::COMMAND_COMPLETED);
                }
            }
            SLOT_STATUS => {
                if value & !SlotStatus::EVENTS.bits() != 0 {
                    self.missteps.push(format!("wrote {value:#x} to slot status"));
                }
                self.events.set(self.events.get() & !value);
            }
            _ => self.missteps.push(format!("wrote {value:#x} at {offset:#x}")),
        }
    }

    fn write32(&mut self, _: Bdf, offset: u16, value: u32) {
        self.missteps.push(format!("wrote {value:#x} as a dword at {offset:#x}"));
    }
}

/// A slot with its port, and devices that come and go with it.
struct Bench {
    port: Port,
    slot: Controller,
    now: u64,
    up: bool,
    errors: Vec<SlotError>,
}

impl Bench {
    fn new(port: Port, timing: Timing) -> Self {
        let mut port = port;
        let function = Function::probe(&port, Port::bdf()).unwrap();
        let mut slot = Controller::find(&port, &function, timing).unwrap().unwrap();
        let up = slot.stage() == Stage::On;
        slot.start(&mut port, 0);
        Self { port, slot, now: 0, up, errors: Vec::new() }
    }

    fn look(&mut self) -> Result<(), SlotError> {
        let report = self.slot.poll(&mut self.port, SlotStatus::empty, self.now)?;
        self.errors.extend(report.errors.into_iter().flatten());
        match report.task {
            Some(Task::Add) => {
                assert!(!self.up);
                self.up = true;
                self.slot.added(&mut self.port, true, self.now);
            }
            Some(Task::Remove { .. }) => {
                assert!(self.up);
                self.up = false;
                self.slot.removed(&mut self.port, self.now);
            }
            None => {}
        }
        Ok(())
    }

    /// Polls the slot whenever it is due, for `ms`.
    fn run(&mut self, ms: u64) {
        let end = self.now + ms * MS;
        let mut looks = 0;
        self.look().unwrap();
        while let Some(next) = self.slot.next_look().filter(|next| *next <= end) {
            looks += 1;
            assert!(looks < 100 + 2 * ms, "looks without a pause at {:?}", self.slot.stage());
            self.now = self.now.max(next);
            self.look().unwrap();
        }
        self.now = end;
        self.look().unwrap();
    }

    fn press(&mut self) {
        self.port.happen(SlotStatus::ATTENTION_BUTTON);
    }
}

fn fine(card: bool, powered: bool) -> Bench {
    Bench::new(Port::new(card, powered, Quirks::default()), Timing::STANDARD)
}

#[test]
fn a_card_comes_goes_and_comes_again() {
    let mut bench = fine(false, false);
    bench.run(100);
    assert_eq!(bench.slot.number(), 7);
    for _ in 0..3 {
        bench.port.insert(true);
        bench.run(500);
        assert!(bench.up && bench.port.powered());
        assert_eq!(bench.port.power_indicator(), 1);
        bench.press();
        bench.run(4_000);
        assert!(bench.up);
        assert_eq!(bench.port.power_indicator(), 2, "blinks");
        bench.run(3_000);
        assert!(!bench.up && !bench.port.powered());
        assert_eq!(bench.port.power_indicator(), 3);
        bench.port.insert(false);
        bench.run(20_000);
    }
    assert_eq!((bench.errors, bench.port.missteps), (vec![], vec![]));
}

#[test]
fn a_card_that_firmware_left_on_is_in_use_and_one_left_off_is_brought_up() {
    assert!(fine(true, true).up);
    let mut dark = fine(true, false);
    assert!(!dark.up);
    dark.run(1_000);
    assert!(dark.up);
    let mut empty = fine(false, true);
    empty.run(2_000);
    assert!(!empty.port.powered(), "no card needs no power");
}

#[test]
fn a_pulled_card_is_removed_at_once_and_its_successor_added() {
    let mut bench = fine(true, true);
    bench.run(10);
    bench.port.insert(false);
    bench.look().unwrap();
    assert!(!bench.up);
    bench.port.insert(true);
    bench.run(2_000);
    assert!(bench.up);
    // Exchanged between two looks.
    bench.port.insert(true);
    bench.look().unwrap();
    assert!(!bench.up);
    bench.run(2_000);
    assert!(bench.up);
    assert_eq!(bench.port.missteps, Vec::<String>::new());
}

#[test]
fn an_open_latch_is_no_card() {
    let mut bench = fine(true, true);
    bench.run(10);
    bench.port.quirks.stuck = SlotStatus::LATCH_OPEN.bits();
    bench.port.happen(SlotStatus::LATCH_MOVED);
    bench.run(2_000);
    assert!(!bench.up && !bench.port.powered());
    bench.port.quirks.stuck = 0;
    bench.port.happen(SlotStatus::LATCH_MOVED);
    bench.run(2_000);
    assert!(bench.up);
}

#[test]
fn a_port_that_never_completes_a_command_is_reported_once_and_still_used() {
    let mut bench = Bench::new(Port::new(false, false, Quirks { mute: true, ..Quirks::default() }), Timing::STANDARD);
    bench.port.insert(true);
    bench.run(5_000);
    assert!(bench.up);
    bench.press();
    bench.run(10_000);
    assert!(!bench.up && !bench.port.powered());
    let port = Port::bdf();
    assert!(matches!(bench.errors[..], [SlotError::CommandTimeout { port: of, ms: 1000, .. }] if of == port));
}

#[test]
fn events_that_cannot_be_cleared_are_reported_and_ignored() {
    for stuck in [SlotStatus::PRESENCE_CHANGED, SlotStatus::ATTENTION_BUTTON, SlotStatus::COMMAND_COMPLETED] {
        let quirks = Quirks { stuck: stuck.bits(), ..Quirks::default() };
        let mut bench = Bench::new(Port::new(true, true, quirks), Timing::STANDARD);
        bench.run(30_000);
        let named = SlotError::StuckEvents { port: Port::bdf(), events: stuck.bits() };
        assert_eq!(bench.errors.iter().filter(|error| **error == named).count(), 1, "{:?}", bench.errors);
        assert_eq!(bench.slot.interrupts().bits() & stuck.bits(), 0, "that interrupt stays disabled");
        // The rest works.
        bench.port.insert(false);
        bench.run(10_000);
        assert!(!bench.up);
    }
}

#[test]
fn a_card_that_does_not_come_up_is_powered_off_and_reported() {
    let broken = [
        (Quirks { no_link: true, ..Quirks::default() }, SlotFault::NoLink),
        (Quirks { no_answer: true, ..Quirks::default() }, SlotFault::NoAnswer),
        (Quirks { never_ready: true, ..Quirks::default() }, SlotFault::NoAnswer),
    ];
    for (quirks, trouble) in broken {
        let mut bench = Bench::new(Port::new(false, false, quirks), Timing::STANDARD);
        bench.port.insert(true);
        bench.run(10_000);
        assert!(!bench.up && !bench.port.powered());
        assert_eq!(bench.errors, [SlotError::SlotFault { port: Port::bdf(), trouble }]);
        let attention = bench.port.control >> 6 & 3;
        assert_eq!(attention, 1, "the attention indicator is lit");
        assert_eq!(bench.slot.next_look(), None, "and it is no longer polled");
    }
}

#[test]
fn a_port_that_is_gone_is_named() {
    let mut bench = fine(true, true);
    bench.run(10);
    bench.port.gone = true;
    assert_eq!(bench.look(), Err(SlotError::Gone(Port::bdf())));
}

#[test]
fn ports_without_a_hot_plug_slot_are_not_found() {
    let find = |port: &Port| {
        let function = Function::probe(port, Port::bdf()).unwrap();
        Controller::find(port, &function, Timing::STANDARD).unwrap().is_some()
    };
    let mut port = Port::new(true, true, Quirks::default());
    assert!(find(&port));
    port.capabilities = SlotCapabilities::ATTENTION_BUTTON;
    assert!(!find(&port));
}

#[test]
fn control_bits_of_missing_features_are_not_written() {
    let mut port = Port::new(false, false, Quirks::default());
    port.capabilities = SlotCapabilities::HOT_PLUG | SlotCapabilities::NO_COMMAND_COMPLETED;
    port.quirks.mute = true;
    let mut bench = Bench::new(port, Timing::PROMPT);
    bench.port.control &= !SlotControl::POWER_OFF.bits();
    bench.slot.control = SlotControl::from_bits_retain(bench.port.control);
    let indicators = bench.port.control & 0x03C0;
    bench.port.insert(true);
    bench.run(5_000);
    assert!(bench.up);
    bench.port.insert(false);
    bench.run(5_000);
    assert!(!bench.up && bench.port.powered());
    assert_eq!(bench.port.control & 0x03C0, indicators);
    assert_eq!(bench.errors, []);
}

#[test]
fn releasing_a_slot_restores_its_interrupt_enables() {
    let Bench { mut port, slot, .. } = fine(true, true);
    assert_ne!(port.control & SlotControl::INTERRUPT.bits(), 0);
    slot.release(&mut port);
    assert_eq!(port.control & every_interrupt().bits(), 0);
    assert!(port.powered());
    assert_eq!(
        SlotControl::from_bits_retain(port.control),
        SlotControl::from_bits_retain(port.control).with_power(Indicator::On)
    );
}

#[test]
fn events_recorded_and_cleared_by_a_handler_count() {
    let mut bench = fine(true, true);
    let mut noted = Some(SlotStatus::ATTENTION_BUTTON);
    let report = bench.slot.poll(&mut bench.port, || noted.take().unwrap_or(SlotStatus::empty()), 0).unwrap();
    assert_eq!(report, SlotReport::default());
    assert!(matches!(bench.slot.stage(), Stage::ButtonGrace { on: false, .. }));
}

proptest! {
    /// Whatever a port does, and whatever happens to it: tasks alternate, registers are written by the rules, the slot
    /// does not poll in a tight loop, and a port that is gone is reported.
    #[test]
    fn any_port_is_survived(
        mute: bool, no_link: bool, no_answer: bool, flaps: bool, stuck in 0..=u16::MAX, prompt: bool,
        happenings in prop::collection::vec((0..6_u8, 0..3_000_u64), 0..40), card: bool, powered: bool,
    ) {
        let quirks = Quirks { mute, stuck: stuck & 0x1F, flaps, no_link, no_answer, never_ready: false };
        let timing = if prompt { Timing::PROMPT } else { Timing::STANDARD };
        let mut bench = Bench::new(Port::new(card, powered, quirks), timing);
        for (what, ms) in happenings {
            match what {
                0 => bench.press(),
                1 => bench.port.insert(true),
                2 => bench.port.insert(false),
                3 => bench.port.happen(SlotStatus::POWER_FAULT),
                4 => bench.port.happen(SlotStatus::from_bits_retain(stuck)),
                _ => bench.slot.lose(bench.now),
            }
            bench.run(ms);
        }
        // A stuck completion looks like a command that is done.
        if quirks.stuck & SlotStatus::COMMAND_COMPLETED.bits() == 0 {
            prop_assert_eq!(&bench.port.missteps, &Vec::<String>::new());
        }
        bench.port.gone = true;
        prop_assert_eq!(bench.look(), Err(SlotError::Gone(Port::bdf())));
    }
}
