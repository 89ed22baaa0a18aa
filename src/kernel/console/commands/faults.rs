//! Deliberate failures.

use core::hint;

use super::cpus;
use crate::kernel::console::command::{Answer, Context, say};
use crate::machine::fault as exception;

/// `fault`.
pub(in super::super) fn fault(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    match arguments {
        // Page 0 is not mapped.
        ["page"] => exception::provoke(),
        ["hang"] => hang(),
        ["panic"] => panic!("asked for at the console"),
        ["panic", cpu] => cpus::fail(cpu),
        ["nmi"] => panic!("{}", cpus::WithNmis),
        ["power", slot] => cut_power(context, slot),
        _ => return None,
    }
    Some(Answer::Done)
}

/// Loops with interrupts on: the report of an NMI shows where.
fn hang() -> ! {
    loop {
        hint::spin_loop();
    }
}

/// Without power, the device reads all ones; its driver notices at the next poll.
fn cut_power(context: &mut Context<'_>, slot: &str) {
    if context.slots.cut_power(context.machine, slot) {
        context.balloons.recheck();
    } else {
        say!("there is no slot `{slot}`; `slots` lists them");
    }
}
