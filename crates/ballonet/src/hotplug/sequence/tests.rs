use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

/// A card that is present and answers, in a slot that has completed its commands.
const FINE: SlotInputs = SlotInputs {
    pressed: false,
    card_changed: false,
    link_changed: false,
    power_fault: false,
    present: true,
    link: true,
    answers: true,
    settled: true,
};
/// An empty slot.
const EMPTY: SlotInputs = SlotInputs { present: false, link: false, answers: false, ..FINE };

/// A sequence that is stepped manually.
struct Hand {
    sequence: Sequence,
    now: u64,
}

impl Hand {
    fn new(powered: bool, present: bool) -> Self {
        Self { sequence: Sequence::new(Timing::STANDARD, powered, present), now: 1_000 * MS }
    }

    fn step(&mut self, signs: SlotInputs) -> Step {
        self.sequence.step(signs, self.now)
    }

    fn after(&mut self, ms: u64, signs: SlotInputs) -> Step {
        self.now += ms * MS;
        self.step(signs)
    }

    fn power(&self) -> (bool, Indicator) {
        let lamps = self.sequence.lamps();
        (lamps.power, lamps.power_indicator)
    }

    /// A card appears in an empty slot and is added.
    fn plugged() -> Self {
        let mut hand = Self::new(false, false);
        assert_eq!(hand.step(SlotInputs { card_changed: true, ..FINE }), Step::NOTHING);
        assert_eq!(hand.power(), (true, Indicator::Blink));
        assert_eq!(hand.after(10, FINE), Step::NOTHING, "the card is not accessed directly after link-up");
        assert_eq!(hand.after(100, FINE).task, Some(Task::Add));
        assert_eq!(hand.sequence.added(true), None);
        assert_eq!(hand.power(), (true, Indicator::On));
        hand
    }
}

#[test]
fn a_new_card_is_powered_at_once_even_with_a_press_of_the_button() {
    Hand::plugged();
    // A virtual machine's slot adds a card and presses the button at once: that is no reason to wait.
    let mut hand = Hand::new(false, false);
    let _ = hand.step(SlotInputs { card_changed: true, pressed: true, ..FINE });
    assert!(matches!(hand.sequence.stage(), Stage::Rising { .. }));
}

#[test]
fn a_press_counts_after_five_seconds_in_which_the_indicator_blinks() {
    let mut hand = Hand::plugged();
    assert_eq!(hand.step(SlotInputs { pressed: true, ..FINE }), Step::NOTHING);
    assert_eq!(hand.power(), (true, Indicator::Blink));
    assert_eq!(hand.after(4_999, FINE), Step::NOTHING);
    assert_eq!(hand.after(1, FINE).task, Some(Task::Remove { surprise: false }));
    assert_eq!(hand.power(), (true, Indicator::Blink), "power stays on until the devices are removed");
    assert_eq!(hand.after(1_000, FINE), Step::NOTHING);
    hand.sequence.removed();
    assert_eq!(hand.power(), (false, Indicator::Blink));
    let _ = hand.step(SlotInputs { settled: false, ..FINE });
    assert_eq!(hand.sequence.stage(), Stage::Falling, "not before the command is complete");
    let _ = hand.step(FINE);
    let _ = hand.after(999, FINE);
    assert_eq!(hand.power(), (false, Indicator::Blink), "a second until the power has drained");
    let _ = hand.after(1, FINE);
    assert_eq!(hand.power(), (false, Indicator::Off));
    // The card is still there and stays off: the press was for its removal.
    assert_eq!(hand.after(60_000, FINE), Step::NOTHING);
    assert_eq!(hand.sequence.stage(), Stage::Off);
}

