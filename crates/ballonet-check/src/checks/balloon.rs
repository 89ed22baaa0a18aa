//! The balloon's own queues and fields beside inflating and deflating.

use crate::disturbance::{About, undisturbed};
use crate::outcome::{Verdict, ensure, needs};
use crate::ring::Part;
use crate::subject::{Role, Setup, Subject};
use crate::traffic::Shape;
use ballonet::balloon::BalloonPlatform;
use ballonet::balloon::wire::{
    CONFIG_FREE_PAGE_HINT_CMD_ID, CONFIG_POISON_VAL, FREE_PAGE_HINT, MUST_TELL_HOST, PAGE_POISON, PAGE_REPORTING,
    STATS_VQ, Tag, statistic,
};
use ballonet::platform::Registers;

/// Size of a page that is reported.
const PAGE: usize = 4096;
/// How often a statistics buffer is offered again at once.
const OFFERS: usize = 3;

/// Offers a statistics buffer; it is the caller's to publish.
fn offer_statistics<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let entries = [statistic(Tag::Free, 1 << 20), statistic(Tag::Total, 1 << 24)];
    let at = subject.arena.place(entries.as_flattened().len(), 16, 0)?;
    subject.arena.write(at, entries.as_flattened());
    let length = entries.as_flattened().len();
    subject.buffers.push((at, at + length));
    let part = Part { address: subject.arena.address(at), length: length as u32, writable: false };
    subject.add(Role::Statistics, &[part], None)?;
    subject.publish(Role::Statistics).map(drop)
}

pub fn statistics_wait_to_be_asked_for<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    needs!(subject.offered.contains(STATS_VQ), "the device does not offer STATS_VQ");
    let setup = Setup { features: subject.least() | STATS_VQ, ..subject.plain() };
    subject.prepare(&setup)?;
    offer_statistics(subject)?;
    subject.go()?;
    subject.kick(Role::Statistics)?;
    // The host may well ask once or twice meanwhile, but not as fast as it can.
    for _ in 0..OFFERS {
        subject.linger()?;
        if !subject.with_queue(Role::Statistics, |queue, arena| queue.collect(arena))?? {
            subject.expect_no_damage(None)?;
            return subject.expect_well();
        }
        subject.take_done(Role::Statistics)?;
        offer_statistics(subject)?;
        subject.kick(Role::Statistics)?;
    }
    ensure!(false, "the device gave the statistics buffer back {OFFERS} times in a row");
    Ok(())
}

pub fn balloon_works_beside_statistics<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    needs!(subject.offered.contains(STATS_VQ), "the device does not offer STATS_VQ");
    let setup = Setup { features: subject.least() | STATS_VQ, ..subject.plain() };
    subject.prepare(&setup)?;
    offer_statistics(subject)?;
    subject.go()?;
    subject.kick(Role::Statistics)?;
    subject.exchange_cleanly(32, &Shape::PLAIN)
}

pub fn telling_the_host_first_works<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    needs!(subject.offered.contains(MUST_TELL_HOST), "the device does not offer MUST_TELL_HOST");
    let setup = Setup { features: subject.least() | MUST_TELL_HOST, ..subject.plain() };
    subject.start(&setup)?;
    subject.exchange_cleanly(32, &Shape::PLAIN)
}

pub fn reports_of_free_pages_complete<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    needs!(subject.offered.contains(PAGE_REPORTING), "the device does not offer PAGE_REPORTING");
    let setup = Setup { features: subject.least() | PAGE_REPORTING, ..subject.plain() };
    subject.start(&setup)?;
    for pages in [&[1][..], &[2, 1], &[1, 1, 1, 4]] {
        let mut chain = alloc::vec::Vec::new();
        for count in pages {
            let at = subject.arena.place(count * PAGE, PAGE, 0)?;
            subject.arena.open(at, count * PAGE);
            let address = subject.arena.address(at);
            chain.push(Part { address, length: (count * PAGE) as u32, writable: true });
        }
        subject.needs_room(Role::Reporting, chain.len() as u16)?;
        subject.add(Role::Reporting, &chain, None)?;
        subject.submit(Role::Reporting)?;
        subject.drain(Role::Reporting, 0)?;
        for used in subject.take_done(Role::Reporting)? {
            ensure!(used.length <= used.writable, "{} bytes were written of {}", used.length, used.writable);
        }
        subject.expect_no_damage(None)?;
    }
    subject.expect_well()
}

pub fn hint_command_holds_still<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    needs!(subject.offered.contains(FREE_PAGE_HINT), "the device does not offer FREE_PAGE_HINT");
    needs!(
        subject.device.len() >= CONFIG_FREE_PAGE_HINT_CMD_ID + 4,
        "the device configuration has no free_page_hint_cmd_id"
    );
    let setup = Setup { features: subject.least() | FREE_PAGE_HINT, ..subject.plain() };
    undisturbed(subject, About::Signals, |subject| {
        subject.start(&setup)?;
        let before = subject.device.read32(CONFIG_FREE_PAGE_HINT_CMD_ID);
        needs!(before <= 1, "the host asks for hints just now: {before}");
        subject.linger()?;
        let after = subject.device.read32(CONFIG_FREE_PAGE_HINT_CMD_ID);
        needs!(after <= 1, "the host asks for hints just now: {after}");
        ensure!(before == after, "free_page_hint_cmd_id goes from {before} to {after} without a round");
        Ok(())
    })?;
    subject.exchange_cleanly(32, &Shape::PLAIN)
}

pub fn balloon_works_with_poison<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    needs!(subject.offered.contains(PAGE_POISON), "the device does not offer PAGE_POISON");
    needs!(subject.device.len() >= CONFIG_POISON_VAL + 4, "the device configuration has no poison_val");
    let setup = Setup { features: subject.least() | PAGE_POISON, ..subject.plain() };
    subject.prepare(&setup)?;
    // Before DRIVER_OK and not after (5.5.6.6). No frame of the tester's is free, so nothing has to be filled.
    subject.device.write32(CONFIG_POISON_VAL, 0);
    subject.go()?;
    subject.exchange_cleanly(32, &Shape::PLAIN)
}
