//! Resets in the middle of the work, resets of single queues, and being set up again in another way.

use crate::outcome::{Stop, Verdict, ensure, needs};
use crate::ring::Placement;
use crate::subject::{Role, Setup, Subject};
use crate::traffic::Shape;
use ballonet::balloon::BalloonPlatform;
use ballonet::platform::Registers;
use ballonet::virtio::InterruptMode;
use ballonet::virtio::spec::{Features, Status, common};

/// Gives the device work to do, and does not wait for it.
fn keep_busy<P: BalloonPlatform>(subject: &mut Subject<'_, P>, role: Role) -> Verdict {
    let room = subject.with_queue(role, |queue, _| usize::from(queue.room()))?;
    for place in 0..room.min(8) {
        subject.post(role, place * 8..place * 8 + 8, &Shape::PLAIN)?;
    }
    subject.submit(role)
}

pub fn reset_ends_in_mid_traffic<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let setup = subject.plain();
    for _ in 0..8 {
        subject.start(&setup)?;
        keep_busy(subject, Role::Inflate)?;
        subject.stop()?;
    }
    Ok(())
}

pub fn nothing_is_written_after_a_reset<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    for features in super::rings::formats(subject) {
        if !subject.negotiate(features)? {
            continue;
        }
        let setup = Setup { features, ..subject.plain() };
        subject.start(&setup)?;
        keep_busy(subject, Role::Inflate)?;
        subject.reset()?;
        subject.arena.freeze();
        subject.linger()?;
        subject.expect_no_damage(None)?;
    }
    Ok(())
}

pub fn device_works_after_a_reset_in_mid_traffic<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let setup = subject.plain();
    for _ in 0..4 {
        subject.start(&setup)?;
        keep_busy(subject, Role::Inflate)?;
        subject.stop()?;
        subject.start(&setup)?;
        subject.transfer(Role::Deflate, 0..64, &Shape::PLAIN)?;
        subject.exchange_cleanly(64, &Shape::PLAIN)?;
    }
    Ok(())
}

pub fn every_reconfiguration_works<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    subject.try_start()?;
    subject.needs_answers(Role::Inflate)?;
    let (least, usable) = (subject.least(), subject.usable());
    let packed = Features::RING_PACKED;
    let settings = [
        (usable, InterruptMode::PerQueue, 64, Placement::Plain),
        (least, InterruptMode::Line, 1, Placement::Odd),
        (usable - packed, InterruptMode::Shared, 16, Placement::Odd),
        (usable, InterruptMode::Polling, 4, Placement::Plain),
        (least, InterruptMode::PerQueue, 2, Placement::Plain),
        (usable, InterruptMode::Line, 8, Placement::Odd),
        (least, InterruptMode::Polling, u16::MAX, Placement::Plain),
    ];
    let mut done = 0;
    for (features, mode, size, placement) in settings {
        let setup = Setup { features, mode, size, placement, mapped: true };
        match subject.start(&setup) {
            // A mode that the device does not have, or features that it does not take together.
            Err(Stop::Skipped(_)) => continue,
            outcome => outcome?,
        }
        subject.exchange_cleanly(32, &Shape { frames: 8, ..Shape::PLAIN })?;
        done += 1;
    }
    needs!(done > 1, "there are not two settings that the device takes");
    Ok(())
}

pub fn a_failed_driver_can_start_over<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let setup = subject.plain();
    subject.start(&setup)?;
    let all = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::DRIVER_OK | Status::FAILED;
    subject.set_status(all);
    subject.start(&setup)?;
    subject.exchange_cleanly(16, &Shape::PLAIN)
}

// Single queues.

/// Brings the device up with `RING_RESET`, and requests on their way in the inflate queue.
fn start_resettable<P: BalloonPlatform>(subject: &mut Subject<'_, P>, packed: bool) -> Verdict<Setup> {
    needs!(subject.offered.contains(Features::RING_RESET), "the device does not offer RING_RESET");
    needs!(subject.common.len() >= common::QUEUE_RESET + 2, "the common structure has no queue_reset");
    let format = if packed { subject.offered & Features::RING_PACKED } else { Features::empty() };
    let features = subject.least() | Features::RING_RESET | format;
    let setup = Setup { features, size: 16, ..subject.plain() };
    subject.start(&setup)?;
    Ok(setup)
}

/// Resets the inflate queue, and waits until that is done.
fn reset_queue<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict<u16> {
    let number = subject.number(Role::Inflate)?;
    subject.select(number);
    subject.common.write16(common::QUEUE_RESET, 1);
    let limit = subject.patience.stall;
    let done = subject.wait(limit, |subject| {
        subject.status()?;
        Ok(subject.common.read16(common::QUEUE_RESET) == 0)
    })?;
    ensure!(done, "queue_reset of queue {number} is not 0 after {} ms", limit / 1_000_000);
    let enabled = subject.common.read16(common::QUEUE_ENABLE);
    ensure!(enabled == 0, "queue {number} was reset, and queue_enable is {enabled}");
    subject.queues.retain(|queue| queue.index != number);
    Ok(number)
}

pub fn queue_reset_is_0_before_it_is_asked_for<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    start_resettable(subject, false)?;
    for queue in [subject.numbers.inflate.number(), subject.numbers.deflate.number()] {
        subject.select(queue);
        let value = subject.common.read16(common::QUEUE_RESET);
        ensure!(value == 0, "queue_reset of queue {queue} is {value}, and nobody asked for it");
    }
    Ok(())
}

pub fn queue_reset_ends<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    for packed in [false, true] {
        start_resettable(subject, packed)?;
        keep_busy(subject, Role::Inflate)?;
        reset_queue(subject)?;
    }
    Ok(())
}

pub fn nothing_is_written_after_a_queue_reset<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    for packed in [false, true] {
        start_resettable(subject, packed)?;
        keep_busy(subject, Role::Inflate)?;
        reset_queue(subject)?;
        subject.arena.freeze();
        subject.linger()?;
        subject.expect_no_damage(None)?;
    }
    Ok(())
}

pub fn queue_reset_leaves_other_queues_alone<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    for packed in [false, true] {
        start_resettable(subject, packed)?;
        subject.transfer(Role::Inflate, 0..32, &Shape::PLAIN)?;
        reset_queue(subject)?;
        subject.transfer(Role::Deflate, 0..32, &Shape::PLAIN)?;
        subject.expect_well()?;
    }
    Ok(())
}

pub fn a_reset_queue_works_again<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    for packed in [false, true] {
        let setup = start_resettable(subject, packed)?;
        for size in [4, 16, 1, 8] {
            keep_busy(subject, Role::Inflate)?;
            let number = reset_queue(subject)?;
            subject.enable(number, &Setup { size, ..setup })?;
            let enabled = subject.common.read16(common::QUEUE_ENABLE);
            ensure!(enabled == 1, "queue {number} was enabled again, and queue_enable is {enabled}");
            subject.transfer(Role::Deflate, 0..64, &Shape::PLAIN)?;
            subject.exchange(32, &Shape { frames: 8, ..Shape::PLAIN })?;
        }
    }
    Ok(())
}
