//! Interrupts: that they arrive, on which vector, and that suppressed ones do not.

use crate::check::Severity::{Must, Should};
use crate::check::{Check, Stop, Verdict, ensure, on_device, skip_unless};
use crate::device::{About, Role, Shape, StartOptions, TestDevice, undisturbed};
use crate::ring::WantInterrupt;
use ballonet::pci;
use ballonet::virtio::InterruptMode;
use ballonet::virtio::spec::{Features, ISR_CONFIG, ISR_QUEUE};

/// The checks, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    on_device(
        Must,
        "interrupts-arrive-by-queue",
        "4.1.5.3.1",
        "used buffers interrupt when each queue has its own vector",
        |device| arrive(device, InterruptMode::PerQueue),
    ),
    on_device(
        Must,
        "interrupts-arrive-shared",
        "4.1.5.3.1",
        "used buffers interrupt when all queues share a vector",
        |device| arrive(device, InterruptMode::Shared),
    ),
    on_device(
        Must,
        "interrupts-arrive-by-line",
        "4.1.5.3.1",
        "used buffers assert the interrupt line when MSI-X is off",
        |device| arrive(device, InterruptMode::Line),
    ),
    on_device(
        Must,
        "interrupts-come-on-their-own-vector",
        "4.1.5.3.1",
        "used buffers interrupt on their queue's vector and no other",
        |device| {
            let setup = StartOptions { mode: InterruptMode::PerQueue, ..device.plain() };
            undisturbed(device, About::Signals, |device| {
                device.start(&setup)?;
                device.transfer(Role::First, 0..8, &Shape::PLAIN)?;
                await_counts(device, |device| device.signals.counts.of(1) != 0)?;
                device.wait_quiet()?;
                let counts = [0, 1, 2, 3].map(|vector| device.signals.counts.of(vector));
                ensure!(
                    counts[1] != 0 && counts[0] == 0 && counts[2] == 0 && counts[3] == 0,
                    "for a buffer of the queue with vector 1 the vectors 0 to 3 came {counts:?} times"
                );
                Ok(())
            })
        },
    ),
    on_device(
        Must,
        "queues-without-vector-do-not-interrupt",
        "4.1.5.3.1",
        "a queue whose vector is NO_VECTOR sends no message",
        |device| {
            let setup = StartOptions { mode: InterruptMode::Shared, mapped: false, ..device.plain() };
            undisturbed(device, About::Signals, |device| {
                device.start(&setup)?;
                device.exchange(8, &Shape::PLAIN)?;
                device.wait_quiet()?;
                let count = device.signals.counts.all();
                ensure!(count == 0, "{count} interrupts came from queues whose vector is NO_VECTOR");
                Ok(())
            })
        },
    ),
    on_device(
        Should,
        "suppressed-interrupts-stay-away",
        "2.7.7.2",
        "the device sends no interrupt that the driver suppressed",
        |device| {
            let choices: alloc::vec::Vec<_> = formats(device).collect();
            for features in choices {
                undisturbed(device, About::Signals, |device| {
                    start_interrupting(device, features)?;
                    for role in [Role::First, Role::Second] {
                        warm_up(device, role)?;
                    }
                    let before = device.signals.counts.queues();
                    for role in [Role::First, Role::Second] {
                        device.with_queue(role, |queue, arena| queue.want_interrupt(arena, WantInterrupt::None))?;
                        device.transfer(role, 0..8, &Shape::PLAIN)?;
                    }
                    device.wait_quiet()?;
                    let count = device.signals.counts.queues() - before;
                    ensure!(count == 0, "{count} interrupts came though they are suppressed, with {features}");
                    Ok(())
                })?;
            }
            Ok(())
        },
    ),
    on_device(
        Should,
        "the-first-interrupt-can-be-suppressed",
        "2.7.7.2",
        "the interrupt for the first buffer after a reset can be suppressed",
        |device| {
            let choices: alloc::vec::Vec<_> = formats(device).collect();
            for features in choices {
                undisturbed(device, About::Signals, |device| {
                    start_interrupting(device, features)?;
                    device.with_queue(Role::First, |queue, arena| queue.want_interrupt(arena, WantInterrupt::None))?;
                    device.transfer(Role::First, 0..1, &Shape::PLAIN)?;
                    device.wait_quiet()?;
                    let count = device.signals.counts.queues();
                    ensure!(count == 0, "the first buffer interrupted though that was suppressed, with {features}");
                    Ok(())
                })?;
            }
            Ok(())
        },
    ),
    on_device(
        Must,
        "interrupts-come-at-the-event-index",
        "2.7.7.2",
        "with EVENT_IDX the buffer at the event index interrupts",
        |device| {
            skip_unless!(device.offered.contains(Features::EVENT_IDX), "the device does not offer EVENT_IDX");
            let choices: alloc::vec::Vec<_> =
                formats(device).filter(|features| features.contains(Features::EVENT_IDX)).collect();
            for features in choices {
                start_interrupting(device, features)?;
                warm_up(device, Role::First)?;
                // A shorter queue has no fourth place to wait for.
                device.needs_requests(Role::First, 4)?;
                let each = device.kind.descriptors;
                let before = heard(device);
                device.with_queue(Role::First, |queue, arena| {
                    queue.want_interrupt(arena, WantInterrupt::After(4, each));
                })?;
                // Four requests of one frame each: the interrupt is due at the fourth.
                device.transfer(Role::First, 1..5, &Shape { frames: 1, ..Shape::PLAIN })?;
                let came = await_counts(device, |device| heard(device) != before)?;
                ensure!(came, "no interrupt came for the buffer that the driver waits for, with {features}");
            }
            Ok(())
        },
    ),
    on_device(
        Should,
        "no-interrupt-before-the-event-index",
        "2.7.7.2",
        "with EVENT_IDX no buffer before the event index interrupts",
        |device| {
            skip_unless!(device.offered.contains(Features::EVENT_IDX), "the device does not offer EVENT_IDX");
            let choices: alloc::vec::Vec<_> =
                formats(device).filter(|features| features.contains(Features::EVENT_IDX)).collect();
            for features in choices {
                undisturbed(device, About::Signals, |device| {
                    start_interrupting(device, features)?;
                    warm_up(device, Role::First)?;
                    // A shorter queue has no fourth place to wait for.
                    device.needs_requests(Role::First, 4)?;
                    let each = device.kind.descriptors;
                    let before = device.signals.counts.queues();
                    device.with_queue(Role::First, |queue, arena| {
                        queue.want_interrupt(arena, WantInterrupt::After(4, each));
                    })?;
                    device.transfer(Role::First, 1..4, &Shape { frames: 1, ..Shape::PLAIN })?;
                    device.wait_quiet()?;
                    let count = device.signals.counts.queues() - before;
                    ensure!(
                        count == 0,
                        "{count} interrupts came before the buffer that the driver waits for, with {features}"
                    );
                    Ok(())
                })?;
            }
            Ok(())
        },
    ),
    on_device(Should, "nothing-interrupts-while-idle", "4.1.5.3.1", "an idle device does not interrupt", |device| {
        let least = device.least();
        undisturbed(device, About::Signals, |device| {
            start_interrupting(device, least)?;
            device.wait_quiet()?;
            let count = device.signals.counts.all();
            ensure!(count == 0, "{count} interrupts came while the device was idle");
            Ok(())
        })
    }),
    on_device(
        Must,
        "isr-tells-of-used-buffers",
        "4.1.4.5.1",
        "the ISR byte has its queue bit set after buffers were used",
        |device| {
            // The bit must be set before a notification is sent (4.1.4.5.1), and without MSI-X only a pin can send one.
            skip_unless!(
                device.function()?.function.interrupt_pin.is_some(),
                "without MSI-X the function has no interrupt to send: no pin"
            );
            start_silent(device)?;
            device.transfer(Role::First, 0..8, &Shape::PLAIN)?;
            // A change of the configuration may set its bit before the queue's is.
            let mut isr = 0;
            device.settle(1, |device| {
                isr |= device.isr.take();
                Ok(isr & ISR_QUEUE != 0)
            })?;
            ensure!(isr & ISR_QUEUE != 0, "the ISR byte is {isr:#04x} after buffers were used");
            Ok(())
        },
    ),
    on_device(Must, "isr-is-cleared-by-reading", "4.1.4.5.1", "reading the ISR byte clears it", |device| {
        undisturbed(device, About::Signals, |device| {
            start_silent(device)?;
            device.transfer(Role::First, 0..8, &Shape::PLAIN)?;
            await_line(device)?;
            let first = device.isr.take();
            let second = device.isr.take();
            ensure!(second == 0, "the ISR byte is {first:#04x}, and {second:#04x} when it is read again");
            Ok(())
        })
    }),
    on_device(
        Should,
        "isr-is-0-while-idle",
        "4.1.4.5.1",
        "the queue bit of the ISR byte is 0 if no buffer was used",
        |device| {
            device.function()?;
            let setup = device.plain();
            undisturbed(device, About::Signals, |device| {
                device.start(&setup)?;
                device.wait_quiet()?;
                let isr = device.isr.take();
                ensure!(isr & ISR_QUEUE == 0, "the ISR byte is {isr:#04x} with no buffer used");
                Ok(())
            })
        },
    ),
    on_device(Must, "isr-has-no-undefined-bits", "4.1.4.5.1", "undefined bits of the ISR byte are 0", |device| {
        start_silent(device)?;
        device.transfer(Role::First, 0..8, &Shape::PLAIN)?;
        await_line(device)?;
        let isr = device.isr.take();
        ensure!(isr & !(ISR_QUEUE | ISR_CONFIG) == 0, "the ISR byte is {isr:#04x}");
        Ok(())
    }),
    on_device(
        Must,
        "interrupt-status-follows-isr",
        "4.1.4.5.1",
        "Interrupt Status in the PCI status register is set while a bit of the ISR byte is",
        |device| {
            undisturbed(device, About::Signals, |device| {
                start_silent(device)?;
                ensure!(!is_asserted(device), "Interrupt Status is set with the ISR byte read");
                device.transfer(Role::First, 0..8, &Shape::PLAIN)?;
                let asserted = await_line(device)?;
                let isr = device.isr.take();
                ensure!(asserted || isr == 0, "the ISR byte is {isr:#04x}, and Interrupt Status was not set");
                ensure!(!is_asserted(device), "the ISR byte was read, and Interrupt Status is still set");
                Ok(())
            })
        },
    ),
    on_device(Must, "no-interrupt-after-a-reset", "2.4.1", "no interrupt comes after a reset", |device| {
        let least = device.least();
        start_interrupting(device, least)?;
        let room = device.room(Role::First)?;
        for frame in 0..room.min(8) {
            device.post(Role::First, frame..frame + 1, &Shape::PLAIN)?;
        }
        device.submit(Role::First)?;
        device.reset()?;
        // Interrupts sent before the reset finished have arrived by now.
        let before = device.signals.counts.all();
        device.wait_quiet()?;
        let count = device.signals.counts.all() - before;
        ensure!(count == 0, "{count} interrupts came after the reset was done");
        Ok(())
    }),
];

