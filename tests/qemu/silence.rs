//! A device that starts and never returns a request: an unprogrammed IOMMU blocks its DMA, while its registers still
//! work.

use crate::support::{MIB, Outcome, Qemu, Trial, Version, Vm, ensure};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    // On QEMU 10.0 with this IOMMU the kernel prints nothing.
    let version = Version::V7_2;
    let blocked = |balloon: &str| {
        let balloon = format!("iommu_platform=on,disable-legacy=on{balloon}");
        Qemu::new(version).device("virtio-iommu-pci,boot-bypass=off,disable-legacy=on").balloon(&balloon)
    };
    vec![
        trial(
            format!("silence::{version}::unreturned_reports_are_reported"),
            blocked(",free-page-reporting=on"),
            |vm| silent(vm, "reporting"),
        ),
        trial(
            format!("silence::{version}::unreturned_requests_are_reported"),
            blocked("").early_target(256 * MIB),
            |vm| silent(vm, "inflating"),
        ),
    ]
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
