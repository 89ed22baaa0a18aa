//! Interrupts: that they come, where they come, and that they stay away when they are to.

use crate::disturbance::{About, undisturbed};
use crate::outcome::{Stop, Verdict, ensure, needs};
use crate::ring::Wish;
use crate::subject::{Role, Setup, Subject};
use crate::traffic::Shape;
use ballonet::balloon::BalloonPlatform;
use ballonet::pci;
use ballonet::platform::{Platform, Registers};
use ballonet::virtio::InterruptMode;
use ballonet::virtio::spec::{Features, ISR_CONFIG, ISR_QUEUE};

/// The modes in which the device can interrupt at all.
const MODES: [InterruptMode; 3] = [InterruptMode::PerQueue, InterruptMode::Shared, InterruptMode::Line];

/// Waits until something of the interrupts' counts holds.
fn await_counts<P: BalloonPlatform>(
    subject: &mut Subject<'_, P>,
    holds: impl Fn(&Subject<'_, P>) -> bool,
) -> Verdict<bool> {
    let limit = subject.patience.stall;
    subject.wait(limit, |subject| Ok(holds(subject)))
}

/// How many interrupts came that can be a queue's: on the line one that tells of the configuration can be for both.
fn heard<P: Platform>(subject: &Subject<'_, P>) -> u32 {
    let counts = &subject.signals.counts;
    if subject.signals.mode == InterruptMode::Line { counts.all() } else { counts.queues() }
}

/// Starts in the first mode that there is.
fn start_interrupting<P: BalloonPlatform>(subject: &mut Subject<'_, P>, features: Features) -> Verdict {
    // If it does not start, then that is the reason, and not the mode.
    subject.try_start()?;
    for mode in MODES {
        let setup = Setup { features, mode, ..subject.plain() };
        match subject.start(&setup) {
            Err(Stop::Skipped(_)) => {}
            outcome => return outcome,
        }
    }
    Err(Stop::Skipped("the device has no way to interrupt here".into()))
}

/// The features with which suppression works differently.
fn formats<P: Platform>(subject: &Subject<'_, P>) -> impl Iterator<Item = Features> + use<P> {
    let (least, offered) = (subject.least(), subject.offered);
    let both = Features::RING_PACKED | Features::EVENT_IDX;
    let choices = [Features::empty(), Features::EVENT_IDX, Features::RING_PACKED, both];
    choices.into_iter().filter(move |choice| offered.contains(*choice)).map(move |choice| least | choice)
}

pub fn interrupts_arrive_by_queue<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    arrive(subject, InterruptMode::PerQueue, [1, 2])
}

pub fn interrupts_arrive_shared<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    arrive(subject, InterruptMode::Shared, [1, 1])
}

pub fn interrupts_arrive_by_line<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    arrive(subject, InterruptMode::Line, [1, 1])
}

/// Both queues interrupt, on these vectors.
fn arrive<P: BalloonPlatform>(subject: &mut Subject<'_, P>, mode: InterruptMode, vectors: [usize; 2]) -> Verdict {
    let choices: alloc::vec::Vec<_> = formats(subject).collect();
    for features in choices {
        let setup = Setup { features, mode, ..subject.plain() };
        subject.start(&setup)?;
        for (role, vector) in
            [Role::Inflate, Role::Deflate].into_iter().cycle().zip(vectors.into_iter().cycle()).take(6)
        {
            subject.with_queue(role, |queue, arena| queue.wish(arena, Wish::Every))?;
            let count = |subject: &Subject<'_, P>| match mode {
                InterruptMode::Line => heard(subject),
                _ => subject.signals.counts.of(vector),
            };
            let before = count(subject);
            subject.transfer(role, 0..8, &Shape::PLAIN)?;
            let came = await_counts(subject, |subject| count(subject) != before)?;
            let place = if mode == InterruptMode::Line { "the line".into() } else { alloc::format!("vector {vector}") };
            ensure!(came, "no interrupt came on {place} for a buffer of the {role:?} queue, with {features}");
        }
        if mode == InterruptMode::Line {
            let isr = subject.signals.counts.isr();
            ensure!(isr & ISR_QUEUE != 0, "the line was pulled for used buffers, and the ISR byte was {isr:#04x}");
        }
    }
    Ok(())
}

pub fn interrupts_come_on_their_own_vector<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let setup = Setup { mode: InterruptMode::PerQueue, ..subject.plain() };
    undisturbed(subject, About::Signals, |subject| {
        subject.start(&setup)?;
        subject.transfer(Role::Inflate, 0..8, &Shape::PLAIN)?;
        await_counts(subject, |subject| subject.signals.counts.of(1) != 0)?;
        subject.linger()?;
        let counts = [0, 1, 2, 3].map(|vector| subject.signals.counts.of(vector));
        ensure!(
            counts[1] != 0 && counts[0] == 0 && counts[2] == 0 && counts[3] == 0,
            "for a buffer of the queue with vector 1 the vectors 0 to 3 came {counts:?} times"
        );
        Ok(())
    })
}