/// The modes in which the device can interrupt.
const MODES: [InterruptMode; 3] = [InterruptMode::PerQueue, InterruptMode::Shared, InterruptMode::Line];

/// Waits until a condition on the interrupt counts holds.
pub(super) fn await_counts(device: &mut TestDevice<'_>, holds: impl Fn(&TestDevice<'_>) -> bool) -> Verdict<bool> {
    let limit = device.patience.stall;
    device.wait(limit, |device| Ok(holds(device)))
}

/// Interrupts that may be a queue's: on the line, one that reports a configuration change may report used buffers too.
pub(super) fn heard(device: &TestDevice<'_>) -> u32 {
    let counts = &device.signals.counts;
    if device.signals.mode == InterruptMode::Line { counts.all() } else { counts.queues() }
}

/// Starts in the first mode that the device has.
pub(super) fn start_interrupting(device: &mut TestDevice<'_>, features: Features) -> Verdict {
    // A device that does not start would fail in every mode.
    device.try_start()?;
    for mode in MODES {
        let setup = StartOptions { features, mode, ..device.plain() };
        match device.start(&setup) {
            Err(stop) if stop.is_skipped() => {}
            outcome => return outcome,
        }
    }
    Err(Stop::skipped(format_args!("the device has no way to interrupt here")))
}

