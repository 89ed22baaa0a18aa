//! A run of all checks: in one start, and in another after each culprit; or isolated, with a start for each check.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use ballonet_check::Check;

use crate::attempt::{self, Attempt, End, Target};
use crate::failure::{Context as _, Failure, Outcome};
use crate::progress::Progress;
use crate::verdict::{Record, Verdict};

/// Starts in which a check may lack a verdict without a visible fault, before it is reported as lost.
const TRIES: usize = 2;

/// What all starts used together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    /// Starts of the VMM.
    pub(crate) starts: usize,
    /// The largest resident memory of a start.
    pub(crate) peak_rss: u64,
    /// CPU time of all.
    pub(crate) cpu: Duration,
}

/// A check in a run.
struct Slot {
    check: &'static Check,
    record: Option<Record>,
    tries: usize,
}

/// A run of checks against a target.
pub(crate) struct Suite<'s> {
    target: &'s Target,
    interrupted: &'s AtomicBool,
    progress: &'s Progress,
    folder: Folder,
    totals: Mutex<Totals>,
    next: AtomicUsize,
}

/// A folder for configuration files, removed with this value.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl<'s> Suite<'s> {
    /// A suite that has run nothing yet.
    pub(crate) fn new(target: &'s Target, interrupted: &'s AtomicBool, progress: &'s Progress) -> Outcome<Self> {
        let folder = std::env::temp_dir().join(format!("ballonet-check-{}", std::process::id()));
        fs::create_dir_all(&folder).of(folder.display())?;
        let (totals, next) = (Mutex::default(), AtomicUsize::new(0));
        Ok(Self { target, interrupted, progress, folder: Folder(folder), totals, next })
    }

    /// What all starts have used.
    pub(crate) fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the checks in as few starts as possible. Returns a verdict for each.
    pub(crate) fn together(&self, checks: &[&'static Check]) -> Outcome<Vec<Record>> {
        let mut slots: Vec<Slot> = checks.iter().map(|check| Slot { check, record: None, tries: 0 }).collect();
        let mut first = true;
        loop {
            let wanted: Vec<&'static Check> =
                slots.iter().filter(|slot| slot.record.is_none()).map(|slot| slot.check).collect();
            if wanted.is_empty() || self.is_interrupted() {
                break;
            }
            let attempt = self.start(&wanted)?;
            if first && !attempt.began && attempt.end != End::Interrupted {
                return Err(no_start(&attempt));
            }
            first = false;
            if !absorb(&mut slots, attempt) {
                break;
            }
            self.progress.verdicts(slots.iter().filter_map(|slot| slot.record.as_ref()));
        }
        Ok(slots.into_iter().map(|slot| slot.record.unwrap_or_else(|| unknown(slot.check))).collect())
    }

    /// Runs each check in a start of its own, `jobs` at a time.
    pub(crate) fn isolated(&self, checks: &[&'static Check], jobs: usize) -> Outcome<Vec<Record>> {
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<Option<Outcome<Record>>>> = Mutex::new(checks.iter().map(|_| None).collect());
        thread::scope(|scope| {
            for _ in 0..jobs.clamp(1, checks.len().max(1)) {
                scope.spawn(|| {
                    while let Some(check) = checks.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if self.is_interrupted() {
                            break;
                        }
                        let record = self.alone(check);
                        if let Ok(record) = &record {
                            self.progress.verdict(record);
                        }
                        let place = checks.iter().position(|other| other.name == check.name);
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        if let Some(slot) = place.and_then(|place| done.get_mut(place)) {
                            *slot = Some(record);
                        }
                    }
                });
            }
        });
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        checks.iter().zip(done).map(|(check, record)| record.unwrap_or_else(|| Ok(unknown(check)))).collect()
    }

    fn alone(&self, check: &'static Check) -> Outcome<Record> {
        let mut slots = [Slot { check, record: None, tries: 0 }];
        while slots[0].record.is_none() && !self.is_interrupted() {
            let attempt = self.start(&[check])?;
            let silent = !attempt.began && !attempt.in_slot && attempt.end != End::Interrupted;
            if silent {
                slots[0].tries += 1;
                if slots[0].tries >= TRIES {
                    return Ok(Record::with(check, Verdict::Lost, no_start(&attempt).to_string()));
                }
                continue;
            }
            if !absorb(&mut slots, attempt) {
                break;
            }
        }
        let [slot] = slots;
        Ok(slot.record.unwrap_or_else(|| unknown(check)))
    }

    fn start(&self, wanted: &[&'static Check]) -> Outcome<Attempt> {
        let folder = self.folder.0.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir_all(&folder).of(folder.display())?;
        let attempt = attempt::run(self.target, wanted, &folder, self.interrupted, &|name| self.progress.check(name));
        remove(&folder);
        let attempt = attempt?;
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.starts += 1;
        totals.peak_rss = totals.peak_rss.max(attempt.usage.rss);
        totals.cpu += attempt.usage.cpu;
        Ok(attempt)
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

fn remove(folder: &Path) {
    let _ = fs::remove_dir_all(folder);
}

/// Stores the results of a start, and names its culprit. Returns whether another start makes sense.
fn absorb(slots: &mut [Slot], attempt: Attempt) -> bool {
    let Attempt { wanted, in_slot, mut records, running, began, end, last_words, .. } = attempt;
    let was_wanted = |slot: &Slot| wanted.iter().any(|check| check.name == slot.check.name);
    if let (false, true, End::Down(_, how) | End::Complete(Some(how))) = (began, in_slot, &end) {
        // Without the slot it starts and has the device: this says nothing about that.
        for slot in slots.iter_mut().filter(|slot| was_wanted(slot)) {
            let reason = format!("no check began with the device in a hot-plug slot: {how}\n{last_words}");
            slot.record = Some(Record::with(slot.check, Verdict::Trouble, reason));
        }
        return true;
    }
    let ended = match &end {
        End::Complete(Some(reason)) => Some(reason.clone()),
        _ => None,
    };
    // Checks that were skipped because the run ended early have not run.
    if let Some(reason) = &ended {
        let untouched = |record: &Record| record.verdict == Verdict::Skipped && record.detail.as_ref() == Some(reason);
        records.retain(|record| !untouched(record));
    }
    let hopeless = match (&ended, records.as_slice()) {
        // The device cannot even be opened: no later start gets further.
        (Some(reason), [.., last]) => last.verdict == Verdict::Failed && last.detail.as_ref() == Some(reason),
        (Some(_), []) => true,
        _ => false,
    };
    let last = records.last().map(|record| record.check);
    for record in records {
        settle(slots, record);
    }
    if let End::Down(verdict, how) = &end {
        let first = slots.iter().find(|slot| slot.record.is_none() && was_wanted(slot)).map(|slot| slot.check);
        let during = running.map(|check| Record::with(check, *verdict, how.clone()));
        // Between two checks: the earlier one left the device in this state.
        let after = last.map(|check| Record::with(check, *verdict, format!("{how}, right after the check had ended")));
        let unseen = first.map(|check| Record::with(check, *verdict, format!("{how}, before the check was announced")));
        if let Some(mut record) = during.or(after).or(unseen) {
            if !last_words.is_empty() {
                record.detail = record.detail.map(|detail| format!("{detail}\n{last_words}"));
            }
            settle(slots, record);
        }
    }
    if let (Some(reason), true) = (&ended, hopeless) {
        for slot in slots.iter_mut().filter(|slot| slot.record.is_none() && was_wanted(slot)) {
            slot.record = Some(Record::with(slot.check, Verdict::Lost, format!("the run ended: {reason}")));
        }
    }
    // A check that neither ran nor is the culprit lost its event, or is unknown to this kernel.
    if matches!(end, End::Complete(None)) || !began {
        for slot in slots.iter_mut().filter(|slot| slot.record.is_none() && was_wanted(slot)) {
            slot.tries += 1;
            if slot.tries >= TRIES {
                slot.record = Some(unknown(slot.check));
            }
        }
    }
    end != End::Interrupted
}

/// Keeps the worst verdict of a check.
fn settle(slots: &mut [Slot], record: Record) {
    let Some(slot) = slots.iter_mut().find(|slot| slot.check.name == record.check.name) else { return };
    if slot.record.as_ref().is_none_or(|old| old.verdict <= record.verdict) {
        slot.record = Some(record);
    }
}

fn unknown(check: &'static Check) -> Record {
    Record::with(check, Verdict::Lost, "no outcome arrived: lost on the serial line, or the run was interrupted".into())
}

/// The VMM or the kernel never got to the first check.
fn no_start(attempt: &Attempt) -> Failure {
    let how = match &attempt.end {
        End::Down(_, how) => how.clone(),
        End::Complete(Some(reason)) => format!("the kernel ended the run: {reason}"),
        End::Complete(None) | End::Interrupted => "the kernel ended".into(),
    };
    let words = if attempt.last_words.is_empty() { "it printed nothing" } else { &attempt.last_words };
    format!("no check began: {how}\n{words}").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Usage;
    use ballonet_check::checks;

    fn slots(count: usize) -> Vec<Slot> {
        checks().take(count).map(|check| Slot { check, record: None, tries: 0 }).collect()
    }

    fn attempt(verdicts: &[Verdict], running: Option<usize>, end: End) -> Attempt {
        let records = checks().zip(verdicts).map(|(check, verdict)| Record::new(check, *verdict)).collect();
        let running = running.and_then(|place| checks().nth(place));
        let (last_words, usage) = (String::new(), Usage::default());
        Attempt { wanted: checks().collect(), in_slot: false, records, running, began: true, end, last_words, usage }
    }

    fn verdicts(slots: &[Slot]) -> Vec<Option<Verdict>> {
        slots.iter().map(|slot| slot.record.as_ref().map(|record| record.verdict)).collect()
    }

    #[test]
    fn the_running_check_is_convicted() {
        let mut slots = slots(4);
        assert!(absorb(&mut slots, attempt(&[Verdict::Ok], Some(1), End::Down(Verdict::Died, "gone".into()))));
        assert_eq!(verdicts(&slots), [Some(Verdict::Ok), Some(Verdict::Died), None, None]);
    }

    #[test]
    fn a_death_between_checks_is_that_of_the_check_before() {
        let mut slots = slots(3);
        absorb(&mut slots, attempt(&[Verdict::Ok, Verdict::Ok], None, End::Down(Verdict::Hung, "idle".into())));
        assert_eq!(verdicts(&slots), [Some(Verdict::Ok), Some(Verdict::Hung), None]);
    }

    #[test]
    fn checks_after_an_early_end_are_made_later() {
        let mut slots = slots(4);
        let mut early = attempt(
            &[Verdict::Ok, Verdict::Ok, Verdict::Skipped, Verdict::Skipped],
            None,
            End::Complete(Some("stuck".into())),
        );
        early.records[2].detail = Some("stuck".into());
        early.records[3].detail = Some("other".into());
        absorb(&mut slots, early);
        assert_eq!(verdicts(&slots), [Some(Verdict::Ok), Some(Verdict::Ok), None, Some(Verdict::Skipped)]);
    }

    #[test]
    fn a_device_that_cannot_be_opened_ends_the_run() {
        let mut slots = slots(3);
        let mut early = attempt(&[Verdict::Failed], None, End::Complete(Some("no BAR".into())));
        early.records[0].detail = Some("no BAR".into());
        absorb(&mut slots, early);
        assert_eq!(verdicts(&slots), [Some(Verdict::Failed), Some(Verdict::Lost), Some(Verdict::Lost)]);
    }

    #[test]
    fn a_slot_with_which_nothing_begins_is_trouble() {
        for end in
            [End::Down(Verdict::Died, "exit status 1".into()), End::Complete(Some("no balloon was found".into()))]
        {
            let mut slots = slots(2);
            let in_slot = Attempt { in_slot: true, began: false, ..attempt(&[], None, end) };
            assert!(absorb(&mut slots, in_slot));
            assert_eq!(verdicts(&slots), [Some(Verdict::Trouble), Some(Verdict::Trouble)]);
        }
    }

    #[test]
    fn a_lost_outcome_is_asked_for_once_more() {
        let mut slots = slots(2);
        absorb(&mut slots, attempt(&[Verdict::Ok], None, End::Complete(None)));
        assert_eq!(verdicts(&slots), [Some(Verdict::Ok), None]);
        absorb(&mut slots, attempt(&[], None, End::Complete(None)));
        assert_eq!(verdicts(&slots), [Some(Verdict::Ok), Some(Verdict::Lost)]);
    }
}
