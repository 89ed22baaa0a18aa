//! Decides the targets of several guests within a budget of host memory. No I/O.
//!
//! Each guest gets what it uses and an equal share of the rest. A target rises only into budget that no other guest may
//! use *now*: a guest gets memory only after another's balloon has taken it. So once the sum of what guests may use is
//! within the budget, it stays there.

use crate::host::HostState;

/// PSI (`some avg10`) in percent at which guests get nothing beyond what they use.
const FULL_PRESSURE: f64 = 10.0;

/// Limits for all guests together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes for all guests together.
    pub(crate) budget: u64,
    /// The least change of a target, in bytes.
    pub(crate) hysteresis: u64,
    /// Bytes of the host that must stay available to others.
    pub(crate) reserve: u64,
}

/// A guest's state in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The size that its balloon leaves it now.
    pub(crate) actual: u64,
    /// What it uses now. `None` without statistics.
    pub(crate) need: Option<u64>,
    /// The size that its balloon should leave it, by the last decision.
    pub(crate) target: u64,
    /// The least that it keeps.
    pub(crate) floor: u64,
    /// The most that it gets; not below the floor.
    pub(crate) ceiling: u64,
}

impl Seen {
    /// The most that it may use until its balloon has moved to `target`.
    fn claim(&self, target: u64) -> u64 {
        self.actual.max(target)
    }
}

/// Each guest's new target; the old one where the change is too small.
pub(crate) fn decide(limits: Limits, host: HostState, guests: &[Seen]) -> Vec<u64> {
    let budget = budget(limits, host, guests);
    let wanted = wanted(budget, host, guests);
    let mut targets: Vec<u64> = guests.iter().map(|guest| guest.target).collect();
    let claimed = |targets: &[u64]| sum(guests.iter().zip(targets).map(|(guest, target)| guest.claim(*target)));
    let over = claimed(&targets) > budget;
    for ((guest, want), target) in guests.iter().zip(&wanted).zip(&mut targets) {
        let out = *target > guest.ceiling;
        if *want < *target && (over || out || *target - *want >= limits.hysteresis) {
            *target = *want;
        }
    }
    // Guests with the least to spare come first.
    let mut order: Vec<usize> = (0..guests.len()).collect();
    order.sort_by_key(|number| guests[*number].actual.saturating_sub(guests[*number].need.unwrap_or_default()));
    for number in order {
        let (guest, want, old) = (&guests[number], wanted[number], targets[number]);
        // A target up to the current size costs nothing.
        let room = budget.saturating_sub(claimed(&targets));
        let most = want.min(guest.claim(old).saturating_add(room));
        // Below its floor, any growth is worthwhile.
        if most > old && (most - old >= limits.hysteresis || old < guest.floor) {
            targets[number] = most.max(old);
        }
    }
    targets
}

/// The budget, minus what is missing from the host's reserve.
fn budget(limits: Limits, host: HostState, guests: &[Seen]) -> u64 {
    let missing = host.available.map_or(0, |available| limits.reserve.saturating_sub(available));
    match missing {
        0 => limits.budget,
        missing => limits.budget.min(sum(guests.iter().map(|guest| guest.actual)).saturating_sub(missing)),
    }
}

/// The size that each guest should have, regardless of its current one.
fn wanted(budget: u64, host: HostState, guests: &[Seen]) -> Vec<u64> {
    let needs: Vec<u64> =
        guests.iter().map(|guest| guest.need.unwrap_or(guest.actual).clamp(guest.floor, guest.ceiling)).collect();
    let needed = sum(needs.iter().copied());
    if needed > budget {
        return shrunk(budget, guests, &needs);
    }
    let share = 1.0 - host.pressure.unwrap_or_default().clamp(0.0, FULL_PRESSURE) / FULL_PRESSURE;
    let spare = ((budget - needed) as f64 * share) as u64;
    shared(spare, guests, needs)
}

/// Cuts what is above the floors by the same fraction for each guest.
fn shrunk(budget: u64, guests: &[Seen], needs: &[u64]) -> Vec<u64> {
    let floors = sum(guests.iter().map(|guest| guest.floor));
    let above = sum(needs.iter().zip(guests).map(|(need, guest)| need - guest.floor));
    let part = if above == 0 { 0.0 } else { budget.saturating_sub(floors) as f64 / above as f64 };
    needs.iter().zip(guests).map(|(need, guest)| guest.floor + ((need - guest.floor) as f64 * part) as u64).collect()
}

/// Spreads spare memory in equal shares; what one guest cannot take goes to the others.
fn shared(mut spare: u64, guests: &[Seen], mut wants: Vec<u64>) -> Vec<u64> {
    loop {
        let open: Vec<usize> = (0..guests.len()).filter(|number| wants[*number] < guests[*number].ceiling).collect();
        let share = spare.checked_div(open.len() as u64).unwrap_or_default();
        if share == 0 {
            return wants;
        }
        for number in open {
            let more = share.min(guests[number].ceiling - wants[number]);
            wants[number] += more;
            spare -= more;
        }
    }
}