/// The features that change how suppression works.
fn formats(device: &TestDevice<'_>) -> impl Iterator<Item = Features> + use<> {
    let (least, offered) = (device.least(), device.offered);
    let both = Features::RING_PACKED | Features::EVENT_IDX;
    let choices = [Features::empty(), Features::EVENT_IDX, Features::RING_PACKED, both];
    choices.into_iter().filter(move |choice| offered.contains(*choice)).map(move |choice| least | choice)
}

/// Both queues interrupt, on these vectors.
fn arrive(device: &mut TestDevice<'_>, mode: InterruptMode) -> Verdict {
    let choices: alloc::vec::Vec<_> = formats(device).collect();
    for features in choices {
        let setup = StartOptions { features, mode, ..device.plain() };
        device.start(&setup)?;
        for role in [Role::First, Role::Second].into_iter().cycle().take(6) {
            let vector = if mode == InterruptMode::PerQueue { device.vector_of(role)? } else { 1 };
            device.with_queue(role, |queue, arena| queue.want_interrupt(arena, WantInterrupt::Every))?;
            let count = |device: &TestDevice<'_>| match mode {
                InterruptMode::Line => heard(device),
                _ => device.signals.counts.of(vector),
            };
            let before = count(device);
            device.transfer(role, 0..8, &Shape::PLAIN)?;
            let came = await_counts(device, |device| count(device) != before)?;
            let place = if mode == InterruptMode::Line { "the line".into() } else { alloc::format!("vector {vector}") };
            ensure!(
                came,
                "no interrupt came on {place} for a buffer of the {} queue, with {features}",
                device.queue_name(role)
            );
        }
        if mode == InterruptMode::Line {
            let isr = device.signals.counts.isr();
            ensure!(isr & ISR_QUEUE != 0, "the line was pulled for used buffers, and the ISR byte was {isr:#04x}");
        }
    }
    Ok(())
}

