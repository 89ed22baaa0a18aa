//! The device status byte, and what a reset leaves.

use crate::obstacles::Start;
use crate::outcome::{Stop, Verdict, ensure, needs};
use crate::subject::Subject;
use ballonet::platform::{Platform, Registers};
use ballonet::virtio::InterruptMode;
use ballonet::virtio::spec::{Features, NO_VECTOR, Status, common};

pub fn reset_clears_status<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    subject.set_status(Status::ACKNOWLEDGE);
    subject.set_status(Status::ACKNOWLEDGE | Status::DRIVER);
    subject.reset()
}

pub fn reset_works_in_every_state<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let acknowledged = Status::ACKNOWLEDGE;
    let found = acknowledged | Status::DRIVER;
    for steps in [&[][..], &[acknowledged], &[acknowledged, found], &[acknowledged, acknowledged | Status::FAILED]] {
        steps.iter().for_each(|status| subject.set_status(*status));
        subject.reset()?;
    }
    let least = subject.least();
    subject.negotiate(least)?;
    subject.reset()?;
    let setup = subject.plain();
    subject.prepare(&setup)?;
    subject.stop()?;
    subject.start(&setup)?;
    subject.stop()
}

pub fn status_bits_read_back<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let mut set = Status::empty();
    for bit in [Status::ACKNOWLEDGE, Status::DRIVER] {
        set |= bit;
        subject.set_status(set);
        let status = subject.status()?;
        ensure!(status == set, "status {set} was written and {status} is read");
    }
    set |= Status::FAILED;
    subject.set_status(set);
    let status = subject.status()?;
    ensure!(status == set, "status {set} was written and {status} is read");
    Ok(())
}

pub fn features_ok_sticks<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let least = subject.least();
    let taken = subject.negotiate(least)?;
    let status = subject.status()?;
    ensure!(taken, "of the features {least} the device takes none: the status is {status}");
    Ok(())
}

pub fn driver_ok_sticks<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let setup = subject.plain();
    subject.start(&setup)
}

pub fn queues_of_declined_features_may_be_left_out<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    match subject.try_start() {
        // Not for want of queues.
        Err(Stop::Failed(reason)) => return Err(Stop::Skipped(reason)),
        outcome => outcome?,
    }
    if let Start::WithEveryQueue(reason) = &subject.obstacles.start {
        ensure!(false, "{reason}; it does with all of them");
    }
    Ok(())
}

pub fn reset_disables_queues<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let setup = subject.plain();
    subject.start(&setup)?;
    // Right after this reset: what is asked for is a 0 on reset, and another one could put it there.
    subject.stop()?;
    for queue in subject.present() {
        subject.select(queue);
        let enabled = subject.common.read16(common::QUEUE_ENABLE);
        ensure!(enabled == 0, "queue {queue} has queue_enable {enabled} after a reset");
    }
    Ok(())
}

pub fn reset_restores_queue_sizes<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let mut setup = subject.plain();
    setup.size = 2;
    subject.start(&setup)?;
    subject.stop()?;
    subject.negotiate_least()?;
    for queue in subject.present() {
        let (size, before) = (subject.queue_size(queue), subject.sizes[usize::from(queue)]);
        ensure!(size == before, "queue {queue} has {size} entries after a reset, and had {before}");
    }
    Ok(())
}

pub fn reset_unmaps_vectors<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    needs!(subject.site.msix.is_some(), "the device has no usable MSI-X");
    let mut setup = subject.plain();
    setup.mode = InterruptMode::Shared;
    subject.start(&setup)?;
    subject.negotiate_least()?;
    let config = subject.common.read16(common::CONFIG_MSIX_VECTOR);
    ensure!(config == NO_VECTOR, "config_msix_vector is {config:#06x} after a reset");
    for queue in subject.present() {
        subject.select(queue);
        let vector = subject.common.read16(common::QUEUE_MSIX_VECTOR);
        ensure!(vector == NO_VECTOR, "queue {queue} has vector {vector:#06x} after a reset");
    }
    Ok(())
}

pub fn reset_forgets_features<P: Platform>(subject: &mut Subject<'_, P>) -> Verdict {
    let usable = subject.usable();
    needs!(subject.negotiate(usable)?, "the device does not take the features {usable}");
    let readable = read_accepted(subject) == usable;
    subject.reset()?;
    // Without its features settled it must be able to settle on others.
    let least = subject.least();
    ensure!(subject.negotiate(least)?, "after {usable} and a reset the device does not take {least}");
    // Nothing makes a device show what was accepted (4.1.4.3.1), so only one that has shown it can show it wrong.
    let read = read_accepted(subject);
    ensure!(!readable || read == least, "driver_feature reads {read} after {usable}, a reset and {least}");
    Ok(())
}

/// The accepted features as the device shows them.
pub(super) fn read_accepted<P: Platform>(subject: &mut Subject<'_, P>) -> Features {
    let mut words = [0; 2];
    for (select, word) in (0..).zip(&mut words) {
        subject.common.write32(common::DRIVER_FEATURE_SELECT, select);
        *word = subject.common.read32(common::DRIVER_FEATURE);
    }
    Features::from_words(words)
}
