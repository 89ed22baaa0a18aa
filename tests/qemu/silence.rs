//! A device that is ready and never answers: an IOMMU that nobody has programmed keeps it from memory, and its registers
//! work all the same.

use libtest_mimic::Trial;

use crate::support::{MIB, Outcome, Qemu, Version, Vm, ensure};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in [Version::V7_2] {
        let blocked = |balloon: &str| {
            let balloon = format!("iommu_platform=on,disable-legacy=on{balloon}");
            Qemu::new(version).device("virtio-iommu-pci,boot-bypass=off,disable-legacy=on").balloon(&balloon)
        };
        trials.push(trial(
            format!("silence::{version}::reports_that_do_not_come_back_are_told"),
            blocked(",free-page-reporting=on"),
            |vm| silent(vm, "reporting"),
        ));
        trials.push(trial(
            format!("silence::{version}::frames_that_do_not_arrive_are_told"),
            blocked("").early_target(256 * MIB),
            |vm| silent(vm, "inflating"),
        ));
    }
    trials
}

/// What was asked is told, with the usual causes; what the host wants is not known then.
fn silent(vm: &mut Vm, asked: &str) -> Outcome {
    let event = vm.event("silent")?;
    ensure!(event.count(asked)? > 0 && event.count("answers")? == 0, "{event}");
    let message = event.text("message")?;
    ensure!(message.contains("IOMMU") && message.contains("stuck"), "{event}");
    let answer = vm.ask("balloon", "console")?;
    ensure!(answer.text("text")?.contains("what it asks for is not known"), "{answer}");
    Ok(())
}