/// Makes a queue interrupt once, so that the next interrupt is not its first.
fn warm_up(device: &mut TestDevice<'_>, role: Role) -> Verdict {
    let before = heard(device);
    device.with_queue(role, |queue, arena| queue.want_interrupt(arena, WantInterrupt::Every))?;
    device.transfer(role, 0..1, &Shape::PLAIN)?;
    let came = await_counts(device, |device| heard(device) != before)?;
    let name = device.queue_name(role);
    ensure!(came, "no interrupt came for a buffer of the {name} queue, with {}", device.features);
    Ok(())
}

/// Starts with MSI-X and the line off: only the ISR byte reports anything.
fn start_silent(device: &mut TestDevice<'_>) -> Verdict {
    device.function()?;
    let setup = device.plain();
    device.start(&setup)?;
    // A device may send a spurious notification shortly after it starts.
    device.wait_quiet()?;
    // Clears what was reported before.
    let _ = device.isr.take();
    Ok(())
}

/// Waits until Interrupt Status is set, without reading the ISR byte.
fn await_line(device: &mut TestDevice<'_>) -> Verdict<bool> {
    device.settle(1, |device| Ok(is_asserted(device)))
}

/// The Interrupt Status bit of the PCI status register.
fn is_asserted(device: &mut TestDevice<'_>) -> bool {
    let Some(function) = device.pci.as_ref().map(|pci| pci.function) else { return false };
    function.status(&device.platform.config()).contains(pci::Status::INTERRUPT)
}
