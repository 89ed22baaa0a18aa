//! The models: a driver and a device, one thread each. The checker runs every interleaving that makes a difference,
//! with every value that a load may see.
//!
//! Each of the first four isolates one purpose of a barrier. The fifth combines them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ballonet::virtio::barrier::modelled::set_fence;
use loom::model::Builder;
use loom::sync::Notify;
use loom::thread;

use super::device::{Device, Layout, Queue, Taken};
use super::fences::fence;
use super::requests::{Buffers, Request};

/// One side of a model.
type Side = Box<dyn FnOnce()>;

/// How often the checker preempts a thread that could continue. `None`: whenever it makes a difference.
type Preemptions = Option<usize>;

/// Checks a model of a driver and a device.
///
/// The checker starts with the main thread and looks for accesses whose order matters. It remembers only the last
/// access to each field, so it may miss some: a thread's own load hides the other's. So each side is the main thread
/// once, and in models of completions the device has already taken its requests.
fn check(preemptions: Preemptions, sides: impl Fn() -> (Side, Side) + Send + Sync + 'static) {
    set_fence(fence);
    let mut checker = Builder::new();
    checker.preemption_bound = preemptions;
    let sides = Arc::new(sides);
    for device_is_main in [false, true] {
        let runs = Arc::new(AtomicUsize::new(0));
        let (sides, counter) = (Arc::clone(&sides), Arc::clone(&runs));
        checker.check(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            let (driver, device) = sides();
            let (main, other) = if device_is_main { (device, driver) } else { (driver, device) };
            let other = thread::spawn(other);
            main();
            other.join().unwrap();
        });
        let (runs, main) = (runs.load(Ordering::Relaxed), if device_is_main { "device" } else { "driver" });
        assert!(runs > 1, "the checker found nothing to reorder from where the {main} starts");
        println!("{runs} runs that start with the {main}");
    }
}

/// A device that polls sees a request completely or not at all.
pub fn requests<L: Layout>(event_idx: bool) {
    check(None, move || {
        let (mut queue, mut device) = L::ring(4, event_idx);
        let mut buffers = Buffers::new();
        let seen = buffers.clone();
        let driver = move || {
            for number in 0..2 {
                buffers.add(&mut queue, Request(number));
                let _nobody_sleeps = queue.publish();
            }
        };
        let device = move || {
            let mut number = 0;
            for _ in 0..2 {
                number += u32::from(seen.take(&mut device, Request(number)).is_some());
            }
        };
        (Box::new(driver), Box::new(device))
    });
}

/// A device that sleeps when idle is woken for every request.
pub fn kicks<L: Layout>(event_idx: bool) {
    check(None, move || {
        let (mut queue, mut device) = L::ring(4, event_idx);
        let mut buffers = Buffers::new();
        let seen = buffers.clone();
        let doorbell = Arc::new(Notify::new());
        let bell = Arc::clone(&doorbell);
        device.disable_kicks();
        let driver = move || {
            for number in 0..2 {
                buffers.add(&mut queue, Request(number));
                if queue.publish().is_some() {
                    doorbell.notify();
                }
            }
        };
        let device = move || {
            for number in 0..2 {
                await_request(&mut device, &bell);
                seen.take(&mut device, Request(number)).expect("a request");
            }
        };
        (Box::new(driver), Box::new(device))
    });
}

/// A driver that sleeps when idle is woken once `batch` requests are complete.
pub fn interrupts<L: Layout>(event_idx: bool, batch: u16) {
    check(None, move || {
        let (mut queue, mut device, buffers, taken) = two_taken::<L>(event_idx);
        queue.disarm();
        let mut answered = buffers.clone();
        let interrupt = Arc::new(Notify::new());
        let line = Arc::clone(&interrupt);
        let driver = move || {
            let mut number = 0;
            while number < 2 {
                if buffers.pop(&mut queue, Request(number)) {
                    number += 1;
                } else {
                    await_completion(&mut queue, &interrupt, batch);
                }
            }
        };
        let device = move || {
            for (number, taken) in (0..).zip(&taken) {
                if answered.put(&mut device, taken, Request(number)) {
                    line.notify();
                }
            }
        };
        (Box::new(driver), Box::new(device))
    });
}