pub fn queues_without_vector_do_not_interrupt<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let setup = Setup { mode: InterruptMode::Shared, mapped: false, ..subject.plain() };
    undisturbed(subject, About::Signals, |subject| {
        subject.start(&setup)?;
        subject.exchange(8, &Shape::PLAIN)?;
        subject.linger()?;
        let count = subject.signals.counts.all();
        ensure!(count == 0, "{count} interrupts came from queues whose vector is NO_VECTOR");
        Ok(())
    })
}

/// Has a queue interrupt once for a buffer that wants it, so that what follows is not the first.
fn warm_up<P: BalloonPlatform>(subject: &mut Subject<'_, P>, role: Role) -> Verdict {
    let before = heard(subject);
    subject.with_queue(role, |queue, arena| queue.wish(arena, Wish::Every))?;
    subject.transfer(role, 0..1, &Shape::PLAIN)?;
    let came = await_counts(subject, |subject| heard(subject) != before)?;
    ensure!(came, "no interrupt came for a buffer of the {role:?} queue, with {}", subject.features);
    Ok(())
}

pub fn suppressed_interrupts_stay_away<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let choices: alloc::vec::Vec<_> = formats(subject).collect();
    for features in choices {
        undisturbed(subject, About::Signals, |subject| {
            start_interrupting(subject, features)?;
            for role in [Role::Inflate, Role::Deflate] {
                warm_up(subject, role)?;
            }
            let before = subject.signals.counts.queues();
            for role in [Role::Inflate, Role::Deflate] {
                subject.with_queue(role, |queue, arena| queue.wish(arena, Wish::None))?;
                subject.transfer(role, 0..8, &Shape::PLAIN)?;
            }
            subject.linger()?;
            let count = subject.signals.counts.queues() - before;
            ensure!(count == 0, "{count} interrupts came though they are suppressed, with {features}");
            Ok(())
        })?;
    }
    Ok(())
}

pub fn interrupts_come_at_the_event_index<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    needs!(subject.offered.contains(Features::EVENT_IDX), "the device does not offer EVENT_IDX");
    let choices: alloc::vec::Vec<_> =
        formats(subject).filter(|features| features.contains(Features::EVENT_IDX)).collect();
    for features in choices {
        start_interrupting(subject, features)?;
        warm_up(subject, Role::Inflate)?;
        // A shorter queue has no fourth place to wait for.
        subject.needs_room(Role::Inflate, 4)?;
        let before = heard(subject);
        subject.with_queue(Role::Inflate, |queue, arena| queue.wish(arena, Wish::After(4)))?;
        // Four requests of one frame each: the interrupt is due at the fourth.
        subject.transfer(Role::Inflate, 1..5, &Shape { frames: 1, ..Shape::PLAIN })?;
        let came = await_counts(subject, |subject| heard(subject) != before)?;
        ensure!(came, "no interrupt came for the buffer that the driver waits for, with {features}");
    }
    Ok(())
}

pub fn no_interrupt_before_the_event_index<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    needs!(subject.offered.contains(Features::EVENT_IDX), "the device does not offer EVENT_IDX");
    let choices: alloc::vec::Vec<_> =
        formats(subject).filter(|features| features.contains(Features::EVENT_IDX)).collect();
    for features in choices {
        undisturbed(subject, About::Signals, |subject| {
            start_interrupting(subject, features)?;
            warm_up(subject, Role::Inflate)?;
            // A shorter queue has no fourth place to wait for.
            subject.needs_room(Role::Inflate, 4)?;
            let before = subject.signals.counts.queues();
            subject.with_queue(Role::Inflate, |queue, arena| queue.wish(arena, Wish::After(4)))?;
            subject.transfer(Role::Inflate, 1..4, &Shape { frames: 1, ..Shape::PLAIN })?;
            subject.linger()?;
            let count = subject.signals.counts.queues() - before;
            ensure!(count == 0, "{count} interrupts came before the buffer that the driver waits for, with {features}");
            Ok(())
        })?;
    }
    Ok(())
}

pub fn the_first_interrupt_can_be_suppressed<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let choices: alloc::vec::Vec<_> = formats(subject).collect();
    for features in choices {
        undisturbed(subject, About::Signals, |subject| {
            start_interrupting(subject, features)?;
            subject.with_queue(Role::Inflate, |queue, arena| queue.wish(arena, Wish::None))?;
            subject.transfer(Role::Inflate, 0..1, &Shape::PLAIN)?;
            subject.linger()?;
            let count = subject.signals.counts.queues();
            ensure!(count == 0, "the first buffer interrupted though that was suppressed, with {features}");
            Ok(())
        })?;
    }
    Ok(())
}

