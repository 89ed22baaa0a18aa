//! A device that starts and never returns a request: an unprogrammed IOMMU blocks its DMA and its interrupt messages,
//! while its registers still work.

use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in [Version::V7_2, Version::V10_0] {
        let name = |case: &str| format!("silence::{version}::{case}");
        // The IOMMU would also block the disk controller, for which firmware waits half a minute.
        let blocked = |balloon: &str| {
            let balloon = format!("iommu_platform=on,disable-legacy=on{balloon}");
            let iommu = "virtio-iommu-pci,boot-bypass=off,disable-legacy=on";
            Qemu::new(version).machine("q35,sata=off").device(iommu).balloon(&balloon)
        };
        trials.push(trial(name("unreturned_reports_are_reported"), blocked(",free-page-reporting=on"), |vm| {
            silent(vm, "reporting")
        }));
        trials.push(trial(name("unreturned_requests_are_reported"), blocked("").early_target(256 * MIB), |vm| {
            silent(vm, "inflating")
        }));
        trials.push(trial(name("a_target_is_noticed_without_an_interrupt"), blocked(""), move |vm| {
            unannounced(vm, version)
        }));
    }
    trials
}

/// The IOMMU blocks the device's messages too. Then the kernel reads the device by itself, and says so.
fn unannounced(vm: &mut Vm, version: Version) -> Outcome {
    let ready = vm.event("ready")?;
    vm.qmp.set_target(256 * MIB)?;
    // The device of 7.2 has no MSI-X, and an IOMMU does not block lines.
    if version == Version::V10_0 {
        ensure!(ready.text("irq")?.starts_with("msix"), "{ready}");
        vm.event_where("a warning of lost interrupts", |event| {
            event.text("message").is_ok_and(|message| {
                message.starts_with("virtio0: none of its interrupts (msix") && message.contains("it is polled")
            })
        })?;
    }
    silent(vm, "inflating")
}

/// The event lists the bytes in flight and the usual causes; the host's target is then unknown.
fn silent(vm: &mut Vm, asked: &str) -> Outcome {
    let event = vm.event("silent")?;
    ensure!(event.count(asked)? > 0 && event.count("answers")? == 0, "{event}");
    let message = event.text("message")?;
    ensure!(message.contains("IOMMU") && message.contains("stuck"), "{event}");
    let answer = vm.ask("balloon", "console")?;
    ensure!(answer.text("text")?.contains("its target is not known"), "{answer}");
    Ok(())
}