#[test]
fn a_second_press_cancels_the_first() {
    let mut hand = Hand::plugged();
    let _ = hand.step(SlotInputs { pressed: true, ..FINE });
    assert_eq!(hand.after(3_000, SlotInputs { pressed: true, ..FINE }), Step::NOTHING);
    assert_eq!((hand.sequence.stage(), hand.power()), (Stage::On, (true, Indicator::On)));
    assert_eq!(hand.after(60_000, FINE), Step::NOTHING);

    let mut off = Hand::new(false, false);
    let _ = off.step(SlotInputs { pressed: true, ..FINE });
    assert_eq!(off.power(), (false, Indicator::Blink));
    let _ = off.after(100, SlotInputs { pressed: true, ..FINE });
    assert_eq!((off.sequence.stage(), off.power()), (Stage::Off, (false, Indicator::Off)));
}

#[test]
fn a_press_on_an_empty_slot_does_nothing() {
    let mut hand = Hand::new(false, false);
    assert_eq!(hand.step(SlotInputs { pressed: true, ..EMPTY }), Step::NOTHING);
    assert_eq!(hand.sequence.stage(), Stage::Off);
}

#[test]
fn without_a_grace_period_a_press_counts_at_once() {
    let mut sequence = Sequence::new(Timing::PROMPT, true, true);
    let _ = sequence.step(SlotInputs { pressed: true, ..FINE }, 7);
    assert!(sequence.is_ready(7));
    assert_eq!(sequence.step(FINE, 7).task, Some(Task::Remove { surprise: false }));
}

#[test]
fn a_press_during_power_up_counts_once_the_slot_is_on() {
    let mut hand = Hand::new(false, false);
    let _ = hand.step(SlotInputs { card_changed: true, ..FINE });
    let _ = hand.after(10, SlotInputs { pressed: true, ..FINE });
    assert_eq!(hand.after(100, FINE).task, Some(Task::Add));
    hand.sequence.added(true);
    assert!(hand.sequence.is_ready(hand.now));
    let _ = hand.step(FINE);
    assert!(matches!(hand.sequence.stage(), Stage::ButtonGrace { on: false, .. }));
}

#[test]
fn a_card_that_may_have_been_exchanged_counts_as_new() {
    let losses = [
        EMPTY,
        SlotInputs { card_changed: true, ..FINE },
        SlotInputs { link_changed: true, ..FINE },
        SlotInputs { link: false, ..FINE },
        SlotInputs { present: false, ..FINE },
    ];
    for loss in losses {
        for pressed in [false, true] {
            let mut hand = Hand::plugged();
            if pressed {
                let _ = hand.step(SlotInputs { pressed, ..FINE });
            }
            assert_eq!(hand.step(loss).task, Some(Task::Remove { surprise: true }), "{loss:?}");
            hand.sequence.removed();
            let _ = hand.after(10, FINE);
            let _ = hand.after(999, FINE);
            assert_eq!(hand.power(), (false, Indicator::Blink));
            let _ = hand.after(1, FINE);
            assert_eq!(hand.power(), (true, Indicator::Blink), "the card is added, and was never shown as removable");
        }
    }
}

#[test]
fn a_card_exchanged_while_being_added_is_removed_again() {
    let mut hand = Hand::new(false, false);
    let _ = hand.step(SlotInputs { card_changed: true, ..FINE });
    let _ = hand.after(10, FINE);
    assert_eq!(hand.after(100, FINE).task, Some(Task::Add));
    let _ = hand.step(SlotInputs { card_changed: true, ..FINE });
    hand.sequence.added(true);
    assert!(hand.sequence.is_ready(hand.now));
    assert_eq!(hand.step(FINE).task, Some(Task::Remove { surprise: true }));
}

#[test]
fn a_card_that_appears_during_power_down_is_powered_afterwards() {
    let mut hand = Hand::plugged();
    let _ = hand.step(SlotInputs { pressed: true, ..FINE });
    let _ = hand.after(5_000, FINE);
    hand.sequence.removed();
    let _ = hand.step(FINE);
    let _ = hand.after(500, SlotInputs { card_changed: true, ..FINE });
    let _ = hand.after(500, FINE);
    assert!(matches!(hand.sequence.stage(), Stage::Rising { .. }));
}