pub fn nothing_interrupts_while_idle<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let least = subject.least();
    undisturbed(subject, About::Signals, |subject| {
        start_interrupting(subject, least)?;
        subject.linger()?;
        let count = subject.signals.counts.all();
        ensure!(count == 0, "{count} interrupts came with nothing to tell of");
        Ok(())
    })
}

/// Starts with neither MSI-X nor the line in use: only the ISR byte is left to tell.
fn start_silent<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let setup = subject.plain();
    subject.start(&setup)?;
    // Whatever was told before is over.
    let _ = subject.isr.read8(0);
    Ok(())
}

/// Waits until the device has shown that it wants to be heard, without a read of the ISR byte.
fn await_line<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict<bool> {
    let limit = subject.patience.quiet;
    subject.wait(limit, |subject| Ok(is_asserted(subject)))
}

/// The Interrupt Status bit of the PCI status register.
fn is_asserted<P: Platform>(subject: &mut Subject<'_, P>) -> bool {
    let function = subject.site.function;
    function.status(subject.site.platform.config()).contains(pci::Status::INTERRUPT)
}

pub fn isr_tells_of_used_buffers<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    // The bit is to be set before a notification is sent (4.1.4.5.1), and without MSI-X only a pin can send one.
    needs!(
        subject.site.function.interrupt_pin().is_some(),
        "without MSI-X the function has no interrupt to send: no pin"
    );
    start_silent(subject)?;
    subject.transfer(Role::Inflate, 0..8, &Shape::PLAIN)?;
    // A change of the configuration may set its bit before the queue's is.
    let (mut isr, limit) = (0, subject.patience.quiet);
    subject.wait(limit, |subject| {
        isr |= subject.isr.read8(0);
        Ok(isr & ISR_QUEUE != 0)
    })?;
    ensure!(isr & ISR_QUEUE != 0, "the ISR byte is {isr:#04x} after buffers were used");
    Ok(())
}

pub fn isr_is_cleared_by_reading<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    undisturbed(subject, About::Signals, |subject| {
        start_silent(subject)?;
        subject.transfer(Role::Inflate, 0..8, &Shape::PLAIN)?;
        await_line(subject)?;
        let first = subject.isr.read8(0);
        let second = subject.isr.read8(0);
        ensure!(second == 0, "the ISR byte is {first:#04x}, and {second:#04x} when it is read again");
        Ok(())
    })
}

pub fn isr_is_0_while_idle<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let setup = subject.plain();
    undisturbed(subject, About::Signals, |subject| {
        subject.start(&setup)?;
        subject.linger()?;
        let isr = subject.isr.read8(0);
        ensure!(isr & ISR_QUEUE == 0, "the ISR byte is {isr:#04x} with no buffer used");
        Ok(())
    })
}

pub fn isr_has_no_undefined_bits<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    start_silent(subject)?;
    subject.transfer(Role::Inflate, 0..8, &Shape::PLAIN)?;
    await_line(subject)?;
    let isr = subject.isr.read8(0);
    ensure!(isr & !(ISR_QUEUE | ISR_CONFIG) == 0, "the ISR byte is {isr:#04x}");
    Ok(())
}

pub fn interrupt_status_follows_isr<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    undisturbed(subject, About::Signals, |subject| {
        start_silent(subject)?;
        ensure!(!is_asserted(subject), "Interrupt Status is set with the ISR byte read");
        subject.transfer(Role::Inflate, 0..8, &Shape::PLAIN)?;
        let asserted = await_line(subject)?;
        let isr = subject.isr.read8(0);
        ensure!(asserted || isr == 0, "the ISR byte is {isr:#04x}, and Interrupt Status was not set");
        ensure!(!is_asserted(subject), "the ISR byte was read, and Interrupt Status is still set");
        Ok(())
    })
}

pub fn no_interrupt_after_a_reset<P: BalloonPlatform>(subject: &mut Subject<'_, P>) -> Verdict {
    let least = subject.least();
    start_interrupting(subject, least)?;
    let room = subject.with_queue(Role::Inflate, |queue, _| usize::from(queue.room()))?;
    for frame in 0..room.min(8) {
        subject.post(Role::Inflate, frame..frame + 1, &Shape::PLAIN)?;
    }
    subject.submit(Role::Inflate)?;
    subject.reset()?;
    // What was sent before the reset was done has arrived by now.
    let before = subject.signals.counts.all();
    subject.linger()?;
    let count = subject.signals.counts.all() - before;
    ensure!(count == 0, "{count} interrupts came after the reset was done");
    Ok(())
}