/// A driver that polls sees a completion completely or not at all.
pub fn completions<L: Layout>(event_idx: bool) {
    check(None, move || {
        let (mut queue, mut device, buffers, taken) = two_taken::<L>(event_idx);
        let mut answered = buffers.clone();
        let driver = move || {
            let mut number = 0;
            for _ in 0..2 {
                number += u32::from(number < 2 && buffers.pop(&mut queue, Request(number)));
            }
        };
        let device = move || {
            for (number, taken) in (0..).zip(&taken) {
                let _nobody_sleeps = answered.put(&mut device, taken, Request(number));
            }
        };
        (Box::new(driver), Box::new(device))
    });
}

/// A driver that polls sees both completions of one entry, or neither.
pub fn batches<L: Layout>(event_idx: bool) {
    check(None, move || {
        let (mut queue, mut device, buffers, taken) = two_taken::<L>(event_idx);
        let mut answered = buffers.clone();
        let driver = move || {
            // The batch is atomic: if the first is there, so is the second.
            if buffers.pop_unsaid(&mut queue, Request(0)) {
                assert!(buffers.pop(&mut queue, Request(1)), "torn batch");
            }
        };
        let device = move || {
            let _nobody_sleeps = answered.put_all(&mut device, &taken, &[Request(0), Request(1)]);
        };
        (Box::new(driver), Box::new(device))
    });
}

/// A driver that sleeps when idle is woken for `batch` requests that one entry completes.
pub fn interrupts_for_batches<L: Layout>(event_idx: bool, batch: u16) {
    check(None, move || {
        let (mut queue, mut device, buffers, taken) = two_taken::<L>(event_idx);
        queue.disarm();
        let mut answered = buffers.clone();
        let interrupt = Arc::new(Notify::new());
        let line = Arc::clone(&interrupt);
        let driver = move || {
            while !buffers.pop_unsaid(&mut queue, Request(0)) {
                await_completion(&mut queue, &interrupt, batch);
            }
            assert!(buffers.pop(&mut queue, Request(1)), "torn batch");
        };
        let device = move || {
            if answered.put_all(&mut device, &taken, &[Request(0), Request(1)]) {
                line.notify();
            }
        };
        (Box::new(driver), Box::new(device))
    });
}

/// Requests circulate in a ring of one entry; both sides sleep when idle.
pub fn round_trips<L: Layout>(event_idx: bool) {
    check(Some(3), move || {
        let (mut queue, mut device) = L::ring(2, event_idx);
        let mut buffers = Buffers::new();
        let mut answered = buffers.clone();
        let (doorbell, interrupt) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (bell, line) = (Arc::clone(&doorbell), Arc::clone(&interrupt));
        device.disable_kicks();
        let driver = move || {
            for number in 0..2 {
                queue.disarm();
                buffers.add(&mut queue, Request(number));
                if queue.publish().is_some() {
                    doorbell.notify();
                }
                while !buffers.pop(&mut queue, Request(number)) {
                    await_completion(&mut queue, &interrupt, 1);
                }
            }
        };
        let device = move || {
            for number in 0..2 {
                await_request(&mut device, &bell);
                let taken = answered.take(&mut device, Request(number)).expect("a request");
                if answered.put(&mut device, &taken, Request(number)) {
                    line.notify();
                }
            }
        };
        (Box::new(driver), Box::new(device))
    });
}

/// A ring with two requests that the device has taken, before either side has its own thread.
fn two_taken<L: Layout>(event_idx: bool) -> (Queue, L::Device, Buffers, [Taken; 2]) {
    let (mut queue, mut device) = L::ring(4, event_idx);
    let mut buffers = Buffers::new();
    for number in 0..2 {
        buffers.add(&mut queue, Request(number));
    }
    let _nobody_sleeps = queue.publish();
    let taken = [0, 1].map(|number| buffers.take(&mut device, Request(number)).expect("it is available"));
    (queue, device, buffers, taken)
}

/// Device: sleeps until a request is available.
fn await_request(device: &mut impl Device, doorbell: &Notify) {
    while device.is_idle() {
        device.enable_kicks();
        if device.is_idle() {
            doorbell.wait();
        }
        device.disable_kicks();
    }
}

/// Driver: sleeps until `batch` requests are complete. It may wake sooner: the checker also makes spurious wake-ups.
fn await_completion(queue: &mut Queue, interrupt: &Notify, batch: u16) {
    if queue.arm(batch) {
        interrupt.wait();
    }
    queue.disarm();
}