#[test]
fn devices_gone_without_a_slot_event_are_removed_and_the_card_powered_again() {
    let mut hand = Hand::plugged();
    hand.sequence.lose();
    assert!(hand.sequence.is_ready(hand.now));
    assert_eq!(hand.step(FINE).task, Some(Task::Remove { surprise: true }));
    hand.sequence.removed();
    assert_eq!(hand.power(), (false, Indicator::Blink));
    let _ = hand.step(FINE);
    let _ = hand.after(1_000, FINE);
    assert!(matches!(hand.sequence.stage(), Stage::Rising { .. }));
}

#[test]
fn a_failed_power_up_is_powered_off_and_reported() {
    let cases = [
        (SlotInputs { link: false, ..FINE }, SlotFault::NoLink),
        (SlotInputs { answers: false, ..FINE }, SlotFault::NoAnswer),
        (SlotInputs { power_fault: true, ..FINE }, SlotFault::PowerFault),
        (EMPTY, SlotFault::Left),
    ];
    for (signs, trouble) in cases {
        let mut hand = Hand::new(false, false);
        let _ = hand.step(SlotInputs { card_changed: true, ..FINE });
        let told = (0..300).find_map(|_| hand.after(10, signs).trouble);
        assert_eq!(told, Some(trouble));
        assert_eq!(hand.power(), (false, Indicator::Blink));
        let _ = hand.step(EMPTY);
        let _ = hand.after(1_000, EMPTY);
        let lamps = hand.sequence.lamps();
        assert_eq!((lamps.power, lamps.attention_indicator), (false, Indicator::On));
        // The next appearance of a card causes another attempt.
        let _ = hand.after(1_000, SlotInputs { card_changed: true, ..FINE });
        assert_eq!(hand.sequence.lamps().attention_indicator, Indicator::Off);
    }
}

#[test]
fn the_links_time_limit_starts_at_power_on() {
    let mut hand = Hand::new(false, false);
    let _ = hand.step(SlotInputs { card_changed: true, ..FINE });
    let slow = SlotInputs { settled: false, link: false, ..FINE };
    assert_eq!(hand.after(1_000, slow), Step::NOTHING);
    let on = SlotInputs { link: false, ..FINE };
    assert_eq!(hand.after(999, on), Step::NOTHING);
    assert_eq!(hand.after(1, on).trouble, Some(SlotFault::NoLink));
}

#[test]
fn a_port_with_nothing_behind_it_is_a_fault() {
    let mut hand = Hand::new(false, false);
    let _ = hand.step(SlotInputs { card_changed: true, ..FINE });
    let _ = hand.after(10, FINE);
    let _ = hand.after(100, FINE);
    assert_eq!(hand.sequence.added(false), Some(SlotFault::NothingUp));
    assert_eq!(hand.sequence.stage(), Stage::Falling);
}

#[test]
fn a_power_fault_switches_off_and_stays_off() {
    let mut hand = Hand::plugged();
    let step = hand.step(SlotInputs { power_fault: true, ..FINE });
    assert_eq!(step, Step { task: Some(Task::Remove { surprise: true }), trouble: Some(SlotFault::PowerFault) });
    hand.sequence.removed();
    let _ = hand.step(FINE);
    let _ = hand.after(1_000, FINE);
    let _ = hand.after(1_000, FINE);
    assert_eq!(hand.sequence.stage(), Stage::Off);
    assert_eq!(hand.sequence.lamps().attention_indicator, Indicator::On);
}