fn sum(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALM: HostState = HostState { available: None, pressure: None };

    fn limits(budget: u64) -> Limits {
        Limits { budget, hysteresis: 4, reserve: 100 }
    }

    /// An idle guest with this target and need.
    fn guest(target: u64, need: u64) -> Seen {
        Seen { actual: target, need: Some(need), target, floor: 10, ceiling: 200 }
    }

    #[test]
    fn each_gets_what_it_uses_and_an_equal_share_of_the_rest() {
        // Nothing can rise at once: the other guest still has the memory.
        let mut guests = [guest(200, 100), guest(50, 20), guest(50, 40)];
        let first = decide(limits(300), CALM, &guests);
        assert_eq!(first, [146, 50, 50], "first, the guest with too much gives");
        for (guest, target) in guests.iter_mut().zip(first) {
            (guest.actual, guest.target) = (target, target);
        }
        assert_eq!(decide(limits(300), CALM, &guests), [146, 66, 86], "then the others get it: each 46 above its need");
    }

    #[test]
    fn memory_is_not_promised_before_a_balloon_has_it() {
        let giving = Seen { actual: 150, need: Some(20), target: 60, floor: 10, ceiling: 200 };
        let wanting = guest(50, 45);
        assert_eq!(decide(limits(200), CALM, &[giving, wanting])[1], 50, "150 are still in use");
        let given = Seen { actual: 60, ..giving };
        assert!(decide(limits(200), CALM, &[given, wanting])[1] > 100);
    }

    #[test]
    fn more_need_than_budget_cuts_all_alike_down_to_their_floors() {
        let guests = [guest(200, 110), guest(200, 60)];
        assert_eq!(decide(limits(95), CALM, &guests), [60, 35], "half of what is above 10");
        assert_eq!(decide(limits(5), CALM, &guests), [10, 10], "no less than the floors, whatever the budget");
    }

    #[test]
    fn small_changes_are_left_out_unless_the_budget_wants_them() {
        let steady = [guest(100, 52), guest(100, 50)];
        assert_eq!(decide(limits(200), CALM, &steady), [100, 100]);
        assert_eq!(decide(limits(198), CALM, &steady), [100, 98], "two too much");
    }

    #[test]
    fn pressure_and_a_host_that_runs_short_take_the_share() {
        let guests = [guest(100, 40), guest(100, 40)];
        let pressed = HostState { pressure: Some(10.0), available: None };
        assert_eq!(decide(limits(200), pressed, &guests), [40, 40]);
        let half = HostState { pressure: Some(5.0), available: None };
        assert_eq!(decide(limits(200), half, &guests), [70, 70]);
        let short = HostState { pressure: None, available: Some(40) };
        assert_eq!(decide(limits(1000), short, &guests), [70, 70], "the reserve lacks 60");
    }

    #[test]
    fn a_guest_that_says_nothing_keeps_what_it_has() {
        let mute = Seen { need: None, ..guest(100, 0) };
        assert_eq!(decide(limits(150), CALM, &[mute, guest(50, 50)]), [100, 50]);
    }

    fn seen() -> impl Strategy<Value = Seen> {
        (0_u64..400, proptest::option::of(0_u64..400), 0_u64..400, 0_u64..100, 0_u64..300)
            .prop_map(|(actual, need, target, floor, more)| Seen { actual, need, target, floor, ceiling: floor + more })
    }

    fn host() -> impl Strategy<Value = HostState> {
        (proptest::option::of(0_u64..500), proptest::option::of(0.0..100.0_f64))
            .prop_map(|(available, pressure)| HostState { available, pressure })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_budget_is_kept_once_it_is_kept(
            guests in proptest::collection::vec(seen(), 1..6), room in 0_u64..500, host in host()
        ) {
            let budget = sum(guests.iter().map(|guest| guest.claim(guest.target))) + room;
            let targets = decide(limits(budget), host, &guests);
            let after = sum(guests.iter().zip(&targets).map(|(guest, target)| guest.claim(*target)));
            prop_assert!(after <= budget, "{} of {}: {:?}", after, budget, targets);
        }

        #[test]
        fn a_target_that_changes_is_within_its_bounds(
            guests in proptest::collection::vec(seen(), 1..6), budget in 0_u64..2000, host in host()
        ) {
            for (guest, target) in guests.iter().zip(decide(limits(budget), host, &guests)) {
                let rising = target > guest.target;
                prop_assert!(target == guest.target || target <= guest.ceiling);
                prop_assert!(target == guest.target || rising || target >= guest.floor, "{} {:?}", target, guest);
            }
        }

        #[test]
        fn guests_at_rest_come_to_rest(
            needs in proptest::collection::vec(0_u64..300, 1..6), budget in 0_u64..2000
        ) {
            let mut guests: Vec<_> = needs.iter().map(|need| guest(200, *need)).collect();
            for _ in 0..4 {
                let targets = decide(limits(budget), CALM, &guests);
                for (guest, target) in guests.iter_mut().zip(targets) {
                    (guest.actual, guest.target) = (target, target);
                }
            }
            let last: Vec<_> = guests.iter().map(|guest| guest.target).collect();
            prop_assert_eq!(decide(limits(budget), CALM, &guests), last);
        }

        #[test]
        fn extremes_do_not_overflow(
            actual in prop::sample::select(vec![0, 1, u64::MAX]), need in prop::sample::select(vec![None, Some(0), Some(u64::MAX)]),
            budget in prop::sample::select(vec![0, 1, u64::MAX]), count in 1_usize..4
        ) {
            let guest = Seen { actual, need, target: actual, floor: 0, ceiling: u64::MAX };
            let targets = decide(limits(budget), HostState { available: Some(0), pressure: Some(1e9) }, &vec![guest; count]);
            prop_assert_eq!(targets.len(), count);
        }
    }
}
