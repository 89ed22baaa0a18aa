//! Programs that use memory.

use crate::boot::WorkChoice;
use crate::kernel::console::command::{Answer, Context, say};

/// `work`.
pub(in super::super) fn work(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    match arguments {
        [] => context.work.report(),
        ["stop"] => {
            if !context.work.stop() {
                say!("no program runs");
            }
            context.balloons.memory_freed();
        }
        [what] => match WorkChoice::parse(what) {
            Ok(choice) => {
                context.work.start(choice);
                context.work.report();
            }
            Err(error) => say!("{error}"),
        },
        _ => return None,
    }
    Some(Answer::Done)
}

/// `latency`.
pub(in super::super) fn latency(arguments: &[&str], context: &mut Context<'_>) -> Option<Answer> {
    match arguments {
        ["start"] => {
            context.latency.start();
            say!("the kernel allocates until `latency stop`");
        }
        ["stop"] => context.latency.stop(),
        _ => return None,
    }
    Some(Answer::Done)
}