#[test]
fn a_loose_contact_is_reported_once_and_retried_after_a_while() {
    let mut hand = Hand::new(false, false);
    let mut told = 0;
    for _ in 0..50 {
        if hand.step(SlotInputs { card_changed: true, ..FINE }).trouble.is_some() {
            told += 1;
        }
        if matches!(hand.sequence.stage(), Stage::Rising { .. }) {
            let _ = hand.step(SlotInputs { card_changed: true, ..EMPTY });
            let _ = hand.step(EMPTY);
            hand.sequence.stage = Stage::Off;
        }
    }
    assert_eq!((told, hand.sequence.stage()), (1, Stage::Off));
    let _ = hand.after(10_000, SlotInputs { card_changed: true, ..FINE });
    assert!(matches!(hand.sequence.stage(), Stage::Rising { .. }));
}

#[test]
fn a_slot_found_with_power_is_on_and_one_without_a_card_is_switched_off() {
    assert_eq!(Hand::new(true, true).sequence.stage(), Stage::On);
    let mut empty = Hand::new(true, false);
    assert_eq!(empty.power(), (false, Indicator::Blink));
    let _ = empty.step(EMPTY);
    let _ = empty.after(1_000, EMPTY);
    assert_eq!(empty.power(), (false, Indicator::Off));
    // Firmware left a card without power.
    let mut dark = Hand::new(false, true);
    assert!(dark.sequence.is_ready(dark.now));
    let _ = dark.step(FINE);
    assert!(matches!(dark.sequence.stage(), Stage::Rising { .. }));
}

fn any_signs() -> impl Strategy<Value = SlotInputs> {
    any::<[bool; 8]>().prop_map(
        |[pressed, card_changed, link_changed, power_fault, present, link, answers, settled]| SlotInputs {
            pressed,
            card_changed,
            link_changed,
            power_fault,
            present,
            link,
            answers,
            settled,
        },
    )
}

proptest! {
    /// Whatever is observed, in any order: devices are added only in a powered slot with a card, removed only after
    /// they were added, and each task is complete before the next is requested.
    #[test]
    fn devices_are_added_and_removed_in_turn(
        prompt: bool, powered: bool, present: bool,
        seen in prop::collection::vec((any_signs(), 0..3_000_u64, any::<bool>()), 0..200),
    ) {
        let timing = if prompt { Timing::PROMPT } else { Timing::STANDARD };
        let mut sequence = Sequence::new(timing, powered, present);
        let mut up = powered && present;
        let mut now = 0;
        for (signs, ms, any) in seen {
            now += ms * MS;
            let step = sequence.step(signs, now);
            match step.task {
                Some(Task::Add) => {
                    prop_assert!(!up && signs.present && signs.link && signs.answers && sequence.lamps().power);
                    up = sequence.added(any).is_none();
                    prop_assert_eq!(up, any);
                }
                Some(Task::Remove { .. }) => {
                    prop_assert!(up && sequence.lamps().power, "power stays on while devices are removed");
                    sequence.removed();
                    up = false;
                }
                None => {}
            }
            let on = matches!(sequence.stage(), Stage::On | Stage::ButtonGrace { on: false, .. });
            prop_assert_eq!(on, up);
            prop_assert!(up == (sequence.lamps().power && on));
        }
    }

    /// A slot that is left alone settles, whatever happened to it: on with a working card, otherwise off.
    #[test]
    fn an_undisturbed_slot_settles(
        seen in prop::collection::vec((any_signs(), 0..3_000_u64), 0..60), works: bool,
    ) {
        let mut sequence = Sequence::new(Timing::STANDARD, false, false);
        let mut now = 0;
        let rest = if works { FINE } else { EMPTY };
        let quiet = core::iter::repeat_n((rest, 100), 200);
        for (signs, ms) in seen.into_iter().chain(quiet) {
            now += ms * MS;
            match sequence.step(signs, now).task {
                Some(Task::Add) => { sequence.added(true); }
                Some(Task::Remove { .. }) => sequence.removed(),
                None => {}
            }
        }
        let stage = sequence.stage();
        prop_assert!(stage == Stage::Off || works && stage == Stage::On, "{stage:?}");
        prop_assert_eq!(sequence.due(), None);
    }
}
